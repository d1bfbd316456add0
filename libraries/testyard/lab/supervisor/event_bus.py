"""The event bus of the lab: Kafka, PostgreSQL, and the services between them, each a process of its own."""

from __future__ import annotations

import json
import secrets
import shutil
import signal
import socket
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from subprocess import PIPE
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

import psycopg

from testyard.core.deadline import Deadline
from testyard.core.errors import UserError
from testyard.core.json_client import JsonClient
from testyard.lab.bridge.settings import DATABASE_VARIABLE, Settings
from testyard.lab.bridge.topics import Route, dead_letter_topic
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
from testyard.lab.environment import Environment, kafka_source
from testyard.lab.fork_server.client import ForkServer
from testyard.lab.lifetime import Startable
from testyard.lab.servers.consul import ConsulDouble
from testyard.lab.servers.fault_proxy import FaultProxy
from testyard.lab.servers.otlp import OtlpReceiver
from testyard.lab.servers.postgresql import PostgresqlServer, ShutdownMode
from testyard.lab.servers.postgresql_launcher import children_of
from testyard.lab.servers.provision import (
    DEFAULT_POSTGRES_PORT,
    Breakable,
    Kafka,
    Postgresql,
    begin_postgresql,
    start_kafka,
)
from testyard.lab.supervisor.bridge_service import BridgeService
from testyard.lab.supervisor.bridge_settings import settings_with
from testyard.lab.supervisor.chaos import PlannedFailure, planned_failures
from testyard.lab.supervisor.event_bus_options import EventBusOptions, GivesWay
from testyard.lab.supervisor.giving_way import give_way
from testyard.lab.supervisor.second_region import SecondRegion
from testyard.lab.supervisor.service_process import LOOPBACK, ServiceProcess, end_together

Part = TypeVar("Part")

DEAD_LETTER_PARTITIONS = 1
KEPT_SPANS = 10_000
STORING = (BridgeService.REDUCER, BridgeService.ADAPTER)

EMPTY_EVERYTHING = """
    TRUNCATE workflow_executions, workflow_steps, workflow_steps_waiting, fsm_transitions, bridge_states,
        metadata_stamps, event_logs, node_registrations, outbox, reducer_offsets"""


