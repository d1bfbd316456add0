"""A run gets the Kafka and the PostgreSQL that its variables name, else those of the lab."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from confluent_kafka.admin import AdminClient
from testyard.core.redact import secrets_in_use
from testyard.lab.children import LabError
from testyard.lab.environment import Environment
from testyard.lab.servers import containers, provision
from testyard.lab.servers.containers import ContainerError, KafkaContainer, PostgresqlContainer
from testyard.lab.servers.kafka import KafkaCluster
from testyard.lab.servers.kafka_mock import MockKafka
from testyard.lab.servers.provision import Breakable, OwnKafka, start_kafka, start_postgresql

OWN_KAFKA = {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}
CONTAINERS = {"USE_TESTCONTAINERS": "true"}


# ---- Kafka


def test_the_embedded_lab_has_the_mock_cluster() -> None:
    kafka = start_kafka(Environment.EMBEDDED, brokers=2, variables={})
    try:
        assert isinstance(kafka, MockKafka)
        assert isinstance(kafka, Breakable)
        assert kafka.brokers == (1, 2)
        kafka.create_topics({"orders": 4})
        listed = AdminClient({"bootstrap.servers": kafka.bootstrap_servers}).list_topics("orders", timeout=10)
        assert len(listed.topics["orders"].partitions) == 4
    finally:
        kafka.stop()


def test_the_lab_with_real_servers_has_the_real_one(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[KafkaCluster] = []

    def start(cluster: KafkaCluster) -> None:
        started.append(cluster)

    monkeypatch.setattr(KafkaCluster, "start", start)
    kafka = start_kafka(Environment.SERVERS, brokers=1, variables={})
    assert started == [kafka]
    assert isinstance(kafka, Breakable)
    assert kafka.brokers == (1,)


def test_own_kafka_is_used_and_not_broken() -> None:
    kafka = start_kafka(Environment.EMBEDDED, variables=OWN_KAFKA)
    assert isinstance(kafka, OwnKafka)
    assert kafka.bootstrap_servers == "127.0.0.1:1"
    assert not isinstance(kafka, Breakable)
    kafka.stop()


def test_own_kafka_that_is_not_named_is_asked_for() -> None:
    with pytest.raises(LabError, match=r"^It is not known where your Kafka is: set KAFKA_BOOTSTRAP_SERVERS\.$"):
        start_kafka(Environment.OWN, variables={})


class FakeAdmin:
    """Has topics."""

    def __init__(self, *_: object, **__: object) -> None:
        self.topics = {"theirs": 1}

    def create_topics(self, partitions: dict[str, int], replication: int) -> None:
        assert replication == -1, "as the brokers are configured"
        if self.topics.keys() & partitions.keys():
            message = "exists"
            raise LabError(message)
        self.topics |= partitions

    def delete_topic(self, name: str) -> None:
        if name not in self.topics:
            message = "is not there"
            raise LabError(message)
        del self.topics[name]


def test_of_your_own_topics_only_those_of_the_run_are_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    admin = FakeAdmin()
    monkeypatch.setattr(provision, "KafkaAdmin", lambda *_, **__: admin)
    kafka = start_kafka(Environment.OWN, variables=OWN_KAFKA)
    kafka.create_topics({"ours": 3, "gone": 1})
    with pytest.raises(LabError, match="exists"):
        kafka.create_topics({"more": 1, "theirs": 1})
    assert admin.topics == {"theirs": 1, "ours": 3, "gone": 1, "more": 1}
    admin.delete_topic("gone")
    kafka.stop()
    kafka.stop()
    assert admin.topics == {"theirs": 1}


# ---- PostgreSQL


def test_the_lab_has_its_own_postgresql() -> None:
    server = start_postgresql(Environment.EMBEDDED, {})
    try:
        with psycopg.connect(server.url) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("variables", "url"),
    [
        ({"POSTGRES_HOST": "db"}, "postgresql://postgres@db:5432/postgres"),
        ({"POSTGRES_HOST": "db", "POSTGRES_PORT": "5436"}, "postgresql://postgres@db:5436/postgres"),
        (
            {
                "POSTGRES_HOST": "db",
                "POSTGRES_USER": "us/er",
                "POSTGRES_PASSWORD": "pass/word:long",
                "POSTGRES_DB": "events",
            },
            "postgresql://us%2Fer:pass%2Fword%3Along@db:5432/events",
        ),
    ],
)
@pytest.mark.parametrize("environment", Environment)
def test_own_postgresql_is_used(environment: Environment, variables: dict[str, str], url: str) -> None:
    server = start_postgresql(environment, variables)
    assert server.url == url
    server.stop()


def test_the_password_of_your_own_postgresql_is_masked() -> None:
    url = start_postgresql(Environment.OWN, {"POSTGRES_HOST": "db", "POSTGRES_PASSWORD": "secret of db"}).url
    assert secrets_in_use.mask(f"secret of db {url}") == "*** postgresql://postgres:***@db:5432/postgres"


def test_what_is_wrong_with_the_variables_is_told() -> None:
    with pytest.raises(LabError, match=r"^POSTGRES_PORT is 'five', expected the number of a port\.$"):
        start_postgresql(Environment.OWN, {"POSTGRES_HOST": "db", "POSTGRES_PORT": "five"})
    with pytest.raises(LabError, match=r"^It is not known where your PostgreSQL is: set POSTGRES_HOST\.$"):
        start_postgresql(Environment.OWN, {})


# ---- containers


@pytest.fixture
def no_docker(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No Docker engine answers."""
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    containers.missing_docker.cache_clear()
    yield
    containers.missing_docker.cache_clear()


