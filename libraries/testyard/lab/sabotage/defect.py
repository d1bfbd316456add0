"""What a defect is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Defect:
    """One thing made wrong on purpose.

    Attributes:
        name: How the command line calls it.
        what: What is wrong, for people.
        turns_red: The scenarios that must fail; every other one must not.
        install: Puts the defect in place in this process.
    """

    name: str
    what: str
    turns_red: frozenset[str]
    install: Callable[[], None]


def defect(name: str, what: str, *turns_red: str) -> Callable[[Callable[[], None]], Defect]:
    """Make a defect of the decorated function, which puts it in place."""

    def decorate(install: Callable[[], None]) -> Defect:
        return Defect(name, what, frozenset(turns_red), install)

    return decorate
