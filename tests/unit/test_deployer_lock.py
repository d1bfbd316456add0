"""One operation at a time: the lock of a deployment, held and left behind."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from testyard.lab.cluster.deployer import lock as lock_module
from testyard.lab.cluster.deployer.lock import (
    LOCK_FILE,
    LOOKS,
    Holder,
    LockedError,
    birth_of,
    held,
    holder_of,
    is_running,
)
from testyard.lab.cluster.deployer.settings import Settings

SOON = timedelta(milliseconds=1)


@contextmanager
def other_process() -> Iterator[int]:
    """A process that runs until the end of the ``with`` statement."""
    command = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        yield process.pid


def ended_process() -> int:
    """The id of a process that is no more."""
    with other_process() as pid:
        pass
    return pid


def leave_lock(directory: Path, pid: int, *, operation: str = "deploy", birth: str = "") -> None:
    content = {"pid": pid, "operation": operation, "since": "2026-01-01T00:00:00Z", "birth": birth}
    (directory / LOCK_FILE).write_text(json.dumps(content), encoding="utf-8")


def test_a_stale_lock_is_looked_at_five_times_a_second_apart():
    assert (LOOKS, Settings().lock_interval) == (5, timedelta(seconds=1))


def test_while_it_is_held_the_lock_names_its_holder(tmp_path):
    with held(tmp_path, "deploy", SOON, pytest.fail):
        holder = holder_of(tmp_path)
        assert holder is not None
        assert (holder.pid, holder.operation, holder.lives) == (os.getpid(), "deploy", True)
    assert list(tmp_path.iterdir()) == []


def test_the_lock_is_released_when_the_operation_fails(tmp_path):
    with pytest.raises(ZeroDivisionError), held(tmp_path, "deploy", SOON, pytest.fail):
        raise ZeroDivisionError
    assert holder_of(tmp_path) is None


def test_a_lock_of_a_living_process_is_refused_at_once(tmp_path):
    with other_process() as pid:
        leave_lock(tmp_path, pid, birth=birth_of(pid))
        with (
            pytest.raises(
                LockedError, match=rf"^stop is refused: deploy is in progress \(deploy, process {pid}, "
            ),
            held(tmp_path, "stop", timedelta(hours=1), pytest.fail),
        ):
            pytest.fail("the lock was taken")
        assert holder_of(tmp_path).pid == pid


def test_a_stale_lock_is_removed_and_that_is_told(tmp_path):
    pid = ended_process()
    leave_lock(tmp_path, pid)
    told: list[str] = []
    with held(tmp_path, "destroy", SOON, told.append) as removed:
        assert removed is not None
        assert (removed.pid, removed.operation) == (pid, "deploy")
        assert holder_of(tmp_path).pid == os.getpid()
    (line,) = told
    assert "stale lock" in line
    assert str(pid) in line


def test_a_stale_lock_is_given_its_time(tmp_path, monkeypatch):
    leave_lock(tmp_path, ended_process())
    pauses: list[timedelta] = []
    monkeypatch.setattr("testyard.core.deadline.Deadline.pause", lambda _, interval: pauses.append(interval))
    with held(tmp_path, "destroy", timedelta(seconds=1), lambda _: None):
        assert pauses == [timedelta(seconds=1)] * 5


def test_a_process_that_has_got_the_id_later_does_not_hold_the_lock(tmp_path):
    with other_process() as pid:
        leave_lock(tmp_path, pid, birth="1")
        with held(tmp_path, "destroy", SOON, lambda _: None) as removed:
            assert removed.pid == pid


def test_a_process_that_nobody_has_waited_for_does_not_hold_the_lock(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    assert process.stdout.read() == b""
    try:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert not is_running(process.pid, "")
    finally:
        process.communicate()


@pytest.mark.parametrize("content", ["", "4711", "{}", '{"pid": "many"}', "[]"])
def test_a_lock_that_names_nobody_is_stale(tmp_path, content):
    (tmp_path / LOCK_FILE).write_text(content, encoding="utf-8")
    assert not holder_of(tmp_path).lives
    with held(tmp_path, "destroy", SOON, lambda _: None):
        assert holder_of(tmp_path).pid == os.getpid()


def test_an_operation_waits_for_the_writing_of_a_measured_status(tmp_path, monkeypatch):
    with other_process() as pid:
        leave_lock(tmp_path, pid, operation="health", birth=birth_of(pid))
        looks: list[timedelta] = []

        def pause(_, interval):
            looks.append(interval)
            if len(looks) == 2:
                (tmp_path / LOCK_FILE).unlink()

        monkeypatch.setattr("testyard.core.deadline.Deadline.pause", pause)
        with held(tmp_path, "stop", SOON, pytest.fail) as removed:
            assert removed is None
    assert len(looks) == 2


def test_an_operation_does_not_wait_forever_for_it(tmp_path):
    with other_process() as pid:
        leave_lock(tmp_path, pid, operation="health", birth=birth_of(pid))
        with pytest.raises(LockedError, match="another operation"), held(tmp_path, "stop", SOON, pytest.fail):
            pytest.fail("the lock was taken")


def test_nobody_else_may_take_the_lock_between_seeing_it_stale_and_removing_it(tmp_path, monkeypatch):
    leave_lock(tmp_path, ended_process())
    seen_alone: list[bool] = []

    def look(directory: Path) -> Holder | None:
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            seen_alone.append(True)
        else:
            seen_alone.append(False)
        finally:
            os.close(descriptor)
        return holder_of(directory)

    monkeypatch.setattr(lock_module, "holder_of", look)
    with held(tmp_path, "destroy", SOON, lambda _: None):
        assert seen_alone == [True] * (LOOKS + 1)


def test_many_at_once_take_the_stale_lock_once(tmp_path):
    leave_lock(tmp_path, ended_process())
    script = (
        "import sys, pathlib, datetime\n"
        "from testyard.lab.cluster.deployer.lock import held, LockedError\n"
        "sys.stdout.write('up\\n'); sys.stdout.flush(); sys.stdin.readline()\n"
        "try:\n"
        "    with held(pathlib.Path(sys.argv[1]), 'stop', datetime.timedelta(milliseconds=20), lambda _: None):\n"
        "        sys.stdout.write('held\\n'); sys.stdout.flush(); sys.stdin.readline()\n"
        "except LockedError:\n"
        "    sys.stdout.write('refused\\n')\n"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    try:
        assert [process.stdout.readline() for process in processes] == ["up\n"] * 4
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        results = sorted(process.stdout.readline() for process in processes)
    finally:
        for process in processes:
            process.communicate()
    assert results == ["held\n", "refused\n", "refused\n", "refused\n"]