@pytest.mark.usefixtures("no_docker")
def test_containers_without_docker_are_refused() -> None:
    for start in (
        lambda: start_kafka(Environment.EMBEDDED, variables=CONTAINERS),
        lambda: start_postgresql(Environment.OWN, CONTAINERS),
    ):
        with pytest.raises(ContainerError, match=r"^No Docker engine answers: .* unset USE_TESTCONTAINERS\.$"):
            start()


def test_containers_without_their_package_are_refused_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    containers.missing_docker.cache_clear()
    monkeypatch.setattr(containers, "find_spec", lambda _: None)
    try:
        with pytest.raises(ContainerError, match=r"testcontainers: pip install 'robotframework-testyard\[contain"):
            start_kafka(Environment.OWN, variables=CONTAINERS)
    finally:
        containers.missing_docker.cache_clear()


class FakeContainer:
    """A container of testcontainers, as far as it is used.

    Attributes:
        problem: What goes wrong when it starts.
        made: Those that were made.
    """

    problem: BaseException | None = None
    made: list[FakeContainer] = []  # noqa: RUF012 emptied by the fixture
    password = "password of it"

    def __init__(self, **settings: Any) -> None:
        self.settings = settings
        self.timeout = 0
        self.running = False
        self.kraft = False
        self.made.append(self)

    def with_kraft(self) -> FakeContainer:
        self.kraft = True
        return self

    def start(self, timeout: int = 0) -> FakeContainer:
        self.running, self.timeout = True, timeout
        if self.problem is not None:
            raise self.problem
        return self

    def stop(self) -> None:
        self.running = False

    def get_bootstrap_server(self) -> str:
        return "127.0.0.1:9093"

    def get_connection_url(self) -> str:
        return f"postgresql://test:{self.password}@127.0.0.1:5432/test"


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[FakeContainer]:
    """The containers that are made; none is real."""
    kafka = pytest.importorskip("testcontainers.community.kafka")
    postgres = pytest.importorskip("testcontainers.community.postgres")
    monkeypatch.setattr(kafka, "KafkaContainer", FakeContainer)
    monkeypatch.setattr(postgres, "PostgresContainer", FakeContainer)
    monkeypatch.setattr(containers, "missing_docker", lambda: "")
    monkeypatch.setattr(FakeContainer, "made", [])
    return FakeContainer.made


def test_kafka_in_a_container_is_started_and_stopped(made: list[FakeContainer]) -> None:
    kafka = start_kafka(Environment.SERVERS, variables=CONTAINERS | {"CONTAINER_STARTUP_TIMEOUT": "7"})
    assert isinstance(kafka, KafkaContainer)
    assert kafka.bootstrap_servers == "127.0.0.1:9093"
    assert [(it.running, it.kraft, it.timeout) for it in made] == [(True, True, 7)]
    kafka.stop()
    assert [it.running for it in made] == [False]


def test_postgresql_in_a_container_is_started_and_stopped(made: list[FakeContainer]) -> None:
    server = start_postgresql(Environment.SERVERS, CONTAINERS)
    assert isinstance(server, PostgresqlContainer)
    assert secrets_in_use.mask(server.url) == "postgresql://test:***@127.0.0.1:5432/test"
    assert [(it.running, it.settings) for it in made] == [(True, {"driver": None})]
    server.stop()
    assert [it.running for it in made] == [False]


def test_a_container_that_does_not_start_is_removed(made: list[FakeContainer], monkeypatch) -> None:
    monkeypatch.setattr(FakeContainer, "problem", TimeoutError("no such image\nmore of it"))
    with pytest.raises(ContainerError, match=r"^Kafka in a container did not start: no such image\.$"):
        start_kafka(Environment.EMBEDDED, variables=CONTAINERS)
    with pytest.raises(ContainerError, match=r"^PostgreSQL in a container did not start: no such image\.$"):
        start_postgresql(Environment.EMBEDDED, CONTAINERS)
    assert [it.running for it in made] == [False, False]


@pytest.mark.usefixtures("made")
def test_a_time_that_is_no_number_is_named() -> None:
    with pytest.raises(
        ContainerError, match=r"^CONTAINER_STARTUP_TIMEOUT is 'long', expected a number of seconds"
    ):
        start_kafka(Environment.EMBEDDED, variables=CONTAINERS | {"CONTAINER_STARTUP_TIMEOUT": "long"})
