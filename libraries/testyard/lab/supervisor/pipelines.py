"""The pipeline service of the lab: a real PostgreSQL, the service, its workers, and who is told about failures."""

from __future__ import annotations

import base64
import functools
import os
import secrets
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path
from subprocess import PIPE
from urllib.parse import urlsplit, urlunsplit

import psycopg

from testyard.core.deadline import Deadline
from testyard.core.errors import UserError
from testyard.core.json_client import JsonClient, UnexpectedAnswerError, UnreachableError
from testyard.core.redact import secrets_in_use
from testyard.lab.children import (
    START_TIMEOUT,
    ChildProcess,
    LabError,
    listening_socket,
    new_directory,
    remove_stale_directories,
    wait_for_the_end,
    wait_until_ready,
)
from testyard.lab.fork_server.client import ForkServer
from testyard.lab.lifetime import Startable
from testyard.lab.servers.fault_proxy import FaultProxy
from testyard.lab.servers.mailbox import Mailbox
from testyard.lab.servers.postgresql import PostgresqlServer, ShutdownMode
from testyard.lab.servers.webhooks import WebhookReceiver

LOOPBACK = "127.0.0.1"
SERVICE_NAME = "the pipeline service of the lab"

# Long enough for a busy machine, short enough that a test of a killed worker does not wait for minutes.
STALE_AFTER = timedelta(seconds=1.5)
# Longer than any statement takes on the few rows of a suite.
DATABASE_TIMEOUT = timedelta(seconds=1)
# Where it is going to be away, every test waits for this.
DATABASE_TIMEOUT_WHERE_BREAKABLE = timedelta(seconds=0.4)

# So short that a test can let a receiver fail until a notification is given up.
NOTIFICATION_RETRY = timedelta(milliseconds=50)
NOTIFICATION_ATTEMPTS = 3

EMPTY_EVERYTHING = "TRUNCATE customers, run_transitions, test_clock CASCADE"


@dataclass(frozen=True)
class PipelineWorker:
    """One worker process.

    Attributes:
        name: As the service's rows name it.
        process: The child process.
        executions: Where it writes what it executed, one JSON line each.
    """

    name: str
    process: ChildProcess
    executions: Path


