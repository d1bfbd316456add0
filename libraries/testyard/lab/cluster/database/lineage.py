"""Where a member's write-ahead log (WAL) comes from: positions, promotions, and whose log is a part of whose.

PostgreSQL's timeline ids are numbered by each server for itself: two servers that are promoted from timeline 1
both begin a timeline 2, and neither streaming nor ``pg_rewind`` notices ("source and target cluster are on the
same timeline"). So every promotion is remembered with the term of its election, which is used only once.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import NamedTuple, TypeAlias

UNKNOWN_TIMELINE = 0


class Promotion(NamedTuple):
    """The beginning of a primary's reign.

    Attributes:
        term: Of the election.
        timeline: The id that PostgreSQL gave the timeline; ``UNKNOWN_TIMELINE`` until it has.
        position: Where in the WAL the timeline begins.
    """

    term: int
    timeline: int
    position: int


Lineage: TypeAlias = tuple[Promotion, ...]

# A new cluster, before anybody was promoted.
ORIGIN: Lineage = (Promotion(term=0, timeline=1, position=0),)


class Kinship(Enum):
    """How a member can follow a primary."""

    STREAM = "stream"
    REWIND = "rewind"
    COPY = "copy"


def parse_position(text: str) -> int:
    """The number of bytes that a ``pg_lsn`` such as ``0/3000148`` stands for (PostgreSQL manual, 8.20)."""
    high, low = text.split("/")
    return (int(high, 16) << 32) | int(low, 16)


def held(lineage: Iterable[Promotion], position: int) -> Lineage:
    """The promotions that a WAL which ends at this position really has something of."""
    return tuple(each for each in lineage if each.position < position)


def resolved(lineage: Lineage, timelines: Iterable[int]) -> Lineage:
    """The promotions with nothing open about the last one, which may have been interrupted.

    Args:
        lineage: The member's promotions.
        timelines: Those whose history files the stopped server has. When it was promoted, it had none of a later
            timeline than its own.

    Returns:
        With the last promotion's timeline, or without that promotion when it did not happen: PostgreSQL writes
        the history file before any WAL of the new timeline (``StartupXLOG`` in xlog.c).

    Example:
        >>> resolved((Promotion(0, 1, 0), Promotion(4, UNKNOWN_TIMELINE, 900)), [2])[-1]
        Promotion(term=4, timeline=2, position=900)
    """
    *earlier, last = lineage
    if last.timeline != UNKNOWN_TIMELINE:
        return lineage
    begun = [each for each in timelines if each > earlier[-1].timeline]
    return (*earlier, last._replace(timeline=min(begun))) if begun else tuple(earlier)


def rank(lineage: Iterable[Promotion], position: int) -> tuple[int, int]:
    """What to compare members by: the term that the end of the WAL comes from, then how far it goes."""
    terms = [each.term for each in held(lineage, position)]
    return (max(terms, default=0), position)


def kinship(own: Lineage, position: int, primary: Lineage, oldest: int = 0) -> Kinship:
    """How a member can follow a primary.

    Args:
        own: The member's promotions.
        position: Where its WAL ends.
        primary: The primary's promotions.
        oldest: Where the WAL begins that the primary still has.

    Returns:
        ``STREAM`` when the member's WAL is the beginning of the primary's; ``REWIND`` when it has parted from it;
        ``COPY`` when that cannot be told by timeline ids, or the WAL in between is gone.
    """
    mine = held(own, position)
    common = 0
    while common < min(len(mine), len(primary)) and mine[common] == primary[common]:
        common += 1
    parted_at = primary[common].position if common < len(primary) else position
    if common == len(mine) and position <= parted_at:
        return Kinship.STREAM if position >= oldest else Kinship.COPY
    others = {each.timeline for each in primary[common:]} | {UNKNOWN_TIMELINE}
    ambiguous = common == 0 or any(each.timeline in others for each in mine[common:])
    return Kinship.COPY if ambiguous else Kinship.REWIND
