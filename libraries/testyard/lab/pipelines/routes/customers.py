"""Customers: onboarding, profile, status, deletion."""

from __future__ import annotations

import uuid
from typing import Final

from fastapi import APIRouter

from testyard.lab.pipelines.answers import Deleted, Onboarded, Status
from testyard.lab.pipelines.authentication import AdminOnly, OwnIdOrAdmin
from testyard.lab.pipelines.errors import RefusedError, not_found, refusals, with_body
from testyard.lab.pipelines.keys import key_hash, new_api_key
from testyard.lab.pipelines.payloads import CustomerChange, CustomerId, Onboarding
from testyard.lab.pipelines.records import Customer
from testyard.lab.pipelines.routes import PREFIX
from testyard.lab.pipelines.service import ServiceOf
from testyard.lab.pipelines.store import customers, runs
from testyard.lab.pipelines.store.keys import NewKey

FIRST_KEY_NAME: Final = "onboarding"

router = APIRouter(prefix=f"{PREFIX}/customers", tags=["customers"])


@router.post("/onboard", responses=with_body(401, 403, 409), dependencies=[AdminOnly])
async def onboard(service: ServiceOf, onboarding: Onboarding) -> Onboarded:
    """Make a customer. Its API key is in this answer and nowhere else."""
    api_key = new_api_key(onboarding.tenant_id)
    customer = await customers.onboard(
        service.pool,
        onboarding.tenant_id,
        company_name=onboarding.company_name,
        admin_email=onboarding.admin_email,
        plan=onboarding.subscription_plan,
        key=NewKey(key_id=f"key_{uuid.uuid4().hex}", key_name=FIRST_KEY_NAME, key_hash=key_hash(api_key)),
    )
    if customer is None:
        raise RefusedError(409, f"the tenant {onboarding.tenant_id} is there already, perhaps in another case")
    return Onboarded(
        customer_id=customer.customer_id,
        tenant_id=customer.customer_id,
        api_key=api_key,
        subscription_plan=customer.subscription_plan,
        status=customer.status,
        message="Customer onboarded; the API key is not shown again",
    )


@router.get("/{customer_id}", responses=refusals(401, 404))
async def read(service: ServiceOf, customer_id: OwnIdOrAdmin) -> Customer:
    """A customer's profile."""
    return _found(await customers.read(service.pool, customer_id), customer_id)


@router.put("/{customer_id}", responses=with_body(401, 404))
async def change(service: ServiceOf, customer_id: OwnIdOrAdmin, wanted: CustomerChange) -> Customer:
    """Change a customer's profile."""
    changed = await customers.change(
        service.pool, customer_id, company_name=wanted.company_name, admin_email=wanted.admin_email
    )
    return _found(changed, customer_id)


@router.delete("/{customer_id}", responses=refusals(401, 403, 404), dependencies=[AdminOnly])
async def delete(service: ServiceOf, customer_id: CustomerId) -> Deleted:
    """Delete a customer and everything that is its own."""
    deleted = await customers.delete(service.pool, customer_id)
    if deleted is None:
        raise not_found("customer", customer_id)
    return Deleted(customer_id=customer_id, deleted=deleted)


@router.get("/{customer_id}/status", responses=refusals(401, 404))
async def status(service: ServiceOf, customer_id: OwnIdOrAdmin) -> Status:
    """A customer's pipelines and runs in numbers."""
    counts = await runs.customer_counts(service.pool, customer_id)
    if counts is None:
        raise not_found("customer", customer_id)
    return Status.of(customer_id, counts)


def _found(customer: Customer | None, customer_id: str) -> Customer:
    if customer is None:
        raise not_found("customer", customer_id)
    return customer
