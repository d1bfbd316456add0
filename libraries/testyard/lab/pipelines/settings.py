"""What the pipeline service is started with: the command line's arguments and the environment's secrets."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta
from typing import Final
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, SkipValidation

from testyard.core.errors import ConfigurationError
from testyard.lab.database import DEFAULT_TIMEOUT
from testyard.lab.pipelines.encryption import AesGcmCipher, Cipher, EncryptionKeyError, cipher_from_environment
from testyard.lab.pipelines.runner import DEFAULT_STALE_AFTER

DATABASE_VARIABLE: Final = "PIPELINES_DATABASE_URL"
ADMIN_KEY_VARIABLE: Final = "PIPELINES_ADMIN_KEY"
SMTP_VARIABLE: Final = "PIPELINES_SMTP_URL"
SHORTEST_ADMIN_KEY: Final = 16
_SMTP_PORT: Final = 25


class SmtpServer(BaseModel):
    """Where e-mail is handed in.

    Args:
        host: Name or address.
        port: TCP port.
    """

    model_config = ConfigDict(frozen=True)

    host: str
    port: int


class Settings(BaseModel):
    """The settings of one process of the service's HTTP interface.

    Args:
        database_url: PostgreSQL URL; may carry a password.
        admin_key: What ``X-Admin-Key`` must be.
        cipher: Encrypts stored credentials.
        smtp: Where notifications by e-mail are handed in; None: they end as dead letters.
        test_clock: Whether the test clock's row is honoured and its routes exist.
        stale_after: A running run without a heartbeat for this long has lost its worker.
        notification_retry_base: First delay between two attempts to send a notification; it doubles.
        notification_attempts: Attempts before a notification becomes a dead letter.
        pool_size: Database connections at most.
        database_timeout: How long the database may take until it counts as away.
    """

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    database_url: SecretStr
    admin_key: SecretStr = Field(min_length=SHORTEST_ADMIN_KEY)
    cipher: SkipValidation[Cipher]
    smtp: SmtpServer | None = None
    test_clock: bool = False
    stale_after: timedelta = Field(default=DEFAULT_STALE_AFTER, gt=timedelta(0))
    notification_retry_base: timedelta = Field(default=timedelta(seconds=1), gt=timedelta(0))
    notification_attempts: int = Field(default=5, ge=1)
    pool_size: int = Field(default=10, ge=1)
    database_timeout: timedelta = Field(default=DEFAULT_TIMEOUT, gt=timedelta(0))


class EnvironmentSecrets(BaseModel):
    """What the environment holds.

    Args:
        admin_key: From ``PIPELINES_ADMIN_KEY``.
        cipher: With the key from ``PIPELINES_ENCRYPTION_KEY``.
        smtp: From ``PIPELINES_SMTP_URL``.
    """

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    admin_key: SecretStr
    cipher: AesGcmCipher
    smtp: SmtpServer | None


def read_environment(environ: Mapping[str, str] = os.environ) -> EnvironmentSecrets:
    """Read the secrets; they are never arguments, which every user of the machine can list.

    Args:
        environ: The environment.

    Returns:
        The secrets.

    Raises:
        ConfigurationError: One is missing or malformed; names the variable, never shows the value.
    """
    admin_key = environ.get(ADMIN_KEY_VARIABLE, "").strip()
    if len(admin_key) < SHORTEST_ADMIN_KEY:
        found = f"has {len(admin_key)} characters" if admin_key else "is not set"
        raise ConfigurationError(
            f"{ADMIN_KEY_VARIABLE} {found}; expected at least {SHORTEST_ADMIN_KEY} characters"
        )
    try:
        cipher = cipher_from_environment(environ)
    except EncryptionKeyError as error:
        raise ConfigurationError(str(error)) from None
    return EnvironmentSecrets(
        admin_key=SecretStr(admin_key), cipher=cipher, smtp=_smtp_server(environ.get(SMTP_VARIABLE, "").strip())
    )


def _smtp_server(url: str) -> SmtpServer | None:
    if not url:
        return None
    expected = f"{SMTP_VARIABLE} is not usable; expected smtp://host:port without user and password"
    try:
        parts = urlsplit(url)
        port = parts.port or _SMTP_PORT
    except ValueError:
        raise ConfigurationError(expected) from None
    rest = (parts.path.strip("/"), parts.query, parts.fragment, parts.username, parts.password)
    if parts.scheme != "smtp" or not parts.hostname or any(rest):
        raise ConfigurationError(expected)
    return SmtpServer(host=parts.hostname, port=port)
