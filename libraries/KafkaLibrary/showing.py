"""Tables for the log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from robot.api import logger
from testyard.core.tables import html_table
from testyard.kafka.event import Event

EVENT_COLUMNS = ("received (UTC)", "topic", "partition", "offset", "key", "headers", "value")
# A log that shows more is not read, and slow to open.
MOST_ROWS = 200
LONGEST_VALUE = 1000


def show_events(title: str, events: Sequence[Event]) -> None:
    """Draw events; of many, the last ones."""
    rows = [
        (
            event.received.strftime("%H:%M:%S.%f"),
            event.topic,
            event.partition,
            event.offset,
            "" if event.key is None else event.key,
            _pairs(event.headers),
            event.text if len(event.text) <= LONGEST_VALUE else f"{event.text[:LONGEST_VALUE]}…",
        )
        for event in events[-MOST_ROWS:]
    ]
    more = f", the last {MOST_ROWS}" if len(events) > MOST_ROWS else ""
    logger.info(html_table(f"{title}: {len(events)}{more}", EVENT_COLUMNS, rows, folded=True), html=True)


def show_offsets(title: str, offsets: Mapping[str, int | None]) -> None:
    """Draw a number for each partition."""
    rows = [(place, "none" if offset is None else offset) for place, offset in offsets.items()]
    logger.info(html_table(title, ("partition", "offset"), rows), html=True)


def _pairs(values: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items())
