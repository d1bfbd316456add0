"""Getters that check what they read, and wait until it is right."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from assertionengine import AssertionOperator
from KafkaLibrary.checking import AT_ONCE, Check
from testyard.core.errors import NotMetError, UserError
from testyard.kafka.problems import NoAnswerError

EQUAL = AssertionOperator["=="]
LONG = timedelta(seconds=20)


def one_after_the_other(*outcomes: Any) -> Callable[[], Any]:
    """Reads one value after the other, the last again and again; raises those that are errors."""
    remaining: Iterator[Any] = iter(outcomes)
    last: list[Any] = []

    def read() -> Any:
        last[:] = [next(remaining, last[0] if last else None)]
        if isinstance(last[0], Exception):
            raise last[0]
        return last[0]

    return read


def test_a_value_without_an_operator_is_only_read() -> None:
    assert Check(None, None, None, AT_ONCE).until_right(lambda: 5, "The lag") == 5


@pytest.mark.parametrize(
    ("operator", "expected", "value"),
    [
        ("==", "5", 5),
        (">=", "4", 5),
        ("<", 6, 5),
        ("==", "none", None),
        ("!=", "None", 5),
        ("==", "STABLE", "STABLE"),
    ],
)
def test_a_value_that_is_right_is_returned(operator: str, expected: Any, value: Any) -> None:
    check = Check(AssertionOperator[operator], expected, None, AT_ONCE)
    assert check.until_right(lambda: value, "The lag") == value


def test_a_value_may_take_its_time() -> None:
    read = one_after_the_other(7, NoAnswerError("nobody answers"), 3, 0)
    assert Check(EQUAL, "0", None, LONG).until_right(read, "The lag") == 0


def test_a_value_that_stays_wrong_is_told_with_how_often_and_how_long() -> None:
    check = Check(EQUAL, "0", None, timedelta(milliseconds=200))
    with pytest.raises(NotMetError, match=r"The lag '7' .* should be '0' .* \(tried \d+ times in .* s\)"):
        check.until_right(one_after_the_other(7), "The lag")


def test_without_retry_it_is_read_once() -> None:
    read = one_after_the_other(7, 0)
    with pytest.raises(NotMetError, match=r"^The lag '7' \(int\) should be '0' \(int\)$"):
        Check(EQUAL, "0", None, AT_ONCE).until_right(read, "The lag")


def test_brokers_that_stay_away_are_told_as_such() -> None:
    read = one_after_the_other(NoAnswerError("nobody answers"))
    with pytest.raises(NoAnswerError, match=r"nobody answers \(tried \d+ times"):
        Check(EQUAL, "0", None, timedelta(milliseconds=200)).until_right(read, "The lag")


def test_what_time_does_not_heal_is_not_retried() -> None:
    read = one_after_the_other(UserError("no such topic"), 0)
    with pytest.raises(UserError, match=r"^no such topic$"):
        Check(EQUAL, "0", None, LONG).until_right(read, "The lag")


def test_a_message_of_the_tests_own_is_said() -> None:
    check = Check(EQUAL, "0", "{value} are left", AT_ONCE)
    with pytest.raises(NotMetError, match=r"^7 are left$"):
        check.until_right(lambda: 7, "The lag")


def test_mistakes_are_told() -> None:
    with pytest.raises(UserError, match="An expected value needs an operator before it"):
        Check(None, "0", None, AT_ONCE)
    with pytest.raises(UserError, match="The lag is a whole number, or none: it cannot be compared with 'much'"):
        Check(EQUAL, "much", None, LONG).until_right(lambda: 7, "The lag")
    with pytest.raises(NotMetError, match="The lag is None, which cannot be compared with 0 by >="):
        Check(AssertionOperator[">="], "0", None, AT_ONCE).until_right(lambda: None, "The lag")
