"""What happened to events, one by one, as any library saw it: what a ledger is made of.

A library that sends events tells what it attempted and what came of it; one that captures them tells what it
received; one that reads tables tells what is stored. All of them tell it in this form, in one clock: the wall
clock of this machine in nanoseconds since 1970, which other processes on it (a database, a broker) share.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """What can happen to an event."""

    ATTEMPTED = "attempted"
    ACKNOWLEDGED = "acknowledged"
    REFUSED = "refused"
    INDETERMINATE = "indeterminate"
    RECEIVED = "received"
    STORED = "stored"


@dataclass(frozen=True, slots=True)
class Happening:
    """One thing that happened to one event.

    Attributes:
        kind: What happened.
        event: The event's id.
        at_ns: When, in nanoseconds since 1970 on this machine's wall clock.
        key: What its order is kept by; None when its order does not matter.
        place: Where: a topic and partition, a table, a path.
        position: Its place in the order of its key there, such as an offset; None when there is no such order.
    """

    kind: Kind
    event: str
    at_ns: int
    key: str | None = None
    place: str = ""
    position: int | None = None
