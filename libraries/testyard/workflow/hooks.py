"""Hooks: others are told about each step and check, by a webhook or by lines of JSON (document 003, "monitoring").

An event is one JSON object: ``event`` (suite_started, step_started, check_finished, step_finished,
suite_finished), ``timestamp``, ``deployment_id``, ``suite``, ``provider``, and ``step``, ``check`` or
``result``. A hook never fails or delays the run; what went wrong with it is in the result's ``logs``.
"""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Collection, Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from testyard.core.deadline import seconds
from testyard.workflow.model import HookOptions

# A monitoring system that does not answer at once must not hold up a test.
WEBHOOK_TIMEOUT = timedelta(seconds=2)
# What is still to be sent at the end of a run may take this long.
FLUSH = timedelta(seconds=5)
# Then it is not tried again: each try takes its timeout.
MOST_FAILURES = 3


class Hook(Protocol):
    """Something that is told about events."""

    def tell(self, event: Mapping[str, Any]) -> None:
        """Pass an event on; from any thread, without raising."""

    def close(self) -> list[str]:
        """Pass on what is left, and say what went wrong."""


class EventFile:
    """Appends each event to a file, as a line of JSON.

    Args:
        path: The file; its directory is made.
        events: Only these; empty: all.
    """

    def __init__(self, path: Path, events: Collection[str] = ()) -> None:
        self._path = path
        self._events = frozenset(events)
        self._lock = threading.Lock()
        self._problem = ""
        self._lost = 0

    def tell(self, event: Mapping[str, Any]) -> None:
        """Append it, so that a reader sees it at once."""
        if self._events and event["event"] not in self._events:
            return
        line = json.dumps(event, default=str) + "\n"
        with self._lock:
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(line)
            except OSError as problem:
                self._lost += 1
                self._problem = self._problem or f"{problem.strerror}"

    def close(self) -> list[str]:
        """Say how many events could not be written."""
        return [f"Hook {self._path}: {self._lost} events were not written: {self._problem}."] if self._lost else []


class Webhook:
    """Sends each event by POST, in order, from a thread of its own.

    Args:
        url: Where to; only its scheme and host are ever shown, as the rest may hold a credential.
        events: Only these; empty: all.
        timeout: For each event.
    """

    def __init__(self, url: str, events: Collection[str] = (), timeout: timedelta = WEBHOOK_TIMEOUT) -> None:
        parts = urlsplit(url)
        self._url = url
        self._name = f"{parts.scheme}://{parts.hostname or ''}"
        self._events = frozenset(events)
        self._timeout = timeout
        self._queue: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._sent = self._accepted = self._failures = 0
        self._problem = ""
        self._thread = threading.Thread(target=self._send_all, name="testyard-webhook", daemon=True)
        self._thread.start()

    def tell(self, event: Mapping[str, Any]) -> None:
        """Have it sent."""
        if not self._events or event["event"] in self._events:
            self._accepted += 1
            self._queue.put(json.dumps(event, default=str))

    def close(self) -> list[str]:
        """Wait for what is still to be sent, and say how many events were not."""
        self._queue.put(None)
        self._thread.join(FLUSH.total_seconds())
        lost = self._accepted - self._sent
        if self._thread.is_alive() and not self._problem:
            self._problem = f"not done {seconds(FLUSH)} after the end of the run"
        return (
            [f"Hook {self._name}: {lost} of {self._accepted} events were not sent: {self._problem}."]
            if lost
            else []
        )

    def _send_all(self) -> None:
        import httpx  # only those who have a webhook wait for it

        with httpx.Client(timeout=self._timeout.total_seconds()) as client:
            while (body := self._queue.get()) is not None:
                if self._failures < MOST_FAILURES:
                    self._send(client, body)

    def _send(self, client: Any, body: str) -> None:
        import httpx

        try:
            response = client.post(self._url, content=body, headers={"Content-Type": "application/json"})
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as problem:
            self._failed(type(problem).__name__)
            return
        if response.is_success:
            self._sent += 1
            self._failures = 0
        else:
            self._failed(f"answered {response.status_code}")

    def _failed(self, problem: str) -> None:
        self._failures += 1
        self._problem = self._problem or problem


def open_hooks(options: Iterable[HookOptions], directory: Path) -> list[Hook]:
    """The hooks that a suite names.

    Args:
        options: As the suite has them.
        directory: What the files are relative to.
    """
    return [
        Webhook(option.webhook, option.events)
        if option.webhook is not None
        else EventFile(directory / (option.file or ""), option.events)
        for option in options
    ]
