"""The certificates of the lab are accepted by who trusts their authority, for what they are issued for only."""

from __future__ import annotations

import socket
import ssl
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from testyard.lab.servers.certificates import CertificateAuthority, Credentials, write_private


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, host: str) -> None:
    """Connect a client to a server; raises what the client does not like."""
    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=accept, args=(server, theirs))
    thread.start()
    try:
        with ours, client.wrap_socket(ours, server_hostname=host) as connection:
            assert connection.recv(1) == b"1"
    finally:
        thread.join()


def accept(server: ssl.SSLContext, sock: socket.socket) -> None:
    try:
        with sock, server.wrap_socket(sock, server_side=True) as connection:
            connection.sendall(b"1")
    except OSError:
        pass


def server_context(credentials: Credentials, directory: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    chain = directory / "server.pem"
    write_private(chain, credentials.key + credentials.certificate)
    context.load_cert_chain(chain)
    return context


def client_context(authority: CertificateAuthority) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=authority.certificate)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_server_is_accepted_by_its_address_and_its_name(tmp_path: Path, host: str) -> None:
    authority = CertificateAuthority()
    server = server_context(authority.issue("server", ["127.0.0.1", "localhost"]), tmp_path)
    shake_hands(server, client_context(authority), host)


def test_another_host_is_refused(tmp_path: Path) -> None:
    authority = CertificateAuthority()
    server = server_context(authority.issue("server", ["localhost"]), tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        shake_hands(server, client_context(authority), "example.org")


def test_another_authority_is_refused(tmp_path: Path) -> None:
    server = server_context(CertificateAuthority().issue("server", ["localhost"]), tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(server, client_context(CertificateAuthority()), "localhost")


def test_one_that_has_expired_is_refused(tmp_path: Path) -> None:
    authority = CertificateAuthority()
    expired = authority.issue("server", ["localhost"], valid_for=timedelta(seconds=-10))
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        shake_hands(server_context(expired, tmp_path), client_context(authority), "localhost")


@pytest.mark.parametrize("shown", [True, False])
def test_a_client_is_asked_for_its_own(tmp_path: Path, shown: bool) -> None:
    authority = CertificateAuthority()
    server = server_context(authority.issue("server", ["localhost"]), tmp_path)
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_verify_locations(cadata=authority.certificate)
    client = client_context(authority)
    files = authority.write_client_files(tmp_path)
    if shown:
        client.load_cert_chain(files.certificate, files.key)
        shake_hands(server, client, "localhost")
    else:
        with pytest.raises(ssl.SSLError, match="certificate required"):
            shake_hands(server, client, "localhost")


def test_keys_are_private_and_are_not_shown(tmp_path: Path) -> None:
    authority = CertificateAuthority()
    files = authority.write_client_files(tmp_path, "reader")
    assert files.key.name == "reader.key"
    for file in (files.authority, files.certificate, files.key):
        assert file.stat().st_mode & 0o777 == 0o600
    assert "PRIVATE KEY" not in repr(authority.issue("x"))
    # Written anew, not into a file that somebody else may read.
    files.key.chmod(0o644)
    write_private(files.key, "new")
    assert (files.key.read_text(), files.key.stat().st_mode & 0o777) == ("new", 0o600)
