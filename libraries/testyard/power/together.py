"""Doing the same to several nodes at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

from testyard.core.errors import UserError

Subject = TypeVar("Subject")
Outcome = TypeVar("Outcome")


def together(
    subjects: Sequence[Subject], do: Callable[[Subject], Outcome], abandoned: threading.Event
) -> list[Outcome]:
    """Do the same to several at once and wait for all of them, also when one of them fails.

    Args:
        subjects: To whom.
        do: What.
        abandoned: Set when the wait is interrupted, so that what still runs gives up too.

    Returns:
        What `do` returned, in the subjects' order.

    Raises:
        Exception: What `do` raised; of several, one error that says them all.
    """
    if len(subjects) == 1:
        return [do(subjects[0])]
    with ThreadPoolExecutor(len(subjects), thread_name_prefix="power") as pool:
        futures = [pool.submit(do, subject) for subject in subjects]
        try:
            wait(futures)
        except BaseException:
            abandoned.set()
            raise
    problems = [problem for problem in (future.exception() for future in futures) if problem is not None]
    if problems:
        raise _one_of(problems)
    return [future.result() for future in futures]


def _one_of(problems: Sequence[BaseException]) -> BaseException:
    unexpected = next((it for it in problems if not isinstance(it, (UserError, AssertionError))), None)
    if unexpected is not None or len(problems) == 1:
        return unexpected or problems[0]
    # What is not met counts more than what was refused: it is what the test is about.
    first = next((it for it in problems if isinstance(it, AssertionError)), problems[0])
    return type(first)("; ".join(dict.fromkeys(str(it) for it in problems)))
