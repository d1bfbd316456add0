"""The journal: what happened, in one clock, from any thread.

Robot Framework drops log lines of other threads, so callbacks only append here; keywords and the
end-of-test listener read it. Entries live in an unnamed temporary file: memory does not grow with a
long run, and nothing is left behind when the process is killed.
"""

from __future__ import annotations

import json
import tempfile
import threading
import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any


@dataclass(frozen=True)
class Entry:
    """One thing that happened.

    Attributes:
        monotonic_ns: When, on this machine's monotonic clock, in nanoseconds.
        utc: When, as ISO 8601 text.
        source: Who tells: ``agent``, ``stomp``, ``lab``…
        kind: What sort of thing: ``request``, ``event``, ``fault``, ``log``…
        subject: The thing it is about: a path, a UUID, a fault's name.
        data: The rest, as JSON values.
    """

    monotonic_ns: int
    utc: str
    source: str
    kind: str
    subject: str
    data: Mapping[str, Any]


class Journal:
    """An append-only record on disk that any thread may write to.

    Example:
        >>> journal = Journal()
        >>> mark = journal.mark()
        >>> journal.append("lab", "fault", "no_stomp", instance="B")
        >>> [entry.subject for entry in journal.entries(since=mark)]
        ['no_stomp']
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        file = tempfile.TemporaryFile(mode="w+b", prefix="testyard-journal-")  # noqa: SIM115 closed with the journal
        self._file = file
        # Also when nobody closes it, as Libdoc does not.
        self._finalizer = weakref.finalize(self, file.close)

    def append(self, source: str, kind: str, subject: str, **data: Any) -> None:
        """Record one thing, now."""
        line = json.dumps(
            [time.monotonic_ns(), datetime.now(UTC).isoformat(), source, kind, subject, data], default=str
        )
        with self._lock:
            if not self._file.closed:
                self._file.seek(0, 2)
                self._file.write(line.encode() + b"\n")

    def mark(self) -> int:
        """A position; entries appended later come after it."""
        with self._lock:
            return self._file.seek(0, 2)

    def entries(self, *, since: int = 0, source: str | None = None, kind: str | None = None) -> list[Entry]:
        """The entries after a mark, oldest first.

        Args:
            since: A position that :meth:`mark` returned.
            source: Only what this source told.
            kind: Only this kind.
        """
        with self._lock:
            self._file.seek(since)
            lines = self._file.read().splitlines()
        found = (Entry(*json.loads(line)) for line in lines)
        return [
            entry
            for entry in found
            if (source is None or entry.source == source) and (kind is None or entry.kind == kind)
        ]

    def close(self) -> None:
        """Forget everything; later appends are ignored, as late callbacks may still come."""
        with self._lock:
            self._file.close()
