"""Runs ``robot`` as a user would, in a world of its own, and looks for whatever it left there."""

from __future__ import annotations

import base64
import os
import re
import signal
import socket
import subprocess
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Self
from urllib.parse import quote
from uuid import uuid4

import psutil
from robot.api import ExecutionResult
from robot.result import Result, TestCase
from testyard.core.deadline import Deadline, wait_until

PROJECT = Path(__file__).resolve().parent.parent
FEDERATION = PROJECT / "suites" / "federation"
DATA = PROJECT / "tests" / "data" / "acceptance"

# What the project promises, and generous limits for what it does not.
GONE_WITHIN = timedelta(seconds=5)
ENDS_WITHIN = timedelta(seconds=120)
OFTEN = timedelta(milliseconds=5)

# log.html holds its texts in lists, as "*text" or as what zlib and base64 make of it.
COMPRESSED = re.compile(r'"(eN[A-Za-z0-9+/]{30,}={0,2})"')
SLICE = 16

MARK = "TESTYARD_ACCEPTANCE_MARK"
OWN_VARIABLES = "WALDUR_E2E_"


class Run:
    """One subprocess with its own temporary, home and working directory; all its descendants can be told.

    Args:
        directory: Where everything about it goes; empty.
        module: The Python module to run, as ``python -m``.
        arguments: Of the command.
        environment: Added to this process's own.
        stdin: What it can read.
    """

    def __init__(
        self,
        directory: Path,
        module: str,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        stdin: str | None = None,
    ) -> None:
        self.directory = directory
        self.temporary = directory / "temporary"
        self.home = directory / "home"
        self.working = directory / "working"
        for room in (self.temporary, self.home, self.working):
            room.mkdir(parents=True)
        self.mark = uuid4().hex
        self.addresses: set[tuple[str, int]] = set()
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(OWN_VARIABLES)}
        own = {MARK: self.mark, "TMPDIR": str(self.temporary), "HOME": str(self.home)}
        self._stdin = directory / "stdin.txt"
        self._stdin.write_text(stdin or "")
        with (
            self._stdin.open() as source,
            (directory / "stdout.txt").open("w") as out,
            (directory / "stderr.txt").open("w") as err,
        ):
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                cwd=self.working,
                env=inherited | own | dict(environment or {}),
                stdin=source,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.destroy()

    @property
    def stdout(self) -> str:
        """What it has written to standard output so far."""
        return (self.directory / "stdout.txt").read_text()

    @property
    def stderr(self) -> str:
        """What it has written to standard error so far."""
        return (self.directory / "stderr.txt").read_text()

    def finish(self, within: timedelta = ENDS_WITHIN) -> Self:
        """Wait until the process has ended; it and its descendants are destroyed when it does not in time."""
        try:
            self.process.wait(within.total_seconds())
        except subprocess.TimeoutExpired:
            self.destroy()
            raise
        return self

    def destroy(self) -> None:
        """End the process and every descendant, without grace."""
        self.process.kill()
        self.process.wait()
        for descendant in self.marked():
            with suppress(psutil.NoSuchProcess):
                descendant.kill()

    def marked(self) -> list[psutil.Process]:
        """Every living process that this run started, directly or not; zombies do not count."""
        return [process for process in psutil.process_iter() if _is_marked(process, self.mark)]

    def children(self) -> list[psutil.Process]:
        """The living child processes."""
        try:
            return psutil.Process(self.process.pid).children()
        except psutil.NoSuchProcess:
            return []

    def commands(self) -> set[str]:
        """The command lines of the run's living processes."""
        found = set()
        for process in self.marked():
            with suppress(psutil.NoSuchProcess):
                found.add(" ".join(process.cmdline()))
        return found

    def remember_addresses(self) -> None:
        """Note where the run's processes listen now, to see later that nobody does any more."""
        for process in self.marked():
            with suppress(psutil.NoSuchProcess):
                self.addresses.update(
                    (connection.laddr.ip, connection.laddr.port)
                    for connection in process.net_connections("tcp")
                    if connection.status == psutil.CONN_LISTEN
                )

    def leftovers(self) -> list[str]:
        """What is left of the run outside its results: processes, sockets, files."""
        left = [f"process {process.pid} of the run" for process in self.marked()]
        left += [f"somebody listens on {host}:{port}" for host, port in self.addresses if _listens(host, port)]
        for room in (self.temporary, self.home, self.working):
            # Not rglob: it fails when a directory goes while it looks.
            for place, directories, files in os.walk(room):
                left += [os.path.relpath(Path(place) / name, self.directory) for name in (*directories, *files)]
        return left

    def should_leave_nothing(self, deadline: Deadline) -> None:
        """Wait until nothing is left of the run; an AssertionError lists what is."""
        wait_until(self.leftovers, lambda left: not left, deadline, "nothing to be left of the run")


