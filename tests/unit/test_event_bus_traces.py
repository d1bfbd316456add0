"""Traces over several services: how they are put together from spans, and the checks of them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from testyard.core.errors import NotMetError, UserError
from testyard.event_bus.services import EventBus
from testyard.event_bus.traces import Trace, new_caller, only_trace, read_traces

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
OTHER_TRACE = "0af7651916cd43dd8448eb211c80319c"
SECOND = 1_000_000_000
MILLISECOND = 1_000_000
BEGAN = 1_700_000_000 * SECOND


def span_id(number: int) -> str:
    """The id of a span; they do not come in the order of time."""
    return f"{7 * number % 11:016x}"


def span(
    number: int, parent: int | None, service: str, name: str, at_and_took: tuple[float, float], **more: Any
) -> dict[str, Any]:
    """One span as a service tells it; times in milliseconds."""
    at_ms, took_ms = at_and_took
    start = BEGAN + round(at_ms * MILLISECOND)
    return {
        "trace_id": TRACE,
        "span_id": span_id(number),
        "parent_id": None if parent is None else span_id(parent),
        "name": name,
        "kind": "INTERNAL",
        "start_ns": start,
        "end_ns": start + round(took_ms * MILLISECOND),
        "service": service,
        "status": "UNSET",
        "status_message": None,
        "attributes": {},
        "links": [],
        "instance": f"{service}-1",
        "environment": "test",
    } | more


def workflow() -> list[dict[str, Any]]:
    """A workflow: it is stamped, its end is reduced and stored."""
    return [
        span(1, None, "orchestrator", "POST /workflows", (0, 2000), kind="SERVER"),
        span(2, 1, "orchestrator", "POST", (2, 6), kind="CLIENT"),
        span(3, 2, "metadata-stamping", "POST /stamp", (3, 4), kind="SERVER"),
        span(4, 1, "orchestrator", "send completed", (10, 2), kind="PRODUCER"),
        span(5, 4, "reducer", "process completed", (15, 5), kind="CONSUMER"),
        span(6, 4, "database-adapter", "process completed", (60, 1500), kind="CONSUMER"),
    ]


def without(*numbers: int) -> Trace:
    """The workflow's trace when some spans are missing."""
    return only_trace(it for it in workflow() if it["span_id"] not in map(span_id, numbers))


# ---- putting together


def test_a_trace_is_a_tree_whatever_the_order_of_its_spans() -> None:
    trace = only_trace(reversed(workflow()))
    assert trace.trace_id == TRACE
    assert [it.name for it in trace.spans] == [it["name"] for it in workflow()]
    assert [it.name for it in trace.roots()] == ["POST /workflows"]
    assert [it.name for it in trace.children(trace.roots()[0])] == ["POST", "send completed"]
    assert trace.children(trace.spans[-1]) == []
    assert trace.orphans() == []
    assert trace.services == ["orchestrator", "metadata-stamping", "reducer", "database-adapter"]
    assert trace.took == timedelta(seconds=2)


def test_spans_that_several_told_count_once() -> None:
    trace = only_trace(workflow() + workflow())
    assert len(trace.spans) == 6
    assert len(trace.hops()) == 3


def test_hops_lead_from_service_to_service_and_tell_how_long_the_way_took() -> None:
    hops = only_trace(workflow()).hops()
    assert [(it.cause.service, it.effect.service, it.took) for it in hops] == [
        ("orchestrator", "metadata-stamping", timedelta(milliseconds=1)),
        ("orchestrator", "reducer", timedelta(milliseconds=5)),
        ("orchestrator", "database-adapter", timedelta(milliseconds=50)),
    ]
    assert str(hops[0]) == "orchestrator -> metadata-stamping by 'POST /stamp' after 1 ms"
    assert hops[0].effect.took == timedelta(milliseconds=4)


def test_the_tree_is_for_people() -> None:
    assert only_trace(workflow()).tree().splitlines() == [
        f"trace {TRACE}, 6 spans, 2 s:",
        "  orchestrator: POST /workflows [SERVER] +0 ms, 2 s",
        "    orchestrator: POST [CLIENT] +2 ms, 6 ms",
        "      metadata-stamping: POST /stamp [SERVER] +3 ms, 4 ms",
        "    orchestrator: send completed [PRODUCER] +10 ms, 2 ms",
        "      reducer: process completed [CONSUMER] +15 ms, 5 ms",
        "      database-adapter: process completed [CONSUMER] +60 ms, 1.5 s",
    ]


