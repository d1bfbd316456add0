"""How the lab configures Apache Kafka: quick to start and to come back, small, losing nothing acknowledged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from testyard.lab.servers.kafka_install import Installation

HOST = "127.0.0.1"
CONTROLLER = "CONTROLLER"
MOST_REPLICAS = 3
SERVER_CLASS = "kafka.Kafka"
STORAGE_CLASS = "kafka.tools.StorageTool"

PROPERTIES_FILE = "server.properties"
LOGGING_FILE = "log4j2.properties"
SERVER_KEYS_FILE = "server.pem"
AUTHORITY_FILE = "authority.pem"


class Listener(Enum):
    """What a broker can offer its clients, each on a port of its own; the value is Kafka's security protocol.

    ``MUTUAL_SSL`` also asks the client for a certificate. Those with SASL accept the mechanisms in
    :data:`MECHANISMS`.
    """

    PLAINTEXT = "PLAINTEXT"
    SSL = "SSL"
    MUTUAL_SSL = "MUTUAL_SSL"
    SASL_PLAINTEXT = "SASL_PLAINTEXT"
    SASL_SSL = "SASL_SSL"

    @property
    def protocol(self) -> str:
        """Kafka's ``security.protocol``."""
        return "SSL" if self is Listener.MUTUAL_SSL else self.value

    @property
    def has_tls(self) -> bool:
        """Whether connections are encrypted."""
        return self.protocol.endswith("SSL")

    @property
    def has_sasl(self) -> bool:
        """Whether clients give a name and a password."""
        return self.protocol.startswith("SASL")


SCRAM_MECHANISMS = ("SCRAM-SHA-256", "SCRAM-SHA-512")
MECHANISMS = ("PLAIN", *SCRAM_MECHANISMS)


@dataclass(frozen=True)
class Account:
    """Whom the listeners with SASL let in.

    Attributes:
        name: The user's name.
        password: The password; random, for one run.
    """

    name: str
    password: str = field(repr=False)


@dataclass(frozen=True)
class BrokerPlan:
    """What one broker is told; a controller of the cluster runs in the same process.

    Attributes:
        number: Its id, from 1.
        controllers: The controllers' ports, by broker.
        ports: Its own ports, by listener.
        account: Whom SASL lets in.
        directory: Where its data and its files are.
        settings: Properties instead of the lab's, or beside them.
    """

    number: int
    controllers: Mapping[int, int]
    ports: Mapping[Listener, int]
    account: Account
    directory: Path
    settings: Mapping[str, str]

    @property
    def properties(self) -> dict[str, str]:
        """The broker's properties (Apache Kafka documentation, "Broker Configs")."""
        return {
            **self._roles(),
            **_replication(len(self.controllers)),
            **_returning(len(self.controllers)),
            **SMALL,
            **self._security(),
            **self.settings,
        }

    def _roles(self) -> dict[str, str]:
        listeners = {listener.value: port for listener, port in self.ports.items()}
        addresses = [f"{name}://{HOST}:{port}" for name, port in listeners.items()]
        protocols = [f"{listener.value}:{listener.protocol}" for listener in self.ports]
        voters = [f"{number}@{HOST}:{port}" for number, port in self.controllers.items()]
        return {
            "process.roles": "broker,controller",
            "node.id": str(self.number),
            "controller.quorum.voters": ",".join(voters),
            "controller.listener.names": CONTROLLER,
            "listeners": ",".join([*addresses, f"{CONTROLLER}://{HOST}:{self.controllers[self.number]}"]),
            "advertised.listeners": ",".join(addresses),
            "listener.security.protocol.map": ",".join([*protocols, f"{CONTROLLER}:PLAINTEXT"]),
            "inter.broker.listener.name": Listener.PLAINTEXT.value,
            "log.dirs": str(self.directory / "data"),
            "metadata.log.dir": str(self.directory / "data"),
        }

    def _security(self) -> dict[str, str]:
        properties: dict[str, str] = {}
        for listener in self.ports:
            prefix = f"listener.name.{listener.value.lower()}."
            if listener.has_tls:
                properties |= {
                    f"{prefix}ssl.keystore.type": "PEM",
                    f"{prefix}ssl.keystore.location": str(self.directory / SERVER_KEYS_FILE),
                    f"{prefix}ssl.truststore.type": "PEM",
                    f"{prefix}ssl.truststore.location": str(self.directory / AUTHORITY_FILE),
                    f"{prefix}ssl.client.auth": "required" if listener is Listener.MUTUAL_SSL else "none",
                }
            if listener.has_sasl:
                module = "org.apache.kafka.common.security"
                plain = f'required user_{self.account.name}="{self.account.password}"'
                properties[f"{prefix}sasl.enabled.mechanisms"] = ",".join(MECHANISMS)
                properties[f"{prefix}plain.sasl.jaas.config"] = f"{module}.plain.PlainLoginModule {plain};"
                for mechanism in SCRAM_MECHANISMS:
                    name = f"{prefix}{mechanism.lower()}.sasl.jaas.config"
                    properties[name] = f"{module}.scram.ScramLoginModule required;"
        return properties


