"""Who is asking: a customer by its X-API-Key, or the operator by X-Admin-Key.

Source: issue 4 (decisions: keys are kept as SHA-256, admin calls take X-Admin-Key, another customer's data is
404), contract page "pipelines", 1.1.
"""

from __future__ import annotations

import hmac
from typing import Annotated, Final

from fastapi import Depends, Request
from fastapi.security import APIKeyHeader

from testyard.lab.pipelines.errors import RefusedError, not_found
from testyard.lab.pipelines.keys import key_hash
from testyard.lab.pipelines.payloads import CustomerId
from testyard.lab.pipelines.service import Service, ServiceOf
from testyard.lab.pipelines.store import keys
from testyard.lab.pipelines.store.keys import KeyOwner

API_KEY_HEADER: Final = "X-API-Key"
ADMIN_KEY_HEADER: Final = "X-Admin-Key"

_API_KEY: Final = APIKeyHeader(
    name=API_KEY_HEADER, scheme_name="CustomerKey", description="A customer's key", auto_error=False
)
_ADMIN_KEY: Final = APIKeyHeader(
    name=ADMIN_KEY_HEADER, scheme_name="AdminKey", description="The operator's key", auto_error=False
)
GivenApiKey = Annotated[str | None, Depends(_API_KEY)]
GivenAdminKey = Annotated[str | None, Depends(_ADMIN_KEY)]


def _unknown(header: str, what: str) -> RefusedError:
    return RefusedError(401, f"{header} {what}", headers={"WWW-Authenticate": f'ApiKey header="{header}"'})


def _check_admin_key(service: Service, given: str) -> None:
    expected = service.settings.admin_key.get_secret_value()
    # As bytes: compare_digest takes no text beyond ASCII.
    if not hmac.compare_digest(given.encode(), expected.encode()):
        raise _unknown(ADMIN_KEY_HEADER, "is not the operator's key")


async def _owner(service: Service, given: str | None) -> KeyOwner:
    if not given:
        raise _unknown(API_KEY_HEADER, "is missing")
    owner = await keys.owner(service.pool, key_hash(given))
    if owner is None:
        raise _unknown(API_KEY_HEADER, "is unknown, revoked or expired")
    return owner


async def require_admin(service: ServiceOf, request: Request, admin_key: GivenAdminKey) -> None:
    """Let only the operator pass.

    Raises:
        RefusedError: 401 without a good key, 403 for a customer.
    """
    if admin_key:
        _check_admin_key(service, admin_key)
        return
    # Read here and not as a dependency: OpenAPI must not offer it as a way in.
    customer_key = request.headers.get(API_KEY_HEADER)
    if not customer_key:
        raise _unknown(ADMIN_KEY_HEADER, "is missing")
    await _owner(service, customer_key)
    raise RefusedError(403, "only the operator may do this")


async def require_customer(service: ServiceOf, api_key: GivenApiKey) -> KeyOwner:
    """The customer whose key was given.

    Raises:
        RefusedError: 401 without a good key.
    """
    return await _owner(service, api_key)


async def require_someone(service: ServiceOf, api_key: GivenApiKey, admin_key: GivenAdminKey) -> KeyOwner | None:
    """The customer whose key was given; None for the operator.

    Raises:
        RefusedError: 401 without a good key.
    """
    if admin_key:
        _check_admin_key(service, admin_key)
        return None
    return await _owner(service, api_key)


Customer = Annotated[KeyOwner, Depends(require_customer)]
Someone = Annotated[KeyOwner | None, Depends(require_someone)]


async def require_own(owner: Customer, customer_id: CustomerId) -> str:
    """The id in the path, which must be that of the key's customer.

    Raises:
        RefusedError: 404 for another customer's.
    """
    if owner.customer_id != customer_id:
        raise not_found("customer", customer_id)
    return customer_id


async def require_own_or_admin(someone: Someone, customer_id: CustomerId) -> str:
    """The id in the path, which must be that of the key's customer, unless the operator asks.

    Raises:
        RefusedError: 404 for another customer's.
    """
    if someone is not None and someone.customer_id != customer_id:
        raise not_found("customer", customer_id)
    return customer_id


OwnId = Annotated[str, Depends(require_own)]
OwnIdOrAdmin = Annotated[str, Depends(require_own_or_admin)]
AdminOnly = Depends(require_admin)
