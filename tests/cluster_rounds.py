"""Seeded rounds of faults on a cluster with a writer running; the cluster may be of any kind."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from datetime import timedelta
from enum import StrEnum
from typing import NamedTuple, Protocol

from cluster_writer import Comparison, Writer

WITHIN = timedelta(seconds=30)


class Fault(StrEnum):
    """What is done to a node."""

    KILL = "kill -9"
    SHUT_DOWN = "orderly stop"
    CUT_OFF = "partition"
    DEAF = "partition of what it hears"
    MUTE = "partition of what it says"


class Round(NamedTuple):
    """One fault.

    Attributes:
        fault: What is done.
        to_primary: Whether the primary of that moment is the victim.
        other: Which of the others it is when not.
        writes_before: How many writes are acknowledged before it.
        writes_during: How many are while it lasts.
    """

    fault: Fault
    to_primary: bool
    other: int
    writes_before: int
    writes_during: int


class Nodes(Protocol):
    """A cluster of nodes whose database is used."""

    names: tuple[str, ...]

    def kill(self, name: str) -> None:
        """Kill all processes of a node."""

    def shut_down(self, name: str) -> None:
        """Shut a node down in an orderly way."""

    def boot(self, name: str) -> None:
        """Switch a node on."""

    def silence(self, name: str, *, hears: bool = False, is_heard: bool = False) -> None:
        """Cut a node off."""

    def heal(self) -> None:
        """End every partition."""

    def until_complete(self, within: timedelta = WITHIN) -> str:
        """Wait until all members follow a primary; gives its name."""


def rounds(seed: int, count: int) -> Iterator[Round]:
    """Rounds that a seed gives; every fault comes, and hits the primary in two of three cases."""
    chance = random.Random(seed)
    faults: list[Fault] = []
    for _ in range(count):
        if not faults:
            faults = chance.sample(list(Fault), k=len(Fault))
        fault = faults.pop()
        writes = chance.randint(1, 40), chance.randint(1, 40)
        yield Round(fault, chance.random() < 0.67, chance.randrange(100), *writes)


def run(nodes: Nodes, writer: Writer, planned: Iterable[Round], say: list[str]) -> list[Comparison]:
    """Do to the nodes what is planned; what is lost or unexpected after each round."""
    found = []
    for number, each in enumerate(planned, start=1):
        primary = nodes.until_complete()
        others = [name for name in nodes.names if name != primary]
        victim = primary if each.to_primary else others[each.other % len(others)]
        writer.until(each.writes_before, WITHIN)
        inflict(nodes, each.fault, victim)
        writer.until(each.writes_during, WITHIN)
        nodes.heal()
        if each.fault in {Fault.KILL, Fault.SHUT_DOWN}:
            nodes.boot(victim)
        new = nodes.until_complete()
        comparison = writer.compared()
        say.append(f"round {number}: {each.fault} of {victim}, primary {primary} -> {new}: {comparison}")
        found.append(comparison)
    return found


def inflict(nodes: Nodes, fault: Fault, victim: str) -> None:
    """Do one thing to one node."""
    match fault:
        case Fault.KILL:
            nodes.kill(victim)
        case Fault.SHUT_DOWN:
            nodes.shut_down(victim)
        case Fault.CUT_OFF:
            nodes.silence(victim)
        case Fault.DEAF:
            nodes.silence(victim, is_heard=True)
        case Fault.MUTE:
            nodes.silence(victim, hears=True)
