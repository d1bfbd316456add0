"""Processes that are forked are as those that are started, and nothing of them is left."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import IO, Any
from unittest.mock import Mock

import psutil
import pytest
from fork_probe import is_open
from testyard.core.deadline import Deadline, wait_until
from testyard.lab.children import ChildProcess, LabError, wait_for_the_end
from testyard.lab.fork_server.client import ForkServer
from testyard.lab.fork_server.request import Request

PROBE = "fork_probe"
TESTS = Path(__file__).parents[1]
WITHIN = 20.0
SOON = timedelta(seconds=5)

# Forks two processes that end with standard input, and says which processes there are.
OWNER = f"""
import signal, subprocess
from testyard.lab.fork_server.client import ForkServer
server = ForkServer({PROBE!r})
server.start()
kept = [server.fork({PROBE!r}, "echo", stdin=subprocess.PIPE) for _ in range(2)]
print(server._server.pid, *(each.pid for each in kept), flush=True)
signal.pause()
"""


@pytest.fixture(scope="module", autouse=True)
def probe_can_be_imported() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(TESTS), prepend=os.pathsep)
        patch.delenv("PYTHONUNBUFFERED", raising=False)
        yield


@pytest.fixture(scope="module")
def server(probe_can_be_imported: None) -> Iterator[ForkServer]:
    with ForkServer(PROBE, forks=True) as server:
        yield server


@pytest.fixture(scope="module")
def starter(probe_can_be_imported: None) -> Iterator[ForkServer]:
    with ForkServer(PROBE, forks=False) as starter:
        yield starter


@pytest.fixture(params=["forked", "started"])
def either(request: pytest.FixtureRequest, server: ForkServer, starter: ForkServer) -> ForkServer:
    """Whether processes are forked or started, they do the same."""
    return server if request.param == "forked" else starter


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Makes a module of some text; gives its name."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)

    def write(text: str) -> str:
        (tmp_path / "made.py").write_text(text)
        return "made"

    return write


def finish(process: ChildProcess) -> tuple[int, str]:
    """Close its input and wait for its end; gives its status and what it has said."""
    if process.stdin:
        process.stdin.close()
    status = process.wait(WITHIN)
    return status, said_on(process.stdout) if process.stdout else ""


def said_on(stream: IO[bytes]) -> str:
    """What there is to read; it is not waited for anybody else who might have the other end."""
    with stream:
        os.set_blocking(stream.fileno(), False)
        return (stream.read() or b"").decode()


def server_process(server: ForkServer) -> psutil.Process:
    assert server._server is not None
    return psutil.Process(server._server.pid)


def is_gone(process: int) -> bool:
    try:
        return psutil.Process(process).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_until_gone(*processes: int) -> None:
    wait_until(
        lambda: [each for each in processes if not is_gone(each)], lambda left: not left, Deadline(SOON), "ends"
    )


# ---- as a started process


@pytest.mark.parametrize(
    ("action", "expected", "complained"),
    [
        (("end_with_nothing",), (0, ""), ""),
        (("end_with", "0"), (0, ""), ""),
        (("end_with", "3"), (3, ""), ""),
        (("exit_saying", "no such thing"), (1, ""), "no such thing"),
        (("fail",), (1, ""), "LookupError: nothing was found"),
        (("die", str(int(signal.SIGKILL))), (-signal.SIGKILL, ""), ""),
        (("die", str(int(signal.SIGINT))), (-signal.SIGINT, ""), "KeyboardInterrupt"),
        (("die", str(int(signal.SIGTERM))), (-signal.SIGTERM, ""), ""),
        (("say_without_end_of_line",), (0, "half a line"), ""),
        (("say_at_the_end",), (0, "the end\n"), ""),
        (("end_in_the_background",), (0, "later"), ""),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) and isinstance(value[0], str) else "",
)
def test_how_it_ends(
    either: ForkServer, tmp_path: Path, action: tuple[str, ...], expected: tuple[int, str], complained: str
) -> None:
    with (tmp_path / "stderr").open("wb") as complaints:
        process = either.fork(PROBE, *action, stdout=PIPE, stderr=complaints)

    assert finish(process) == expected
    assert ((tmp_path / "stderr").read_text().splitlines() or [""])[-1] == complained
    assert process.poll() == expected[0]
    assert process.wait() == expected[0]


def test_streams(either: ForkServer) -> None:
    process = either.fork(PROBE, "echo", stdin=PIPE, stdout=PIPE, stderr=PIPE)
    assert process.stdin
    assert process.stdout
    assert process.stderr

    process.stdin.write("zwölf\n".encode())
    process.stdin.flush()
    assert process.stdout.readline().decode() == "ZWÖLF\n"
    assert process.poll() is None
    assert finish(process) == (0, "")
    assert said_on(process.stderr) == "it has ended\n"


def test_a_file_as_stream(either: ForkServer, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("one\n")
    with (tmp_path / "in").open("rb") as source, (tmp_path / "out").open("wb") as target:
        process = either.fork(PROBE, "echo", stdin=source, stdout=target.fileno())

    assert finish(process) == (0, "")
    assert (tmp_path / "out").read_text() == "ONE\n"
    assert (process.stdin, process.stdout, process.stderr) == (None, None, None)


@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
def test_everything_else_is_as_in_a_started_process(monkeypatch: pytest.MonkeyPatch, unbuffered: str) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)

    def described(forks: bool) -> dict[str, Any]:
        with ForkServer(PROBE, forks=forks) as server, socket.socket() as inherited:
            # One that lives on: nothing of it may be in the next.
            other = server.fork(PROBE, "echo", stdin=PIPE, stdout=PIPE)
            process = server.fork(
                *(PROBE, "describe", "ä", "--option"), stdout=PIPE, descriptors=(inherited.fileno(),)
            )
            status, said = finish(process)
            assert status == 0
            assert finish(other) == (0, "")
            told: dict[str, Any] = json.loads(said)
            told["open"].remove(inherited.fileno())
            return told

    started, forked = described(forks=False), described(forks=True)
    # The stream on which its end is told: it is open as long as the process lives.
    extra = forked["open"].pop()
    assert extra > 2
    assert forked == started
    assert started["open"] == [0, 1, 2]
    assert started["wakes"] == -1


def test_environment_is_the_processs_own(server: ForkServer) -> None:
    secret = f"secret of {os.getpid()}"
    other = server.fork(PROBE, "wait_for_signals", stdout=PIPE, environment={"PROBE_SECRET": secret})
    assert other.stdout
    assert other.stdout.readline() == b"waiting\n"
    told = [
        server.fork(PROBE, "show", "PROBE_SECRET", stdout=PIPE, environment=given)
        for given in ({}, {"PROBE_SECRET": "x"})
    ]

    assert [finish(each)[1] for each in told] == ["(not there)", "x"]
    commands = [" ".join(process.cmdline()) for process in (server_process(server), psutil.Process(other.pid))]
    assert all("testyard.lab.fork_server" in command for command in commands)
    assert not [command for command in commands if secret in command]
    other.kill()
    assert finish(other)[0] == -signal.SIGKILL


def test_an_environment_of_any_size(server: ForkServer) -> None:
    much = "m" * 1_000_000
    process = server.fork(PROBE, "show", "PROBE_MUCH", stdout=DEVNULL, environment={"PROBE_MUCH": much})
    assert finish(process) == (0, "")


@pytest.mark.parametrize("number", [None, 3, 4, 5, 60])
def test_an_inherited_listener(either: ForkServer, number: int | None) -> None:
    """Whatever its number is: the server may have something of its own under it."""
    with socket.create_server(("127.0.0.1", 0)) as listener, ExitStack() as stack:
        if number is None:
            given = listener.fileno()
        else:
            before = os.dup(number) if is_open(number) else None
            given = os.dup2(listener.fileno(), number)
            stack.callback(os.close if before is None else lambda each: os.dup2(before, each), number)
        process = either.fork(PROBE, "answer", str(given), descriptors=(given,))
        address = listener.getsockname()
    with socket.create_connection(address, timeout=WITHIN) as caller:
        assert caller.recv(100) == b"hello"
    assert finish(process) == (0, "")


def test_no_two_draw_the_same(server: ForkServer) -> None:
    drawn = [finish(server.fork(PROBE, "draw", stdout=PIPE))[1].split() for _ in range(3)]
    assert len({value for values in drawn for value in values}) == 3 * 4


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGCHLD])
def test_signals_do_what_they_do_in_a_started_process(either: ForkServer, number: signal.Signals) -> None:
    process = either.fork(PROBE, "wait_for_signals", stdout=PIPE)
    assert process.stdout
    assert process.stdout.readline() == b"waiting\n"
    os.kill(process.pid, number)
    if number is signal.SIGCHLD:  # it is ignored
        process.terminate()
        number = signal.SIGTERM
    assert finish(process) == (-number, "")


# ---- waiting, killing


def test_waiting_gives_up(either: ForkServer) -> None:
    process = either.fork(PROBE, "echo", stdin=PIPE)
    with pytest.raises(subprocess.TimeoutExpired, match=r"fork_probe', 'echo'\]' timed out after 0\.05"):
        process.wait(0.05)
    assert process.poll() is None
    process.kill()
    assert finish(process)[0] == -signal.SIGKILL


def test_no_signal_after_its_end(server: ForkServer, monkeypatch: pytest.MonkeyPatch) -> None:
    process = server.fork(PROBE, "end_with", "0")
    assert process.pid > 0
    wait_until(process.poll, lambda status: status == 0, Deadline(SOON), "its end")
    sent = Mock()
    monkeypatch.setattr(os, "kill", sent)
    process.kill()
    process.terminate()
    sent.assert_not_called()


def test_one_that_has_ended_unseen_gets_no_signal(server: ForkServer, monkeypatch: pytest.MonkeyPatch) -> None:
    process = server.fork(PROBE, "end_with", "0")
    wait_until_gone(process.pid)
    wait_until(server_process(server).children, lambda left: not left, Deadline(SOON), "it to be reaped")
    sent = Mock()
    monkeypatch.setattr(os, "kill", sent)
    process.kill()
    sent.assert_not_called()
    assert process.poll() == 0


def test_each_ends_with_its_own_input(server: ForkServer) -> None:
    """None of the others has a copy of its pipe's other end."""
    processes = [server.fork(PROBE, "echo", stdin=PIPE, stdout=PIPE) for _ in range(4)]
    assert [finish(each) for each in processes[:2]] == [(0, ""), (0, "")]
    assert [each.poll() for each in processes[2:]] == [None, None]
    assert [finish(each) for each in reversed(processes[2:])] == [(0, ""), (0, "")]


