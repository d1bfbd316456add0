"""A server that this process starts, stops and starts again, and that dies with it, also when it is killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from testyard.lab.children import LabError, wait_for_the_end
from testyard.lab.servers import process_guard

NO_TIME = timedelta()
MOST_BYTES = 65_536


class GuardedProcess:
    """One server at a time in a private directory, both owned by a guard that ends them when this process ends.

    Args:
        name: What people call the server.
        directory: The directory to create; it is removed with the guard.

    Raises:
        LabError: The directory cannot be created.

    Example:
        >>> server = GuardedProcess("the clock", new_directory())             # doctest: +SKIP
        >>> server.run(["sleep", "60"], log=server.directory / "log")         # doctest: +SKIP
        >>> server.close()                                                    # doctest: +SKIP
    """

    def __init__(self, name: str, directory: Path) -> None:
        self.directory = directory
        self._name = name
        self._pid = 0
        self._runs = False
        self._asked = 0
        self._unread = b""
        self._lock = threading.RLock()
        self._guard: subprocess.Popen[bytes] | None = subprocess.Popen(
            # Isolated and without site-packages: it needs the standard library only, and starts at once.
            [sys.executable, "-I", "-S", process_guard.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,  # Ctrl-C is for the run; it stops the lab in its teardown
        )
        try:
            self._ask(directory=str(directory))
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """The id of the process that was started last; 0 before the first."""
        return self._pid

    def run(self, command: Sequence[str], *, log: Path, environment: Mapping[str, str] | None = None) -> int:
        """Start the server, or whatever prepares it; the one before must have ended.

        Args:
            command: The program and its arguments. Everybody can read them: no secrets.
            log: The file that its output is appended to.
            environment: Its whole environment.

        Returns:
            Its process id.

        Raises:
            LabError: It cannot be started.
        """
        answer = self._ask(run=list(command), environment=dict(environment or {}), log=str(log))
        self._pid, self._runs = int(answer["pid"]), True
        return self._pid

    def signal(self, number: signal.Signals) -> None:
        """Send what runs a signal; nothing when it has ended."""
        self._ask(signal=int(number))

    def wait(self, within: timedelta = NO_TIME) -> int | None:
        """Wait until it has ended.

        Args:
            within: How long at most.

        Returns:
            Its exit status, negative when a signal ended it; None while it runs.
        """
        status: int | None = self._ask(wait=within.total_seconds())["status"]
        self._runs = self._runs and status is None
        return status

    def kill(self) -> None:
        """End it (SIGKILL), and wait until it has ended; nothing when it has."""
        self.signal(signal.SIGKILL)
        while self.wait(timedelta(seconds=1)) is None:
            pass

    def close(self) -> None:
        """Kill it and remove its directory; safe to call again."""
        guard, self._guard = self._guard, None
        if guard is None:
            return
        assert guard.stdin is not None
        with suppress(BrokenPipeError):
            guard.stdin.close()
        wait_for_the_end(guard)
        if guard.returncode:
            self._end_what_the_guard_left()

    def _end_what_the_guard_left(self) -> None:
        """The guard was killed, and so could not do it."""
        with suppress(ProcessLookupError):
            if self._runs:
                os.kill(self._pid, signal.SIGKILL)
        shutil.rmtree(self.directory, ignore_errors=True)

    def _ask(self, **request: Any) -> dict[str, Any]:
        with self._lock:
            guard = self._guard
            if guard is None:
                message = f"{self._name} is not running: start it first."
                raise LabError(message)
            assert guard.stdin is not None
            self._asked += 1
            with suppress(BrokenPipeError):
                guard.stdin.write(json.dumps(request | {"number": self._asked}).encode() + b"\n")
            answer = self._answer_to(self._asked, guard)
        if "error" in answer:
            message = f"{self._name}: {answer['error']}"
            raise LabError(message)
        return answer

    def _answer_to(self, number: int, guard: subprocess.Popen[bytes]) -> dict[str, Any]:
        assert guard.stdout is not None
        while True:
            line, complete, rest = self._unread.partition(b"\n")
            if not complete:
                part = os.read(guard.stdout.fileno(), MOST_BYTES)
                if not part:
                    message = f"{self._name} is gone: who guards it was killed."
                    raise LabError(message)
                self._unread += part
                continue
            self._unread = rest
            answer: dict[str, Any] = json.loads(line)
            # A request before may have been interrupted by a signal, so that nobody took its answer.
            if answer["number"] == number:
                return answer
