"""A run gets the Kafka and the PostgreSQL that its variables name, else those of the lab."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from confluent_kafka.admin import AdminClient
from kafka_support import closed_port
from testyard.core.redact import secrets_in_use
from testyard.lab.children import LabError
from testyard.lab.environment import Environment
from testyard.lab.servers import containers, provision
from testyard.lab.servers.containers import ContainerError, KafkaContainer, PostgresqlContainer
from testyard.lab.servers.kafka import KafkaCluster
from testyard.lab.servers.kafka_mock import MockKafka
from testyard.lab.servers.postgresql import PostgresqlServer
from testyard.lab.servers.provision import Breakable, OwnKafka, begin_postgresql, start_kafka
from testyard.lab.supervisor.bridge_service import BridgeService
from testyard.lab.supervisor.event_bus import EventBusLab
from testyard.lab.supervisor.event_bus_options import EventBusOptions, GivesWay

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


WITHIN = timedelta(seconds=20)


def test_the_lab_has_its_own_postgresql() -> None:
    server = begin_postgresql(Environment.EMBEDDED, variables={})
    try:
        server.start(WITHIN)
        assert databases_of(server.url) >= {"postgres"}
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("variables", "url"),
    [
        ({"POSTGRES_HOST": "db"}, "postgresql://postgres@db:5432"),
        ({"POSTGRES_HOST": "db", "POSTGRES_PORT": "5436"}, "postgresql://postgres@db:5436"),
        (
            {"POSTGRES_HOST": "db", "POSTGRES_USER": "us/er", "POSTGRES_PASSWORD": "pass/word:long"},
            "postgresql://us%2Fer:pass%2Fword%3Along@db:5432",
        ),
    ],
)
@pytest.mark.parametrize("environment", Environment)
def test_own_postgresql_is_used(environment: Environment, variables: dict[str, str], url: str) -> None:
    server = begin_postgresql(environment, variables=variables)
    assert server.url.rpartition("/")[0] == url
    server.stop()


def test_own_postgresql_has_a_database_for_the_run_only(own_postgresql: PostgresqlServer) -> None:
    before = databases_of(own_postgresql.url)
    server = begin_postgresql(Environment.EMBEDDED, variables=variables_of(own_postgresql))
    assert databases_of(own_postgresql.url) == before
    server.start(WITHIN)
    with psycopg.connect(server.url) as used:
        name = used.info.dbname
        assert databases_of(own_postgresql.url) - before == {name}
        server.stop()
    assert databases_of(own_postgresql.url) == before
    server.stop()


def test_an_account_that_may_not_create_a_database_is_told(own_postgresql: PostgresqlServer) -> None:
    with psycopg.connect(own_postgresql.url) as connection:
        connection.execute("CREATE ROLE guest LOGIN PASSWORD 'secret of guest'")
    account = {"POSTGRES_USER": "guest", "POSTGRES_PASSWORD": "secret of guest"}
    server = begin_postgresql(Environment.EMBEDDED, variables=variables_of(own_postgresql) | account)
    with pytest.raises(
        LabError, match=r"^Your PostgreSQL at 127.+ named by POSTGRES_HOST, refused: permission denied"
    ):
        server.start(WITHIN)


def test_the_named_database_is_asked_through(own_postgresql: PostgresqlServer) -> None:
    variables = variables_of(own_postgresql) | {"POSTGRES_DB": "nowhere/"}
    with pytest.raises(LabError, match=r'refused: .*database "nowhere/" does not exist'):
        begin_postgresql(Environment.EMBEDDED, variables=variables).start(WITHIN)


def test_a_postgresql_that_does_not_answer_is_told() -> None:
    with closed_port() as port:
        variables = {"POSTGRES_HOST": "127.0.0.1", "POSTGRES_PORT": str(port)}
        server = begin_postgresql(Environment.EMBEDDED, variables=variables)
        with pytest.raises(LabError, match=rf"^Your PostgreSQL at 127\.0\.0\.1:{port}, .*Connection refused"):
            server.start(WITHIN)
        server.stop()


def test_the_event_bus_uses_your_own_postgresql(
    own_postgresql: PostgresqlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables_of(own_postgresql).items():
        monkeypatch.setenv(name, value)
    before = databases_of(own_postgresql.url)
    with EventBusLab(EventBusOptions(breakable=True, gives_way=GivesWay.EVERYTHING)) as lab:
        (created,) = databases_of(own_postgresql.url) - before
        assert lab.proxy.target == ("127.0.0.1", own_postgresql.port)
        with psycopg.connect(lab.database_url) as connection:
            assert connection.info.dbname == created
            assert connection.execute("SELECT count(*) FROM event_logs").fetchone() == (0,)
        with pytest.raises(LabError, match=r"^This PostgreSQL is not the lab's to take down\.$"):
            lab.restart_postgresql("kill")
        assert lab.client_of(BridgeService.ADAPTER).call("GET", "/health")["status"] == "healthy"
    assert databases_of(own_postgresql.url) == before


@pytest.fixture(scope="module")
def own_postgresql() -> Iterator[PostgresqlServer]:
    """A server that somebody else runs."""
    with PostgresqlServer(durable=False) as server:
        yield server


def variables_of(server: PostgresqlServer) -> dict[str, str]:
    """The environment variables that name a server."""
    place = urlsplit(server.url)
    return {
        "POSTGRES_HOST": str(place.hostname),
        "POSTGRES_PORT": str(place.port),
        "POSTGRES_USER": str(place.username),
        "POSTGRES_PASSWORD": str(place.password),
    }


def databases_of(url: str) -> set[str]:
    """The names of a server's databases."""
    with psycopg.connect(url) as connection:
        return {name for (name,) in connection.execute("SELECT datname FROM pg_database").fetchall()}


def test_the_password_of_your_own_postgresql_is_masked() -> None:
    variables = {"POSTGRES_HOST": "db", "POSTGRES_PASSWORD": "secret of db"}
    url = begin_postgresql(Environment.OWN, variables=variables).url
    masked = secrets_in_use.mask(f"secret of db {url}")
    assert masked.startswith("*** postgresql://postgres:***@db:5432/testyard_")


def test_what_is_wrong_with_the_variables_is_told() -> None:
    with pytest.raises(LabError, match=r"^POSTGRES_PORT is 'five', expected the number of a port\.$"):
        begin_postgresql(Environment.OWN, variables={"POSTGRES_HOST": "db", "POSTGRES_PORT": "five"})
    with pytest.raises(LabError, match=r"^It is not known where your PostgreSQL is: set POSTGRES_HOST\.$"):
        begin_postgresql(Environment.OWN, variables={})


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
        lambda: begin_postgresql(Environment.OWN, variables=CONTAINERS),
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
    server = begin_postgresql(Environment.SERVERS, variables=CONTAINERS)
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
        begin_postgresql(Environment.EMBEDDED, variables=CONTAINERS)
    assert [it.running for it in made] == [False, False]


@pytest.mark.usefixtures("made")
def test_a_time_that_is_no_number_is_named() -> None:
    with pytest.raises(
        ContainerError, match=r"^CONTAINER_STARTUP_TIMEOUT is 'long', expected a number of seconds"
    ):
        start_kafka(Environment.EMBEDDED, variables=CONTAINERS | {"CONTAINER_STARTUP_TIMEOUT": "long"})
