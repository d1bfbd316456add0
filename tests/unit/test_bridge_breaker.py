"""The circuit breaker: when it opens, for how long, what closes it, and what counts for nothing any more."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime, timedelta, tzinfo

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, precondition, rule
from pydantic import ValidationError
from testyard.lab.bridge.breaker import (
    LAST_TRANSITIONS,
    TOTALS,
    BreakerSettings,
    BreakerState,
    CircuitBreaker,
    CircuitOpenError,
    Transition,
)

OPEN_FOR = timedelta(seconds=30)
JUST_BEFORE = OPEN_FOR - timedelta(milliseconds=1)


class Clock:
    """Monotonic seconds that a test moves; they do not begin at zero."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now

    def move(self, by: timedelta) -> None:
        self.now += by.total_seconds()


class TroubleError(Exception):
    """What the other side does wrong."""


class Call:
    """A call that ends when the test says so."""

    def __init__(self, breaker: CircuitBreaker, *harmless: type[Exception]) -> None:
        self._entered: AbstractContextManager[None] = breaker.call(*harmless)
        self._entered.__enter__()

    def succeed(self) -> None:
        self._entered.__exit__(None, None, None)

    def end(self, how: BaseException) -> None:
        assert not self._entered.__exit__(type(how), how, None)

    def fail(self) -> None:
        self.end(TroubleError("it broke"))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> CircuitBreaker:
    return CircuitBreaker("bus", BreakerSettings(failures=5, open_for=OPEN_FOR, successes=3, probes=3), clock)


def fail(breaker: CircuitBreaker, times: int = 1) -> None:
    for _ in range(times):
        Call(breaker).fail()


def succeed(breaker: CircuitBreaker, times: int = 1) -> None:
    for _ in range(times):
        Call(breaker).succeed()


def half_open(breaker: CircuitBreaker, clock: Clock) -> None:
    fail(breaker, breaker.settings.failures)
    clock.move(breaker.settings.open_for)
    assert breaker.state is BreakerState.HALF_OPEN


# ---- opening


def test_it_opens_with_the_fifth_failure_in_a_row(breaker):
    fail(breaker, 4)
    assert breaker.state is BreakerState.CLOSED
    fail(breaker)
    assert breaker.state is BreakerState.OPEN


def test_a_success_while_closed_zeroes_the_failures(breaker):
    fail(breaker, 4)
    succeed(breaker)
    assert breaker.metrics()["failure_count"] == 0
    fail(breaker, 4)
    assert breaker.state is BreakerState.CLOSED


def test_while_open_nothing_is_called_and_the_caller_is_told_when_to_come_back(breaker, clock):
    fail(breaker, 5)
    clock.move(timedelta(seconds=12))
    with pytest.raises(CircuitOpenError, match=r"bus is open for another 18 s") as caught, breaker.call():
        pytest.fail("it was called")
    assert caught.value.retry_after == timedelta(seconds=18)
    assert caught.value.breaker == "bus"


def test_opening_and_failing_fast_take_no_time():
    breaker = CircuitBreaker("bus", BreakerSettings())
    fail(breaker, 4)
    began = time.perf_counter()
    fail(breaker)
    assert breaker.state is BreakerState.OPEN
    assert time.perf_counter() - began < 0.1
    rejected = []
    for _ in range(200):
        began = time.perf_counter()
        with suppress(CircuitOpenError), breaker.call():
            pytest.fail("it was called")
        rejected.append(time.perf_counter() - began)
    assert sorted(rejected)[190] < 0.01


def test_it_stays_open_for_exactly_its_time(breaker, clock):
    fail(breaker, 5)
    clock.move(JUST_BEFORE)
    assert breaker.state is BreakerState.OPEN
    clock.move(OPEN_FOR - JUST_BEFORE)
    assert breaker.state is BreakerState.HALF_OPEN


