"""Which Kafka and which PostgreSQL a run uses: the lab's, the user's own, or containers."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from typing import LiteralString, Protocol, runtime_checkable
from urllib.parse import quote, urlsplit, urlunsplit

import psycopg
from psycopg import sql

from testyard.core.redact import secrets_in_use
from testyard.lab.children import LabError
from testyard.lab.environment import (
    BOOTSTRAP_VARIABLE,
    CONTAINERS_VARIABLE,
    HOST_VARIABLE,
    Environment,
    KafkaSource,
    is_true,
    kafka_source,
)
from testyard.lab.servers.kafka_admin import BROKERS_DEFAULT, KafkaAdmin

PORT_VARIABLE = "POSTGRES_PORT"
DEFAULT_POSTGRES_PORT = 5432
OWN_NAME = "Your Kafka"
DROPPED_WITHIN = timedelta(seconds=10)


class Kafka(Protocol):
    """A Kafka that answers."""

    @property
    def bootstrap_servers(self) -> str:
        """Where clients connect to first: ``host:port,…``."""

    def create_topics(self, partitions: Mapping[str, int]) -> None:
        """Create topics, each replicated as far as the brokers allow.

        Args:
            partitions: The topics' names with their numbers of partitions.
        """

    def stop(self) -> None:
        """End what was started for it, and delete what was created on it; safe to call again."""


@runtime_checkable
class Breakable(Protocol):
    """What a Kafka of the lab can do besides: be taken away and brought back, on the same addresses."""

    brokers: tuple[int, ...]

    def down(self) -> None:
        """Take every broker away: by a kill (SIGKILL) where they are processes, else by an outage."""

    def up(self) -> None:
        """Bring every broker back; returns when they serve."""

    def take_broker_down(self, broker: int) -> None:
        """Take one broker away."""

    def bring_broker_up(self, broker: int) -> None:
        """Bring one broker back; returns when it serves."""


class Postgresql(Protocol):
    """A PostgreSQL that answers."""

    @property
    def url(self) -> str:
        """Where a database is that nobody else uses, with name and password."""

    def start(self, within: timedelta) -> None:
        """Wait until it answers.

        Args:
            within: Give up after this time.

        Raises:
            LabError: It does not answer.
        """

    def stop(self) -> None:
        """End what was started for it, and drop what was created on it; safe to call again."""


class OwnKafka:
    """The user's own Kafka, without TLS and SASL; of what is on it only the topics created here are touched.

    Args:
        bootstrap_servers: Where it is: ``host:port,…``.
    """

    def __init__(self, bootstrap_servers: str) -> None:
        self.bootstrap_servers = bootstrap_servers
        self._admin = KafkaAdmin(bootstrap_servers, name=OWN_NAME)
        self._created: list[str] = []

    def create_topics(self, partitions: Mapping[str, int], replication: int = BROKERS_DEFAULT) -> None:
        """Create topics, which ``stop`` deletes.

        Args:
            partitions: The topics' names with their numbers of partitions.
            replication: On how many brokers each partition is; by default as the brokers are configured.

        Raises:
            LabError: There is one of them already, or nobody answers.
        """
        for name, count in partitions.items():
            self._admin.create_topics({name: count}, replication)
            self._created.append(name)

    def stop(self) -> None:
        """Delete the topics that were created here; safe to call again."""
        while self._created:
            # One that is gone already, by whomever, is as it should be.
            with suppress(LabError):
                self._admin.delete_topic(self._created.pop())


class OwnPostgresql:
    """The user's own PostgreSQL; of what is on it only the database that is created here is touched.

    Args:
        url: Where a database is that it may be asked through, with name and password.
    """

    def __init__(self, url: str) -> None:
        self._asked_through = url
        self._database = f"testyard_{secrets.token_hex(4)}"
        self._is_there = False

    @property
    def url(self) -> str:
        """Where the database is that ``start`` creates, with name and password."""
        return urlunsplit(urlsplit(self._asked_through)._replace(path=f"/{self._database}"))

    def start(self, within: timedelta) -> None:
        """Create a database, which ``stop`` drops.

        Args:
            within: Give up after this time.

        Raises:
            LabError: Nobody answers, or the account may not create one.
        """
        self._ask("CREATE DATABASE {}", within)
        self._is_there = True

    def stop(self) -> None:
        """Drop the database that was created here, and cut who uses it; safe to call again."""
        if self._is_there:
            self._is_there = False
            # One that is gone already, by whomever, is as it should be.
            with suppress(LabError):
                self._ask("DROP DATABASE IF EXISTS {} WITH (FORCE)", DROPPED_WITHIN)

    def _ask(self, statement: LiteralString, within: timedelta) -> None:
        asked = sql.SQL(statement).format(sql.Identifier(self._database))
        try:
            patience = max(1, round(within.total_seconds()))
            with psycopg.connect(self._asked_through, autocommit=True, connect_timeout=patience) as connection:
                connection.execute(asked)
        except psycopg.Error as problem:
            place = urlsplit(self._asked_through)
            told = " ".join(str(problem).split())
            name = f"Your PostgreSQL at {place.hostname}:{place.port}, named by {HOST_VARIABLE},"
            message = f"{name} refused: {told}"
            raise LabError(message) from None


def start_kafka(environment: Environment, *, brokers: int = 3, variables: Mapping[str, str] = os.environ) -> Kafka:
    """A Kafka for a run; ``Breakable`` when it is the lab's.

    ``USE_TESTCONTAINERS=true`` takes a container and ``KAFKA_BOOTSTRAP_SERVERS`` the user's own, wherever the
    suites run. Else the lab's is taken: Apache Kafka with ``LAB=servers``, librdkafka's mock cluster with
    ``LAB=embedded``.

    Args:
        environment: Where the suites run.
        brokers: How many the lab's has.
        variables: The environment variables.

    Raises:
        LabError: What it needs is missing, with the command or the variable that helps; nothing is left running.
    """
    match kafka_source(environment, variables):
        case KafkaSource.CONTAINER:
            from testyard.lab.servers.containers import KafkaContainer

            return KafkaContainer(variables)
        case KafkaSource.OWN:
            bootstrap_servers = variables.get(BOOTSTRAP_VARIABLE)
            if not bootstrap_servers:
                message = f"It is not known where your Kafka is: set {BOOTSTRAP_VARIABLE}."
                raise LabError(message)
            return OwnKafka(bootstrap_servers)
        case KafkaSource.SERVER:
            from testyard.lab.servers.kafka import KafkaCluster

            cluster = KafkaCluster(brokers)
            cluster.start()
            return cluster
        case KafkaSource.MOCK:
            from testyard.lab.servers.kafka_mock import MockKafka

            mock = MockKafka(brokers)
            mock.start()
            return mock


def begin_postgresql(
    environment: Environment, *, durable: bool = True, variables: Mapping[str, str] = os.environ
) -> Postgresql:
    """A PostgreSQL for a run, which has begun to start; a ``PostgresqlServer`` when it is the lab's.

    ``USE_TESTCONTAINERS=true`` takes a container and ``POSTGRES_HOST`` the user's own, with ``POSTGRES_PORT``
    (5432), ``POSTGRES_USER`` and ``POSTGRES_DB`` (both ``postgres``) and ``POSTGRES_PASSWORD``, wherever the
    suites run. Else the lab's is taken.

    Args:
        environment: Where the suites run.
        durable: Whether what the lab's has committed survives a crash of the machine too.
        variables: The environment variables.

    Raises:
        LabError: What it needs is missing, with the command or the variable that helps; nothing is left running.
    """
    if is_true(variables, CONTAINERS_VARIABLE):
        from testyard.lab.servers.containers import PostgresqlContainer

        return PostgresqlContainer()
    if variables.get(HOST_VARIABLE):
        return OwnPostgresql(_own_url(variables))
    if environment is Environment.OWN:
        message = f"It is not known where your PostgreSQL is: set {HOST_VARIABLE}."
        raise LabError(message)
    from testyard.lab.servers.postgresql import PostgresqlServer

    server = PostgresqlServer(durable=durable)
    server.begin()
    return server


def _own_url(variables: Mapping[str, str]) -> str:
    port = variables.get(PORT_VARIABLE, "").strip() or str(DEFAULT_POSTGRES_PORT)
    if not port.isdigit():
        message = f"{PORT_VARIABLE} is {port!r}, expected the number of a port."
        raise LabError(message)
    user, database = (variables.get(name) or "postgres" for name in ("POSTGRES_USER", "POSTGRES_DB"))
    password = variables.get("POSTGRES_PASSWORD", "")
    secret = quote(password, safe="")
    secrets_in_use.add(password, secret)
    account = f"{quote(user, safe='')}:{secret}" if password else quote(user, safe="")
    return f"postgresql://{account}@{variables[HOST_VARIABLE]}:{port}/{quote(database, safe='')}"
