"""One member's PostgreSQL: its process, its files, and how it is started, stopped, rewound and copied."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from testyard.core.errors import UserError
from testyard.lab.cluster.database.lineage import parse_position
from testyard.lab.cluster.database.plan import Endpoint, MemberPlan
from testyard.lab.cluster.database.relay import Relay
from testyard.lab.cluster.database.timing import elapse
from testyard.lab.cluster.database.watchdog import remove_shared_memory
from testyard.lab.servers.postgresql_launcher import holders_of

# Where this package is: what is started without site-packages has to be told.
PACKAGES = Path(__file__).resolve().parents[4]
DATA = "data"
COPY = "data.copy"
PASSWORDS = "passwords"
LOG = "server.log"
WATCHDOG_LOCK = "watchdog.lock"
# The line of postmaster.pid that tells the server's state (PostgreSQL, pidfile.h: LOCK_FILE_LINE_PM_STATUS).
STATUS_LINE = 7
# The line that tells the key and the id of its segment of System V shared memory (LOCK_FILE_LINE_SHMEM_KEY).
SHARED_MEMORY_LINE = 6
LOOK_SECONDS = 0.004
ABORT_SECONDS = 0.5
# So long after it has asked for WAL, a standby that does not accept connections is not going to without it.
PATIENCE_SECONDS = 0.3
HISTORY = re.compile(r"([0-9A-F]{8})\.history")
SEGMENT = re.compile(r"([0-9A-F]{8})([0-9A-F]{8})([0-9A-F]{8})")


class DatabaseError(UserError):
    """A member's PostgreSQL did not do what it should; says what it said last."""


