"""A customer's runs: what waits, what runs, what was, and running a pipeline now."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from testyard.lab.pipelines.answers import Accepted, RunWithHistory, concurrent_limit_reached, pipeline_id_of
from testyard.lab.pipelines.authentication import Customer, OwnIdOrAdmin, Someone
from testyard.lab.pipelines.errors import RefusedError, not_found, refusals, with_body
from testyard.lab.pipelines.execution import Template
from testyard.lab.pipelines.payloads import (
    AnyCaseDomain,
    AnyCaseProvider,
    CustomerId,
    DirectRun,
    RunFilter,
    RunId,
    TemplateName,
)
from testyard.lab.pipelines.records import CustomerStatus, Run
from testyard.lab.pipelines.routes import PREFIX
from testyard.lab.pipelines.service import Service, ServiceOf
from testyard.lab.pipelines.states import RunState
from testyard.lab.pipelines.store import admission, customers, runs

QUOTA_RETRY_AFTER = 86400
"""Seconds after which a day's quota may have room again."""
_WITH_DEFAULTS = DirectRun()

router = APIRouter(prefix=PREFIX, tags=["runs"])


@router.get("/customers/{customer_id}/pipelines/yet-to-run", responses=refusals(401, 404))
async def yet_to_run(service: ServiceOf, customer_id: OwnIdOrAdmin) -> list[Run]:
    """The runs that are SCHEDULED or PENDING, in the order of the queue."""
    return await _of_customer(service, customer_id, await runs.yet_to_run(service.pool, customer_id))


@router.get("/customers/{customer_id}/pipelines/running", responses=refusals(401, 404))
async def running(service: ServiceOf, customer_id: OwnIdOrAdmin) -> list[Run]:
    """The runs that are RUNNING."""
    return await _of_customer(service, customer_id, await runs.running(service.pool, customer_id))


@router.get("/customers/{customer_id}/pipeline-runs", responses=refusals(401, 404))
async def find(service: ServiceOf, customer_id: OwnIdOrAdmin, wanted: Annotated[RunFilter, Query()]) -> list[Run]:
    """The customer's runs, the latest first."""
    found = await runs.find(
        service.pool,
        customer_id=customer_id,
        state=wanted.state,
        scheduled_on=wanted.date,
        limit=wanted.limit,
        offset=wanted.offset,
    )
    return await _of_customer(service, customer_id, found)


@router.post(
    "/pipelines/run/{tenant_id}/{provider}/{domain}/{template_name}", responses=with_body(401, 403, 404, 429)
)
async def run_now(
    *,
    service: ServiceOf,
    owner: Customer,
    tenant_id: CustomerId,
    provider: AnyCaseProvider,
    domain: AnyCaseDomain,
    template_name: TemplateName,
    wanted: DirectRun = _WITH_DEFAULTS,
) -> Accepted:
    """Run a pipeline now. It waits as PENDING for a worker, and while the concurrent limit is reached."""
    if owner.customer_id != tenant_id:
        raise not_found("tenant", tenant_id)
    if owner.status is not CustomerStatus.ACTIVE:
        raise RefusedError(403, f"the subscription is {owner.status}, expected ACTIVE")
    if template_name not in set(Template):
        raise not_found("template", template_name)
    run, quota = await admission.run_now(
        service.pool,
        tenant_id,
        provider,
        domain,
        template_name,
        parameters=wanted.parameters,
        priority=wanted.priority,
    )
    if run.state is RunState.SKIPPED:
        headers = {"Retry-After": str(QUOTA_RETRY_AFTER)}
        raise RefusedError(429, run.error_message or "quota exceeded", headers=headers)
    is_full = quota.concurrent_running >= quota.concurrent_limit
    return Accepted(
        run_id=run.run_id,
        pipeline_logging_id=run.pipeline_logging_id,
        pipeline_id=pipeline_id_of(run),
        tenant_id=tenant_id,
        trigger_by=wanted.trigger_by,
        status=run.state,
        message=concurrent_limit_reached(quota) if is_full else "Pipeline is queued",
    )


@router.get("/pipelines/runs/{run_id}", responses=refusals(401, 404))
async def read(service: ServiceOf, someone: Someone, run_id: RunId) -> RunWithHistory:
    """A run with every change of its state."""
    run, transitions = await runs.read_with_transitions(service.pool, run_id)
    if run is None or (someone is not None and run.customer_id != someone.customer_id):
        raise not_found("run", run_id)
    return RunWithHistory.with_transitions(run, transitions)


async def _of_customer(service: Service, customer_id: str, found: list[Run]) -> list[Run]:
    if not found and await customers.read(service.pool, customer_id) is None:
        raise not_found("customer", customer_id)
    return found
