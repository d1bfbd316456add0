"""The delay of events over time, with the faults behind it, drawn as SVG for Robot Framework's log."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from testyard.core.history import Kind
from testyard.core.percentiles import LONGEST, MEDIAN, P95
from testyard.core.redact import secrets_in_use
from testyard.ledger.faults import Fault
from testyard.ledger.ledger import Ledger
from testyard.ledger.moments import NEVER, clock_time, milliseconds

SLICES: Final = 96
LEFT, TOP, WIDTH, HEIGHT, COUNTS = 80, 16, 768, 200, 40
BOTTOM: Final = TOP + HEIGHT + COUNTS
LINES: Final = ((MEDIAN, "#2b6cb0"), (P95, "#dd6b20"), (LONGEST, "#c53030"))
SHORTEST_NS: Final = 1000


@dataclass
class Slice:
    """The events that began in one short time.

    Attributes:
        delays_ns: How long those took that arrived, in nanoseconds.
        missing: How many acknowledged ones have not arrived.
    """

    delays_ns: list[int] = field(default_factory=list)
    missing: int = 0

    @property
    def events(self) -> int:
        """How many there are."""
        return len(self.delays_ns) + self.missing


@dataclass(frozen=True)
class Chart:
    """Where moments and delays are in a drawing: moments from left to right, delays logarithmically upwards.

    Attributes:
        first_ns: The first moment.
        last_ns: The last moment.
        shortest_ns: The delay at the bottom: a power of ten.
        longest_ns: The delay at the top: a greater power of ten.
    """

    first_ns: int
    last_ns: int
    shortest_ns: int
    longest_ns: int

    def x(self, at_ns: int) -> float:
        """How far a moment is from the left."""
        share = (at_ns - self.first_ns) / (self.last_ns - self.first_ns)
        return LEFT + min(max(share, 0.0), 1.0) * WIDTH

    def y(self, delay_ns: int) -> float:
        """How far a delay is from the top."""
        share = math.log(max(delay_ns, self.shortest_ns) / self.shortest_ns)
        return TOP + HEIGHT * (1 - share / math.log(self.longest_ns / self.shortest_ns))

    def text(self, x: float, y: float, text: str, *, anchor: str = "start", colour: str = "#333") -> str:
        """Some words."""
        shown = html.escape(secrets_in_use.mask(text))
        return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{shown}</text>'

    def grid(self) -> Iterator[str]:
        """A line for each power of ten."""
        delay_ns = self.shortest_ns
        while delay_ns <= self.longest_ns:
            y = self.y(delay_ns)
            yield f'<line x1="{LEFT}" x2="{LEFT + WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>'
            yield self.text(LEFT - 6, y + 4, milliseconds(delay_ns), anchor="end")
            delay_ns *= 10

    def band(self, fault: Fault) -> str:
        """A fault, from its beginning to its end."""
        left = self.x(fault.begins_ns)
        right = self.x(self.last_ns if fault.ends_ns is None else fault.ends_ns)
        return (
            f'<rect x="{left:.1f}" y="{TOP}" width="{max(right - left, 1):.1f}" height="{HEIGHT + COUNTS}" '
            f'fill="#fed7d7"/>{self.text(left + 2, TOP + 11, fault.name, colour="#9b2c2c")}'
        )

    def bar(self, index: int, events: int, most: int) -> str:
        """How many events began in a slice."""
        height = COUNTS * events / most
        return (
            f'<rect x="{LEFT + index * WIDTH / SLICES:.1f}" y="{BOTTOM - height:.1f}" '
            f'width="{WIDTH / SLICES - 1:.1f}" height="{height:.1f}" fill="#a0aec0"/>'
        )


def delay_chart(ledger: Ledger, start: Kind, end: Kind, *, place: str | None = None) -> str:
    """Draw how long events took over the time: p50, p95 and the longest of each slice, and how many there were.

    Faults are red bands. A slice in which acknowledged events are missing has a cross at the top.

    Args:
        ledger: What happened.
        start: What the measured time begins with.
        end: What it ends with.
        place: Only ends in places that match this pattern.

    Returns:
        An SVG element for HTML; nothing when no event took any time.
    """
    starts = ledger.first_moments(start)
    first_ns = min(starts, default=NEVER)
    if first_ns == NEVER:
        return ""
    last_ns = max(at_ns for at_ns in starts if at_ns != NEVER)
    slices = _sliced(ledger, starts, ledger.first_moments(end, place), first_ns, last_ns)
    delays = [max(delay, SHORTEST_NS) for one in slices for delay in (one.delays_ns[:1] + one.delays_ns[-1:])]
    if not delays:
        return ""
    lowest = math.floor(math.log10(min(delays)))
    highest = max(math.ceil(math.log10(max(delays))), lowest + 1)
    chart = Chart(first_ns, max(last_ns, first_ns + 1), 10**lowest, 10**highest)
    most = max(one.events for one in slices)
    parts = [
        *map(chart.band, ledger.faults.all),
        *chart.grid(),
        *(chart.bar(index, one.events, most) for index, one in enumerate(slices) if one.events),
        *_lines(chart, slices),
        *(
            chart.text(_middle(index), TOP - 2, "✕", anchor="middle", colour="#c53030")
            for index, one in enumerate(slices)
            if one.missing
        ),
        chart.text(LEFT, BOTTOM + 14, f"{clock_time(chart.first_ns)} UTC"),
        chart.text(LEFT + WIDTH, BOTTOM + 14, clock_time(chart.last_ns), anchor="end"),
        chart.text(LEFT - 6, BOTTOM, f"≤ {most} events", anchor="end"),
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 20}" height="{BOTTOM + 20}" '
        f'font-family="sans-serif" font-size="11" role="img" style="background:#fff">{"".join(parts)}</svg>'
    )


def _sliced(
    ledger: Ledger, starts: Sequence[int], ends: Sequence[int], first_ns: int, last_ns: int
) -> list[Slice]:
    """The events by the time in which they began, in slices of one length."""
    slices = [Slice() for _ in range(SLICES)]
    answers = ledger.first_moments(Kind.ACKNOWLEDGED)
    length = (last_ns - first_ns) // SLICES + 1
    for begun_ns, ended_ns, answered_ns in zip(starts, ends, answers, strict=True):
        if begun_ns == NEVER:
            continue
        one = slices[(begun_ns - first_ns) // length]
        if ended_ns != NEVER:
            one.delays_ns.append(ended_ns - begun_ns)
        elif answered_ns != NEVER:
            one.missing += 1
    for one in slices:
        one.delays_ns.sort()
    return slices


def _lines(chart: Chart, slices: Sequence[Slice]) -> Iterator[str]:
    """A line for each percentile, and its name."""
    for number, (percentile, colour) in enumerate(LINES):
        points = " ".join(
            f"{_middle(index):.1f},{chart.y(percentile.value_in(one.delays_ns)):.1f}"
            for index, one in enumerate(slices)
            if one.delays_ns
        )
        yield f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
        yield chart.text(LEFT + WIDTH / 2 + 50 * number, BOTTOM + 14, str(percentile), colour=colour)


def _middle(index: int) -> float:
    return LEFT + (index + 0.5) * WIDTH / SLICES