@dataclass
class EventBusLab(Startable):
    """Owns Kafka, PostgreSQL and the services of one event bus.

    Attributes:
        wanted: What is wanted of it; another one when it is renewed for somebody else.
        environment_of_run: Where the suites run: says which Kafka is taken.
        modules: The module that is started for each service.
    """

    wanted: EventBusOptions = field(default_factory=EventBusOptions)
    environment_of_run: Environment = Environment.EMBEDDED
    modules: dict[BridgeService, str] = field(default_factory=lambda: {it: it.module for it in BridgeService})

    def __post_init__(self) -> None:
        self.environment = ""
        self.consul = ConsulDouble()
        self.collector = OtlpReceiver()
        self._kafka: Kafka | None = None
        self._postgresql: Postgresql | None = None
        self._directory = new_directory()
        self._running: dict[BridgeService, ServiceProcess] = {}
        self._second_adapter: ServiceProcess | None = None
        self._proxy: FaultProxy | None = None
        self._forks: ForkServer | None = None

    # Life.

    def start(self, within: timedelta = START_TIMEOUT) -> None:
        """Start everything, and wait until every service answers.

        Raises:
            UserError: A process did not become ready; nothing is left running.
        """
        remove_stale_directories()
        deadline = Deadline(within)
        try:
            self._directory.mkdir(mode=0o700)
            self._forks = ForkServer(*self.modules.values())
            # Modules are imported while PostgreSQL starts: both take a second or two.
            self._forks.start()
            # What it has committed outlives its own crash; only a crash of this machine would lose it.
            self._postgresql = begin_postgresql(self.environment_of_run, durable=False)
            self._kafka = start_kafka(self.environment_of_run)
            self._postgresql.start(within)
            self._start_surroundings()
            self._start_services(deadline)
        except BaseException:
            self.stop()
            raise

    def _start_services(self, deadline: Deadline) -> None:
        """Start the services in an environment of their own, with topics of their own."""
        self.environment = f"test-{secrets.token_hex(3)}"
        topics = [route.topic(self.environment) for route in Route]
        self.kafka.create_topics(
            {
                **dict.fromkeys(topics, self.wanted.partitions),
                **dict.fromkeys(map(dead_letter_topic, topics), DEAD_LETTER_PARTITIONS),
            }
        )
        with ExitStack() as stack:
            listeners = {it: stack.enter_context(listening_socket(LOOPBACK, 0)) for it in BridgeService}
            for service, listener in listeners.items():
                port = listener.getsockname()[1]
                self._running[service] = ServiceProcess(service, port)
            self._write_settings()
            for service, listener in listeners.items():
                self._launch(service, listener.fileno())
        for service in BridgeService:
            self._wait_until_ready(service, deadline)
        if self.wanted.with_consul:
            for service, running in self._running.items():
                registration = {"name": service.registered_name, "host": LOOPBACK, "port": running.port}
                self.client_of(BridgeService.DISCOVERY).call("POST", "/services", body=registration)
        self._give_way()

    def renew(self, wanted: EventBusOptions | None = None, within: timedelta = START_TIMEOUT) -> None:
        """End the services, undo every fault, empty the tables, and start the services in a new environment.

        Args:
            wanted: What is wanted of it from now on; None: the same as before.
            within: Give up after this time.

        Raises:
            UserError: Something does not answer any more.
        """
        self._end_services()
        self.wanted = wanted or self.wanted
        if isinstance(self.kafka, Breakable):
            self.kafka.up()
        shutil.rmtree(self._outbox, ignore_errors=True)
        try:
            with psycopg.connect(self.database_url, autocommit=True) as connection:
                connection.execute(EMPTY_EVERYTHING)
        except psycopg.Error as problem:
            message = f"The database of the lab cannot be emptied: {problem}"
            raise UserError(message) from None
        self._start_surroundings()
        self._start_services(Deadline(within))

    def can_become(self, wanted: EventBusOptions) -> bool:
        """Whether it can be renewed so that it is as somebody wants it."""
        # Who has given way once may not be allowed to come back.
        everything = GivesWay.EVERYTHING
        has_to_come_back = self.wanted.gives_way is everything and wanted.gives_way is not everything
        return self._forks is not None and self._forks.lives() and not has_to_come_back

    def stop(self) -> None:
        """End every process; safe to call again."""
        self._end_services()
        self._stop_surroundings()
        if self._forks is not None:
            self._forks.stop()
        if self._postgresql is not None:
            self._postgresql.stop()
            self._postgresql = None
        if self._kafka is not None:
            self._kafka.stop()
            self._kafka = None
        shutil.rmtree(self._directory, ignore_errors=True)

    def _start_surroundings(self) -> None:
        """Start what is wanted around the services, anew: nothing of it remembers anything."""
        self._stop_surroundings()
        if self.wanted.with_consul:
            self.consul.start()
        if self.wanted.with_traces:
            self.collector.clear()
            self.collector.start()
        if self.wanted.breakable:
            place = urlsplit(self.database_url)
            self._proxy = FaultProxy(place.hostname or LOOPBACK, place.port or DEFAULT_POSTGRES_PORT)
            self._proxy.start()

    def _stop_surroundings(self) -> None:
        self.consul.stop()
        self.collector.stop()
        if self._proxy is not None:
            self._proxy.stop()
            self._proxy = None

    def _end_services(self) -> None:
        running, self._running = self._running, {}
        self.stop_second_adapter()
        end_together(list(running.values()))

    # Where things are.

    @property
    def kafka(self) -> Kafka:
        """The brokers."""
        return _started(self._kafka)

    @property
    def breakable_kafka(self) -> Breakable:
        """The brokers, where they are the lab's.

        Raises:
            LabError: They are not.
        """
        if not isinstance(self.kafka, Breakable):
            message = "These brokers are not the lab's to take down."
            raise LabError(message)
        return self.kafka

    @property
    def database_url(self) -> str:
        """The services' database, with the password, past the proxy."""
        return _started(self._postgresql).url

    @property
    def postgresql(self) -> PostgresqlServer:
        """The server of the services' database, where it is the lab's.

        Raises:
            LabError: It is not.
        """
        if not isinstance(self._postgresql, PostgresqlServer):
            message = "This PostgreSQL is not the lab's to take down."
            raise LabError(message)
        return self._postgresql

    def url_of(self, service: BridgeService) -> str:
        """Where a service answers."""
        return self.client_of(service).base_url

    def client_of(self, service: BridgeService) -> JsonClient:
        """Calls a service."""
        return self._of(service).client

    def pid_of(self, service: BridgeService) -> int:
        """A service's process id."""
        return self._process_of(service).pid

    def topic_of(self, route: Route) -> str:
        """The topic of an event in the lab's environment."""
        return route.topic(self.environment)

    @property
    def settings(self) -> dict[str, Any]:
        """What the services run with."""
        shorter = settings_with(kafka_source(self.environment_of_run), self.wanted.overrides)
        addresses = {it.registered_name: f"http://{LOOPBACK}:{at.port}" for it, at in self._running.items()}
        return {
            **shorter,
            "environment": self.environment,
            "tracing": {"otlp": self.collector.url, "keep": KEPT_SPANS} if self.wanted.with_traces else {},
            "bootstrap_servers": self.kafka.bootstrap_servers,
            "outbox_directory": str(self._outbox),
            "discovery": {
                **shorter.get("discovery", {}),
                "fallback": addresses,
                "consul": self.consul.url if self.wanted.with_consul else None,
            },
        }

    @property
    def documented(self) -> Settings:
        """The documented settings, which are the services' defaults."""
        return Settings()

    def complaints_of(self, service: BridgeService) -> list[str]:
        """What a service has written to standard error since the lab was started."""
        return self._log_of(service).read_text(errors="replace").splitlines()

    @property
    def proxy(self) -> FaultProxy:
        """Between the services and PostgreSQL.

        Raises:
            LabError: They do not reach PostgreSQL through it.
        """
        if self._proxy is None:
            message = "The services do not reach their database through the proxy: start with breakable=True."
            raise LabError(message)
        return self._proxy

    # Faults.

    def kill(self, service: BridgeService) -> int:
        """Kill a service with SIGKILL, as a crash would; returns its process id."""
        process = self._process_of(service)
        process.kill()
        wait_for_the_end(process)
        self._of(service).process = None
        return process.pid

    def start_again(self, service: BridgeService, within: timedelta = START_TIMEOUT) -> None:
        """Start a service that was killed, where it was.

        Raises:
            LabError: It runs, or does not become ready.
        """
        running = self._of(service)
        if running.process is not None:
            message = f"The {service.value} of the lab is running already."
            raise LabError(message)
        with listening_socket(LOOPBACK, running.port) as listener:
            self._launch(service, listener.fileno())
        self._wait_until_ready(service, Deadline(within))
        self._give_way()

    def start_second_adapter(self, within: timedelta = START_TIMEOUT) -> None:
        """Start another adapter, which shares the partitions with the first one.

        Raises:
            LabError: There is one already, or it does not become ready.
        """
        if self._second_adapter is not None:
            message = "The second adapter of the lab is running already."
            raise LabError(message)
        with listening_socket(LOOPBACK, 0) as listener:
            port = listener.getsockname()[1]
            process = self._fork(BridgeService.ADAPTER, listener.fileno())
        self._second_adapter = second = ServiceProcess(BridgeService.ADAPTER, port, process)
        name = "the second adapter of the lab"
        log = self._log_of(BridgeService.ADAPTER)
        wait_until_ready(process, name, lambda: second.client.call("GET", "/health"), Deadline(within), log=log)
        self._give_way()

    def stop_second_adapter(self) -> None:
        """Let the second adapter finish and leave the group; there may be none."""
        second, self._second_adapter = self._second_adapter, None
        if second is not None:
            end_together([second])

    def pause(self, service: BridgeService) -> None:
        """Let a service stand still (SIGSTOP): its connections are open, but nobody answers."""
        self._process_of(service)
        self._of(service).signal(signal.SIGSTOP)

    def resume(self, service: BridgeService) -> None:
        """Let a service go on (SIGCONT); nothing when it does, or was killed."""
        self._of(service).signal(signal.SIGCONT)

    def restart_postgresql(self, mode: str) -> None:
        """Stop PostgreSQL and start it again on the same port and data.

        Args:
            mode: ``fast``, ``immediate`` or ``kill``.
        """
        self.postgresql.restart(ShutdownMode[mode.upper()])
        self._give_way()

    def kafka_answers(self) -> bool:
        """Whether any broker takes a connection."""
        for address in self.kafka.bootstrap_servers.split(","):
            host, _, port = address.rpartition(":")
            with suppress(OSError), socket.create_connection((host, int(port)), timeout=1):
                return True
        return False

    def planned_failures(self, seed: int, times: int) -> list[PlannedFailure]:
        """Failures of services by chance, the same ones for the same seed."""
        return list(planned_failures(seed, times))

    def make_run(self, service: BridgeService) -> None:
        """Start a service that was killed, and let one that stands still go on."""
        if self._of(service).process is None:
            self.start_again(service)
        else:
            self.resume(service)

    def second_region(self, topics: Sequence[str]) -> SecondRegion:
        """Brokers of another region, and mirrors; not yet started."""
        return SecondRegion(self.kafka.bootstrap_servers, topics, self.wanted.partitions)

    # Processes.

    def _of(self, service: BridgeService) -> ServiceProcess:
        return _started(self._running.get(service))

    def _process_of(self, service: BridgeService) -> ChildProcess:
        process = self._of(service).process
        if process is None:
            message = f"The {service.value} of the lab is not running."
            raise LabError(message)
        return process

    @property
    def _outbox(self) -> Path:
        return self._directory / "outbox"

    @property
    def _settings_file(self) -> Path:
        return self._directory / "settings.json"

    def _write_settings(self) -> None:
        self._settings_file.write_text(json.dumps(self.settings, indent=2))

    def _log_of(self, service: BridgeService) -> Path:
        return self._directory / f"{service.value}.log"

    def _launch(self, service: BridgeService, listener: int) -> None:
        self._of(service).process = self._fork(service, listener)

    def _fork(self, service: BridgeService, listener: int) -> ChildProcess:
        with self._log_of(service).open("ab") as log:
            return _started(self._forks).fork(
                *(self.modules[service], "--settings", str(self._settings_file)),
                *("--fd", str(listener), "--end-with-stdin"),
                stdin=PIPE,
                stderr=log,
                environment={DATABASE_VARIABLE: self._database_url_of_services},
                descriptors=(listener,),
            )

    def _give_way(self) -> None:
        """Let others go before these processes, if they are to: once they are ready, so that no session is new."""
        if self.wanted.gives_way is GivesWay.NOTHING:
            return
        everything = self.wanted.gives_way is GivesWay.EVERYTHING
        services = self._running if everything else STORING
        running = [*(self._running[it] for it in services), *filter(None, [self._second_adapter])]
        servers = [self._postgresql.pid] if everything and isinstance(self._postgresql, PostgresqlServer) else []
        connections = [it for server in servers for it in children_of(server)]
        give_way([*(it.process.pid for it in running if it.process), *servers, *connections])

    def _wait_until_ready(self, service: BridgeService, deadline: Deadline) -> None:
        def ask() -> object:
            return self.client_of(service).call("GET", "/health")

        name = f"the {service.value} of the lab"
        wait_until_ready(self._process_of(service), name, ask, deadline, log=self._log_of(service))

    @property
    def _database_url_of_services(self) -> str:
        if self._proxy is None:
            return self.database_url
        parts = urlsplit(self.database_url)
        credentials = parts.netloc.rpartition("@")[0]
        return urlunsplit(parts._replace(netloc=f"{credentials}@{self._proxy.host}:{self._proxy.port}"))


def _started(part: Part | None) -> Part:
    """A part of the lab that is there as long as it runs."""
    if part is None:
        message = "The event bus of the lab is not running."
        raise LabError(message)
    return part
