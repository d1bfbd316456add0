"""Doing the same many times, and how long each time took."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Generic, TypeVar

from testyard.core.errors import UserError

Given = TypeVar("Given")
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Timed(Generic[Answer]):
    """One call.

    Attributes:
        answer: What it returned.
        began_ns: When it began, in nanoseconds since 1970 on this machine's wall clock.
        took: How long it took.
        bare: How long the bare call right before it took; None: there was none.
    """

    answer: Answer
    began_ns: int
    took: timedelta
    bare: timedelta | None = None


def row_of(call: Timed[dict[str, Any]]) -> dict[str, Any]:
    """What a call answered, with ``began_ns``, ``took``, and ``bare`` where a bare call was made."""
    times = {"began_ns": call.began_ns, "took": call.took}
    return {**call.answer, **times, **({} if call.bare is None else {"bare": call.bare})}


def timed(act: Callable[[Given], Answer], given: Given) -> Timed[Answer]:
    """Call once."""
    began_ns, began = time.time_ns(), time.perf_counter()
    answer = act(given)
    return Timed(answer, began_ns, timedelta(seconds=time.perf_counter() - began))


def timed_each(
    act: Callable[[Given], Answer],
    given: Sequence[Given],
    *,
    concurrent: int = 1,
    bare: Callable[[], object] | None = None,
) -> list[Timed[Answer]]:
    """Call for each, so many at a time; the first exception ends it. No request of theirs gets a line in the log.

    Args:
        act: What is called.
        given: With what.
        concurrent: How many calls are under way at a time.
        bare: What is called right before each, for comparison: both then meet the same moments of the machine.

    Returns:
        The calls, in the order of what was given.

    Raises:
        UserError: ``concurrent`` is less than one.
    """

    def call(each: Given) -> Timed[Answer]:
        before = None if bare is None else timed(lambda _: bare(), each).took
        return replace(timed(act, each), bare=before)

    if concurrent < 1:
        message = f"At least one call must be under way, found concurrent={concurrent}."
        raise UserError(message)
    with requests_not_logged():
        if concurrent == 1:
            return [call(each) for each in given]
        with ThreadPoolExecutor(concurrent, thread_name_prefix="event bus") as pool:
            return list(pool.map(call, given))


@contextmanager
def requests_not_logged() -> Iterator[None]:
    """Meanwhile no request gets a line in the log: of hundreds of calls the keyword shows a table.

    Example:
        >>> with requests_not_logged():
        ...     pass
    """
    requests = logging.getLogger("httpx")
    before = requests.level
    requests.setLevel(logging.WARNING)
    try:
        yield
    finally:
        requests.setLevel(before)
