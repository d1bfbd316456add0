"""TLS to PostgreSQL: what the keyword is given reaches libpq, and what is not trusted is refused in one sentence.

The lab's PostgreSQL is built without TLS; something in front of it does that part.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from robot.api.types import Secret
from SqlLibrary import SqlLibrary
from testyard.core.errors import UserError
from testyard.lab.servers.certificates import CertificateAuthority
from testyard.sql.problems import CannotConnectError
from testyard.sql.target import Target
from tls_support import Relay, tls_relay


@pytest.fixture(scope="module")
def authority() -> CertificateAuthority:
    """Who issues the certificates."""
    return CertificateAuthority()


@pytest.fixture(scope="module")
def files(authority: CertificateAuthority, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the authority's certificate, a client's with its key, and a stranger's."""
    directory = tmp_path_factory.mktemp("tls")
    client = authority.issue("client")
    (directory / "authority.pem").write_text(authority.certificate, encoding="ascii")
    (directory / "client.pem").write_text(client.certificate, encoding="ascii")
    (directory / "client.key").write_text(client.key, encoding="ascii")
    # libpq refuses a key that others may read.
    (directory / "client.key").chmod(0o600)
    (directory / "stranger.pem").write_text(CertificateAuthority().certificate, encoding="ascii")
    return directory


@contextmanager
def encrypted(authority: CertificateAuthority, directory: Path, url: str) -> Iterator[Relay]:
    """A server of PostgreSQL with TLS, which asks for a certificate and takes clients without one too."""
    server = authority.issue("postgresql", ["localhost"])
    (directory / "server.pem").write_text(server.certificate + server.key, encoding="ascii")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=directory / "authority.pem")
    context.load_cert_chain(directory / "server.pem")
    context.verify_mode = ssl.CERT_OPTIONAL
    parts = urlsplit(url)
    with tls_relay(context, parts.hostname or "", parts.port or 0, asked_first=True) as relay:
        yield relay


@pytest.fixture
def library() -> Iterator[SqlLibrary]:
    """The library; its connections are closed at the end."""
    library = SqlLibrary()
    yield library
    library.close()


def connect(library: SqlLibrary, url: str, port: int, **options: str) -> None:
    """Connect as the user of a URL, to another port."""
    parts = urlsplit(url)
    library.connect_to_database(
        host="localhost",
        port=port,
        database=parts.path.strip("/").split("?")[0],
        user=parts.username,
        password=Secret(parts.password or ""),
        **options,
    )


def test_a_secret_and_the_files_for_tls_reach_libpq(
    library: SqlLibrary, authority: CertificateAuthority, files: Path, database_url: str
) -> None:
    with encrypted(authority, files, database_url) as relay:
        connect(library, database_url, relay.port, sslmode="verify-full", sslrootcert=str(files / "authority.pem"))
        assert library.query_value("SELECT 1") == 1
        connect(
            library,
            database_url,
            relay.port,
            sslmode="verify-full",
            sslrootcert=str(files / "authority.pem"),
            sslcert=str(files / "client.pem"),
            sslkey=str(files / "client.key"),
        )
        assert library.query_value("SELECT 1") == 1
        library.close()
        assert relay.clients[0] == "nobody"
        assert "client" in relay.clients[1]


def test_a_server_that_is_not_trusted_is_told(
    library: SqlLibrary, authority: CertificateAuthority, files: Path, database_url: str
) -> None:
    with encrypted(authority, files, database_url) as relay:
        with pytest.raises(CannotConnectError, match="certificate verify failed") as told:
            connect(
                library, database_url, relay.port, sslmode="verify-full", sslrootcert=str(files / "stranger.pem")
            )
        assert str(told.value).startswith("Cannot connect to the database ")
        with pytest.raises(UserError, match=r"missing\.pem"):
            connect(
                library, database_url, relay.port, sslmode="verify-full", sslrootcert=str(files / "missing.pem")
            )


def test_options_for_tls_are_given_to_the_client_as_they_are() -> None:
    options = {"sslmode": "verify-ca", "sslrootcert": "a.pem", "sslcert": "c.pem", "sslkey": "c.key"}
    parameters = Target("db.example", 5432, "runs", "reader", "a-database-password", options).parameters
    assert parameters == {
        **options,
        "host": "db.example",
        "port": 5432,
        "dbname": "runs",
        "user": "reader",
        "password": "a-database-password",
    }
