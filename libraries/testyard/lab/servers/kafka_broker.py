"""One broker of Apache Kafka: a process of Java with a directory of its own, both gone when this process ends."""

from __future__ import annotations

import os
import re
import signal
from datetime import timedelta
from pathlib import Path

from testyard.core.deadline import Deadline, seconds
from testyard.lab.children import LabError
from testyard.lab.servers.certificates import Credentials, write_private
from testyard.lab.servers.guarded_process import GuardedProcess
from testyard.lab.servers.kafka_install import Installation
from testyard.lab.servers.kafka_settings import (
    AUTHORITY_FILE,
    LOGGING,
    LOGGING_FILE,
    PROPERTIES_FILE,
    SERVER_CLASS,
    SERVER_KEYS_FILE,
    STORAGE_CLASS,
    BrokerPlan,
    argument_file_text,
    java_arguments,
    properties_text,
)

LOOK_INTERVAL = timedelta(milliseconds=20)
STARTED = "Kafka Server started"
PORT_TAKEN = "Address already in use"
# What tells in the log why a broker has ended.
TELLING = re.compile(
    r"^(?:\S+ \S+ (?:ERROR|FATAL) .*|(?:Error|Exception in thread|Caused by|[\w.]+Exception)\b.*)"
)


class KafkaError(LabError):
    """The lab's Kafka could not be started, or not do what it was asked for."""


class PortTakenError(KafkaError):
    """Somebody else listens on a port of the broker."""


class KafkaBroker:
    """A broker, which is also a controller of its cluster (KRaft).

    Args:
        plan: What it is told.
        installation: What it is made of.
        heap_megabytes: The most memory that its objects may take.
        new_class_archive: A file to write the classes in use to when it is shut down.

    Raises:
        LabError: Its directory cannot be created.
    """

    def __init__(
        self,
        plan: BrokerPlan,
        installation: Installation,
        heap_megabytes: int,
        *,
        new_class_archive: Path | None = None,
    ) -> None:
        self.plan = plan
        self._name = f"Broker {plan.number} of the lab's Kafka"
        self._java = installation.java.program
        self._options = java_arguments(
            installation, plan.directory, heap_megabytes, new_class_archive=new_class_archive
        )
        self._process = GuardedProcess(self._name, plan.directory)
        self._log = plan.directory / "server.log"
        self._read_from = 0
        self._running = False

    @property
    def pid(self) -> int:
        """The id of its process; another one after each start."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended since."""
        self._running = self._running and self._process.wait() is None
        return self._running

    @property
    def log(self) -> str:
        """What it logged so far."""
        return self._log.read_text(encoding="utf-8", errors="replace") if self._log.exists() else ""

    def write_certificates(self, authority: str, credentials: Credentials) -> None:
        """Write what its listeners with TLS show and check, before it starts.

        Args:
            authority: The certificate that clients' are checked with.
            credentials: Its own certificate and key.
        """
        write_private(self.plan.directory / AUTHORITY_FILE, authority)
        write_private(self.plan.directory / SERVER_KEYS_FILE, credentials.key + credentials.certificate)

    def begin_format(self, cluster: str) -> None:
        """Begin to prepare its data directory; ``finish_format`` waits for it.

        Args:
            cluster: The cluster's id.
        """
        directory = self.plan.directory
        write_private(directory / LOGGING_FILE, properties_text(LOGGING))
        write_private(directory / PROPERTIES_FILE, properties_text(self.plan.properties))
        self._run("format", STORAGE_CLASS, "format", "--cluster-id", cluster, "--config", PROPERTIES_FILE)

    def finish_format(self, deadline: Deadline) -> None:
        """Wait until the data directory is prepared.

        Raises:
            KafkaError: It could not be; says why.
        """
        status = self._process.wait(deadline.remaining)
        if status is None:
            message = f"{self._name} was not prepared after {seconds(deadline.elapsed)}."
            raise KafkaError(message)
        if status:
            message = f"{self._name} could not be prepared: {self._reason()}"
            raise KafkaError(message)

    def begin(self) -> None:
        """Start it, or start it again on the same ports and data; nothing while it runs."""
        if not self.is_running:
            self._read_from = self._log.stat().st_size if self._log.exists() else 0
            self._run("server", SERVER_CLASS, PROPERTIES_FILE)
            self._running = True

    def wait_until_started(self, deadline: Deadline) -> None:
        """Wait until it serves clients.

        Raises:
            PortTakenError: Somebody else listens on one of its ports.
            KafkaError: It ended instead, or does not serve in time.
        """
        while STARTED not in self._said():
            status = self._process.wait(min(LOOK_INTERVAL, deadline.remaining))
            if status is not None:
                self._running = False
                if PORT_TAKEN in self._said():
                    message = f"{self._name} did not start: one of its ports is taken."
                    raise PortTakenError(message)
                message = f"{self._name} ended with status {status} instead of starting: {self._reason()}"
                raise KafkaError(message)
            if deadline.expired:
                message = f"{self._name} did not serve after {seconds(deadline.elapsed)}: {self._reason()}"
                raise KafkaError(message)

    def kill(self) -> None:
        """End it like a crash (SIGKILL); its data stays. Nothing when it does not run."""
        self._process.kill()
        self._running = False

    def shut_down(self, within: timedelta) -> bool:
        """Let it hand over what it leads, and end (SIGTERM); its data stays. Nothing when it does not run.

        Args:
            within: Kill it after this time.

        Returns:
            Whether it has ended by itself.
        """
        self._process.signal(signal.SIGTERM)
        ended = self._process.wait(within) is not None
        if not ended:
            self._process.kill()
        self._running = False
        return ended

    def suspend(self) -> None:
        """Let it hang (SIGSTOP): its ports accept connections, but nobody answers."""
        self._process.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on (SIGCONT)."""
        self._process.signal(signal.SIGCONT)

    def close(self) -> None:
        """Kill it and remove its directory; safe to call again."""
        self._running = False
        self._process.close()

    def _run(self, purpose: str, *arguments: str) -> None:
        file = self.plan.directory / f"{purpose}.arguments"
        if not file.exists():
            write_private(file, argument_file_text([*self._options, *arguments]))
        environment = {"PATH": os.defpath, "LC_ALL": "C.UTF-8", "TZ": "UTC"}
        self._process.run([str(self._java), f"@{file}"], log=self._log, environment=environment)

    def _said(self) -> str:
        """What it logged since it was started last."""
        if not self._log.exists():
            return ""
        with self._log.open("rb") as log:
            log.seek(self._read_from)
            return log.read().decode(errors="replace")

    def _reason(self) -> str:
        lines = [line for line in self._said().splitlines() if line.strip()]
        telling = [line for line in lines if TELLING.match(line)]
        return (telling or lines or ["it said nothing."])[-1]
