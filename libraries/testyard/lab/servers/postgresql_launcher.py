"""The command ``python -m testyard.lab.servers.postgresql_launcher``: one PostgreSQL that dies with its parent.

Standard input is a pipe from the parent: first a line of JSON (a ``Plan``), then a line for every restart, the
number of the signal to stop with. Every line is answered by one line of JSON on standard output. When the pipe
ends, however the parent ended, the server is stopped and its directory removed.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

STANDARD_INPUT = 0
POLL_SECONDS = 0.01
STOP_SECONDS = 5.0
# The line of postmaster.pid that tells the server's state (PostgreSQL, miscadmin.h: LOCK_FILE_LINE_PM_STATUS).
STATUS_LINE = 7
# The line that tells the key and the id of its segment of System V shared memory (LOCK_FILE_LINE_SHMEM_KEY).
SHARED_MEMORY_LINE = 6
REMOVE_SEGMENT = 0  # IPC_RMID
PORT_TAKEN = "Address already in use"
# What of a package's installation a server needs to run, relative to where packages are.
NEEDED = ("{0}/bin/initdb", "{0}/bin/postgres", "{0}/lib", "{0}/share", "{1}.libs", "{1}/.dylibs")


class ParentGoneError(Exception):
    """The pipe from the parent ended: nobody needs the server any more."""


class StartError(Exception):
    """The server did not start; the text is what it said last."""


@dataclass(frozen=True)
class Plan:
    """What to start.

    Attributes:
        installation: Where ``bin``, ``lib`` and ``share`` are, in a package's directory.
        copied: Whether the account cannot read the installation, so that it needs a copy.
        directory: A directory to create, use and remove.
        account: The user and group id to run as; None is the present ones.
        superuser: The name of the database's superuser.
        password: Its password.
        settings: Lines of ``postgresql.conf``.
    """

    installation: str
    copied: bool
    directory: str
    account: tuple[int, int] | None
    superuser: str
    password: str
    settings: dict[str, str]


class Cluster:
    """One database cluster and its server process."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._directory = Path(plan.directory)
        self._created = False
        self._data = self._directory / "data"
        self._log = self._directory / "server.log"
        self._installation = Path(plan.installation)
        self._process: subprocess.Popen[bytes] | None = None
        # Readable when the last process that inherited the other end is gone: the server and all its backends.
        self._lifeline = -1

    def create(self) -> None:
        """Make the directory and the cluster in it.

        Raises:
            StartError: ``initdb`` failed.
            ParentGoneError: Nobody needs it any more.
        """
        self._directory.mkdir(mode=0o700)
        self._created = True
        if self._plan.copied:
            self._copy_installation()
        password_file = self._directory / "password"
        password_file.touch(mode=0o600)
        password_file.write_text(self._plan.password, encoding="utf-8")
        self._own(self._directory, password_file)
        process = self._run(
            *("bin/initdb", "--pgdata", str(self._data), "--username", self._plan.superuser),
            *("--pwfile", str(password_file), "--auth", "scram-sha-256"),
            # The password is random: hashing it thousands of times makes it no better, and connections slow.
            *("--set", "scram_iterations=1"),
            *("--encoding", "UTF8", "--locale", "C", "--no-sync", "--no-instructions"),
        )
        while not self._is_gone(POLL_SECONDS):
            self._pause(0)
        if process.returncode:
            raise StartError(self._said_last(0))
        password_file.unlink()
        lines = "".join(f"{name} = '{value}'\n" for name, value in self._plan.settings.items())
        with (self._data / "postgresql.conf").open("a", encoding="utf-8") as configuration:
            configuration.write(lines)

    def start(self) -> int:
        """Start the server and wait until it accepts connections.

        Returns:
            The process id of the postmaster.

        Raises:
            StartError: It ended instead.
            ParentGoneError: Nobody needs it any more.
        """
        said_before = self._log.stat().st_size
        process = self._run("bin/postgres", "-D", str(self._data))
        while not self._is_ready(process.pid):
            self._pause()
            if process.poll() is not None:
                raise StartError(self._said_last(said_before))
        return process.pid

    def stop(self, signal_number: int) -> None:
        """Stop the server and wait until its last backend is gone.

        Args:
            signal_number: SIGINT (fast), SIGQUIT (immediate) or SIGKILL, which ends every backend too.

        Raises:
            ParentGoneError: Nobody waits for it any more.
        """
        self._signal(signal_number)
        while not self._is_gone(POLL_SECONDS):
            self._pause(0)

    def remove(self) -> None:
        """Stop the server, whatever it takes, and remove its directory."""
        killed = self._process is not None and self._process.poll() is not None
        for signal_number in (signal.SIGKILL,) if killed else (signal.SIGQUIT, signal.SIGKILL):
            self._signal(signal_number)
            if self._is_gone(STOP_SECONDS):
                break
        if self._created:
            self._remove_shared_memory()
            shutil.rmtree(self._directory, ignore_errors=True)

    def _remove_shared_memory(self) -> None:
        """Remove the segment of a server that was killed, and so could not do it."""
        with suppress(FileNotFoundError, IndexError, ValueError):
            lines = (self._data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
            segment = int(lines[SHARED_MEMORY_LINE].split()[1])
            ctypes.CDLL(None).shmctl(segment, REMOVE_SEGMENT, None)

    def _run(self, command: str, *arguments: str) -> subprocess.Popen[bytes]:
        user, group = self._plan.account or (None, None)
        self._lifeline, inherited = os.pipe()
        try:
            with self._log.open("ab") as log:
                self._process = subprocess.Popen(
                    [str(self._installation / command), *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self._directory,
                    env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
                    user=user,
                    group=group,
                    extra_groups=None if user is None else [],
                    umask=0o077,
                    pass_fds=(inherited,),
                    start_new_session=True,
                )
        finally:
            os.close(inherited)
        return self._process

    def _copy_installation(self) -> None:
        packages = self._installation.parents[1]
        installed = self._installation.relative_to(packages)
        copy = self._directory / "installation"
        for name in (pattern.format(installed, installed.parent) for pattern in NEEDED):
            source, target = packages / name, copy / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target)
            elif source.exists():
                shutil.copy2(source, target)
        self._own(copy, *copy.rglob("*"))
        self._installation = copy / installed

    def _own(self, *paths: Path) -> None:
        if self._plan.account:
            for path in paths:
                os.chown(path, *self._plan.account, follow_symlinks=False)

    def _pause(self, seconds: float = POLL_SECONDS) -> None:
        """Let the server work for a moment; the parent says nothing now, so a readable pipe has ended."""
        if select.select([STANDARD_INPUT], [], [], seconds)[0]:
            raise ParentGoneError

    def _is_ready(self, process: int) -> bool:
        with suppress(FileNotFoundError):
            lines = (self._data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
            return len(lines) > STATUS_LINE and lines[0] == str(process) and lines[STATUS_LINE].strip() == "ready"
        return False

    def _signal(self, signal_number: int) -> None:
        if self._process is None:
            return
        backends = self._backends() if signal_number == signal.SIGKILL else []
        self._process.send_signal(signal_number)
        for backend in backends:
            with suppress(ProcessLookupError):
                os.kill(backend, signal_number)

    def _backends(self) -> list[int]:
        """The server's other processes; where there is /proc, also those that its death has left alone."""
        assert self._process is not None
        if Path("/proc/self/fd").exists():
            return [process for process in holders_of(self._lifeline) if process != os.getpid()]
        return children_of(self._process.pid)

    def _is_gone(self, seconds: float) -> bool:
        """Whether every process of the cluster is gone, after at most this time."""
        process = self._process
        if process is None:
            return True
        end = time.monotonic() + seconds
        if not select.select([self._lifeline], [], [], seconds)[0]:
            return False
        try:
            process.wait(max(end - time.monotonic(), POLL_SECONDS))
        except subprocess.TimeoutExpired:
            return False
        os.close(self._lifeline)
        self._process = None
        return True

    def _said_last(self, start: int) -> str:
        """The lines that tell why, of what was logged from a position on."""
        with self._log.open("rb") as log:
            log.seek(start)
            lines = log.read().decode(errors="replace").strip().splitlines()
        if any(PORT_TAKEN in line for line in lines):
            return PORT_TAKEN
        telling = [line for line in lines if "FATAL" in line or "error:" in line]
        return (telling or lines or ["it said nothing"])[-1]


def holders_of(pipe: int) -> list[int]:
    """The process ids of everybody that has a pipe open, from /proc.

    Args:
        pipe: A file descriptor of this process.
    """
    link = f"pipe:[{os.fstat(pipe).st_ino}]"
    holders = []
    for process in (entry for entry in Path("/proc").iterdir() if entry.name.isdigit()):
        with suppress(OSError):
            if any(_leads_to(descriptor, link) for descriptor in (process / "fd").iterdir()):
                holders.append(int(process.name))
    return holders


def _leads_to(descriptor: Path, link: str) -> bool:
    with suppress(OSError):
        return str(descriptor.readlink()) == link
    return False


def children_of(process: int) -> list[int]:
    """The process ids of a process's children."""
    listing = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True)
    pairs = [list(map(int, line.split())) for line in listing.stdout.splitlines()]
    return [child for child, parent in pairs if parent == process]


def serve(cluster: Cluster) -> None:
    """Start the cluster, then restart it as often as the parent asks."""
    cluster.create()
    _answer(pid=cluster.start())
    while line := _next_line():
        cluster.stop(int(line))
        _answer(pid=cluster.start())


def _next_line() -> bytes:
    line = b""
    # Unbuffered, so that select() tells the truth about the pipe.
    while not line.endswith(b"\n") and (byte := os.read(STANDARD_INPUT, 1)):
        line += byte
    return line


def _answer(**content: object) -> None:
    sys.stdout.write(json.dumps(content) + "\n")
    sys.stdout.flush()


def _end(signal_number: int, _: FrameType | None) -> None:
    sys.exit(128 + signal_number)


def main() -> int:
    """Run one server until the parent is gone; gives the exit status."""
    for signal_number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signal_number, _end)
    line = _next_line()
    if not line:
        return 0
    cluster = Cluster(Plan(**json.loads(line)))
    try:
        serve(cluster)
    except ParentGoneError:
        return 0
    except (StartError, OSError) as problem:
        with suppress(BrokenPipeError):
            _answer(error=str(problem))
        return 1
    finally:
        cluster.remove()
    return 0


if __name__ == "__main__":
    sys.exit(main())
