"""What calls are compared with meets the same moments of the machine, and what they answered keeps its times."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

import pytest
from testyard.core.errors import UserError
from testyard.event_bus.measuring import row_of, timed, timed_each


def double(number: int) -> dict[str, Any]:
    """An answer."""
    return {"doubled": number * 2}


@pytest.mark.parametrize("concurrent", [1, 2])
def test_answers_come_in_the_order_of_what_was_given(concurrent: int) -> None:
    calls = timed_each(double, range(20), concurrent=concurrent)
    assert [call.answer["doubled"] for call in calls] == list(range(0, 40, 2))
    assert all(call.took >= timedelta() and call.bare is None for call in calls)


def test_a_bare_call_is_made_right_before_each() -> None:
    made: list[str] = []
    calls = timed_each(lambda it: made.append(f"call {it}"), [1, 2, 3], bare=lambda: made.append("bare"))
    assert made == ["bare", "call 1", "bare", "call 2", "bare", "call 3"]
    assert all(call.bare is not None for call in calls)


def test_a_row_has_what_was_answered_and_the_times() -> None:
    row = row_of(timed(double, 4))
    assert set(row) == {"doubled", "began_ns", "took"}
    (call,) = timed_each(double, [4], bare=lambda: None)
    assert row_of(call)["bare"] == call.bare


def test_less_than_one_at_a_time_is_refused() -> None:
    with pytest.raises(UserError, match=r"At least one call must be under way, found concurrent=0\."):
        timed_each(double, [1], concurrent=0)


def test_many_calls_do_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    requests = logging.getLogger("httpx")

    def call(given: str) -> None:
        requests.info("request of %s", given)
        requests.warning("problem of %s", given)

    timed_each(call, ["a"])
    call("b")
    assert caplog.messages == ["problem of a", "request of b", "problem of b"]
    with pytest.raises(ZeroDivisionError):
        timed_each(lambda it: 1 // it, [0])
    call("c")
    assert caplog.messages[3:] == ["request of c", "problem of c"]