def test_thirty_leave_nothing(server: ForkServer) -> None:
    finish(server.fork(PROBE, "draw", stdout=PIPE))
    process = server_process(server)
    before, of_server = psutil.Process().num_fds(), process.num_fds()
    started = [server.fork(PROBE, "end_with", str(number), stdout=PIPE) for number in range(30)]
    assert [finish(each)[0] for each in started] == list(range(30))
    assert process.children() == []
    assert psutil.Process().num_fds() == before
    # It tells of an end before it closes what it tells it on.
    wait_until(process.num_fds, lambda number: number <= of_server, Deadline(SOON), "the server to close the rest")


def test_one_that_ends_before_the_signal_arrives(server: ForkServer, monkeypatch: pytest.MonkeyPatch) -> None:
    process = server.fork(PROBE, "echo", stdin=PIPE)
    with monkeypatch.context() as patch:
        patch.setattr(os, "kill", Mock(side_effect=ProcessLookupError))
        process.kill()
    assert finish(process) == (0, "")


# ---- the server


def test_the_end_of_the_requests() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        with ours:
            ours.sendall(b"\x00\x00\x00\x02{")
        assert Request.receive(theirs) is None
        assert Request.receive(theirs) is None


def test_what_is_asked_for_during_the_import_is_done_afterwards(
    tmp_path: Path, module: Callable[[str], str]
) -> None:
    os.mkfifo(tmp_path / "gate")
    name = module(f"open({str(tmp_path / 'gate')!r}).read()\nimport sys\ndef main():\n    return int(sys.argv[1])")
    with ForkServer(name) as server:
        asked = [server.fork(name, str(number), stdin=PIPE) for number in range(30)]
        assert {each.poll() for each in asked} == {None}
        (tmp_path / "gate").write_text("go on")
        assert [finish(each)[0] for each in asked] == list(range(30))