def test_the_wall_clock_changes_nothing(monkeypatch):
    class Tomorrow(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:
            return datetime.now(tz) + timedelta(days=1)

    breaker = CircuitBreaker("bus", BreakerSettings())
    fail(breaker, 5)
    tomorrow = time.time() + timedelta(days=1).total_seconds()
    with monkeypatch.context() as patched:
        patched.setattr(time, "time", lambda: tomorrow)
        patched.setattr("testyard.lab.bridge.breaker.datetime", Tomorrow)
        assert breaker.state is BreakerState.OPEN


# ---- half open


def test_it_closes_with_the_third_successful_probe(breaker, clock):
    half_open(breaker, clock)
    succeed(breaker, 2)
    assert breaker.state is BreakerState.HALF_OPEN
    succeed(breaker)
    assert breaker.state is BreakerState.CLOSED
    assert breaker.metrics()["failure_count"] == 0


def test_one_failed_probe_opens_it_again_for_the_whole_time(breaker, clock):
    half_open(breaker, clock)
    succeed(breaker, 2)
    fail(breaker)
    assert breaker.state is BreakerState.OPEN
    clock.move(JUST_BEFORE)
    assert breaker.state is BreakerState.OPEN
    clock.move(OPEN_FOR - JUST_BEFORE)
    succeed(breaker, 2)
    assert breaker.state is BreakerState.HALF_OPEN, "successes before it opened again do not count"


def test_so_many_probes_at_a_time_and_no_more(breaker, clock):
    half_open(breaker, clock)
    probes = [Call(breaker) for _ in range(3)]
    with pytest.raises(CircuitOpenError, match="half open") as caught:
        Call(breaker)
    assert caught.value.retry_after == timedelta(0)
    assert breaker.metrics()["half_open_calls"] == 3
    probes.pop().succeed()
    Call(breaker).succeed()


def test_a_cancelled_probe_counts_for_nothing_and_makes_room_for_another(breaker, clock):
    half_open(breaker, clock)
    for probe in [Call(breaker) for _ in range(3)]:
        probe.end(asyncio.CancelledError())
    assert breaker.state is BreakerState.HALF_OPEN
    assert breaker.metrics()["half_open_calls"] == 0
    assert breaker.metrics()["totals"]["cancelled"] == 3
    succeed(breaker, 3)
    assert breaker.state is BreakerState.CLOSED


def test_cancellations_open_nothing(breaker):
    for _ in range(10):
        Call(breaker).end(asyncio.CancelledError())
    assert breaker.state is BreakerState.CLOSED
    assert breaker.metrics()["failure_count"] == 0


def test_probes_that_outlive_the_closing_count_for_nothing(breaker, clock):
    breaker.settings = breaker.settings.model_copy(update={"successes": 1})
    half_open(breaker, clock)
    first, second, third = (Call(breaker) for _ in range(3))
    first.succeed()
    assert breaker.state is BreakerState.CLOSED
    second.fail()
    third.fail()
    assert breaker.metrics()["failure_count"] == 0
    assert breaker.metrics()["totals"]["late"] == 2


# ---- what comes late


@pytest.mark.parametrize("state", [BreakerState.OPEN, BreakerState.HALF_OPEN])
def test_a_late_success_does_not_close_it(breaker, clock, state):
    late = [Call(breaker) for _ in range(3)]
    fail(breaker, 5)
    if state is BreakerState.HALF_OPEN:
        clock.move(OPEN_FOR)
    assert breaker.state is state
    for call in late:
        call.succeed()
    assert breaker.state is state
    assert breaker.metrics()["success_count"] == 0
    assert breaker.metrics()["totals"]["late"] == 3


def test_a_late_failure_keeps_it_open_no_longer(breaker, clock):
    late = Call(breaker)
    fail(breaker, 5)
    clock.move(JUST_BEFORE)
    late.fail()
    clock.move(OPEN_FOR - JUST_BEFORE)
    assert breaker.state is BreakerState.HALF_OPEN


def test_a_late_failure_does_not_open_it_again(breaker, clock):
    late = Call(breaker)
    half_open(breaker, clock)
    late.fail()
    assert breaker.state is BreakerState.HALF_OPEN
    succeed(breaker, 3)
    assert breaker.state is BreakerState.CLOSED


@pytest.mark.parametrize("end", [Call.succeed, Call.fail])
def test_a_late_result_takes_no_probe_away(breaker, clock, end: Callable[[Call], None]):
    late = Call(breaker)
    half_open(breaker, clock)
    probes = [Call(breaker) for _ in range(3)]
    end(late)
    assert breaker.metrics()["half_open_calls"] == 3
    with pytest.raises(CircuitOpenError):
        Call(breaker)
    for probe in probes:
        probe.succeed()


def test_a_success_after_a_whole_outage_does_not_hide_new_failures(breaker, clock):
    late = Call(breaker)
    half_open(breaker, clock)
    succeed(breaker, 3)
    fail(breaker, 4)
    late.succeed()
    fail(breaker)
    assert breaker.state is BreakerState.OPEN


# ---- everything else


def test_an_error_that_says_that_the_other_side_works_is_a_success(breaker):
    fail(breaker, 4)
    Call(breaker, KeyError).end(KeyError("not there"))
    assert breaker.metrics()["failure_count"] == 0
    assert breaker.metrics()["totals"]["successes"] == 1


def test_an_operator_can_close_it(breaker, clock):
    fail(breaker, 4)
    breaker.reset()
    assert breaker.metrics()["failure_count"] == 0
    fail(breaker, 5)
    breaker.reset()
    assert breaker.state is BreakerState.CLOSED
    fail(breaker, 4)
    assert breaker.state is BreakerState.CLOSED


def test_every_change_is_told_and_the_last_ones_are_remembered(breaker, clock):
    told: list[Transition] = []
    breaker.when_it_changes(told.append)
    half_open(breaker, clock)
    succeed(breaker, 3)
    assert [(it.source, it.target) for it in told] == [
        (BreakerState.CLOSED, BreakerState.OPEN),
        (BreakerState.OPEN, BreakerState.HALF_OPEN),
        (BreakerState.HALF_OPEN, BreakerState.CLOSED),
    ]
    assert told == breaker.transitions
    assert "5 failures in a row" in told[0].reason
    assert "TroubleError: it broke" in told[0].reason
    for _ in range(LAST_TRANSITIONS):
        fail(breaker, 5)
        breaker.reset()
    assert len(breaker.transitions) == LAST_TRANSITIONS
    assert breaker.metrics()["totals"]["transitions"] == 3 + 2 * LAST_TRANSITIONS


def test_the_metrics_tell_everything_in_plain_json(breaker, clock):
    assert set(breaker.metrics()["totals"]) == set(TOTALS)
    fail(breaker, 5)
    clock.move(timedelta(seconds=10))
    with suppress(CircuitOpenError):
        Call(breaker)
    metrics = breaker.metrics()
    assert metrics["state"] == "open"
    assert metrics["failure_count"] == 5
    assert metrics["retry_after_seconds"] == 20
    assert metrics["totals"] == dict.fromkeys(TOTALS, 0) | {
        "calls": 6,
        "failures": 5,
        "rejected": 1,
        "transitions": 1,
    }
    assert datetime.now(UTC) - datetime.fromisoformat(metrics["last_failure_time"]) < timedelta(minutes=1)
    assert metrics["last_success_time"] is None
    (transition,) = metrics["transitions"]
    assert (transition["from"], transition["to"]) == ("closed", "open")
    assert json.loads(json.dumps(metrics)) == metrics
    assert metrics["configuration"] == {"failures": 5, "open_for_seconds": 30, "successes": 3, "probes": 3}


@pytest.mark.parametrize(
    "wrong",
    [{"failures": 0}, {"failures": -1}, {"successes": 0}, {"probes": 0}, {"open_for": 0}, {"open_for": -1}],
    ids=str,
)
def test_thresholds_of_zero_or_less_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))) as caught:
        BreakerSettings(**wrong)
    assert isinstance(caught.value, ValidationError)


