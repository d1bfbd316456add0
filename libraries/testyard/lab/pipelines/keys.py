"""API keys, shown once and kept as a hash, and the key that makes a run's creation idempotent.

Source: issue 4 (decisions), contract page "pipelines", 1.1 (key format) and 1.5 (idempotency key).
"""

from __future__ import annotations

import hashlib
import secrets
from datetime import UTC, datetime
from typing import Final

# 12 random bytes are 16 characters of URL-safe base64.
_RANDOM_BYTES: Final = 12


def new_api_key(tenant: str) -> str:
    """Make a new API key.

    Args:
        tenant: The tenant it is for.

    Returns:
        ``{tenant}_api_{16 URL-safe characters}``; the characters are 96 random bits.
    """
    return f"{tenant}_api_{secrets.token_urlsafe(_RANDOM_BYTES)}"


def key_hash(key: str) -> str:
    """What is stored of an API key.

    Args:
        key: The key in clear.

    Returns:
        Its SHA-256, 64 lower-case hexadecimal characters.
    """
    return hashlib.sha256(key.encode()).hexdigest()


def idempotency_key(config_id: str, scheduled_time: datetime) -> str:
    """The same for every attempt to create the run of one configuration at one time.

    Args:
        config_id: The pipeline configuration.
        scheduled_time: When the run is due, with a zone: the same instant gives the same key in any zone.

    Returns:
        SHA-256 of ``config_id:time``, the time in ISO 8601 and UTC, 64 lower-case hexadecimal characters.

    Raises:
        ValueError: The time has no zone.
    """
    if scheduled_time.utcoffset() is None:
        raise ValueError(f"the scheduled time {scheduled_time.isoformat()} has no zone")
    return hashlib.sha256(f"{config_id}:{scheduled_time.astimezone(UTC).isoformat()}".encode()).hexdigest()
