"""Credentials for providers: encrypted before they come here, and only told of in metadata.

Source: issue 4 (decisions), contract page "pipelines", 1.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from testyard.lab.database import Pool, fetch

_COLUMNS = """credential_id, customer_id, provider, credential_type, credential_name, project_id, region,
    is_active, created_at"""

_INSERT = f"""
    INSERT INTO customer_credentials (credential_id, customer_id, provider, credential_type, credential_name,
        project_id, region, encrypted_credentials, created_at)
    VALUES (%(credential_id)s, %(customer_id)s, %(provider)s, %(credential_type)s, %(credential_name)s,
        %(project_id)s, %(region)s, %(encrypted)s, service_now())
    ON CONFLICT (customer_id, credential_name) DO NOTHING RETURNING {_COLUMNS}"""

_FIND = f"""
    SELECT {_COLUMNS} FROM customer_credentials
    WHERE customer_id = %(customer_id)s ORDER BY created_at, credential_id"""

_DELETE = f"""
    DELETE FROM customer_credentials
    WHERE credential_id = %(credential_id)s AND customer_id = %(customer_id)s RETURNING {_COLUMNS}"""


@dataclass(frozen=True, slots=True)
class Credential:
    """What may be known of a credential."""

    credential_id: str
    customer_id: str
    provider: str
    credential_type: str
    credential_name: str
    project_id: str | None
    region: str | None
    is_active: bool
    created_at: datetime


async def add(
    pool: Pool,
    customer_id: str,
    credential_id: str,
    *,
    provider: str,
    credential_type: str,
    credential_name: str,
    project_id: str | None,
    region: str | None,
    encrypted: bytes,
) -> Credential | None:
    """Store a credential.

    Args:
        pool: The service's connections.
        customer_id: Whose it is.
        credential_id: Its id.
        provider: What it opens.
        credential_type: Its kind.
        credential_name: What the customer calls it.
        project_id: The provider's project, if there is one.
        region: The provider's region, if there is one.
        encrypted: What ``Cipher.encrypt`` returned for this customer and this id.

    Returns:
        The credential; None when the customer has one of that name.
    """
    rows = await fetch(
        pool,
        _INSERT,
        {
            "credential_id": credential_id,
            "customer_id": customer_id,
            "provider": provider,
            "credential_type": credential_type,
            "credential_name": credential_name,
            "project_id": project_id,
            "region": region,
            "encrypted": encrypted,
        },
    )
    return Credential(**rows[0]) if rows else None


async def find(pool: Pool, customer_id: str) -> list[Credential]:
    """A customer's credentials, the oldest first.

    Args:
        pool: The service's connections.
        customer_id: The customer.

    Returns:
        What may be known of them.
    """
    return [Credential(**row) for row in await fetch(pool, _FIND, {"customer_id": customer_id})]


async def delete(pool: Pool, customer_id: str, credential_id: str) -> Credential | None:
    """Delete a credential.

    Args:
        pool: The service's connections.
        customer_id: Whose it is.
        credential_id: The credential.

    Returns:
        What it was; None when the customer has no such credential.
    """
    parameters = {"customer_id": customer_id, "credential_id": credential_id}
    rows = await fetch(pool, _DELETE, parameters)
    return Credential(**rows[0]) if rows else None
