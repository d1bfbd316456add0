"""What a defect is."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

# Tells the processes of the lab which defect to start with.
DEFECT_VARIABLE = "TESTYARD_DEFECT"


@dataclass(frozen=True)
class Defect:
    """One thing made wrong on purpose.

    Attributes:
        name: How the command line calls it.
        what: What is wrong, for people.
        turns_red: The scenarios that must fail; every other one must not.
        install: Puts the defect in place in this process.
        variables: What the suites need to run at all, such as ``LAB:servers``.
    """

    name: str
    what: str
    turns_red: frozenset[str]
    install: Callable[[], None]
    variables: tuple[str, ...] = ()


def defect(name: str, what: str, *turns_red: str) -> Callable[[Callable[[], None]], Defect]:
    """Make a defect of the decorated function, which puts it in place."""

    def decorate(install: Callable[[], None]) -> Defect:
        return Defect(name, what, frozenset(turns_red), install)

    return decorate


def wrap(owner: Any, name: str, around: Callable[..., Any]) -> None:
    """Replace a function of a module, or a method of a class, by ``around(original, *arguments)``."""
    original = getattr(owner, name)

    @functools.wraps(original)
    def wrapped(*arguments: Any, **options: Any) -> Any:
        return around(original, *arguments, **options)

    setattr(owner, name, wrapped)


def double_with_defect() -> None:
    """Start the lab's Waldurs through the module that breaks them; the defect's name is in the environment."""
    from testyard.lab import supervisor

    def start(original: Any, self: Any, *_: Any) -> None:
        original(self, "testyard.lab.sabotage.waldur")

    wrap(supervisor.Supervisor, "__init__", start)


def agent_backend() -> Any:
    """The agent's class that works on B."""
    from waldur_site_agent_waldur.backend import WaldurBackend

    return WaldurBackend
