"""Kafka and PostgreSQL in containers, by testcontainers, where a Docker engine answers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from importlib.util import find_spec
from typing import Protocol

from testyard.core.redact import secrets_in_use
from testyard.lab.children import LabError
from testyard.lab.servers.kafka_admin import BROKERS_DEFAULT, KafkaAdmin

PACKAGE = "testcontainers"
EXTRA_COMMAND = "pip install 'robotframework-testyard[containers]'"
ANSWER_SECONDS = 5
# The document's own variable (document 004, "Troubleshooting").
TIMEOUT_VARIABLE = "CONTAINER_STARTUP_TIMEOUT"
DEFAULT_TIMEOUT_SECONDS = 120
KAFKA_NAME = "Kafka in a container"


class ContainerError(LabError):
    """A container could not be started."""


class Stoppable(Protocol):
    """A container that runs."""

    def stop(self) -> None:
        """End and remove it."""


@cache
def missing_docker() -> str:
    """Why no container can be started, with what helps; empty when one can. Asked once in a run."""
    if find_spec(PACKAGE) is None:
        return f"Containers need the package {PACKAGE}: {EXTRA_COMMAND}."
    import docker
    from docker.errors import DockerException

    try:
        client = docker.from_env(timeout=ANSWER_SECONDS)
    except (DockerException, OSError) as problem:
        return (
            f"No Docker engine answers: {_first_line(problem)}. Start one, let DOCKER_HOST name one, or unset "
            "USE_TESTCONTAINERS."
        )
    client.close()
    return ""


class KafkaContainer:
    """One Kafka broker in a container, which is removed when it stops, and by testcontainers' reaper after a kill.

    Args:
        variables: The environment variables; ``CONTAINER_STARTUP_TIMEOUT`` says how many seconds it may take.

    Raises:
        ContainerError: No Docker engine answers, or the container did not start.
    """

    def __init__(self, variables: Mapping[str, str] = os.environ) -> None:
        _refuse_without_docker()
        from testcontainers.community.kafka import KafkaContainer as Container

        with _refusals(KAFKA_NAME):
            container = Container().with_kraft()
            _start(container, lambda: container.start(timeout=_timeout(variables)))
            self.bootstrap_servers: str = container.get_bootstrap_server()
        self._container = container
        self._admin = KafkaAdmin(self.bootstrap_servers, name=KAFKA_NAME)

    def create_topics(self, partitions: Mapping[str, int], replication: int = BROKERS_DEFAULT) -> None:
        """Create topics; see :meth:`testyard.lab.servers.kafka.KafkaCluster.create_topics`."""
        self._admin.create_topics(partitions, replication)

    def stop(self) -> None:
        """End and remove the container; safe to call again."""
        self._container.stop()


class PostgresqlContainer:
    """PostgreSQL in a container.

    Raises:
        ContainerError: No Docker engine answers, or the container did not start.
    """

    def __init__(self) -> None:
        _refuse_without_docker()
        from testcontainers.community.postgres import PostgresContainer as Container

        with _refusals("PostgreSQL in a container"):
            container = Container(driver=None)
            secrets_in_use.add(container.password)
            _start(container, container.start)
            self.url: str = container.get_connection_url()
        self._container = container

    def start(self, within: timedelta) -> None:
        """Nothing: it answers already."""

    def stop(self) -> None:
        """End and remove the container; safe to call again."""
        self._container.stop()


def _start(container: Stoppable, start: Callable[[], object]) -> None:
    try:
        start()
    except BaseException:
        container.stop()
        raise


def _refuse_without_docker() -> None:
    if reason := missing_docker():
        raise ContainerError(reason)


@contextmanager
def _refusals(name: str) -> Iterator[None]:
    from docker.errors import DockerException
    from testcontainers.core.exceptions import ContainerStartException

    try:
        yield
    except (DockerException, ContainerStartException, OSError, RuntimeError) as problem:
        message = f"{name} did not start: {_first_line(problem)}."
        raise ContainerError(message) from None


def _timeout(variables: Mapping[str, str]) -> int:
    text = variables.get(TIMEOUT_VARIABLE, "").strip() or str(DEFAULT_TIMEOUT_SECONDS)
    if not text.isdigit():
        message = f"{TIMEOUT_VARIABLE} is {text!r}, expected a number of seconds."
        raise ContainerError(message)
    return int(text)


def _first_line(problem: BaseException) -> str:
    return (str(problem).strip().splitlines() or [type(problem).__name__])[0].rstrip(".")
