"""How many events arrive in a second."""

from __future__ import annotations

from typing import Final

from testyard.core.errors import UserError
from testyard.core.history import Kind
from testyard.ledger.ledger import Ledger
from testyard.ledger.moments import NEVER

SECOND_NS: Final = 10**9


def throughput(ledger: Ledger, end: Kind = Kind.STORED, place: str | None = None) -> float:
    """Events per second between the first and the last moment in which any arrived.

    Those of the first moment are not counted: they arrived in the time before it. So a batch that is stored at
    once does not make a short time look busy.

    Args:
        ledger: What happened.
        end: What arriving means; each event counts once.
        place: Only in places that match this pattern.

    Raises:
        UserError: They arrived in less than two moments, so there is no time between.
    """
    moments = [at_ns for at_ns in ledger.first_moments(end, place) if at_ns != NEVER]
    first, last = min(moments, default=0), max(moments, default=0)
    if first == last:
        message = (
            f"There is no throughput of {len(moments)} events {end.value} in "
            f"{'one moment' if moments else 'no time'}: it needs at least two moments."
        )
        raise UserError(message)
    return (len(moments) - moments.count(first)) * SECOND_NS / (last - first)
