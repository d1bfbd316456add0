"""What every child process of the lab has in common: its directory, its socket, and how its end is told.

Every service is a child process that holds one end of a pipe from this process as its standard input: when
this process ends, however it ends, the pipe closes, and the child removes its directory and stops.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import IO, Protocol

from testyard.core.deadline import Deadline, seconds
from testyard.core.errors import UserError
from testyard.core.json_client import UnreachableError

START_TIMEOUT = timedelta(seconds=20)
STOP_TIMEOUT = timedelta(seconds=3)
DIRECTORY_PREFIX = "testyard-"


class LabError(UserError):
    """The lab could not be started or stopped."""


class ChildProcess(Protocol):
    """What the lab needs to know of its processes, whoever has started them; a ``subprocess.Popen`` has it."""

    @property
    def pid(self) -> int:
        """Its process id."""

    @property
    def stdin(self) -> IO[bytes] | None:
        """The other end of its standard input, where that is a pipe."""

    @property
    def stdout(self) -> IO[bytes] | None:
        """The other end of its standard output, where that is a pipe."""

    @property
    def stderr(self) -> IO[bytes] | None:
        """The other end of its standard error, where that is a pipe."""

    def poll(self) -> int | None:
        """Its exit status, negative when a signal ended it; None while it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended; ``subprocess.TimeoutExpired`` when it has not after so many seconds."""

    def terminate(self) -> None:
        """Ask it to end (SIGTERM)."""

    def kill(self) -> None:
        """End it (SIGKILL)."""


def new_directory(place: Path | None = None) -> Path:
    """Where a child may keep its files: a path that does not exist yet and tells whose it is.

    Args:
        place: The directory above it; None is the temporary directory.
    """
    return (place or Path(tempfile.gettempdir())) / f"{DIRECTORY_PREFIX}{os.getpid()}-{secrets.token_hex(4)}"


def listening_socket(host: str, port: int) -> socket.socket:
    """A bound, listening TCP socket, so that a free port cannot be taken before its server starts."""
    # asyncio sends without delay only where the socket says that it is TCP; what is accepted inherits that.
    listener = socket.socket(proto=socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(1024)
    except BaseException:
        listener.close()
        raise
    return listener


def wait_until_ready(
    process: ChildProcess,
    name: str,
    ready: Callable[[], object],
    deadline: Deadline,
    *,
    log: Path | None = None,
) -> None:
    """Wait until a child answers.

    Args:
        process: The child.
        name: What to call it.
        ready: Asks it; raises ``UnreachableError`` while it does not answer yet.
        deadline: Give up after this.
        log: The file that has its standard error; None when that is piped.

    Raises:
        LabError: It ended instead, with the last line it said, or was not ready in time.
    """
    while True:
        status = process.poll()
        if status is not None:
            said = log.read_bytes() if log else process.stderr.read() if process.stderr else b""
            message = f"{name} ended with status {status} instead of starting: {last_line(said)}"
            raise LabError(message)
        try:
            ready()
        except UnreachableError:
            pass
        else:
            return
        if deadline.expired:
            message = f"{name} was not ready after {seconds(deadline.elapsed)}."
            raise LabError(message)
        deadline.pause(timedelta(milliseconds=10))


def last_line(said: bytes) -> str:
    """The last line of what a process has said: the reason for which it has ended."""
    return (said.decode(errors="replace").strip().splitlines() or ["no reason given"])[-1]


def wait_for_the_end(process: ChildProcess) -> None:
    """Wait until a child whose standard input was closed has ended; kill it when it takes too long."""
    # How it has ended is not known when its fork server was killed; that it has ended is enough here.
    with suppress(LabError):
        try:
            process.wait(STOP_TIMEOUT.total_seconds())
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe:
            pipe.close()


def remove_stale_directories() -> None:
    """Remove directories of labs whose supervisor no longer lives (all of them were killed at once)."""
    for directory in Path(tempfile.gettempdir()).glob(f"{DIRECTORY_PREFIX}*-*"):
        process = directory.name.removeprefix(DIRECTORY_PREFIX).split("-")[0]
        if process.isdigit() and not is_alive(int(process)):
            shutil.rmtree(directory, ignore_errors=True)


def is_alive(process: int) -> bool:
    """Whether there is a process of this id, whosever it is."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