class Server:
    """A member's PostgreSQL.

    Whoever kills this process ends PostgreSQL too: a watchdog notices and kills it. What PostgreSQL wrote to the
    operating system stays: the page cache is the host's, so a node's power off is to its database a kill of its
    processes, and not a loss of what was not yet synced.

    Args:
        plan: What the member knows.
        inherited: Descriptors that each of its processes is to hold open.
    """

    def __init__(self, plan: MemberPlan, inherited: tuple[int, ...] = ()) -> None:
        self._plan = plan
        self._inherited = inherited
        self._data = plan.directory / DATA
        self._process: asyncio.subprocess.Process | None = None
        # Readable when the last process that inherited the other end is gone: the server and all its backends.
        self._lifeline = -1
        self._watchdog: asyncio.subprocess.Process | None = None
        self._watched = -1
        self._segment: int | None = None

    @property
    def process(self) -> asyncio.subprocess.Process | None:
        """The postmaster; None when it is not running."""
        return self._process

    async def watch(self) -> None:
        """Start the watchdog, and wait until the processes of the node's earlier life are gone.

        Raises:
            DatabaseError: It did not start.
        """
        watched, self._watched = os.pipe()
        try:
            self._watchdog = await asyncio.create_subprocess_exec(
                *(sys.executable, "-S", "-m", "testyard.lab.cluster.database.watchdog"),
                *(str(self._plan.directory / WATCHDOG_LOCK), str(watched)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env={"PATH": os.defpath, "PYTHONPATH": str(PACKAGES)},
                pass_fds=(watched,),
                start_new_session=True,  # who kills the node's process group does not kill it
            )
        finally:
            os.close(watched)
        assert self._watchdog.stdout is not None
        if not await self._watchdog.stdout.readline():
            message = f"The watchdog of {self._plan.name}'s database did not start."
            raise DatabaseError(message)

    async def unwatch(self) -> None:
        """End the watchdog, which first kills what has not been stopped; safe to call again."""
        watchdog, self._watchdog = self._watchdog, None
        if watchdog is None:
            return
        os.close(self._watched)
        assert watchdog.stdin is not None
        watchdog.stdin.close()
        await watchdog.wait()
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1

    async def start_as_standby(self, relay: Relay) -> None:
        """Start it as a standby, and wait until it accepts connections, or needs a primary's WAL for that.

        Args:
            relay: Where it asks for WAL.

        Raises:
            DatabaseError: It ended instead, or took too long.
        """
        plan = self._plan
        (self._data / "standby.signal").touch()
        self._own(self._data / "standby.signal")
        # What a killed server has left: its processes are gone, but its number may be another process's now.
        (self._data / "postmaster.pid").unlink(missing_ok=True)
        self._segment = None
        connection = {
            "host": plan.host,
            "port": relay.port,
            "user": plan.accounts.replication,
            "passfile": plan.directory / PASSWORDS,
            "application_name": plan.name,
            "sslmode": "disable",
            "gssencmode": "disable",
        }
        settings = {
            "port": str(plan.port),
            "listen_addresses": plan.host,
            "cluster_name": plan.name,
            "primary_conninfo": " ".join(f"{name}='{value}'" for name, value in connection.items()),
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        said_before = self._log_size()
        process = await self._run("postgres", "-D", str(self._data), *options)
        self._process = process
        self._tell_watchdog("process", process.pid)
        try:
            async with asyncio.timeout(plan.timings.start.total_seconds()):
                while not (self._is_ready() or relay.was_asked_for(PATIENCE_SECONDS)):
                    if process.returncode is not None:
                        raise DatabaseError(self._said_last(said_before))
                    await elapse(LOOK_SECONDS)
        except BaseException as problem:
            await self.abort()
            if not isinstance(problem, TimeoutError):
                raise
            message = f"{self._said_last(said_before)} (not ready in time)"
            raise DatabaseError(message) from None

    async def stop(self) -> None:
        """Shut it down in an orderly way ("fast", PostgreSQL manual 19.5); abort it when that takes too long."""
        await self._end(signal.SIGINT, self._plan.timings.stop.total_seconds())
        await self.abort()

    async def abort(self) -> None:
        """End it without a checkpoint, at once. Nobody gets an acknowledgement of what waits for standbys."""
        await self._end(signal.SIGQUIT, ABORT_SECONDS)
        while self._process is not None:
            await self._end(signal.SIGKILL, ABORT_SECONDS)
            self._kill_backends()
            if self._segment is not None:
                remove_shared_memory(self._segment)

    async def _end(self, signal_number: int, within: float) -> None:
        process = self._process
        if process is None:
            return
        with suppress(ProcessLookupError):
            process.send_signal(signal_number)
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                await self.wait()

    def _kill_backends(self) -> None:
        """Kill what has outlived its postmaster, or a tool: a process that was stopped does not notice."""
        for process in holders_of(self._lifeline):
            if process != os.getpid():
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)

    async def wait(self) -> None:
        """Wait until the server and its last backend are gone; nothing when it is not running."""
        process = self._process
        if process is None:
            return
        await process.wait()
        gone = asyncio.Event()
        loop = asyncio.get_running_loop()
        if self._lifeline >= 0:
            loop.add_reader(self._lifeline, gone.set)
            try:
                await gone.wait()
            finally:
                loop.remove_reader(self._lifeline)
        self._process = None

    async def rewind(self, source: Endpoint) -> None:
        """Make the data of a stopped server the beginning of a primary's (``pg_rewind``).

        Raises:
            DatabaseError: It cannot.
        """
        accounts = self._plan.accounts
        await self._tool(
            *("pg_rewind", "--target-pgdata", str(self._data), "--no-sync"),
            *("--source-server", f"{self._source(source)} user={accounts.superuser} dbname={accounts.database}"),
        )

    async def copy(self, source: Endpoint) -> None:
        """Copy a primary's data (``pg_basebackup``), beside this server's own.

        Raises:
            DatabaseError: It cannot.
        """
        copy = self._plan.directory / COPY
        await asyncio.to_thread(shutil.rmtree, copy, ignore_errors=True)
        await self._tool(
            *("pg_basebackup", "--pgdata", str(copy), "--wal-method", "stream", "--checkpoint", "fast"),
            *("--no-sync", "--no-password"),
            *("--dbname", f"{self._source(source)} user={self._plan.accounts.replication}"),
        )

    async def adopt_copy(self) -> None:
        """Take the copy instead of a stopped server's own data."""
        await asyncio.to_thread(shutil.rmtree, self._data, ignore_errors=True)
        (self._plan.directory / COPY).rename(self._data)

    def _source(self, source: Endpoint) -> str:
        passwords = self._plan.directory / PASSWORDS
        address = f"host={source.host} port={source.port} passfile='{passwords}'"
        return f"{address} sslmode=disable gssencmode=disable connect_timeout=5"

    async def _tool(self, *command: str) -> None:
        said_before = self._log_size()
        process = await self._run(*command)
        try:
            async with asyncio.timeout(self._plan.timings.rejoin.total_seconds()):
                status = await process.wait()
        except TimeoutError:
            message = f"{command[0]} took too long"
            raise DatabaseError(message) from None
        finally:
            if process.returncode is None:
                process.kill()
                self._kill_backends()
                await process.wait()
        if status:
            raise DatabaseError(f"{command[0]}: {self._said_last(said_before)}")

    def histories(self) -> Mapping[int, tuple[int, Path]]:
        """For each timeline whose history file it has: where the timeline begins, and the file."""
        found = {}
        for path in (self._data / "pg_wal").glob("*.history"):
            name = HISTORY.fullmatch(path.name)
            lines = path.read_text(encoding="utf-8").split("\n")
            entries = [line.split("\t") for line in lines if "\t" in line]
            if name and entries:
                found[int(name[1], 16)] = (parse_position(entries[-1][1]), path)
        return found

    def oldest_position(self, segment_bytes: int = 1 << 20) -> int:
        """Where the WAL begins that it still has."""
        names = [SEGMENT.fullmatch(path.name) for path in (self._data / "pg_wal").iterdir()]
        return min(((int(n[2], 16) << 32) + int(n[3], 16) * segment_bytes for n in names if n), default=0)

    async def _run(self, command: str, *arguments: str) -> asyncio.subprocess.Process:
        plan = self._plan
        user, group = plan.software.account or (None, None)
        if self._lifeline >= 0:
            os.close(self._lifeline)
        self._lifeline, inherited = os.pipe()
        try:
            with (plan.directory / LOG).open("ab") as log:
                return await asyncio.create_subprocess_exec(
                    str(plan.software.installation / "bin" / command),
                    *arguments,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=plan.directory,
                    env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
                    user=user,
                    group=group,
                    extra_groups=None if user is None else [],
                    umask=0o077,
                    pass_fds=(inherited, self._watched, *self._inherited),
                )
        finally:
            os.close(inherited)

    def _is_ready(self) -> bool:
        """Whether the server that was started last accepts connections; finds its shared memory on the way."""
        try:
            lines = (self._data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return False
        if (
            self._segment is None
            and len(lines) > SHARED_MEMORY_LINE
            and len(numbers := lines[SHARED_MEMORY_LINE].split()) == 2
        ):
            self._segment = int(numbers[1])
            self._tell_watchdog("segment", self._segment)
        return len(lines) > STATUS_LINE and lines[STATUS_LINE].strip() == "ready"

    def _tell_watchdog(self, kind: str, number: int) -> None:
        assert self._watchdog is not None
        assert self._watchdog.stdin is not None
        self._watchdog.stdin.write(f"{kind} {number}\n".encode())

    def _own(self, path: Path) -> None:
        if self._plan.software.account:
            os.chown(path, *self._plan.software.account)

    def _log_size(self) -> int:
        with suppress(FileNotFoundError):
            return (self._plan.directory / LOG).stat().st_size
        return 0

    def _said_last(self, start: int) -> str:
        with (self._plan.directory / LOG).open("rb") as log:
            log.seek(start)
            lines = log.read().decode(errors="replace").strip().splitlines()
        telling = [line for line in lines if "FATAL" in line or "PANIC" in line or "error:" in line]
        return (telling or lines or ["it said nothing"])[-1]