def _replication(brokers: int) -> dict[str, str]:
    """Nothing that was acknowledged with ``acks=all`` is lost with one broker.

    What a broker has written is with the operating system when it acknowledges, so that its own death loses
    nothing; the second replica is for the time until it is back.
    """
    replicas = str(min(brokers, MOST_REPLICAS))
    in_sync = "2" if brokers >= MOST_REPLICAS else "1"
    return {
        "default.replication.factor": replicas,
        "min.insync.replicas": in_sync,
        "offsets.topic.replication.factor": replicas,
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": in_sync,
        "share.coordinator.state.topic.replication.factor": replicas,
        "share.coordinator.state.topic.min.isr": in_sync,
        "unclean.leader.election.enable": "false",
        # Topics are created on purpose, as on most clusters in production.
        "auto.create.topics.enable": "false",
        "num.partitions": "3",
    }


def _returning(brokers: int) -> dict[str, str]:
    """A broker that was killed is missed soon, and taken back soon: not before its old session has ended."""
    session, heartbeat = (1000, 200) if brokers == 1 else (2000, 300)
    return {
        "broker.session.timeout.ms": str(session),
        "broker.heartbeat.interval.ms": str(heartbeat),
        "controller.quorum.election.timeout.ms": "500",
        "controller.quorum.election.backoff.max.ms": "300",
        "controller.quorum.fetch.timeout.ms": "1000",
        "replica.socket.timeout.ms": "3000",
        "controller.socket.timeout.ms": "3000",
        "num.recovery.threads.per.data.dir": "2",
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "100",
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
    }


# Threads and buffers for a few clients instead of thousands.
SMALL: Mapping[str, str] = {
    "num.network.threads": "2",
    "num.io.threads": "4",
    "background.threads": "2",
    "offsets.topic.num.partitions": "4",
    "offsets.topic.segment.bytes": "10485760",
    "transaction.state.log.num.partitions": "4",
    "transaction.state.log.segment.bytes": "10485760",
    "share.coordinator.state.topic.num.partitions": "1",
    "log.cleaner.dedupe.buffer.size": "2097152",
    "log.cleaner.io.buffer.size": "65536",
    "group.coordinator.threads": "2",
    "controlled.shutdown.enable": "true",
}

# What a broker says goes to its standard output, without the hundreds of lines that repeat its configuration.
LOGGING: Mapping[str, str] = {
    "status": "error",
    "appender.output.type": "Console",
    "appender.output.name": "output",
    "appender.output.layout.type": "PatternLayout",
    "appender.output.layout.pattern": "%d{yyyy-MM-dd HH:mm:ss.SSS}{UTC} %p %c{1}: %m%n",
    "rootLogger": "INFO, output",
    "logger.config.name": "org.apache.kafka.common.config",
    "logger.config.level": "WARN",
    "logger.kafkaconfig.name": "kafka.server.KafkaConfig",
    "logger.kafkaconfig.level": "WARN",
    "logger.replay.name": "org.apache.kafka.controller",
    "logger.replay.level": "WARN",
}


def java_arguments(
    installation: Installation, directory: Path, heap_megabytes: int, *, new_class_archive: Path | None = None
) -> list[str]:
    """The options of ``java`` itself, up to the class path.

    Args:
        installation: What to run.
        directory: For the files that Java writes.
        heap_megabytes: The most memory that objects may take.
        new_class_archive: A file to write the classes in use to when the process ends by itself.
    """
    if new_class_archive is not None:
        archive = [f"-XX:ArchiveClassesAtExit={new_class_archive}"]
    elif installation.class_archive.is_file():
        archive = [f"-XX:SharedArchiveFile={installation.class_archive}"]
    else:
        archive = []
    return [
        *archive,
        f"-Xms{min(64, heap_megabytes)}m",
        f"-Xmx{heap_megabytes}m",
        "-Xshare:auto",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-XX:+ExitOnOutOfMemoryError",
        # No files in the system's temporary directory.
        "-XX:-UsePerfData",
        f"-XX:ErrorFile={directory}/hs_err.log",
        f"-Djava.io.tmpdir={directory}",
        "-Djava.awt.headless=true",
        "-Djava.net.preferIPv4Stack=true",
        f"-Dlog4j2.configurationFile={directory}/{LOGGING_FILE}",
        "-cp",
        installation.class_path,
    ]


def properties_text(properties: Mapping[str, str]) -> str:
    """The content of a Java properties file (java.util.Properties)."""
    return "".join(f"{name}={_escaped(value)}\n" for name, value in properties.items())


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n")


def argument_file_text(arguments: Iterable[str]) -> str:
    """The content of a file of arguments (JDK, "java", @argfiles): what is in it is on no command line."""
    quoted = (argument.replace("\\", "\\\\").replace('"', '\\"') for argument in arguments)
    return "".join(f'"{argument}"\n' for argument in quoted)
