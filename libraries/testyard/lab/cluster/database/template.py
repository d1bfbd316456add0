"""A fresh database cluster, made once and copied to the disk of each member before its node boots first.

A copy of the files is faster than a ``pg_basebackup`` of a running server, and all members may start at the same
time; they are one cluster because the copies have one system identifier.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from testyard.lab.cluster.database.plan import Accounts, MemberPlan, Software
from testyard.lab.cluster.database.server import DATA, PASSWORDS, DatabaseError
from testyard.lab.servers.postgresql import installed_binaries, may_reach, unprivileged_account
from testyard.lab.servers.postgresql_launcher import NEEDED

SEGMENT_MEGABYTES = 1
# What members run when they rejoin, beside what a server needs.
TOOLS = ("pg_basebackup", "pg_rewind")

SETTINGS = {
    "unix_socket_directories": "",
    "max_connections": "60",
    "shared_buffers": "16MB",
    # Files in the data directory instead of segments in /dev/shm, which a SIGKILL would leave behind.
    "dynamic_shared_memory_type": "mmap",
    "log_line_prefix": "%m [%p] %a ",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "jit": "off",
    # ---- replication (PostgreSQL manual, 20.6)
    "wal_level": "replica",
    "fsync": "on",
    "synchronous_commit": "on",
    "hot_standby": "on",
    "hot_standby_feedback": "on",
    "wal_keep_size": "256MB",
    "wal_log_hints": "on",  # pg_rewind needs it
    "max_wal_senders": "16",
    "wal_retrieve_retry_interval": "50ms",
    "wal_receiver_status_interval": "1s",
    # A query on a standby gives way: a member that cannot replay cannot be elected.
    "max_standby_streaming_delay": "500ms",
    "max_standby_archive_delay": "500ms",
}


def find_software(place: Path) -> Software:
    """The installation of PostgreSQL that is there, copied when the account it is to run as cannot reach it.

    Args:
        place: A directory that the account can reach, where a copy may be made; it is made once.

    Raises:
        UserError: It is not installed, or there is no account for it.
    """
    installation = installed_binaries()
    account = unprivileged_account()
    if not may_reach(account, installation / "bin" / "postgres"):
        installation = _copied(installation, place / "installation")
    return Software(installation=installation, account=(account.pw_uid, account.pw_gid) if account else None)


def _copied(installation: Path, place: Path) -> Path:
    packages = installation.parents[1]
    installed = installation.relative_to(packages)
    needed = (*NEEDED, *(f"{{0}}/bin/{tool}" for tool in TOOLS))
    for name in (pattern.format(installed, installed.parent) for pattern in needed):
        source, target = packages / name, place / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True, copy_function=_linked)
        elif source.exists():
            _linked(source, target)
    for directory in (place, *(path for path in place.rglob("*") if path.is_dir())):
        directory.chmod(0o755)
    return place / installed


def _linked(source: str | Path, target: str | Path) -> None:
    """Another name for the same file where that works: copying 35 MB takes longer than starting a server."""
    with suppress(FileExistsError):
        try:
            os.link(source, target)
        except OSError as problem:
            if isinstance(problem, FileExistsError):
                raise
            shutil.copy2(source, target)


class Template:
    """The database cluster that all members begin with.

    Args:
        directory: A directory of its own, which is made; the account must reach its parent.
        software: What makes it.
        accounts: Who may log in.
    """

    def __init__(self, directory: Path, software: Software, accounts: Accounts) -> None:
        self._directory = directory
        self._software = software
        self._accounts = accounts

    async def make(self) -> None:
        """Make it; takes about as long as ``initdb``.

        Raises:
            DatabaseError: PostgreSQL's own tools failed.
        """
        self._new_directory(self._directory)
        accounts = self._accounts
        password_file = self._private_file("password", accounts.superuser_password)
        await self._run(
            *("initdb", "--pgdata", DATA, "--username", accounts.superuser, "--pwfile", password_file.name),
            *("--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C"),
            # The passwords are random: hashing them thousands of times makes them no better, and connections slow.
            *("--set", "scram_iterations=1"),
            *("--wal-segsize", str(SEGMENT_MEGABYTES), "--no-sync", "--no-instructions"),
        )
        password_file.unlink()
        # Before it starts first: what a primary had is what a standby must have (PostgreSQL manual, 27.4.3).
        _configure(self._directory / DATA, SETTINGS)
        await self._say("template1", *self._statements())
        await self._say(accounts.database, *_without("template1"))
        self._private_file(
            PASSWORDS,
            "".join(
                f"*:*:*:{user}:{password}\n"
                for user, password in (
                    (accounts.superuser, accounts.superuser_password),
                    (accounts.replication, accounts.replication_password),
                )
            ),
        )

    def _statements(self) -> list[str]:
        """What there is to do in a new cluster. It gets one database, as each of them is 300 files to copy."""
        accounts = self._accounts
        standby, user, database = map(_name, (accounts.replication, accounts.user, accounts.database))
        return [
            f"CREATE ROLE {standby} LOGIN REPLICATION PASSWORD {_text(accounts.replication_password)}",
            f"CREATE ROLE {user} LOGIN PASSWORD {_text(accounts.password)}",
            f"ALTER DATABASE postgres RENAME TO {database}",
            f"ALTER DATABASE {database} OWNER TO {user}",
            *_without("template0"),
        ]

    async def copy_to(self, plan: MemberPlan) -> None:
        """Give a member its copy.

        Args:
            plan: The member's; its directory is made, and the account must reach that one's parent.

        Raises:
            DatabaseError: It could not be copied.
        """
        directory = plan.directory
        self._new_directory(directory)
        await self._run("/bin/cp", "-R", DATA, PASSWORDS, str(directory))
        silence = f"{round(plan.timings.silence.total_seconds() * 1000)}ms"
        settings = {
            "synchronous_standby_names": synchronous_standby_names(plan.members) if plan.synchronous else "",
            "wal_sender_timeout": silence,
            "wal_receiver_timeout": silence,
        }
        _configure(directory / DATA, settings)

    async def _say(self, database: str, *statements: str) -> None:
        await self._run(
            *("postgres", "--single", "-F", "-j", "-D", DATA, database),
            said="".join(f"{statement};\n\n" for statement in statements),
        )

    async def _run(self, command: str, *arguments: str, said: str = "") -> None:
        user, group = self._software.account or (None, None)
        process = await asyncio.create_subprocess_exec(
            str(self._software.installation / "bin" / command),
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd=self._directory,
            env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
            user=user,
            group=group,
            extra_groups=None if user is None else [],
            umask=0o077,
        )
        try:
            output, _ = await process.communicate(said.encode())
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        text = output.decode(errors="replace").strip()
        if process.returncode or "ERROR:" in text:
            telling = [line for line in text.splitlines() if "rror:" in line or "ERROR" in line or "FATAL" in line]
            message = f"{Path(command).name}: {(telling or text.splitlines() or ['no reason given'])[-1]}"
            raise DatabaseError(message)

    def _new_directory(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, parents=True)
        self._own(directory)

    def _private_file(self, name: str, text: str) -> Path:
        path = self._directory / name
        path.touch(mode=0o600)
        path.write_text(text, encoding="utf-8")
        self._own(path)
        return path

    def _own(self, path: Path) -> None:
        if self._software.account:
            os.chown(path, *self._software.account)


def _without(database: str) -> tuple[str, str]:
    return (
        f"UPDATE pg_database SET datistemplate = false WHERE datname = {_text(database)}",
        f"DROP DATABASE {database}",
    )


def synchronous_standby_names(members: tuple[str, ...]) -> str:
    """PostgreSQL's setting for commits that a majority of the members has, the primary included.

    Every member is on the list, as each may become the primary, whose own name never connects.

    Example:
        >>> synchronous_standby_names(("n11", "n12", "n13"))
        'ANY 1 ("n11", "n12", "n13")'
    """
    standbys = len(members) // 2
    return f"ANY {standbys} ({', '.join(map(_name, members))})" if standbys else ""


def _configure(data: Path, settings: Mapping[str, str]) -> None:
    with (data / "postgresql.conf").open("a", encoding="utf-8") as configuration:
        configuration.write("".join(f"{name} = '{value}'\n" for name, value in settings.items()))


def _name(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