@dataclass
class PipelineLab(Startable):
    """Owns the processes around one pipeline service.

    Where the network between the service and PostgreSQL is to be broken, the service and its workers reach it
    through a proxy; tests and the emptying between suites never do.

    Attributes:
        admin_key: What admin calls to the service carry.
        modules: The modules that are started as the service and as a worker.
        database_timeout: How long the database may take until it counts as away; shorter where it is breakable.
        breakable: Whether the network between the service and PostgreSQL can be broken.
    """

    admin_key: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)
    modules: tuple[str, str] = ("testyard.lab.pipelines", "testyard.lab.pipelines.worker")
    database_timeout: timedelta = DATABASE_TIMEOUT
    breakable: bool = False

    def __post_init__(self) -> None:
        secrets_in_use.add(self.admin_key)
        encryption_key = base64.b64encode(secrets.token_bytes(32)).decode()
        secrets_in_use.add(encryption_key)
        self._keys = {"PIPELINES_ADMIN_KEY": self.admin_key, "PIPELINES_ENCRYPTION_KEY": encryption_key}
        # What it has committed outlives its own crash; only a crash of this machine would lose it.
        self.postgresql = PostgresqlServer(durable=False)
        self.mailbox = Mailbox()
        self.webhooks = WebhookReceiver()
        self.workers: dict[str, PipelineWorker] = {}
        self._directory = new_directory()
        self._proxy: FaultProxy | None = None
        self._service: ChildProcess | None = None
        self._forks: ForkServer | None = None
        self._client: JsonClient | None = None

    def start(self, within: timedelta = START_TIMEOUT) -> None:
        """Start PostgreSQL and the service, and wait until it answers.

        Raises:
            UserError: A process did not become ready; nothing is left running.
        """
        remove_stale_directories()
        deadline = Deadline(within)
        try:
            self._directory.mkdir(mode=0o700)
            self._forks = ForkServer(*self.modules)
            # Modules are imported while PostgreSQL starts: both take a second or two.
            self._forks.start()
            self.postgresql.begin()
            self.mailbox.start()
            self.webhooks.start()
            self._launch_service()
            self.postgresql.start(within)
            self._connect_service(deadline)
        except BaseException:
            self.stop()
            raise

    def make_breakable(self, breakable: bool, within: timedelta) -> None:
        """Let the service reach PostgreSQL through the proxy, or not; it is started again when that changes.

        Args:
            breakable: Whether the network between the two is to be broken.
            within: Give up after this time.

        Raises:
            LabError: The service did not become ready.
        """
        if breakable == self.breakable:
            return
        self.breakable = breakable
        service, client = self._service, self._client
        if service is not None:
            _tell_to_end(service)  # it does while the next one starts
        try:
            self._launch_service()
            self._connect_service(Deadline(within))
        finally:
            _end_service(service, client)

    def _launch_service(self) -> None:
        with listening_socket(LOOPBACK, 0) as listener:
            self._client = JsonClient(
                f"http://{LOOPBACK}:{listener.getsockname()[1]}",
                headers={"X-Admin-Key": self.admin_key},
                secret=self.admin_key,
                name=SERVICE_NAME,
            )
            self._service = self._child(
                *("service", self.modules[0], "--end-with-stdin", "--database", "-"),
                *("--fd", str(listener.fileno()), *self._times()),
                *("--notification-retry", str(NOTIFICATION_RETRY.total_seconds())),
                *("--notification-attempts", str(NOTIFICATION_ATTEMPTS)),
                descriptors=(listener.fileno(),),
                variables={"PIPELINES_SMTP_URL": self.mailbox.url},
            )

    def _connect_service(self, deadline: Deadline) -> None:
        if self.breakable and self._proxy is None:
            self._proxy = FaultProxy(LOOPBACK, self.postgresql.port)
            self._proxy.start()
        assert self._service is not None
        _tell(self._service, self._database_url_of_processes)
        wait_until_ready(self._service, SERVICE_NAME, self._ready, deadline, log=self._log_of("service"))

    def _ready(self) -> None:
        try:
            self.client.get("/api/v1/health")
        except UnexpectedAnswerError as problem:
            if problem.status != HTTPStatus.SERVICE_UNAVAILABLE:
                raise
            raise UnreachableError(str(problem)) from None

    def answers(self) -> bool:
        """Whether the service has its database."""
        try:
            self._ready()
        except UnreachableError:
            return False
        return True

    def complaints_of(self, worker: str) -> list[str]:
        """What a worker, also one that is gone, has written to standard error since the lab was started."""
        return self._log_of(worker).read_text(errors="replace").splitlines()

    @property
    def client(self) -> JsonClient:
        """Calls the service as its admin."""
        if self._client is None:
            message = "The pipeline service of the lab is not running."
            raise LabError(message)
        return self._client

    @property
    def url(self) -> str:
        """Where the service's API is."""
        return self.client.base_url

    @property
    def database_url(self) -> str:
        """The service's database, with the password, past the proxy."""
        return self.postgresql.url

    @property
    def proxy(self) -> FaultProxy:
        """Between the service and PostgreSQL.

        Raises:
            LabError: The service does not reach PostgreSQL through it.
        """
        if self._proxy is None or not self.breakable:
            message = "The service does not reach its database through the proxy: start it with breakable=True."
            raise LabError(message)
        return self._proxy

    def lives(self) -> bool:
        """Whether the service's process runs, and more can be started."""
        if self._service is None or self._forks is None or not self._forks.lives():
            return False
        return self._service.poll() is None

    def start_workers(self, *names: str, within: timedelta = START_TIMEOUT, options: tuple[str, ...] = ()) -> None:
        """Start worker processes that claim and execute runs, all at the same time.

        Args:
            names: How the service's rows name them.
            within: Give up after this time.
            options: Added to their command lines.

        Raises:
            LabError: One is running already, or ended instead of becoming ready.
        """
        deadline = Deadline(within)
        for name in names:
            self._launch_worker(name, options)
        for name in names:
            process, called = self.workers[name].process, f"the worker {name} of the lab"
            wait_until_ready(
                process, called, functools.partial(_said_ready, process), deadline, log=self._log_of(name)
            )

    def _launch_worker(self, name: str, options: tuple[str, ...]) -> None:
        if name in self.workers:
            message = f"The worker {name!r} is running already."
            raise LabError(message)
        executions = self._directory / f"executions-{name}-{secrets.token_hex(4)}.jsonl"
        process = self._child(
            *(name, self.modules[1], "--name", name, "--database", "-"),
            *("--execution-log", str(executions), *self._times(), *options),
        )
        _tell(process, self._database_url_of_processes)
        self.workers[name] = PipelineWorker(name, process, executions)

    def kill_worker(self, name: str) -> int:
        """Kill a worker with SIGKILL, as a crash would; returns its process id."""
        worker = self._take(name)
        worker.process.kill()
        wait_for_the_end(worker.process)
        return worker.process.pid

    def stop_workers(self, *names: str) -> None:
        """Let workers report what they have done and end."""
        _end(*[self._take(name).process for name in names])

    def executions(self) -> list[Path]:
        """The files in which all workers, also those that are gone, wrote what they executed."""
        return sorted(self._directory.glob("executions-*.jsonl"))

    def restart_postgresql(self, mode: str) -> None:
        """Stop PostgreSQL and start it again on the same port and data.

        Args:
            mode: ``fast``, ``immediate`` or ``kill``.
        """
        self.postgresql.restart(ShutdownMode[mode.upper()])

    def renew(self) -> None:
        """End the workers, undo every fault and empty the database, the mailbox and the webhooks.

        Raises:
            UserError: Something does not answer any more.
        """
        self._end_workers()
        if self._proxy is not None:
            self._proxy.heal()
        self.mailbox.clear()
        self.webhooks.clear()
        for file in self.executions():
            file.unlink()
        try:
            with psycopg.connect(self.database_url, autocommit=True) as connection:
                connection.execute(EMPTY_EVERYTHING)
        except psycopg.Error as problem:
            message = f"The database of the lab cannot be emptied: {problem}"
            raise UserError(message) from None
        self._ready()

    def stop(self) -> None:
        """End every process; safe to call again."""
        if self._service is not None:
            _tell_to_end(self._service)  # it does while the others end
        self._end_workers()
        self.mailbox.stop()
        self.webhooks.stop()
        _end_service(self._service, self._client)
        self._service = self._client = None
        if self._proxy is not None:
            self._proxy.stop()
        if self._forks is not None:
            self._forks.stop()
        self.postgresql.stop()
        self._proxy = None
        shutil.rmtree(self._directory, ignore_errors=True)

    def _end_workers(self) -> None:
        _end(*(worker.process for worker in self.workers.values()))
        self.workers.clear()

    def _take(self, name: str) -> PipelineWorker:
        if name not in self.workers:
            message = f"There is no worker {name!r}, expected one of {', '.join(self.workers) or '(none)'}."
            raise LabError(message)
        return self.workers.pop(name)

    @property
    def _database_url_of_processes(self) -> str:
        if not self.breakable:
            return self.database_url
        parts = urlsplit(self.database_url)
        credentials = parts.netloc.rpartition("@")[0]
        return urlunsplit(parts._replace(netloc=f"{credentials}@{self.proxy.host}:{self.proxy.port}"))

    def _times(self) -> tuple[str, ...]:
        database_timeout = self.database_timeout
        if self.breakable:
            database_timeout = min(database_timeout, DATABASE_TIMEOUT_WHERE_BREAKABLE)
        return (
            *("--test-clock", "--stale-after", str(STALE_AFTER.total_seconds())),
            *("--database-timeout", str(database_timeout.total_seconds())),
        )

    def _log_of(self, name: str) -> Path:
        return self._directory / f"{name}.log"

    def _child(
        self,
        name: str,
        module: str,
        *arguments: str,
        descriptors: tuple[int, ...] = (),
        variables: Mapping[str, str] | None = None,
    ) -> ChildProcess:
        if self._forks is None:
            message = "The pipeline service of the lab is not running."
            raise LabError(message)
        with self._log_of(name).open("ab") as log:
            return self._forks.fork(
                *(module, *arguments),
                stdin=PIPE,
                stdout=PIPE,
                stderr=log,
                environment={**self._keys, **(variables or {})},
                descriptors=descriptors,
            )


def _tell(process: ChildProcess, line: str) -> None:
    assert process.stdin is not None
    # One that has ended already is told of by whoever waits for it.
    with suppress(BrokenPipeError):
        process.stdin.write(f"{line}\n".encode())
        process.stdin.flush()


def _said_ready(process: ChildProcess) -> None:
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    if not process.stdout.read():
        message = "It has not said that it is ready."
        raise UnreachableError(message)


def _end_service(service: ChildProcess | None, client: JsonClient | None) -> None:
    if service is not None:
        _end(service)
    if client is not None:
        client.close()


def _end(*processes: ChildProcess) -> None:
    _tell_to_end(*processes)
    for process in processes:
        wait_for_the_end(process)


def _tell_to_end(*processes: ChildProcess) -> None:
    for process in processes:
        if process.stdin:
            process.stdin.close()