def test_it_is_stopped_during_the_import(tmp_path: Path, module: Callable[[str], str]) -> None:
    os.mkfifo(tmp_path / "gate")
    name = module(f"open({str(tmp_path / 'gate')!r}).read()\ndef main(): pass")
    with ForkServer(name) as server:
        asked = server.fork(name, stdin=PIPE)
        process = server_process(server)
    assert not process.is_running()
    with pytest.raises(LabError, match=r"^It was not forked: The fork server of the lab is not running\.$"):
        asked.poll()
    wait_for_the_end(asked)
    assert asked.stdin
    assert asked.stdin.closed


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import there_is_none", "ModuleNotFoundError: No module named 'there_is_none'"),
        ("", "ImportError: made has no main()"),
        (
            "from threading import *\nThread(target=Event().wait, daemon=True).start()\ndef main(): pass",
            "importing made has started threads, which cannot be forked",
        ),
    ],
    ids=["import error", "no main", "threads"],
)
def test_what_cannot_be_imported(module: Callable[[str], str], text: str, reason: str) -> None:
    name = module(text)
    with ForkServer(name) as server:
        asked = server.fork(name)
        expected = f"It was not forked: The fork server of the lab ended with status 1: {reason}"
        for ask in (asked.wait, asked.poll, lambda: asked.pid):
            with pytest.raises(LabError) as caught:
                ask()
            assert str(caught.value) == expected
        with pytest.raises(LabError, match="The fork server of the lab ended with status 1: "):
            server.fork(name)
        assert not server.lives()


