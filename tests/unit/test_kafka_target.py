"""Where Kafka is and how to be let in: what reaches the client, and what no text ever holds."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from testyard.core.errors import UserError
from testyard.core.redact import secrets_in_use
from testyard.kafka.connection import Compression, ProducerSettings
from testyard.kafka.target import Sasl, SaslMechanism, Target, Tls
from testyard.lab.servers.certificates import CertificateAuthority

PASSWORD = "a-password-of-kafka"
KEY_PASSWORD = "a-password-of-the-key"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with an authority, a client's certificate, and its key, once encrypted."""
    directory = tmp_path_factory.mktemp("tls")
    authority = CertificateAuthority()
    client = authority.issue("client")
    (directory / "authority.pem").write_text(authority.certificate, encoding="ascii")
    (directory / "client.pem").write_text(client.certificate, encoding="ascii")
    (directory / "client.key").write_text(client.key, encoding="ascii")
    encrypted = load_pem_private_key(client.key.encode(), None).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(KEY_PASSWORD.encode())
    )
    (directory / "encrypted.key").write_bytes(encrypted)
    (directory / "nonsense.pem").write_text("nonsense", encoding="ascii")
    return directory


def test_without_more_the_connection_is_plain() -> None:
    target = Target("one.example:9092, two.example:9093")
    assert target.options == {
        "bootstrap_servers": ["one.example:9092", "two.example:9093"],
        "client_id": "testyard",
        "security_protocol": "PLAINTEXT",
    }
    assert str(target) == "Kafka at one.example:9092,two.example:9093"


@pytest.mark.parametrize("server", ["kafka-1.example_net:9092", "10.0.0.1:1", "[::1]:65535", "broker:29092"])
def test_servers_are_names_and_addresses_with_ports(server: str) -> None:
    assert Target(server).servers == [server]


@pytest.mark.parametrize(
    "server", ["broker", "broker:", ":9092", "broker:x", "broker:0", "broker:70000", "", "a:1,,b:2"]
)
def test_what_is_no_server_is_told(server: str) -> None:
    with pytest.raises(UserError, match=r"expected host:port, several with commas between them, got '"):
        Target(server)


@pytest.mark.parametrize("mechanism", SaslMechanism)
def test_who_connects_reaches_the_client(mechanism: SaslMechanism) -> None:
    options = Target("broker:9092", sasl=Sasl("reader", PASSWORD, mechanism)).options
    assert options["security_protocol"] == "SASL_PLAINTEXT"
    assert options["sasl_mechanism"] == mechanism.value
    assert options["sasl_plain_username"] == "reader"
    assert options["sasl_plain_password"] == PASSWORD
    assert [it.value for it in SaslMechanism] == ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]


def test_passwords_are_registered_and_in_no_text() -> None:
    target = Target("broker:9092", tls=Tls(key_password=KEY_PASSWORD), sasl=Sasl("reader", PASSWORD))
    assert str(target) == "Kafka at broker:9092 as 'reader' with TLS"
    for secret in (PASSWORD, KEY_PASSWORD):
        assert secret not in f"{target} {target!r} {target.sasl!r} {target.tls!r}"
        assert secrets_in_use.mask(secret) == "***"


def test_tls_trusts_the_given_authority_and_checks_names(files: Path) -> None:
    options = Target("broker:9092", tls=Tls(files / "authority.pem"), sasl=Sasl("reader", PASSWORD)).options
    assert options["security_protocol"] == "SASL_SSL"
    context = options["ssl_context"]
    assert isinstance(context, ssl.SSLContext)
    (trusted,) = context.get_ca_certs()
    assert "testyard lab" in str(trusted["subject"])
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    without_names = Target("broker:9092", tls=Tls(files / "authority.pem", check_hostname=False)).options
    assert not without_names["ssl_context"].check_hostname
    assert without_names["ssl_context"].verify_mode is ssl.CERT_REQUIRED
    assert without_names["security_protocol"] == "SSL"


@pytest.mark.parametrize(("key", "password"), [("client.key", ""), ("encrypted.key", KEY_PASSWORD)])
def test_the_clients_certificate_is_loaded_with_its_key(files: Path, key: str, password: str) -> None:
    Tls(files / "authority.pem", files / "client.pem", files / key, password).context()


@pytest.mark.parametrize(
    ("authority", "certificate", "key", "said"),
    [
        ("missing.pem", None, None, "authorities' certificates cannot be read from {}/missing.pem: No such"),
        ("nonsense.pem", None, None, "authorities' certificates cannot be read from {}/nonsense.pem: "),
        (
            "authority.pem",
            "missing.pem",
            None,
            "certificate and key cannot be read from {}/missing.pem: ",
        ),
        (
            "authority.pem",
            "nonsense.pem",
            None,
            "certificate and key cannot be read from {}/nonsense.pem",
        ),
        (
            "authority.pem",
            "client.pem",
            "encrypted.key",
            "certificate and key cannot be read from {}/client",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_told(
    files: Path, authority: str, certificate: str | None, key: str | None, said: str
) -> None:
    tls = Tls(files / authority, certificate and files / certificate, key and files / key)
    with pytest.raises(UserError) as told:
        _ = Target("broker:9092", tls=tls).options
    assert said.format(files) in str(told.value)
    assert "\n" not in str(told.value)


def test_a_key_without_a_certificate_is_told() -> None:
    with pytest.raises(UserError, match="has no certificate: give the client's certificate too"):
        Tls(key=Path("client.key"))


def test_events_are_acknowledged_by_all_replicas() -> None:
    assert ProducerSettings().options == {
        "acks": "all",
        "enable_idempotence": True,
        "compression_type": None,
        "request_timeout_ms": 10_000,
    }


def test_a_compression_without_its_library_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ProducerSettings(compression=Compression.GZIP).options["compression_type"] == "gzip"
    monkeypatch.setattr("testyard.kafka.connection.CODECS", dict.fromkeys(Compression, lambda: False))
    with pytest.raises(UserError, match=r"by zstd: .* \(pip install 'aiokafka\[zstd\]'\)"):
        ProducerSettings(compression=Compression.ZSTD)
