"""A workflow's states, its time and its request, without any service."""

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any
from uuid import uuid4

import pytest
from bridge_support import until
from pydantic import ValidationError
from testyard.lab.bridge.events import WorkflowState
from testyard.lab.bridge.orchestrator.time_limit import time_limit
from testyard.lab.bridge.orchestrator.workflow import (
    LARGEST_CONTENT,
    LONGEST_ERROR,
    LONGEST_NAMESPACE,
    StateError,
    Workflow,
    WorkflowRequest,
)
from testyard.lab.waiting import elapse

REQUEST = WorkflowRequest(content="# Readme", file_path="README.md")
LEGAL = {
    (WorkflowState.PENDING, WorkflowState.PROCESSING),
    (WorkflowState.PROCESSING, WorkflowState.COMPLETED),
    (WorkflowState.PROCESSING, WorkflowState.FAILED),
}


@pytest.mark.parametrize(("before", "after"), list(product(WorkflowState, WorkflowState)))
def test_there_are_three_ways_and_no_other(before: WorkflowState, after: WorkflowState):
    workflow = Workflow(REQUEST, state=before)
    if (before, after) in LEGAL:
        assert workflow.become(after) is before
        assert workflow.state is after
        return
    with pytest.raises(StateError, match=f"STATE_ERROR: .* from {before.value} to {after.value}"):
        workflow.become(after)
    assert workflow.state is before


def test_a_workflow_that_ends_knows_when_and_how_long_it_took():
    workflow = Workflow(REQUEST)
    workflow.become(WorkflowState.PROCESSING)
    assert (workflow.completed_at, workflow.has_ended) == (None, False)
    workflow.become(WorkflowState.FAILED)
    took = workflow.execution_time_ms
    assert workflow.has_ended
    assert workflow.completed_at == workflow.started_at + timedelta(milliseconds=took)
    assert workflow.execution_time_ms == took, "the clock stands still"


def test_a_resumed_workflow_has_begun_when_it_was_taken_on():
    workflow = Workflow(REQUEST, uuid4(), datetime.now(UTC) - timedelta(seconds=90))
    assert 90_000 <= workflow.execution_time_ms < 95_000


def test_a_clock_that_was_set_back_makes_no_negative_time():
    workflow = Workflow(REQUEST, uuid4(), datetime.now(UTC) + timedelta(hours=1))
    workflow.become(WorkflowState.PROCESSING)
    workflow.become(WorkflowState.COMPLETED)
    assert 0 <= workflow.execution_time_ms < 5_000
    assert workflow.completed_at is not None
    assert workflow.completed_at >= workflow.started_at


def test_the_ids_of_its_events_follow_from_the_workflow():
    correlation_id = uuid4()
    one, again, other = (Workflow(REQUEST, it) for it in (correlation_id, correlation_id, uuid4()))
    assert one.workflow_id == again.workflow_id != other.workflow_id
    assert one.event_id("started") == again.event_id("started") != other.event_id("started")
    assert one.event_id("started") != one.event_id("ended")


def test_no_two_workflows_share_what_has_come_of_them():
    one, other = Workflow(REQUEST), Workflow(REQUEST)
    one.fall_back("somehow")
    assert one.answer()["fallback_used"]
    assert one.answer()["fallbacks"] == ["somehow"]
    assert not other.answer()["fallback_used"]
    assert other.answer()["fallbacks"] == []


def test_a_reason_without_end_is_cut():
    workflow = Workflow(REQUEST)
    workflow.fail("x" * (LONGEST_ERROR + 1))
    assert workflow.error == "x" * (LONGEST_ERROR - 1) + "…"


def test_a_result_cannot_hide_how_the_workflow_is():
    workflow = Workflow(REQUEST, result={"state": "COMPLETED", "workflow_id": "another"})
    assert workflow.answer()["state"] == "PENDING"
    assert workflow.answer()["workflow_id"] == str(workflow.workflow_id)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"content": "a\0b"}, "NUL"),
        ({"content": "\ud800"}, "surrogate"),
        ({"content": "x" * (LARGEST_CONTENT + 1)}, "at most"),
        ({"file_path": "a\0b"}, "NUL"),
        ({"namespace": ""}, "at least"),
        ({"namespace": "n" * (LONGEST_NAMESPACE + 1)}, "at most"),
        ({"metadata": {"a": ["\0"]}}, "NUL"),
        ({"metadata": {"\ud800": 1}}, "surrogate|valid string"),
        ({"metadata": {"a": float("inf")}}, "finite"),
        ({"correlation_id": "7"}, "UUID"),
        ({"priority": 1}, "Extra inputs"),
    ],
)
def test_what_could_not_be_kept_is_refused_at_the_door(given: dict[str, Any], reason: str):
    with pytest.raises(ValidationError, match=reason):
        WorkflowRequest.model_validate({"content": "# Readme", "file_path": "README.md", **given})


@pytest.mark.anyio
async def test_a_time_limit_warns_then_is_over_then_ends():
    said: list[str] = []

    async def take_too_long() -> None:
        async with time_limit(
            timedelta(milliseconds=200), timedelta(milliseconds=100), lambda: said.append("warned")
        ) as limit:
            asyncio.get_running_loop().call_at(limit.ends_at, said.append, "over")
            await until(lambda: limit.is_over, "the time is over")
            said.append("only the grace is left")
            await elapse(timedelta(seconds=20))

    with pytest.raises(TimeoutError):
        await take_too_long()
    assert said == ["warned", "over", "only the grace is left"]


@pytest.mark.anyio
async def test_a_time_limit_is_not_over_at_its_beginning():
    async with time_limit(timedelta(minutes=1), timedelta(0), lambda: None) as limit:
        assert not limit.is_over


@pytest.mark.anyio
async def test_a_time_limit_that_is_kept_does_not_warn():
    warned = []
    async with time_limit(timedelta(milliseconds=50), timedelta(0), lambda: warned.append(True)):
        pass
    await elapse(timedelta(milliseconds=60))
    assert warned == []