def test_the_tree_shows_what_is_missing_and_what_has_failed() -> None:
    spans = workflow()
    spans[2]["status"] = "ERROR"
    assert only_trace(spans[2:]).tree().splitlines() == [
        f"trace {TRACE}, 4 spans, 1.56 s:",
        f"  (parent {span_id(2)} is missing) metadata-stamping: POST /stamp [SERVER] +0 ms, 4 ms ERROR",
        f"  (parent {span_id(1)} is missing) orchestrator: send completed [PRODUCER] +7 ms, 2 ms",
        "    reducer: process completed [CONSUMER] +12 ms, 5 ms",
        "    database-adapter: process completed [CONSUMER] +57 ms, 1.5 s",
    ]


def test_spans_that_caused_each_other_are_shown_once_each() -> None:
    circle = only_trace([span(1, 2, "a", "first", (0, 1)), span(2, 1, "b", "second", (1, 1))])
    assert len(circle.tree().splitlines()) == 3


def test_spans_are_sorted_by_their_traces() -> None:
    traces = read_traces([*workflow(), span(1, None, "reducer", "other", (-5, 1), trace_id=OTHER_TRACE)])
    assert list(traces) == [OTHER_TRACE, TRACE]
    assert [len(it.spans) for it in traces.values()] == [1, 6]
    assert read_traces([]) == {}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"trace_id": "12"}, "Not a span: trace_id: .*found '12'"),
        ({"span_id": TRACE}, "Not a span: span_id: "),
        ({"start_ns": "soon"}, "Not a span: start_ns: .*found 'soon'"),
        ({"service": None}, "Not a span: service: "),
    ],
)
def test_what_is_no_span_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_traces([*workflow(), span(7, 1, "reducer", "wrong", (5, 1)) | wrong])


def test_a_trace_has_spans_of_one_trace() -> None:
    mixed = [
        it
        for trace in read_traces([*workflow(), workflow()[0] | {"trace_id": OTHER_TRACE}]).values()
        for it in trace.spans
    ]
    with pytest.raises(UserError, match=f"found 2: {OTHER_TRACE}, {TRACE}"):
        Trace(mixed)
    with pytest.raises(UserError, match="found 0: no span"):
        Trace([])


# ---- checks


def test_spans_of_several_traces_are_not_one() -> None:
    spans = workflow()
    spans[4]["trace_id"] = OTHER_TRACE
    with pytest.raises(NotMetError, match=r"one trace, found 2\.") as failed:
        only_trace(spans)
    assert f"trace {TRACE}, 5 spans" in str(failed.value)
    assert f"trace {OTHER_TRACE}, 1 span," in str(failed.value)
    with pytest.raises(NotMetError, match=r"one trace, found 0\.$"):
        only_trace([])


def test_every_parent_is_known() -> None:
    only_trace(workflow()).parents_should_be_known()
    with pytest.raises(NotMetError) as failed:
        without(4).parents_should_be_known()
    first, *tree = str(failed.value).splitlines()
    assert first == (
        "No service has the parent of 2 spans: reducer: process completed, database-adapter: process completed."
    )
    assert tree == without(4).tree().splitlines()
    assert f"(parent {span_id(4)} is missing) reducer: process completed" in str(failed.value)


def test_a_trace_that_a_test_began_has_the_test_for_a_parent() -> None:
    caller = new_caller()
    assert caller.traceparent == f"00-{caller.trace_id}-{caller.span_id}-01"
    assert caller != new_caller()
    began = [it | {"trace_id": caller.trace_id} for it in workflow()]
    began[0]["parent_id"] = caller.span_id
    trace = read_traces(began)[caller.trace_id]
    trace.parents_should_be_known(caller)
    with pytest.raises(NotMetError, match="the parent of 1 span: orchestrator: POST /workflows"):
        trace.parents_should_be_known()
    with pytest.raises(NotMetError, match="the parent of 1 span: orchestrator: POST /workflows"):
        trace.parents_should_be_known(new_caller())
    began[1]["parent_id"] = caller.span_id
    with pytest.raises(NotMetError, match="one beginning, found 2"):
        only_trace(began).parents_should_be_known(caller)


