"""A certificate authority of the lab's own, for servers and clients of one run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

VALIDITY = timedelta(days=2)
ORGANISATION = "testyard lab"


@dataclass(frozen=True)
class Credentials:
    """A certificate and its key, both in PEM.

    Attributes:
        certificate: What the other side checks.
        key: What only its owner has (PKCS #8, not encrypted).
    """

    certificate: str
    key: str = field(repr=False)


@dataclass(frozen=True)
class ClientFiles:
    """The files that a client needs for TLS, all in PEM.

    Attributes:
        authority: The authority's certificate, to check the server's with.
        certificate: The client's own, for servers that ask for one.
        key: The key of the client's certificate.
    """

    authority: Path
    certificate: Path
    key: Path


class CertificateAuthority:
    """Issues certificates that nobody trusts who was not told to.

    Example:
        >>> authority = CertificateAuthority()
        >>> authority.issue("broker", ["127.0.0.1", "localhost"]).certificate.splitlines()[0]
        '-----BEGIN CERTIFICATE-----'
    """

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("certificate authority")
        builder = self._builder(self._name, self._key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        usage = x509.KeyUsage(
            key_cert_sign=True,
            crl_sign=True,
            digital_signature=False,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )
        self._certificate = builder.add_extension(usage, critical=True).sign(self._key, hashes.SHA256())

    @property
    def certificate(self) -> str:
        """The authority's own certificate in PEM."""
        return _pem(self._certificate)

    def issue(self, name: str, hosts: Sequence[str] = (), *, valid_for: timedelta = VALIDITY) -> Credentials:
        """A certificate with a new key.

        Args:
            name: Whose it is (common name).
            hosts: The IP addresses and host names of a server; none for a client.
            valid_for: How long; a negative time makes one that is no longer valid.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        purpose = ExtendedKeyUsageOID.SERVER_AUTH if hosts else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = self._builder(_name(name), key.public_key(), valid_for)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        if hosts:
            names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
            builder = builder.add_extension(names, critical=False)
        key_text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        return Credentials(_pem(builder.sign(self._key, hashes.SHA256())), key_text)

    def write_client_files(self, directory: Path, name: str = "client") -> ClientFiles:
        """Issue a certificate for a client and write all that it needs.

        Args:
            directory: Where to; it must exist.
            name: Whose certificate it is; also the name of its files.
        """
        credentials = self.issue(name)
        files = ClientFiles(directory / "authority.pem", directory / f"{name}.pem", directory / f"{name}.key")
        write_private(files.authority, self.certificate)
        write_private(files.certificate, credentials.certificate)
        write_private(files.key, credentials.key)
        return files

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, valid_for: timedelta = VALIDITY
    ) -> x509.CertificateBuilder:
        end = datetime.now(UTC) + valid_for
        builder = x509.CertificateBuilder(self._name, subject, key, x509.random_serial_number())
        # A machine whose clock is a little behind accepts it too.
        builder = builder.not_valid_before(end - VALIDITY - timedelta(hours=1)).not_valid_after(end)
        identifier = x509.SubjectKeyIdentifier.from_public_key(key)
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return builder.add_extension(identifier, critical=False).add_extension(authority, critical=False)


def write_private(path: Path, text: str) -> None:
    """Write a file that only this account can read.

    Args:
        path: The file; one that exists is replaced.
        text: What it is to contain.
    """
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)


def _name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANISATION),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()
