"""Who is elected: pure decisions, apart from how the members are reached."""

from __future__ import annotations

from collections.abc import Sequence

from testyard.lab.cluster.database.lineage import rank
from testyard.lab.cluster.database.plan import Fenced


def majority_of(members: int) -> int:
    """The least number of members such that any two groups of it have one in common.

    Example:
        >>> [majority_of(members) for members in (1, 2, 3, 4, 5)]
        [1, 2, 2, 3, 3]
    """
    return members // 2 + 1


def chosen(fenced: Sequence[Fenced], members: int, *, without: str | None = None) -> str | None:
    """The member to promote: the one whose WAL is of the latest term, and of those the one that goes farthest.

    Args:
        fenced: Those that receive nothing more, and how far each has come.
        members: How many members the cluster has.
        without: One that is not wanted, unless the others are no majority.

    Returns:
        Its name, the first one when several are equal; None when they are no majority.
    """
    ready = sorted((each for each in fenced if each.position is not None), key=lambda each: each.name)
    others = [each for each in ready if each.name != without]
    candidates = others if len(others) >= majority_of(members) else ready
    if len(candidates) < majority_of(members):
        return None
    return max(candidates, key=lambda each: rank(each.lineage, each.position or 0)).name
