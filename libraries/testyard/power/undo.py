"""The journal of faults that have to be undone, on disk before a fault acts.

One file of JSON lines for a deployment directory: a line when a fault is registered, forced to the disk before
the fault acts, and a line when it is undone. What is pending is undone last first: at the end of a test, on a
timeout, on Ctrl-C, and by the next run when this one was killed. Lines are only ever appended, under a lock, so
that neither two processes nor a kill half-way can spoil the file; when nothing is pending it is deleted.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from testyard.core.errors import UserError
from testyard.core.leftover import Leftover

JOURNAL = ".undo.jsonl"
# In /proc/PID/stat after the name in parentheses, counted from the state: field 22, the time the process started.
START_TIME = 19


class UndoEntry(BaseModel):
    """One fault that may have to be undone.

    Attributes:
        identifier: Unique.
        directory: The deployment directory.
        deployment: The deployment's id.
        node: The node that the fault is done to.
        operation: The fault, as in the transition table.
        boot_id: The node's boot id before the fault, when it could be read.
        time: When it was registered (UTC).
        owner: The process that registered it.
        owner_started: When that process started, in the kernel's ticks: process ids are used again.
    """

    model_config = ConfigDict(frozen=True)

    event: Literal["registered"] = "registered"
    identifier: str = Field(default_factory=lambda: uuid4().hex)
    directory: Path
    deployment: str
    node: str
    operation: str
    boot_id: str | None = None
    time: datetime = Field(default_factory=lambda: datetime.now(UTC))
    owner: int = Field(default_factory=os.getpid)
    owner_started: int = Field(default_factory=lambda: process_started(os.getpid()))

    @property
    def name(self) -> str:
        """For people: `n12 of basic-1 after stop_node`."""
        return f"{self.node} of {self.deployment} after {self.operation}"

    @property
    def is_mine(self) -> bool:
        """Whether this process registered it."""
        return (self.owner, self.owner_started) == (os.getpid(), process_started(os.getpid()))

    @property
    def is_orphaned(self) -> bool:
        """Whether the process that registered it has ended."""
        return process_started(self.owner) != self.owner_started


class _Undone(BaseModel):
    event: Literal["undone"] = "undone"
    identifier: str


# Puts a node back, and says how; raises UserError or AssertionError when it cannot.
Undo = Callable[[UndoEntry], str]


class UndoJournal:
    """The faults of one deployment that are still on.

    Args:
        path: The file; it need not exist.

    Example:
        >>> journal = UndoJournal(Path("deployment/.undo.jsonl"))
        >>> entry = journal.register(UndoEntry(directory=..., deployment="d1", node="n12", operation="stop_node"))
        >>> journal.resolve(entry)
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def register(self, entry: UndoEntry) -> UndoEntry:
        """Write an entry; when this returns, it outlives a kill.

        Returns:
            The entry.

        Raises:
            UserError: The file cannot be written, so that the fault must not act.
        """
        try:
            with self._locked() as descriptor:
                _append(descriptor, entry)
        except OSError as problem:
            message = f"The fault was not done, as its undo cannot be registered in {self.path}: {problem}."
            raise UserError(message) from None
        return entry

    def resolve(self, *entries: UndoEntry) -> None:
        """Mark entries as undone; when nothing is pending, the file is deleted."""
        if not self.path.is_file():
            return
        with self._locked() as descriptor:
            for entry in entries:
                _append(descriptor, _Undone(identifier=entry.identifier))
            if not _pending(_read(descriptor)):
                self.path.unlink()

    def pending(self) -> list[UndoEntry]:
        """What is not undone, the oldest first; lines that a kill cut short are left out."""
        try:
            text = self.path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return []
        return _pending(text)

    def undo_all(self, undo: Undo, *, mine: bool = True) -> list[Leftover]:
        """Undo what is pending, the last fault first.

        An entry that cannot be undone stays, and does not keep the others from being undone. Of the faults of a
        process that still lives, only this process's own are touched.

        Args:
            undo: Puts a node back and says how.
            mine: This process's own faults; otherwise those of processes that have ended.

        Returns:
            What became of each.
        """
        outcomes = []
        for entry in reversed(self.pending()):
            if not (entry.is_mine if mine else entry.is_orphaned):
                continue
            try:
                said = undo(entry)
            except (UserError, AssertionError) as problem:
                outcomes.append(Leftover(entry.name, str(problem), ended=False))
            else:
                self.resolve(entry)
                outcomes.append(Leftover(entry.name, said, ended=True))
        return outcomes

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """The file, open and locked; it is the one that has the name, also when another process deleted it."""
        while True:
            descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                if _is_at(descriptor, self.path):
                    yield descriptor
                    return
            finally:
                os.close(descriptor)


def process_started(process: int) -> int:
    """When a process started, in ticks since the machine's boot; 0 when there is none, or only a zombie."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    fields = stat.rpartition(")")[2].split()
    return 0 if fields[0] == "Z" else int(fields[START_TIME])


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _append(descriptor: int, line: BaseModel) -> None:
    # A line of its own, also after one that a kill cut short.
    os.write(descriptor, f"\n{line.model_dump_json()}\n".encode())
    os.fsync(descriptor)


def _read(descriptor: int) -> str:
    size = os.fstat(descriptor).st_size
    return os.pread(descriptor, size, 0).decode(errors="replace")


def _pending(text: str) -> list[UndoEntry]:
    entries: dict[str, UndoEntry] = {}
    for line in filter(None, text.splitlines()):
        try:
            entry = UndoEntry.model_validate_json(line)
            entries[entry.identifier] = entry
        except ValidationError:
            try:
                entries.pop(_Undone.model_validate_json(line).identifier, None)
            except ValidationError:
                continue
    return list(entries.values())
