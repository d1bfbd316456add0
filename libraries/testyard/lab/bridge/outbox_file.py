"""Where events wait while the database is away, too: a file of lines, written before anything else is said.

A line of five values is an event that has come; a line of one value is the position of one that has gone. Only
one process at a time has a file, which the operating system sees to (``flock``), also when a process is killed.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
from base64 import b64decode, b64encode
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeAlias

Headers: TypeAlias = tuple[tuple[str, str], ...]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Waiting:
    """One event that waits.

    Attributes:
        position: Its place in the order.
        topic: Where it is to be published.
        key: Under which key.
        value: The envelope.
        headers: The record's headers.
    """

    position: int
    topic: str
    key: str
    value: bytes
    headers: Headers = ()


class OutboxFile:
    """One file, held by this process until it is closed.

    Args:
        path: Where it is.
        descriptor: Open for reading and appending, and locked.

    Attributes:
        events: What waits in it, by position, in the order in which it came.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.events: dict[int, Waiting] = {}
        self._descriptor = descriptor
        self._size = 0
        self._read()

    @classmethod
    def take(cls, path: Path) -> Self | None:
        """Open a file, or make it.

        Args:
            path: Where it is.

        Returns:
            The file; None when another process, or another object in this one, holds it.

        Raises:
            OSError: It cannot be made or read.
        """
        new = not path.exists()
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if new:
                _make_durable(path.parent)
            return cls(path, descriptor)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise

    def close(self) -> None:
        """Let another process have it."""
        os.close(self._descriptor)

    def append(self, events: Sequence[Waiting]) -> None:
        """Keep events; on return they outlive a crash, also of the machine.

        Raises:
            OSError: The file cannot take them: none of them is in it.
        """
        try:
            self._write(b"".join(map(_line, events)))
            os.fsync(self._descriptor)
        except OSError:
            # Half a line would spoil the next one.
            with suppress(OSError):
                os.ftruncate(self._descriptor, self._size)
            raise
        self._size = os.fstat(self._descriptor).st_size
        self.events.update((it.position, it) for it in events)

    def forget(self, positions: Iterable[int]) -> None:
        """Forget events that have gone. If that cannot be written, they come back with the next process."""
        gone = [position for position in positions if self.events.pop(position, None) is not None]
        try:
            if not self.events:
                os.ftruncate(self._descriptor, 0)
            else:
                self._write(b"".join(json.dumps([position]).encode() + b"\n" for position in gone))
            self._size = os.fstat(self._descriptor).st_size
        except OSError as problem:
            logger.error("%s keeps events that have gone: %s", self.path, problem)
            with suppress(OSError):
                os.ftruncate(self._descriptor, self._size)

    def _write(self, lines: bytes) -> None:
        while lines:
            lines = lines[os.write(self._descriptor, lines) :]

    def _read(self) -> None:
        content = self.path.read_bytes()
        complete, newline, _ = content.rpartition(b"\n")
        # A process that was killed may have been writing its last line: nobody was told that it is kept.
        self._size = len(complete) + len(newline)
        os.ftruncate(self._descriptor, self._size)
        unreadable = []
        for line in complete.split(b"\n") if newline else []:
            try:
                position, *fields = json.loads(line)
                if fields:
                    self.events[position] = _event(position, *fields)
                else:
                    self.events.pop(position, None)
            except (ValueError, TypeError):
                unreadable.append(line)
        if unreadable:
            aside = self.path.with_suffix(".unreadable")
            logger.error("%s has %s lines that cannot be read; they are in %s", self.path, len(unreadable), aside)
            append_lines(aside, unreadable)


def append_lines(path: Path, lines: Iterable[bytes]) -> None:
    """Write lines to the end of a file that is only ever read by people.

    Args:
        path: The file.
        lines: Without their ends.
    """
    with path.open("ab") as file:
        file.write(b"".join(line + b"\n" for line in lines))
        file.flush()
        os.fsync(file.fileno())


def _make_durable(directory: Path) -> None:
    """Have a new file's name outlive a crash of the machine."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _line(event: Waiting) -> bytes:
    fields = [event.position, event.topic, event.key, b64encode(event.value).decode(), event.headers]
    return json.dumps(fields).encode() + b"\n"


def _event(position: int, topic: str, key: str, value: str, headers: Iterable[Sequence[str]]) -> Waiting:
    return Waiting(
        position, topic, key, b64decode(value, validate=True), tuple((name, text) for name, text in headers)
    )
