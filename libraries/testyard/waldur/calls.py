"""Every REST call of the agent, recorded where it is made: works on any Waldur, not only on the lab's."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx

from testyard.core.journal import Entry, Journal
from testyard.waldur.states import Side

KIND = "request"


@dataclass(frozen=True)
class Call:
    """One REST call of the agent.

    Attributes:
        side: Which Waldur was called.
        method: GET, POST…
        path: Path with query, without the address.
        status: The answer's status; None when no answer came.
        took: From sending to the end of the answer; None when no answer came, or it led elsewhere.
    """

    side: Side
    method: str
    path: str
    status: int | None
    took: timedelta | None

    def to_entry(self) -> dict[str, object]:
        """What a journal entry tells of this call, besides the path as its subject."""
        entry: dict[str, object] = {"side": self.side.value, "method": self.method, "status": self.status}
        if self.took is not None:
            entry["milliseconds"] = round(self.took.total_seconds() * 1000, 2)
        return entry

    @classmethod
    def from_entry(cls, entry: Entry) -> Call:
        """The call that a journal entry tells of."""
        data = entry.data
        took = data.get("milliseconds")
        return cls(
            Side(data["side"]),
            data["method"],
            entry.subject,
            data.get("status"),
            None if took is None else timedelta(milliseconds=took),
        )


class CallRecorder:
    """Writes the calls of HTTP clients to the journal.

    Args:
        journal: Where the calls go.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._collected: list[list[Call]] = []

    @contextmanager
    def collecting(self) -> Iterator[list[Call]]:
        """Collect the calls made inside the ``with`` block: that spares reading them back from the journal."""
        calls: list[Call] = []
        self._collected.append(calls)
        try:
            yield calls
        finally:
            self._collected = [others for others in self._collected if others is not calls]

    def watch(self, client: httpx.Client, side: Side) -> None:
        """Record every call of a client from now on."""

        send = client.send

        def tell(request: httpx.Request, status: int | None, took: timedelta | None = None) -> None:
            call = Call(side, request.method, request.url.raw_path.decode(), status, took)
            self._journal.append("agent", KIND, call.path, **call.to_entry())
            for calls in self._collected:
                calls.append(call)

        def recorded(request: httpx.Request, **options: Any) -> httpx.Response:
            started = time.monotonic()
            try:
                answer = send(request, **options)
            except BaseException:
                tell(request, None)
                raise
            for redirect in answer.history:
                tell(redirect.request, redirect.status_code)
            tell(answer.request, answer.status_code, timedelta(seconds=time.monotonic() - started))
            return answer

        # httpx's event hooks tell nothing of a request that gets no answer.
        client.send = recorded  # type: ignore[method-assign]

    def calls(self, since: int = 0) -> list[Call]:
        """The recorded calls after a mark of the journal, oldest first."""
        return [Call.from_entry(entry) for entry in self._journal.entries(since=since, source="agent", kind=KIND)]


def split_call(call: Call) -> tuple[object, ...]:
    """A call as a row of a table: side, method, path, status, milliseconds; a list of fields is only counted."""
    path, _, query = call.path.partition("?")
    parameters = query.split("&") if query else []
    shown = [parameter for parameter in parameters if not parameter.startswith("field=")]
    if len(shown) < len(parameters):
        shown.append(f"({len(parameters) - len(shown)} fields)")
    if shown:
        path = f"{path}?{'&'.join(shown)}"
    took = "" if call.took is None else f"{call.took.total_seconds() * 1000:.1f}"
    return (call.side.value, call.method, path, call.status or "no answer", took)


CALL_COLUMNS = ("Waldur", "method", "path", "status", "ms")
