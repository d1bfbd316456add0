"""The agent as a daemon: how it is started, listened to, ended, and never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
from testyard.core.deadline import Deadline, wait_until
from testyard.core.errors import NotMetError
from testyard.core.redact import secrets_in_use
from testyard.waldur.daemon import AgentDaemon, AgentMode, LogLine
from testyard.waldur.daemon_launcher import ORPHANED

SOON = timedelta(seconds=10)
AT_ONCE = timedelta()
TOKEN = "0123456789abcdef0123456789abcdef01234567"

WAITS = "import sys\nsys.stdin.read()\n"
DEAF = "import signal, threading\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
SPEAKS = """
import json, sys
print(json.dumps({"event": "ready", "level": "info", "logger": "agent"}))
print(json.dumps({"event": "A is away", "level": "error", "exception": "Traceback\\n  line\\nOSError: refused"}))
print("[1, 2]")
print()
print(json.dumps({"event": "with Token TOKEN", "level": "debug"}))
print("arguments", *sys.argv[1:], flush=True)
""".replace("TOKEN", TOKEN)

Start = Callable[..., AgentDaemon]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Starts a daemon whose command is a given program."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    started: list[AgentDaemon] = []

    def start(program: str, mode: AgentMode = AgentMode.REPORT) -> AgentDaemon:
        (tmp_path / "a_program.py").write_text(program)
        daemon = AgentDaemon(mode, Path("agent.yaml"), launcher="a_program")
        started.append(daemon)
        return daemon

    yield start
    for daemon in started:
        daemon.close()


def test_it_is_started_as_the_command_is_and_its_log_is_read(start: Start) -> None:
    secrets_in_use.add(TOKEN)
    daemon = start(SPEAKS + WAITS, AgentMode.MEMBERSHIP_SYNC)

    daemon.wait_until_said("arguments", Deadline(SOON))

    assert daemon.log() == [
        LogLine("info", "ready"),
        LogLine("error", "A is away (OSError: refused)"),
        LogLine("", "[1, 2]"),
        LogLine("debug", "with Token ***"),
        LogLine("", "arguments -m membership_sync -c agent.yaml"),
    ]
    assert daemon.status is None


def test_reading_the_log_does_not_disturb_what_is_written(start: Start) -> None:
    daemon = start("import sys\nfor line in sys.stdin:\n    print('heard', line.strip(), flush=True)\n")
    assert daemon._process.stdin is not None
    for word in ("one", "two", "three"):
        daemon._process.stdin.write(f"{word}\n".encode())
        daemon._process.stdin.flush()
        daemon.wait_until_said(f"heard {word}", Deadline(SOON))
    assert [line.text for line in daemon.log()] == ["heard one", "heard two", "heard three"]


def test_waiting_for_a_word_ends_when_the_daemon_has(start: Start) -> None:
    daemon = start("import sys\nprint('no configuration', file=sys.stderr)\nsys.exit(3)\n")
    with pytest.raises(NotMetError) as problem:
        daemon.wait_until_said("ready", Deadline(SOON))
    assert "for the daemon report to say 'ready', but it has ended with status 3" in str(problem.value)
    assert "no configuration" in str(problem.value)


def test_the_last_word_of_a_daemon_that_has_ended_counts(start: Start) -> None:
    daemon = start("print('ready')\n")
    wait_until(lambda: daemon.status, lambda status: status == 0, Deadline(SOON), "its end")
    daemon.wait_until_said("ready", Deadline(AT_ONCE))


def test_waiting_for_a_word_ends_when_the_time_is_over(start: Start) -> None:
    daemon = start("print('something else', flush=True)\n" + WAITS)
    daemon.wait_until_said("something", Deadline(SOON))
    with pytest.raises(
        NotMetError, match=r"(?s)to say 'ready', but the time is over. It said last:.*something else"
    ):
        daemon.wait_until_said("ready", Deadline(AT_ONCE))


def test_a_silent_daemon_is_told_as_such(start: Start) -> None:
    with pytest.raises(NotMetError, match="It said nothing"):
        start(WAITS).wait_until_said("ready", Deadline(AT_ONCE))


@pytest.mark.parametrize(
    ("program", "status"),
    [
        ("print('ready', flush=True)\n", -signal.SIGTERM),
        ("import signal\nsignal.signal(signal.SIGTERM, lambda *_: exit(0))\nprint('ready', flush=True)\n", 0),
    ],
)
def test_sigterm_ends_it_and_the_status_tells_how(start: Start, program: str, status: int) -> None:
    daemon = start(program + WAITS)
    daemon.wait_until_said("ready", Deadline(SOON))
    assert daemon.end(Deadline(SOON)) == daemon.status == status


def test_modes_end_as_the_agent_lets_them() -> None:
    assert {mode.value: mode.status_after_sigterm for mode in AgentMode} == {
        "order_process": -15,
        "report": -15,
        "membership_sync": -15,
        "event_process": 0,
    }


def test_one_that_ended_before_cannot_be_ended(start: Start) -> None:
    daemon = start("print('that was all')\n")
    wait_until(lambda: daemon.status, lambda status: status == 0, Deadline(SOON), "its end")
    with pytest.raises(NotMetError, match=r"(?s)had ended already, with status 0.*that was all"):
        daemon.end(Deadline(SOON))


def test_one_that_does_not_listen_is_told_and_closed_nevertheless(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("testyard.waldur.daemon.CLOSE_WITHIN", timedelta(milliseconds=100))
    daemon = start(DEAF + "print('ready', flush=True)\nthreading.Event().wait()\n")
    daemon.wait_until_said("ready", Deadline(SOON))
    with pytest.raises(NotMetError, match="for the daemon report to end on SIGTERM"):
        daemon.end(Deadline(AT_ONCE))
    daemon.close()
    daemon.close()
    assert daemon.status == -signal.SIGKILL
    assert not psutil.pid_exists(daemon.pid)


def test_it_leaves_no_file_behind(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = tmp_path / "temporary"
    room.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(room))
    daemon = start("print('ready', flush=True)\n" + WAITS)
    daemon.wait_until_said("ready", Deadline(SOON))
    assert not list(room.iterdir())


# ---- the launcher


def _launch(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "testyard.waldur.daemon_launcher", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def test_the_launcher_runs_the_agents_own_command() -> None:
    with _launch("--help") as process:
        assert process.stdout is not None
        said = process.stdout.read().decode()
        assert process.wait() == 0
    assert said.startswith("usage: waldur_site_agent [-h]")
    assert "{order_process,report,membership_sync,event_process}" in said


def test_the_launcher_ends_when_its_pipe_closes() -> None:
    with _launch("-c", "/nowhere.yaml") as process:
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(SOON.total_seconds()) == ORPHANED


def test_a_daemon_ends_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    configuration = tmp_path / "agent.yaml"
    os.mkfifo(configuration)  # it waits for ever for somebody to write it
    parent_program = (
        "import sys\nfrom pathlib import Path\nfrom testyard.waldur.daemon import AgentDaemon, AgentMode\n"
        f"daemon = AgentDaemon(AgentMode.REPORT, Path({str(configuration)!r}))\n"
        "print(daemon.pid, flush=True)\nsys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", parent_program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        daemon = psutil.Process(int(parent.stdout.readline()))
        assert daemon.is_running()
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()

    def is_there() -> bool:
        with suppress(psutil.NoSuchProcess):
            return daemon.is_running() and daemon.status() != psutil.STATUS_ZOMBIE
        return False

    wait_until(is_there, lambda there: not there, Deadline(SOON), "the daemon to end with its parent")