@pytest.mark.anyio
async def test_a_time_limit_within_a_call_is_a_failure_and_one_around_it_is_none(breaker):
    with suppress(TimeoutError), breaker.call():
        async with asyncio.timeout(0):
            await asyncio.Event().wait()
    assert breaker.metrics()["failure_count"] == 1
    with suppress(TimeoutError):
        async with asyncio.timeout(0):
            with breaker.call():
                await asyncio.Event().wait()
    assert breaker.metrics()["failure_count"] == 1
    assert breaker.metrics()["totals"]["cancelled"] == 1


@pytest.mark.anyio
async def test_of_many_that_come_at_once_only_the_probes_get_through(breaker, clock):
    half_open(breaker, clock)
    answer = asyncio.Event()
    called = 0

    async def call() -> bool:
        nonlocal called
        with suppress(CircuitOpenError), breaker.call():
            called += 1
            await answer.wait()
            return True
        return False

    calls = [asyncio.create_task(call()) for _ in range(100)]
    while not all(it.done() for it in calls[3:]):
        await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
    assert called == 3
    answer.set()
    assert sum(await asyncio.gather(*calls)) == 3
    assert breaker.state is BreakerState.CLOSED


# ---- against a model


class Model(RuleBasedStateMachine):
    """The breaker against its description, in any order of calls, results, cancellations and time."""

    calls: Bundle[tuple[Call, int]] = Bundle("calls")

    @initialize(failures=st.integers(1, 4), successes=st.integers(1, 4), probes=st.integers(1, 4))
    def begin(self, failures: int, successes: int, probes: int) -> None:
        self.clock = Clock()
        self.limits = BreakerSettings(failures=failures, open_for=OPEN_FOR, successes=successes, probes=probes)
        self.breaker = CircuitBreaker("bus", self.limits, self.clock)
        self.state = BreakerState.CLOSED
        self.period = self.failures = self.successes = self.probing = 0
        self.opened_at = 0.0

    def turn(self, state: BreakerState) -> None:
        self.state = state
        self.period += 1
        self.failures = self.successes = self.probing = 0
        self.opened_at = self.clock.now

    @rule(milliseconds=st.sampled_from([1, 10_000, 29_999, 30_000]))
    def time_passes(self, milliseconds: int) -> None:
        self.clock.move(timedelta(milliseconds=milliseconds))
        if self.state is BreakerState.OPEN and self.clock.now - self.opened_at >= OPEN_FOR.total_seconds() - 1e-6:
            self.turn(BreakerState.HALF_OPEN)

    @precondition(lambda self: self.state is BreakerState.CLOSED or self.has_room())
    @rule(target=calls)
    def call_is_let_through(self) -> tuple[Call, int]:
        self.probing += self.state is BreakerState.HALF_OPEN
        return Call(self.breaker), self.period

    def has_room(self) -> bool:
        return self.state is BreakerState.HALF_OPEN and self.probing < self.limits.probes

    @precondition(lambda self: self.state is not BreakerState.CLOSED and not self.has_room())
    @rule()
    def call_is_rejected(self) -> None:
        with pytest.raises(CircuitOpenError):
            Call(self.breaker)

    @contextmanager
    def ended(self, period: int) -> Iterator[bool]:
        counts = period == self.period
        if counts and self.state is BreakerState.HALF_OPEN:
            self.probing -= 1
        yield counts

    @rule(call=consumes(calls))
    def call_succeeds(self, call: tuple[Call, int]) -> None:
        call[0].succeed()
        with self.ended(call[1]) as counts:
            if counts and self.state is BreakerState.HALF_OPEN:
                self.successes += 1
                if self.successes == self.limits.successes:
                    self.turn(BreakerState.CLOSED)
            elif counts:
                self.failures = 0

    @rule(call=consumes(calls))
    def call_fails(self, call: tuple[Call, int]) -> None:
        call[0].fail()
        with self.ended(call[1]) as counts:
            self.failures += counts
            threshold = 1 if self.state is BreakerState.HALF_OPEN else self.limits.failures
            if counts and self.failures >= threshold:
                self.turn(BreakerState.OPEN)

    @rule(call=consumes(calls))
    def call_is_cancelled(self, call: tuple[Call, int]) -> None:
        call[0].end(asyncio.CancelledError())
        with self.ended(call[1]):
            pass

    @rule()
    def operator_resets(self) -> None:
        self.breaker.reset()
        if self.state is BreakerState.CLOSED:
            self.failures = 0
        else:
            self.turn(BreakerState.CLOSED)

    @invariant()
    def they_agree(self) -> None:
        metrics = self.breaker.metrics()
        assert metrics["state"] == self.state.value
        assert metrics["half_open_calls"] == self.probing
        assert metrics["success_count"] == self.successes
        if self.state is BreakerState.CLOSED:
            assert metrics["failure_count"] == self.failures
        totals = metrics["totals"]
        assert totals["late"] <= totals["successes"] + totals["failures"]


Model.TestCase.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
test_it_does_what_its_description_says = Model.TestCase