class RobotRun(Run):
    """One run of ``robot``, its results in ``directory/results``.

    Args:
        directory: Where everything about it goes; empty.
        arguments: Options of robot, then suites.
        environment: Added to this process's own, which is cleared of the user's own Waldurs.
    """

    def __init__(
        self, directory: Path, *arguments: str | Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.results = directory / "results"
        self.debug_file = self.results / "debug.txt"
        super().__init__(
            directory,
            "robot",
            *("--outputdir", str(self.results), "--debugfile", self.debug_file.name),
            *map(str, arguments),
            environment=environment,
        )

    @property
    def debug(self) -> str:
        """The debug file as far as it is written; robot writes each line at once."""
        return self.debug_file.read_text() if self.debug_file.exists() else ""

    def wait_for(self, text: str) -> None:
        """Wait until the debug file has a text; an AssertionError when the run ends without it."""

        def debug() -> str:
            self._should_go_on()
            return self.debug

        what = f"{text!r} in {self.debug_file}"
        wait_until(debug, lambda written: text in written, Deadline(ENDS_WITHIN), what, interval=OFTEN)

    @contextmanager
    def holding_still(self) -> Iterator[None]:
        """Stop robot's own process meanwhile; a signal that it gets takes effect when it goes on."""
        robot = psutil.Process(self.process.pid)
        robot.suspend()
        try:
            yield
        finally:
            robot.resume()

    def wait_until_stopped(self) -> None:
        """Wait until the stopping listener has stopped robot; an AssertionError when the run ends instead."""
        robot = psutil.Process(self.process.pid)

        def is_stopped() -> bool:
            self._should_go_on()
            return robot.status() == psutil.STATUS_STOPPED

        wait_until(is_stopped, bool, Deadline(ENDS_WITHIN), "robot to be stopped", interval=OFTEN)

    def _should_go_on(self) -> None:
        status = self.process.poll()
        assert status is None, f"robot ended early, with status {status}:\n{self.stdout}\n{self.stderr}"

    def written(self) -> dict[str, str]:
        """Everything the run wrote by file name, its console included."""
        files = [path for path in self.results.rglob("*") if path.is_file()]
        texts = {path.name: expanded(path.read_text(encoding="utf-8")) for path in files}
        return texts | {"stdout": self.stdout, "stderr": self.stderr}

    def result(self) -> Result:
        """The run's output.xml."""
        return ExecutionResult(self.results / "output.xml")

    def tests(self) -> dict[str, TestCase]:
        """The run's tests by name."""
        return {test.name: test for test in self.result().suite.all_tests}


def forms_of(secret: str) -> set[str]:
    """The texts that give a secret away: any sixteen characters of it, and its base64 and URL encodings."""
    forms = {secret[start : start + SLICE] for start in range(max(len(secret) - SLICE, 0) + 1)}
    forms.add(quote(secret, safe=""))
    for shift in range(3):  # a secret may start anywhere in the groups of three bytes that base64 encodes
        encoded = base64.b64encode(b" " * shift + secret.encode())
        forms.add(encoded[shift * 4 // 3 + 1 : -4].decode())
    return forms


def leaks_in(texts: Mapping[str, str], secrets: Iterable[str]) -> list[str]:
    """Which of some named texts give a secret away: one line per text and secret."""
    forms = {secret: forms_of(secret) for secret in secrets}
    return [
        f"{name} shows {secret[:4]}…"
        for name, text in texts.items()
        for secret, told in forms.items()
        if any(form in text for form in told)
    ]


def expanded(page: str) -> str:
    """A page of Robot Framework with the texts that are compressed in it (log.html: longer ones) in the clear."""
    return COMPRESSED.sub(lambda text: zlib.decompress(base64.b64decode(text[1])).decode(), page)


def send(run: Run, number: signal.Signals) -> None:
    """Send a signal to the run's own process, which must still be there."""
    assert run.process.poll() is None, f"the run ended before it could be sent {number.name}"
    run.process.send_signal(number)


def _is_marked(process: psutil.Process, mark: str) -> bool:
    try:
        return process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False


def _listens(host: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) == 0


def lines_of(text: str) -> Iterator[str]:
    """The lines of a text that are not empty."""
    return (line for line in text.splitlines() if line.strip())
