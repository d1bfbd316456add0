"""What a killed run left on the user's own systems, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Leftover:
    """Something that a run left behind.

    Attributes:
        name: Its name, marked by the run's id.
        outcome: What became of it, for people.
        ended: Whether it is terminated or deleted now.
    """

    name: str
    outcome: str
    ended: bool
