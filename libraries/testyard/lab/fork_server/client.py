"""Starts a fork server, has it fork processes, and ends it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from datetime import timedelta
from subprocess import DEVNULL, PIPE
from typing import IO, Final

from testyard.core.deadline import Deadline, seconds
from testyard.lab.children import START_TIMEOUT, ChildProcess, LabError, last_line, wait_for_the_end
from testyard.lab.fork_server.request import Request
from testyard.lab.lifetime import Startable

Stream = int | IO[bytes]

FORKING_IS_SAFE: Final = sys.platform != "darwin"
"""The libraries of macOS start threads of their own, which a copy of the process does not have."""


class ForkedProcess:
    """A process that a fork server has forked, or will; used as a ``subprocess.Popen``.

    Attributes:
        args: The command that would start the same process.
        returncode: Its exit status, or the negative number of the signal that ended it; None while it runs.
        stdin: The other end of its standard input, where that is a pipe.
        stdout: The other end of its standard output, where that is a pipe.
        stderr: The other end of its standard error, where that is a pipe.
    """

    def __init__(
        self,
        args: list[str],
        listener: socket.socket,
        streams: tuple[IO[bytes] | None, IO[bytes] | None, IO[bytes] | None],
        reason: Callable[[], str],
    ) -> None:
        self.args = args
        self.returncode: int | None = None
        self.stdin, self.stdout, self.stderr = streams
        self._listener = listener
        self._reason = reason
        self._pid: int | None = None
        self._lost = ""

    @property
    def pid(self) -> int:
        """Its process id; waits until it has one: the server may still be importing.

        Raises:
            LabError: The server has ended before, or does not come to it.
        """
        self._listen(lambda: self._pid is not None, START_TIMEOUT)
        if self._pid is None:
            message = f"The fork server of the lab has not forked a process after {seconds(START_TIMEOUT)}."
            raise LabError(message)
        return self._pid

    def poll(self) -> int | None:
        """How it has ended; None while it runs, or is still to be forked.

        Raises:
            LabError: The server has ended, and so has the process, or it was never there.
        """
        self._listen(lambda: self.returncode is not None, timedelta())
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended.

        Args:
            timeout: Give up after so many seconds; None: never.

        Returns:
            How it has ended.

        Raises:
            subprocess.TimeoutExpired: It has not, in time.
            LabError: The server has ended, and so has the process, or it was never there.
        """
        self._listen(lambda: self.returncode is not None, None if timeout is None else timedelta(seconds=timeout))
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return self.returncode

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal; nothing when it has ended, as its id may be another process's by then."""
        process = self.pid
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(process, number)

    def terminate(self) -> None:
        """Ask it to end (SIGTERM)."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it (SIGKILL)."""
        self.send_signal(signal.SIGKILL)

    def _listen(self, is_told: Callable[[], bool], within: timedelta | None) -> None:
        """Hear what the server says until something is told, or the time is up."""
        deadline = None if within is None else Deadline(within)
        while not is_told():
            if self._lost:
                raise LabError(self._lost)
            self._listener.settimeout(None if deadline is None else deadline.remaining.total_seconds())
            try:
                said = self._listener.recv(64)
            except (TimeoutError, BlockingIOError):
                return
            if not said:
                # The process has its end of the stream too: it is closed when both have gone.
                self._listener.close()
                about = "It was not forked" if self._pid is None else f"How process {self._pid} ended is not known"
                self._lost = f"{about}: {self._reason()}"
                continue
            # A number is too short to come in pieces; both may have come.
            for number in said.split():
                self._take(int(number))

    def _take(self, number: int) -> None:
        if self._pid is None:
            self._pid = number
        else:
            self.returncode = number
            self._listener.close()