def test_a_trace_begins_once() -> None:
    two = only_trace([*workflow(), span(9, None, "reducer", "else", (40, 1))])
    with pytest.raises(NotMetError, match="one beginning, found 2"):
        two.parents_should_be_known()
    circle = only_trace([span(1, 2, "a", "first", (0, 1)), span(2, 1, "b", "second", (1, 1))])
    with pytest.raises(NotMetError, match="one beginning, found 0"):
        circle.parents_should_be_known()


@pytest.mark.parametrize(
    "services",
    [
        ["orchestrator", "metadata-stamping", "reducer", "database-adapter"],
        ["orchestrator", "database-adapter"],
        ["metadata-stamping", "reducer"],
    ],
)
def test_services_are_visited_in_order(services: list[str]) -> None:
    only_trace(workflow()).services_should_be_visited(services)


@pytest.mark.parametrize(
    ("services", "why"),
    [
        (["orchestrator", "onextree", "reducer"], "never came to onextree"),
        (["reducer", "orchestrator"], "came to them as orchestrator, reducer"),
    ],
)
def test_services_that_were_not_visited_so_are_told(services: list[str], why: str) -> None:
    with pytest.raises(NotMetError, match=why) as failed:
        only_trace(workflow()).services_should_be_visited(services)
    assert "reducer: process completed [CONSUMER]" in str(failed.value)


def test_one_service_causes_work_of_another() -> None:
    trace = only_trace(workflow())
    assert trace.hop_should_exist("orchestrator", "reducer").effect.name == "process completed"
    assert trace.hop_should_exist("orchestrator", "metadata-stamping", "SERVER").took == timedelta(milliseconds=1)
    with pytest.raises(NotMetError, match=r"No hop leads from reducer to database-adapter\.\ntrace"):
        trace.hop_should_exist("reducer", "database-adapter")
    with pytest.raises(NotMetError, match="from orchestrator to reducer by a span of kind SERVER"):
        trace.hop_should_exist("orchestrator", "reducer", "SERVER")
    with pytest.raises(NotMetError, match="No hop leads from orchestrator to reducer"):
        without(4).hop_should_exist("orchestrator", "reducer")


def test_hops_take_at_most_so_long() -> None:
    trace = only_trace(workflow())
    trace.hops_should_take_at_most(timedelta(milliseconds=50))
    with pytest.raises(NotMetError) as failed:
        trace.hops_should_take_at_most(timedelta(milliseconds=49))
    assert str(failed.value).startswith(
        "1 of 3 hops took longer than 0.049 s: "
        "orchestrator -> database-adapter by 'process completed' after 50 ms.\ntrace"
    )
    with pytest.raises(NotMetError, match="stays in one"):
        only_trace(workflow()[:2]).hops_should_take_at_most(timedelta(seconds=1))


def test_nothing_has_failed() -> None:
    spans = workflow()
    only_trace(spans).nothing_should_have_failed()
    spans[4]["status"] = "ERROR"
    with pytest.raises(NotMetError, match="found 1 span: reducer: process completed"):
        only_trace(spans).nothing_should_have_failed()


class Telling(EventBus):
    """Services that tell of one more span whenever they are asked."""

    told: list[list[dict[str, Any]]]

    def spans_of(self, trace_id: str) -> list[dict[str, Any]]:
        """What they know by now."""
        return self.told.pop(0) if len(self.told) > 1 else self.told[0]


def telling(*told: list[dict[str, Any]]) -> Telling:
    """Services without addresses."""
    bus = Telling({})
    bus.told = list(told)
    return bus


def test_a_cause_that_has_not_ended_is_waited_for() -> None:
    caller = new_caller()
    beginning, *others = workflow()
    beginning |= {"parent_id": caller.span_id}
    bus = telling(others[-2:], others, others, [beginning, *others])
    trace = bus.wait_for_trace(caller, ["reducer", "database-adapter", "metadata-stamping"], timedelta(seconds=5))
    assert len(trace.spans) == len(workflow())


def test_a_cause_that_never_ends_is_missing_in_the_trace() -> None:
    bus = telling(workflow()[1:])
    trace = bus.wait_for_trace(new_caller(), ["reducer"], timedelta(milliseconds=50))
    assert len(trace.orphans()) == 2


def test_a_service_that_has_no_part_in_a_trace_is_told() -> None:
    bus = telling(workflow())
    with pytest.raises(NotMetError, match="to go through onextree"):
        bus.wait_for_trace(new_caller(), ["onextree"], timedelta(milliseconds=50))
