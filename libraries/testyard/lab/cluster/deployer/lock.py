"""The lock of a deployment, ``.exasol.lock``: one operation at a time (contract 2.7).

The file names the process that holds it. A lock whose process is no more is stale: it is looked at five times, a
second apart, and removed when it is still there and still the same.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Final, NamedTuple

from testyard.core.errors import UserError
from testyard.lab.cluster.deployer.state_file import now

LOCK_FILE: Final = ".exasol.lock"
LOOKS: Final = 5
SHORT_OPERATION: Final = "health"
"""Holds the lock only to write a status: an operation that finds it waits for it."""


class Holder(NamedTuple):
    """Who holds a lock.

    Attributes:
        pid: Its process id; 0 when the file does not say.
        operation: What it does.
        since: When it took the lock; UTC.
        birth: When the process began, in clock ticks since the computer's start: process ids are used again.
    """

    pid: int
    operation: str
    since: str
    birth: str

    @property
    def lives(self) -> bool:
        """Whether the process still runs."""
        return is_running(self.pid, self.birth)

    def __str__(self) -> str:
        return f"{self.operation}, process {self.pid}, since {self.since}"


class LockedError(UserError):
    """Another process works on the deployment.

    Attributes:
        holder: Which.
    """

    def __init__(self, message: str, holder: Holder) -> None:
        super().__init__(message)
        self.holder = holder


def holder_of(directory: Path) -> Holder | None:
    """Who holds, or has left behind, the directory's lock; None when there is none."""
    try:
        content = json.loads((directory / LOCK_FILE).read_text(encoding="utf-8"))
        return Holder(int(content["pid"]), *(str(content[name]) for name in Holder._fields[1:]))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        return Holder(0, "an unknown operation", "an unknown time", "")


@contextmanager
def held(
    directory: Path, operation: str, interval: timedelta, tell: Callable[[str], None]
) -> Iterator[Holder | None]:
    """Hold the lock of a deployment.

    Args:
        directory: The deployment's.
        operation: What it is held for.
        interval: Between two looks at a stale lock.
        tell: Is told when a stale lock is removed.

    Yields:
        Whose stale lock was removed; None when there was none.

    Raises:
        LockedError: Another process holds it.
    """
    removed = _take(directory, operation, interval, tell)
    try:
        yield removed
    finally:
        (directory / LOCK_FILE).unlink(missing_ok=True)


def _take(directory: Path, operation: str, interval: timedelta, tell: Callable[[str], None]) -> Holder | None:
    """Take the lock; gives the holder of a stale one that was in the way."""
    stale: Holder | None = None
    for _ in range(LOOKS):
        with _alone(directory):
            if _create(directory, operation):
                return None
            found = holder_of(directory)
        if found and found.lives and found.operation != SHORT_OPERATION:
            message = f"{operation} is refused: {found.operation} is in progress ({found})"
            raise LockedError(message, found)
        stale = found
        _pause(interval)
    with _alone(directory):
        found = holder_of(directory)
        if found and (found.lives or found != stale):
            message = f"{operation} is refused: another operation is in progress ({found})"
            raise LockedError(message, found)
        (directory / LOCK_FILE).unlink(missing_ok=True)
        _create(directory, operation)
    if found:
        tell(f"removed the stale lock of a process that is no more ({found})")
    return found


def _pause(interval: timedelta) -> None:
    # Imported only here: a lock is free nearly always, and each verb is a process that begins with its imports.
    from testyard.core.deadline import Deadline

    Deadline(interval).pause(interval)


def _create(directory: Path, operation: str) -> bool:
    """Create the lock file, complete from the start; False when there is one."""
    draft = directory / f"{LOCK_FILE}.{os.getpid()}"
    own = Holder(os.getpid(), operation, now(), birth_of(os.getpid()))
    draft.write_text(json.dumps(own._asdict()) + "\n", encoding="utf-8")
    try:
        (directory / LOCK_FILE).hardlink_to(draft)
    except FileExistsError:
        return False
    finally:
        draft.unlink()
    return True


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Keep others from looking at the lock: one that is seen to be stale could be taken before it is removed."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def is_running(pid: int, birth: str) -> bool:
    """Whether a process still runs: not one that got its id later, and not one that only was not waited for.

    Args:
        pid: Its id.
        birth: When it began, see :class:`Holder`; empty when that is not known.
    """
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    state, began = _process(pid)
    return state != "Z" and (not birth or not began or birth == began)


def birth_of(pid: int) -> str:
    """When a process began, see :class:`Holder`; empty where the system does not say."""
    return _process(pid)[1]


def _process(pid: int) -> tuple[str, str]:
    """A process's state letter and birth, by proc(5); empty where the system has none of it."""
    with suppress(OSError):
        # The name, in parentheses, may hold anything; what follows it are the fields from the third on.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return fields[0], fields[19]
    return "", ""
