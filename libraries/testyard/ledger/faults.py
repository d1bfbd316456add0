"""When something was broken, and what that makes of a moment: before, during or after it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial

from testyard.core.errors import UserError
from testyard.ledger.moments import NEVER, clock_time


class Phase(Enum):
    """When something happened, as seen from the faults."""

    BEFORE = "before"
    FAULT = "fault"
    AFTER = "after"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Fault:
    """A time in which something was broken.

    Attributes:
        name: What was broken.
        begins_ns: When it began, in nanoseconds since 1970.
        ends_ns: When it was undone; None while it lasts.
    """

    name: str
    begins_ns: int
    ends_ns: int | None = None


class FaultLog:
    """The faults of a history, in the order in which they began."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []

    def begin(self, name: str, at_ns: int) -> None:
        """A fault begins.

        Raises:
            UserError: One of that name lasts already.
        """
        for fault in self._faults:
            if fault.name == name and fault.ends_ns is None:
                message = f"The fault {name!r} lasts since {clock_time(fault.begins_ns)} and cannot begin again."
                raise UserError(message)
        self._faults.append(Fault(name, at_ns))
        self._faults.sort(key=lambda fault: fault.begins_ns)

    def end(self, name: str, at_ns: int) -> None:
        """A fault is undone.

        Raises:
            UserError: None of that name lasts, or it would end before it began.
        """
        for place, fault in enumerate(self._faults):
            if fault.name == name and fault.ends_ns is None:
                if at_ns < fault.begins_ns:
                    message = (
                        f"The fault {name!r} began at {clock_time(fault.begins_ns)} and cannot end before, at "
                        f"{clock_time(at_ns)}."
                    )
                    raise UserError(message)
                self._faults[place] = replace(fault, ends_ns=at_ns)
                return
        lasting = ", ".join(fault.name for fault in self._faults if fault.ends_ns is None) or "none"
        message = f"The fault {name!r} cannot end, as it does not last; faults that last: {lasting}."
        raise UserError(message)

    def called(self, name: str | None) -> list[Fault]:
        """The faults of that name, or all of them.

        Raises:
            UserError: There is none.
        """
        found = [fault for fault in self._faults if name in {None, fault.name}]
        if not found:
            known = ", ".join(sorted({fault.name for fault in self._faults})) or "none"
            what = "no fault" if name is None else f"no fault called {name!r}"
            message = f"The ledger knows {what}; faults: {known}."
            raise UserError(message)
        return found

    @property
    def all(self) -> list[Fault]:
        """Every fault."""
        return list(self._faults)


class Phases:
    """Tells which phase moments are in.

    Before: nothing has been broken yet. Fault: something is broken, its first moment included, its last one not.
    After: something was broken, and nothing is now, also between two faults.

    Args:
        faults: At least one.
    """

    def __init__(self, faults: Iterable[Fault]) -> None:
        spans: list[list[int]] = []
        for fault in faults:
            ends = NEVER if fault.ends_ns is None else fault.ends_ns
            if spans and fault.begins_ns <= spans[-1][1]:
                spans[-1][1] = max(spans[-1][1], ends)
            else:
                spans.append([fault.begins_ns, ends])
        self._borders = [border for span in spans for border in span]
        self._phases = [Phase.BEFORE, *(phase for _ in spans for phase in (Phase.FAULT, Phase.AFTER))]

    def of(self, moments: Iterable[int]) -> Iterator[Phase]:
        """The phase of each moment."""
        return map(self._phases.__getitem__, map(partial(bisect_right, self._borders), moments))
