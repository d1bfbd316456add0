"""A guarded process is started, stopped and started again, and dies with whoever started it."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path

import psutil
import pytest
from postgresql_support import still_alive
from testyard.core.deadline import Deadline, wait_until
from testyard.lab.children import LabError
from testyard.lab.servers import process_guard
from testyard.lab.servers.guarded_process import GuardedProcess

SOON = timedelta(seconds=5)
SLEEPER = [sys.executable, "-S", "-c", "import signal; print('up', flush=True); signal.pause()"]


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[GuardedProcess]:
    """A guard of nothing yet."""
    guarded = GuardedProcess("the sleeper", tmp_path / "own")
    yield guarded
    guarded.close()


def log_of(guarded: GuardedProcess) -> Path:
    return guarded.directory / "log"


def started(guarded: GuardedProcess) -> psutil.Process:
    """A sleeper that is up."""
    log = log_of(guarded)
    before = log.read_text() if log.exists() else ""
    process = psutil.Process(guarded.run(SLEEPER, log=log))
    wait_until(log.read_text, lambda text: text == f"{before}up\n", Deadline(SOON), "the sleeper")
    return process


def test_it_is_started_killed_and_started_again(guarded: GuardedProcess) -> None:
    first = started(guarded)
    assert guarded.wait() is None
    guarded.kill()
    assert not first.is_running()
    assert guarded.wait() == -signal.SIGKILL
    guarded.kill()
    second = started(guarded)
    assert second.pid == guarded.pid != first.pid
    assert second.cwd() == str(guarded.directory)


def test_its_directory_is_private_and_gone_in_the_end(guarded: GuardedProcess) -> None:
    process = started(guarded)
    assert guarded.directory.stat().st_mode & 0o777 == 0o700
    assert log_of(guarded).stat().st_mode & 0o077 == 0o044, "in the private directory"
    guarded.close()
    guarded.close()
    assert still_alive([process]) == []
    assert not guarded.directory.exists()


def test_it_has_only_the_environment_that_it_is_given(guarded: GuardedProcess) -> None:
    command = [sys.executable, "-S", "-c", "import os; print(os.environ['ONLY'], 'HOME' in os.environ)"]
    guarded.run(command, log=log_of(guarded), environment={"ONLY": "this"})
    assert guarded.wait(SOON) == 0
    assert log_of(guarded).read_text() == "this False\n"


def test_a_second_one_at_a_time_is_refused(guarded: GuardedProcess) -> None:
    process = started(guarded)
    with pytest.raises(LabError, match=rf"^the sleeper: process {process.pid} still runs$"):
        guarded.run(SLEEPER, log=log_of(guarded))
    assert process.is_running()


def test_what_cannot_be_run_is_named(guarded: GuardedProcess) -> None:
    with pytest.raises(LabError, match=r"^the sleeper: .*No such file or directory: '/no/such/program'$"):
        guarded.run(["/no/such/program"], log=log_of(guarded))
    assert guarded.wait() == 0
    started(guarded)


def test_a_directory_that_exists_is_refused_and_kept(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="File exists"):
        GuardedProcess("the sleeper", tmp_path)
    assert tmp_path.is_dir()


def test_a_signal_is_passed_on_and_a_wait_has_an_end(guarded: GuardedProcess) -> None:
    process = started(guarded)
    deadline = Deadline(SOON)
    assert guarded.wait(timedelta(milliseconds=50)) is None
    assert timedelta(milliseconds=40) < deadline.elapsed
    guarded.signal(signal.SIGTERM)
    assert guarded.wait(SOON) == -signal.SIGTERM
    assert not process.is_running()
    guarded.signal(signal.SIGTERM)


def unread(pipe: int) -> int:
    """How many bytes of a pipe nobody has read."""
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


def test_an_answer_that_nobody_took_is_not_taken_for_the_next(guarded: GuardedProcess) -> None:
    guard = guarded._guard
    assert guard is not None
    assert guard.stdin is not None
    process = started(guarded)
    # As when a timeout interrupts the wait for an answer, which is then given up for what is asked next.
    for _ in range(3):
        guard.stdin.write(json.dumps({"wait": 60, "number": 0}).encode() + b"\n")
    wait_until(partial(unread, guard.stdin.fileno()), lambda it: it == 0, Deadline(SOON), "the guard to read")
    assert guarded.wait() is None
    guarded.kill()
    assert not process.is_running()
    assert guarded.wait() == -signal.SIGKILL


def test_who_guards_it_is_told_when_it_is_gone(guarded: GuardedProcess) -> None:
    process = started(guarded)
    guard = process.parent()
    assert guard is not None
    guard.kill()
    with pytest.raises(LabError, match=r"^the sleeper is gone: who guards it was killed\.$"):
        guarded.wait()
    guarded.close()
    assert still_alive([process, guard]) == []
    assert not guarded.directory.exists()
    with pytest.raises(LabError, match=r"^the sleeper is not running: start it first\.$"):
        guarded.wait()


def test_one_that_has_ended_is_not_killed_again_by_its_number(
    guarded: GuardedProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = started(guarded)
    guard = process.parent()
    assert guard is not None
    guarded.kill()
    guard.kill()
    killed: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, _: killed.append(pid))
    guarded.close()
    assert killed == []


OWNER = """
import sys
from pathlib import Path
from testyard.lab.servers.guarded_process import GuardedProcess
guarded = GuardedProcess("the sleeper", Path(sys.argv[1]))
guarded.run(sys.argv[2:], log=guarded.directory / "log")
print(guarded.pid, flush=True)
while True:
    guarded.wait()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_it_dies_with_its_owner_also_in_the_middle_of_a_wait(tmp_path: Path, number: signal.Signals) -> None:
    directory = tmp_path / "own"
    command = [sys.executable, "-c", OWNER, str(directory), *SLEEPER]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        process = psutil.Process(int(owner.stdout.readline()))
        guard = process.parent()
        assert guard is not None
        owner.send_signal(number)
    assert still_alive([process, guard]) == []
    assert not directory.exists()


def test_a_guard_without_a_parent_ends_at_once() -> None:
    ended = subprocess.run([sys.executable, process_guard.__file__], input=b"", capture_output=True, check=True)
    assert (ended.stdout, ended.stderr) == (b"", b"")
