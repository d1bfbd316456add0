"""What a customer may run: limits, use, and whether there is room."""

from __future__ import annotations

from fastapi import APIRouter

from testyard.lab.pipelines.answers import Validation
from testyard.lab.pipelines.authentication import AdminOnly, OwnIdOrAdmin
from testyard.lab.pipelines.errors import not_found, refusals, with_body
from testyard.lab.pipelines.payloads import CustomerId, QuotaChange
from testyard.lab.pipelines.records import Quota
from testyard.lab.pipelines.routes import PREFIX
from testyard.lab.pipelines.service import ServiceOf
from testyard.lab.pipelines.store import customers, quotas

router = APIRouter(prefix=f"{PREFIX}/customers/{{customer_id}}", tags=["quotas"])


@router.get("/subscription/quota", responses=refusals(401, 404))
async def read(service: ServiceOf, customer_id: OwnIdOrAdmin) -> Quota:
    """A customer's limits, and what is used and reserved today and this month (UTC)."""
    return _found(await quotas.read(service.pool, customer_id), customer_id)


@router.put("/subscription/quota", responses=with_body(401, 403, 404), dependencies=[AdminOnly])
async def change(service: ServiceOf, customer_id: CustomerId, wanted: QuotaChange) -> Quota:
    """Change a customer's limits. What is admitted already stays so."""
    changed = await quotas.set_limits(
        service.pool,
        customer_id,
        daily=wanted.daily_limit,
        monthly=wanted.monthly_limit,
        concurrent=wanted.concurrent_limit,
    )
    return _found(changed, customer_id)


@router.post("/validate", responses=refusals(401, 404))
async def validate(service: ServiceOf, customer_id: OwnIdOrAdmin) -> Validation:
    """Whether the customer could run a pipeline now."""
    quota = _found(await quotas.read(service.pool, customer_id), customer_id)
    customer = await customers.read(service.pool, customer_id)
    if customer is None:
        raise not_found("customer", customer_id)
    return Validation.of(quota, customer.status)


def _found(quota: Quota | None, customer_id: str) -> Quota:
    if quota is None:
        raise not_found("customer", customer_id)
    return quota
