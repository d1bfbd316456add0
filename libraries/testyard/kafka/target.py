"""Where Kafka is, and how to be let in."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from testyard.core.errors import UserError
from testyard.core.redact import secrets_in_use

# A name, an IPv4 address, or an IPv6 address in brackets; and a port.
SERVER = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):(?P<port>\d{1,5})")
HIGHEST_PORT = 65535


class SaslMechanism(Enum):
    """How a user proves who they are (RFC 4616, RFC 5802)."""

    PLAIN = "PLAIN"
    SCRAM_SHA_256 = "SCRAM-SHA-256"
    SCRAM_SHA_512 = "SCRAM-SHA-512"


@dataclass(frozen=True)
class Sasl:
    """Who connects.

    Attributes:
        user: The user's name.
        password: Their password.
        mechanism: How it is proven.
    """

    user: str
    password: str = field(repr=False)
    mechanism: SaslMechanism = SaslMechanism.PLAIN

    def __post_init__(self) -> None:
        secrets_in_use.add(self.password)


@dataclass(frozen=True)
class Tls:
    """How the connection is encrypted, and whom it trusts.

    Attributes:
        authority: A file of certificates (PEM) that sign the brokers'; None: those that the system trusts.
        certificate: The client's own certificate (PEM), when the brokers want one.
        key: Its private key (PEM); None when it is in the same file.
        key_password: What the key's file is encrypted with.
        check_hostname: Whether a broker's certificate must be for the name that was connected to.
    """

    authority: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    key_password: str = field(default="", repr=False)
    check_hostname: bool = True

    def __post_init__(self) -> None:
        if self.key_password:
            secrets_in_use.add(self.key_password)
        if self.key and not self.certificate:
            message = f"The private key {self.key} has no certificate: give the client's certificate too."
            raise UserError(message)

    def context(self) -> ssl.SSLContext:
        """What Python's TLS needs.

        Raises:
            UserError: A file cannot be read or is not what it should be.
        """
        try:
            context = ssl.create_default_context(cafile=self.authority)
        except OSError as problem:
            raise _unreadable("authorities' certificates", self.authority, problem) from None
        context.check_hostname = self.check_hostname
        if self.certificate:
            try:
                # A password must be given, or OpenSSL asks for it at the terminal and waits.
                context.load_cert_chain(self.certificate, self.key, self.key_password)
            except OSError as problem:
                raise _unreadable("client's certificate and key", self.certificate, problem) from None
        return context


@dataclass(frozen=True)
class Target:
    """Some brokers, and how to connect; its text never holds a password.

    Attributes:
        bootstrap_servers: ``host:port``, several with commas between them.
        client_id: How the brokers' logs call the clients.
        tls: None: not encrypted.
        sasl: None: nobody in particular.
    """

    bootstrap_servers: str
    client_id: str = "testyard"
    tls: Tls | None = None
    sasl: Sasl | None = None

    def __post_init__(self) -> None:
        for server in self.servers:
            match = SERVER.fullmatch(server)
            if match is None or not 0 < int(match["port"]) <= HIGHEST_PORT:
                message = (
                    f"The bootstrap servers {self.bootstrap_servers!r} are not understood: expected host:port, "
                    f"several with commas between them, got {server!r}."
                )
                raise UserError(message)

    def __str__(self) -> str:
        user = f" as '{self.sasl.user}'" if self.sasl else ""
        encrypted = " with TLS" if self.tls else ""
        return f"Kafka at {','.join(self.servers)}{user}{encrypted}"

    @property
    def servers(self) -> list[str]:
        """Each of the servers."""
        return [server.strip() for server in self.bootstrap_servers.split(",")]

    @property
    def options(self) -> dict[str, Any]:
        """What every client of aiokafka needs.

        Raises:
            UserError: A file cannot be read.
        """
        options: dict[str, Any] = {
            "bootstrap_servers": self.servers,
            "client_id": self.client_id,
            "security_protocol": f"{'SASL_' if self.sasl else ''}{'SSL' if self.tls else 'PLAINTEXT'}",
        }
        if self.tls:
            options["ssl_context"] = self.tls.context()
        if self.sasl:
            options["sasl_mechanism"] = self.sasl.mechanism.value
            options["sasl_plain_username"] = self.sasl.user
            options["sasl_plain_password"] = self.sasl.password
        return options


def _unreadable(what: str, path: Path | None, problem: OSError) -> UserError:
    reason = problem.strerror if isinstance(problem, FileNotFoundError | PermissionError) else problem.args[-1]
    return UserError(f"The {what} cannot be read from {path}: {str(reason).rstrip('.')}.")