def test_what_it_has_not_imported(server: ForkServer) -> None:
    with pytest.raises(LabError, match=r"has not imported json, only fork_probe\.$"):
        server.fork("json")


def test_it_is_asked_only_while_it_runs() -> None:
    server = ForkServer(PROBE)
    assert not server.lives()
    with pytest.raises(LabError, match=r"^The fork server of the lab is not running\.$"):
        server.fork(PROBE)
    with server:
        assert server.lives()
    assert not server.lives()
    server.stop()
    with pytest.raises(LabError, match=r"^The fork server of the lab is not running\.$"):
        server.fork(PROBE)


def test_a_package_is_run_by_its_main_module(tmp_path: Path, module: Callable[[str], str]) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").touch()
    (tmp_path / "package" / "__main__.py").write_text("def main(): return 7")
    module("")
    with ForkServer("package") as server:
        assert server.fork("package").wait(WITHIN) == 7


def test_what_a_process_changes_is_its_own(module: Callable[[str], str]) -> None:
    name = module("seen = []\ndef main():\n    seen.append(1)\n    return len(seen)")
    with ForkServer(name) as server:
        assert [server.fork(name).wait(WITHIN) for _ in range(3)] == [1, 1, 1]


def test_what_importing_prints_is_printed_by_nobody(module: Callable[[str], str]) -> None:
    name = module("print('imported')\ndef main():\n    print('run')")
    with ForkServer(name) as server:
        assert [finish(server.fork(name, stdout=PIPE)) for _ in range(2)] == [(0, "run\n"), (0, "run\n")]


def test_processes_outlive_a_killed_server() -> None:
    with ForkServer(PROBE) as server:
        ends, hangs = (
            server.fork(PROBE, action, stdin=PIPE, stdout=PIPE) for action in ("echo", "wait_for_signals")
        )
        assert ends.pid != hangs.pid
        # A copy has the server's end of the requests too, until its own work begins.
        assert ends.stdin
        assert ends.stdout
        assert hangs.stdout
        ends.stdin.write(b"run\n")
        ends.stdin.flush()
        assert (ends.stdout.readline(), hangs.stdout.readline()) == (b"RUN\n", b"waiting\n")
        server_process(server).kill()
        wait_until(server.lives, lambda lives: not lives, Deadline(SOON), "the server's end")

        with pytest.raises(LabError, match=r"^The fork server of the lab ended with status -9: no reason given$"):
            server.fork(PROBE, "draw", stdin=PIPE, stdout=PIPE)
        assert (ends.poll(), hangs.poll()) == (None, None)
        ends.stdin.close()
        wait_for_the_end(ends)
        wait_until_gone(ends.pid)
        hangs.kill()
        with pytest.raises(
            LabError, match=rf"^How process {hangs.pid} ended is not known: The fork server of the lab"
        ):
            hangs.wait(WITHIN)
        wait_until_gone(hangs.pid)
        wait_for_the_end(hangs)


def test_everything_ends_with_the_owner() -> None:
    with subprocess.Popen([sys.executable, "-c", OWNER], stdout=PIPE) as owner:
        assert owner.stdout
        processes = [int(each) for each in owner.stdout.readline().split()]
        assert len(processes) == 3
        assert not [each for each in processes if is_gone(each)]
        owner.kill()
        owner.wait()
        wait_until_gone(*processes)
