"""Credentials for providers: written, listed without what is secret, deleted."""

from __future__ import annotations

import json
import uuid

from fastapi import APIRouter

from testyard.lab.pipelines.authentication import Customer
from testyard.lab.pipelines.encryption import credential_context
from testyard.lab.pipelines.errors import RefusedError, not_found, refusals, with_body
from testyard.lab.pipelines.payloads import CredentialId, NewCredential
from testyard.lab.pipelines.routes import PREFIX
from testyard.lab.pipelines.service import ServiceOf
from testyard.lab.pipelines.store import credentials
from testyard.lab.pipelines.store.credentials import Credential

router = APIRouter(prefix=f"{PREFIX}/customers/credentials", tags=["credentials"])


@router.post("", responses=with_body(401, 409))
async def add(service: ServiceOf, owner: Customer, new: NewCredential) -> Credential:
    """Store a credential, encrypted. What is secret of it is never returned."""
    credential_id = f"cred_{uuid.uuid4().hex}"
    context = credential_context(owner.customer_id, credential_id)
    stored = await credentials.add(
        service.pool,
        owner.customer_id,
        credential_id,
        provider=new.provider,
        credential_type=new.credential_type,
        credential_name=new.credential_name,
        project_id=new.project_id,
        region=new.region,
        encrypted=service.settings.cipher.encrypt(json.dumps(new.credentials).encode(), context),
    )
    if stored is None:
        raise RefusedError(409, "there is a credential of that name")
    return stored


@router.get("", responses=refusals(401))
async def find(service: ServiceOf, owner: Customer) -> list[Credential]:
    """The customer's credentials, without what is secret."""
    return await credentials.find(service.pool, owner.customer_id)


@router.delete("/{credential_id}", responses=refusals(401, 404))
async def delete(service: ServiceOf, owner: Customer, credential_id: CredentialId) -> Credential:
    """Delete a credential."""
    deleted = await credentials.delete(service.pool, owner.customer_id, credential_id)
    if deleted is None:
        raise not_found("credential", credential_id)
    return deleted
