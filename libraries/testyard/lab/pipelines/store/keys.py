"""API keys: only their hashes are here.

Source: issue 4 (decisions: SHA-256, shown once, rotation and revocation), contract page "pipelines", 1.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from testyard.lab.database import Connection, Pool, fetch, in_transaction
from testyard.lab.pipelines.records import CustomerStatus

_COLUMNS = "key_id, key_name, is_active, created_at, expires_at, revoked_at"

# By the service's time, so that a test can let a key expire.
_OWNER = """
    SELECT customer_id, customers.status FROM customer_api_keys JOIN customers USING (customer_id)
    WHERE key_hash = %(key_hash)s AND is_active AND expires_at > service_now()"""

_FIND = f"""
    SELECT {_COLUMNS} FROM customer_api_keys
    WHERE customer_id = %(customer_id)s ORDER BY created_at, key_id"""

_INSERT = f"""
    INSERT INTO customer_api_keys (key_id, customer_id, key_name, key_hash, created_at, expires_at)
    SELECT %(key_id)s, %(customer_id)s, %(key_name)s, %(key_hash)s, now.moment,
        now.moment + make_interval(days => %(days)s)
    FROM service_now() AS now (moment) RETURNING {_COLUMNS}"""

_REVOKE = f"""
    UPDATE customer_api_keys SET is_active = false, revoked_at = service_now()
    WHERE key_id = %(key_id)s AND customer_id = %(customer_id)s AND is_active RETURNING {_COLUMNS}"""

# The successor has the name and lives as long as the old one was to live from its beginning.
_SUCCEED = f"""
    INSERT INTO customer_api_keys (key_id, customer_id, key_name, key_hash, created_at, expires_at)
    SELECT %(new_key_id)s, customer_id, key_name, %(key_hash)s, now.moment, now.moment + (expires_at - created_at)
    FROM customer_api_keys, service_now() AS now (moment) WHERE key_id = %(key_id)s RETURNING {_COLUMNS}"""

DEFAULT_DAYS = 365
"""How long a key lives."""


@dataclass(frozen=True, slots=True)
class KeyOwner:
    """Whose a key is.

    Args:
        customer_id: The customer.
        status: Whether its pipelines run.
    """

    customer_id: str
    status: CustomerStatus


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key to be stored.

    Args:
        key_id: Its id.
        key_name: What the customer calls it.
        key_hash: SHA-256 of the key.
        days: How long it lives.
    """

    key_id: str
    key_name: str
    key_hash: str
    days: int = DEFAULT_DAYS


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A stored key, without what could open a door."""

    key_id: str
    key_name: str
    is_active: bool
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None


async def owner(pool: Pool, key_hash: str) -> KeyOwner | None:
    """Whose a key is.

    Args:
        pool: The service's connections.
        key_hash: SHA-256 of the key.

    Returns:
        The customer; None for a key that is unknown, revoked or expired.
    """
    rows = await fetch(pool, _OWNER, {"key_hash": key_hash})
    return KeyOwner(rows[0]["customer_id"], CustomerStatus(rows[0]["status"])) if rows else None


async def find(pool: Pool, customer_id: str) -> list[ApiKey]:
    """A customer's keys, the oldest first.

    Args:
        pool: The service's connections.
        customer_id: The customer.

    Returns:
        The keys, the revoked ones too.
    """
    return [ApiKey(**row) for row in await fetch(pool, _FIND, {"customer_id": customer_id})]


async def insert(connection: Connection, customer_id: str, key: NewKey) -> ApiKey:
    """Store a key inside a transaction.

    Args:
        connection: The transaction's connection.
        customer_id: Whose it is.
        key: The key.

    Returns:
        What is stored.
    """
    cursor = await connection.execute(
        _INSERT,
        {
            "key_id": key.key_id,
            "customer_id": customer_id,
            "key_name": key.key_name,
            "key_hash": key.key_hash,
            "days": key.days,
        },
    )
    row = await cursor.fetchone()
    assert row is not None
    return ApiKey(**row)


async def add(pool: Pool, customer_id: str, key: NewKey) -> ApiKey:
    """Store a further key.

    Args:
        pool: The service's connections.
        customer_id: Whose it is.
        key: The key.

    Returns:
        What is stored.
    """
    return await in_transaction(pool, lambda connection: insert(connection, customer_id, key))


async def revoke(pool: Pool, customer_id: str, key_id: str) -> ApiKey | None:
    """Let a key open nothing any more.

    Args:
        pool: The service's connections.
        customer_id: Whose it is.
        key_id: The key.

    Returns:
        The key; None when the customer has no such active key.
    """
    rows = await fetch(pool, _REVOKE, {"customer_id": customer_id, "key_id": key_id})
    return ApiKey(**rows[0]) if rows else None


async def rotate(pool: Pool, customer_id: str, key_id: str, *, new_key_id: str, key_hash: str) -> ApiKey | None:
    """Replace a key by another one of the same name; the old one is dead at once.

    Args:
        pool: The service's connections.
        customer_id: Whose it is.
        key_id: The old key.
        new_key_id: The id of the new one.
        key_hash: SHA-256 of the new one.

    Returns:
        The new key; None when the customer has no such active key.
    """

    async def work(connection: Connection) -> ApiKey | None:
        ours = {"customer_id": customer_id, "key_id": key_id}
        if await (await connection.execute(_REVOKE, ours)).fetchone() is None:
            return None
        cursor = await connection.execute(
            _SUCCEED, {"key_id": key_id, "new_key_id": new_key_id, "key_hash": key_hash}
        )
        row = await cursor.fetchone()
        assert row is not None
        return ApiKey(**row)

    return await in_transaction(pool, work)
