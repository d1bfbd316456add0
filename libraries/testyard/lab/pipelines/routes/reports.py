"""Executors outside of the service: they take one run, and report for it.

Source: contract page "pipelines", 1.1 ("Architecture doc extras"), 1.5 (compare-and-set).
"""

from __future__ import annotations

from fastapi import APIRouter

from testyard.lab.pipelines.authentication import AdminOnly
from testyard.lab.pipelines.errors import RefusedError, not_found, with_body
from testyard.lab.pipelines.payloads import Failure, Report, RunId, Start
from testyard.lab.pipelines.records import Failure as FailureRecord
from testyard.lab.pipelines.records import Outcome, Run
from testyard.lab.pipelines.routes import PREFIX
from testyard.lab.pipelines.service import Service, ServiceOf
from testyard.lab.pipelines.states import TRANSITIONS, RunState
from testyard.lab.pipelines.store import claims, outcomes, runs

_BY_NOBODY_IN_PARTICULAR = Start()
_OF_THE_NEWEST_CLAIM = Report()
_FOR_NO_KNOWN_REASON = Failure()

router = APIRouter(
    prefix=f"{PREFIX}/pipeline-runs/{{run_id}}",
    tags=["reports"],
    dependencies=[AdminOnly],
    responses=with_body(401, 403, 404, 409),
)


@router.post("/start")
async def start(service: ServiceOf, run_id: RunId, by: Start = _BY_NOBODY_IN_PARTICULAR) -> Run:
    """Take a pending run: it is RUNNING, and the caller has to send heartbeats."""
    if await claims.claim_run(service.pool, by.worker_id, run_id) is None:
        run = await _read(service, run_id)
        if run.state is RunState.PENDING:
            reason = "its customer's concurrent limit is reached or it waits for a retry"
            raise RefusedError(409, f"run {run_id} is PENDING and cannot start now: {reason}")
        raise _wrong_state(run, "started")
    return await _read(service, run_id)


@router.post("/heartbeat")
async def heartbeat(service: ServiceOf, run_id: RunId, report: Report = _OF_THE_NEWEST_CLAIM) -> Run:
    """Say that a run is still being executed."""
    run = await _running(service, run_id, report, "kept alive")
    if not await claims.heartbeat(service.pool, [(run_id, run.claim_number)]):
        raise _wrong_state(await _read(service, run_id), "kept alive")
    return await _read(service, run_id)


@router.post("/complete")
async def complete(service: ServiceOf, run_id: RunId, report: Report = _OF_THE_NEWEST_CLAIM) -> Run:
    """Say that a run has succeeded."""
    run = await _running(service, run_id, report, "completed")
    return await _finish(service, Outcome.of(run), "completed")


@router.post("/fail")
async def fail(service: ServiceOf, run_id: RunId, report: Failure = _FOR_NO_KNOWN_REASON) -> Run:
    """Say that a run has failed; it is tried again if its error can pass."""
    run = await _running(service, run_id, report, "failed")
    failure = FailureRecord(report.error_class, report.error_message)
    return await _finish(service, Outcome.of(run, failure), "failed")


async def _finish(service: Service, outcome: Outcome, verb: str) -> Run:
    ours = await outcomes.finish(service.pool, [outcome])
    run = await _read(service, outcome.run_id)
    if outcome.run_id not in ours:
        raise _wrong_state(run, verb)
    return run


async def _running(service: Service, run_id: str, report: Report, verb: str) -> Run:
    run = await _read(service, run_id)
    if run.state is not RunState.RUNNING:
        raise _wrong_state(run, verb)
    if report.claim_number not in (None, run.claim_number):
        claims_differ = f"it is under claim {run.claim_number} now, not {report.claim_number}"
        raise RefusedError(409, f"run {run_id} cannot be {verb}: {claims_differ}")
    return run


async def _read(service: Service, run_id: str) -> Run:
    run = await runs.read(service.pool, run_id)
    if run is None:
        raise not_found("run", run_id)
    return run


def _wrong_state(run: Run, verb: str) -> RefusedError:
    ways = ", ".join(sorted(TRANSITIONS[run.state])) or "nothing, it has ended"
    return RefusedError(
        409, f"run {run.run_id} is {run.state} and cannot be {verb}; from {run.state} it can go to: {ways}"
    )
