"""API keys: made, listed without key and hash, rotated, revoked."""

from __future__ import annotations

import uuid

from fastapi import APIRouter

from testyard.lab.pipelines.answers import ShownKey
from testyard.lab.pipelines.authentication import OwnId
from testyard.lab.pipelines.errors import not_found, refusals, with_body
from testyard.lab.pipelines.keys import key_hash, new_api_key
from testyard.lab.pipelines.payloads import KeyId, NewApiKey
from testyard.lab.pipelines.routes import PREFIX
from testyard.lab.pipelines.service import ServiceOf
from testyard.lab.pipelines.store import keys
from testyard.lab.pipelines.store.keys import ApiKey, NewKey

router = APIRouter(prefix=f"{PREFIX}/customers/{{customer_id}}/api-keys", tags=["api keys"])


@router.get("", responses=refusals(401, 404))
async def find(service: ServiceOf, customer_id: OwnId) -> list[ApiKey]:
    """The customer's keys, the revoked ones too."""
    return await keys.find(service.pool, customer_id)


@router.post("", responses=with_body(401, 404))
async def add(service: ServiceOf, customer_id: OwnId, new: NewApiKey) -> ShownKey:
    """Make a further key. It is in this answer and nowhere else."""
    api_key = new_api_key(customer_id)
    stored = await keys.add(
        service.pool,
        customer_id,
        NewKey(key_id=_new_key_id(), key_name=new.key_name, key_hash=key_hash(api_key), days=new.expires_in_days),
    )
    return ShownKey.of(stored, api_key)


@router.post("/{key_id}/rotate", responses=refusals(401, 404))
async def rotate(service: ServiceOf, customer_id: OwnId, key_id: KeyId) -> ShownKey:
    """Replace an active key by a new one of the same name; the old one is dead at once."""
    api_key = new_api_key(customer_id)
    stored = await keys.rotate(
        service.pool, customer_id, key_id, new_key_id=_new_key_id(), key_hash=key_hash(api_key)
    )
    if stored is None:
        raise not_found("active API key", key_id)
    return ShownKey.of(stored, api_key)


@router.delete("/{key_id}", responses=refusals(401, 404))
async def revoke(service: ServiceOf, customer_id: OwnId, key_id: KeyId) -> ApiKey:
    """Revoke an active key; also the one that asks for it."""
    revoked = await keys.revoke(service.pool, customer_id, key_id)
    if revoked is None:
        raise not_found("active API key", key_id)
    return revoked


def _new_key_id() -> str:
    return f"key_{uuid.uuid4().hex}"
