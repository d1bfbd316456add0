"""Where a database is and as whom to go there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

import psycopg
from psycopg.conninfo import conninfo_to_dict

from testyard.core.errors import UserError
from testyard.core.redact import secrets_in_use

DEFAULT_PORT = 5432


@dataclass(frozen=True)
class Target:
    """One database, one user, and how to connect; its text never holds the password.

    Attributes:
        host: The server.
        port: Its TCP port.
        database: The database.
        user: The role.
        password: Its password; empty when the server asks for none.
        options: Further connection parameters of libpq: ``sslmode``, ``sslrootcert``, ``sslcert``, ``options``…
    """

    host: str
    port: int
    database: str
    user: str
    password: str = field(default="", repr=False)
    options: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.password:
            secrets_in_use.add(self.password)

    @classmethod
    def from_url(cls, url: str, *, password: str = "", options: Mapping[str, str] | None = None) -> Self:
        """Read a URL such as ``postgresql://user:password@host:5432/database?sslmode=require``.

        Args:
            url: The URL.
            password: Used instead of the URL's own.
            options: Connection parameters beside the URL's own.

        Raises:
            UserError: It is no such URL; the text is not quoted, as it may hold a password.
        """
        try:
            parts = {name: str(value) for name, value in conninfo_to_dict(url).items()}
            host, port = parts.pop("host", "localhost"), int(parts.pop("port", DEFAULT_PORT))
        except (psycopg.Error, ValueError):
            host = ""
        if not host or "@" in host or "//" not in url:
            message = (
                "The database's URL is not understood, expected postgresql://user:password@host:port/database; "
                "in user and password the characters @ : / ? # and % are written %40 %3A %2F %3F %23 and %25."
            )
            raise UserError(message)
        user = parts.pop("user", "")
        own_password = parts.pop("password", "")
        database = parts.pop("dbname", user)
        return cls(host, port, database, user, password or own_password, parts | dict(options or {}))

    def __str__(self) -> str:
        return f"the database '{self.database}' on {self.host} port {self.port} as '{self.user}'"

    @property
    def parameters(self) -> dict[str, str | int]:
        """What psycopg needs to connect."""
        named = {"dbname": self.database, "user": self.user, "password": self.password}
        return {**self.options, "host": self.host, "port": self.port, **{k: v for k, v in named.items() if v}}
