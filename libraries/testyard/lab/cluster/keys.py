"""Keys and certificates that a deployment's machines are known by."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

VALIDITY = timedelta(days=30)


@dataclass(frozen=True)
class HostKey:
    """An ed25519 key of an SSH server.

    Args:
        private: In OpenSSH's format.
        public: ``ssh-ed25519 ...``, as known_hosts files have it.
    """

    private: str = field(repr=False)
    public: str

    @classmethod
    def new(cls) -> Self:
        """A key that nobody has had before."""
        key = Ed25519PrivateKey.generate()
        return cls(
            key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode(),
            key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode(),
        )


@dataclass(frozen=True)
class Certificate:
    """A certificate that signs itself, with its key, both in PEM.

    Args:
        certificate: What clients check against.
        key: What only the server has.
    """

    certificate: str
    key: str = field(repr=False)

    @classmethod
    def new(cls, organisation: str, host: str, names: list[str]) -> Self:
        """A certificate for servers on one address.

        Args:
            organisation: Whose servers they are.
            host: Their IP address.
            names: What they are called.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation[:64]),
                x509.NameAttribute(NameOID.COMMON_NAME, "admin UI"),
            ]
        )
        now = datetime.now(UTC)
        subject_names = [x509.IPAddress(ip_address(host)), *map(x509.DNSName, ["localhost", *names])]
        usage = x509.KeyUsage(
            digital_signature=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=True,
            crl_sign=False,
            encipher_only=False,
            decipher_only=False,
        )
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + VALIDITY)
            .add_extension(x509.SubjectAlternativeName(subject_names), critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(identifier, critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False
            )
            .sign(key, hashes.SHA256())
        )
        return cls(
            certificate.public_bytes(Encoding.PEM).decode(),
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
        )
