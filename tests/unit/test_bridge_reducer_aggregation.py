"""What the reducer makes of the events of a workflow, whatever order they come in."""

from itertools import permutations
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from orchestrator_support import NAMESPACE, STARTED_AT, Story, Told, execution
from testyard.lab.bridge.envelope import Envelope
from testyard.lab.bridge.events import StateTransition, WorkflowState
from testyard.lab.bridge.reducer.aggregation import (
    LONGEST_NAME,
    MOST_ITEMS,
    Execution,
    NotReducibleError,
    aggregate,
    execution_of,
)
from testyard.lab.bridge.topics import Route


def a_life_with_a_crash(story: Story) -> list[Told]:
    """A workflow that two processes have run, of which each has told an end."""
    return [
        story.start(),
        story.transition(),
        story.transition(instance="orchestrator-2"),
        story.end(after=0.025),
        story.end("metadata stamping timeout", after=7, instance="orchestrator-2"),
    ]


def row(known: Execution) -> dict[str, Any]:
    return {name: getattr(known, name) for name in Execution.__slots__}


def test_a_workflow_is_what_its_end_and_its_start_say_together():
    story = Story(items=3)
    (known,) = aggregate(map(execution, [story.start(), story.transition(), story.end()]))
    assert (known.workflow_id, known.correlation_id) == (story.workflow_id, story.correlation_id)
    assert (known.state, known.namespace, known.items) == (WorkflowState.COMPLETED, NAMESPACE, 3)
    assert (known.workflow_type, known.started_at) == ("metadata_stamping", STARTED_AT)
    assert (known.execution_time_ms, known.error_message) == (25, None)
    assert known.metadata == {
        "environment": "test",
        "items": 3,
        "instance": "orchestrator-1",
        "request": {"content": "# Readme", "file_path": "README.md", "namespace": NAMESPACE},
        "result": {"told_by": "orchestrator-1"},
        "ended_by": "orchestrator-1",
    }


def test_every_order_of_the_events_gives_the_same_workflow():
    events = [execution(told) for told in a_life_with_a_crash(Story())]
    (expected,) = aggregate(events)
    assert (expected.state, expected.metadata["ended_by"]) == (WorkflowState.COMPLETED, "orchestrator-1")
    for order in permutations(events):
        assert list(map(row, aggregate(order))) == [row(expected)]


@settings(deadline=None, database=None)
@given(st.data())
def test_it_does_not_matter_how_the_events_are_put_into_batches(data: st.DataObject):
    stories = [Story(), Story("other")]
    events = [execution(told) for story in stories for told in a_life_with_a_crash(story)]
    expected = {it.correlation_id: row(it) for it in aggregate(events)}
    order = data.draw(st.permutations(events))
    redelivered = data.draw(st.lists(st.sampled_from(events)))
    cut = data.draw(st.integers(0, len(order)))
    parts = [*aggregate(order[:cut]), *aggregate([*order[cut:], *redelivered])]
    assert {it.correlation_id: row(it) for it in aggregate(parts)} == expected


def test_the_first_of_two_ends_counts_and_a_completion_of_two_at_once():
    story = Story()
    late, early = execution(story.end(after=2)), execution(story.end("timeout", after=1))
    assert late.joined_with(early).state is early.joined_with(late).state is WorkflowState.FAILED
    at_once = execution(story.end("timeout", after=2))
    assert late.joined_with(at_once).state is at_once.joined_with(late).state is WorkflowState.COMPLETED


def test_a_transition_to_an_end_and_one_of_a_bridge_say_nothing():
    story = Story()
    assert execution_of(*story.transition(WorkflowState.COMPLETED)) is None
    assert execution_of(*story.transition(WorkflowState.FAILED)) is None
    bridge = StateTransition(entity_id="1", entity_type="bridge", to_state="ACTIVE", transition_event="new")
    assert execution_of(*story.told(Route.STATE_TRANSITION, bridge)) is None
    assert execution_of(Route.NODE_HEARTBEAT, story.start()[1]) is None


def with_payload(told: Told, **changes: Any) -> Told:
    route, envelope = told
    return route, envelope.model_copy(update={"payload": {**envelope.payload, **changes}})


STORY = Story()


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ((Route.WORKFLOW_STARTED, STORY.start()[1].model_copy(update={"correlation_id": None})), "correlation_id"),
        ((Route.WORKFLOW_COMPLETED, STORY.start()[1]), "completed_at"),
        (with_payload(STORY.start(), workflow_id="7"), "workflow_id"),
        (with_payload(STORY.start(), started_at="2024-11-04T09:30:00"), "timezone"),
        (with_payload(STORY.start(), namespace="n" * (LONGEST_NAME + 1)), "longer than 255"),
        (with_payload(STORY.start(), workflow_type="n" * (LONGEST_NAME + 1)), "longer than 255"),
        (with_payload(STORY.start(), items=MOST_ITEMS + 1), "2147483648 items"),
        (with_payload(STORY.end(), completed_at="2024-11-04T09:29:59Z"), "ended before it started"),
        (with_payload(STORY.end(), execution_time_ms=-1), "execution_time_ms"),
        (with_payload(STORY.transition(), to_state="PAUSED"), "PAUSED"),
        (with_payload(STORY.transition(), entity_id="workflow 7"), "hexadecimal"),
        (with_payload(STORY.transition(), transition_data={}), "workflow_type"),
        (STORY.transition(started_at=17.5e30), "started_at"),
        (STORY.transition(started_at=None), "started_at"),
        (STORY.transition(namespace={"a": 1}), "namespace"),
        (STORY.transition(items=None), "items"),
        (STORY.transition(items=-1), "-1 items"),
    ],
)
def test_what_cannot_be_kept_is_refused_with_its_reason(told: Told, reason: str):
    with pytest.raises(NotReducibleError, match=reason) as refusal:
        execution_of(*told)
    assert str(told[1].event_id) in str(refusal.value)


def test_a_name_may_be_as_long_as_an_index_takes():
    name = "n" * LONGEST_NAME
    assert execution(Story(name).start()).namespace == name


def test_no_envelope_makes_more_than_one_kind_of_trouble():
    envelope = Envelope(
        event_type="X", source_service="x", environment="test", correlation_id=uuid4(), payload={"to_state": []}
    )
    for route in Route:
        try:
            execution_of(route, envelope)
        except NotReducibleError:
            continue