class ForkServer(Startable):
    """Forks processes from one that has imported their modules.

    It does not wait until they are imported: what is asked for meanwhile is done afterwards. Where forking is not
    safe, each process is started and imports them itself.

    Args:
        modules: Modules with a function ``main`` that takes no arguments, as ``python -m`` names them; a package's
            is in its ``__main__``. Importing them must not start threads or open files.
        forks: Whether processes are forked.

    Example:
        >>> with ForkServer("testyard.lab.pipelines.worker") as server:     # doctest: +SKIP
        ...     worker = server.fork("testyard.lab.pipelines.worker", "--name", "one", stdin=subprocess.PIPE)
    """

    def __init__(self, *modules: str, forks: bool = FORKING_IS_SAFE) -> None:
        self._modules = modules
        self._forks = forks
        self._resources = ExitStack()
        self._control: socket.socket | None = None
        self._complaints: IO[bytes] | None = None
        self._server: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Let it begin to import the modules."""
        if not self._forks:
            return
        control, theirs = socket.socketpair()
        with theirs, ExitStack() as resources:
            self._control = resources.enter_context(control)
            self._complaints = resources.enter_context(tempfile.TemporaryFile())
            self._server = subprocess.Popen(
                [
                    *(sys.executable, "-m", "testyard.lab.fork_server"),
                    *("--control", str(theirs.fileno()), *self._modules),
                ],
                stdin=DEVNULL,
                stdout=DEVNULL,
                stderr=self._complaints,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
            self._resources = resources.pop_all()

    def lives(self) -> bool:
        """Whether it can fork."""
        return not self._forks or (self._server is not None and self._server.poll() is None)

    def stop(self) -> None:
        """End it, but not its processes: who started them ends them before. Safe to call again."""
        if self._server is not None:
            # It may be in the middle of an import, and has nothing to tidy up.
            self._server.kill()
            self._server.wait()
        self._resources.close()
        self._control = self._complaints = None

    def fork(
        self,
        module: str,
        *arguments: str,
        stdin: Stream = DEVNULL,
        stdout: Stream = DEVNULL,
        stderr: Stream = DEVNULL,
        environment: Mapping[str, str] | None = None,
        descriptors: tuple[int, ...] = (),
    ) -> ChildProcess:
        """Start a process, in a session of its own.

        Args:
            module: One of the server's modules.
            arguments: Of the process's command line; not secret.
            stdin: A file, its descriptor, ``subprocess.PIPE`` or ``subprocess.DEVNULL``.
            stdout: The same.
            stderr: The same.
            environment: Added to the environment that the server was started with; may be secret.
            descriptors: Inherited, under the same numbers.

        Raises:
            LabError: The server has ended, with the last line it said.
        """
        variables = dict(environment or {})
        command = [sys.executable, "-m", module, *arguments]
        if not self._forks:
            return subprocess.Popen(
                command,
                env={**os.environ, **variables},
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                pass_fds=descriptors,
                start_new_session=True,
            )
        if module not in self._modules:
            message = f"The fork server of the lab has not imported {module}, only {', '.join(self._modules)}."
            raise LabError(message)
        if self._control is None:
            raise LabError(self._reason())
        with ExitStack() as theirs, ExitStack() as ours:
            listener, told = socket.socketpair()
            ours.enter_context(listener)
            theirs.enter_context(told)
            ends = [
                _ends_of(each, reads, ours, theirs)
                for each, reads in ((stdin, True), (stdout, False), (stderr, False))
            ]
            request = Request(module, arguments, variables, descriptors)
            try:
                request.send(self._control, [told.fileno(), *(number for number, _ in ends), *descriptors])
            except ConnectionError:
                raise LabError(self._reason()) from None
            ours.pop_all()
        return ForkedProcess(command, listener, (ends[0][1], ends[1][1], ends[2][1]), self._reason)

    def _reason(self) -> str:
        """Why nothing can be heard from it."""
        if self._server is None or self._complaints is None:
            return "The fork server of the lab is not running."
        wait_for_the_end(self._server)
        # Reading from the start without moving the place at which the server writes, which is the same.
        said = os.pread(self._complaints.fileno(), os.fstat(self._complaints.fileno()).st_size, 0)
        return f"The fork server of the lab ended with status {self._server.returncode}: {last_line(said)}"


def _ends_of(given: Stream, reads: bool, ours: ExitStack, theirs: ExitStack) -> tuple[int, IO[bytes] | None]:
    """The descriptor that a process gets for a standard stream, and its other end where that is a pipe."""
    if given == PIPE:
        reading, writing = os.pipe()
        their_end, our_end = (reading, writing) if reads else (writing, reading)
        theirs.callback(os.close, their_end)
        return their_end, ours.enter_context(os.fdopen(our_end, "wb" if reads else "rb"))
    if given == DEVNULL:
        nowhere = os.open(os.devnull, os.O_RDWR)
        theirs.callback(os.close, nowhere)
        return nowhere, None
    return given if isinstance(given, int) else given.fileno(), None
