"""Where the suites run decides what they can have; what they cannot is told with the way to get it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from LabLibrary import LabLibrary
from testyard.lab.environment import (
    LAB_MODULES,
    Environment,
    KafkaSource,
    chosen_environment,
    kafka_source,
    missing_lab,
    missing_need,
)
from testyard.lab.servers import containers, kafka_install

KAFKA_NEEDS = (
    "kafka-transactions",
    "kafka-topic-admin",
    "kafka-rebalance",
    "kafka-durability",
    "kafka-timestamps",
)
COMMAND = "python -m testyard lab install kafka"


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is chosen by the environment of the tests."""
    for name in (
        "WALDUR_E2E_TESTS",
        "KAFKA_BOOTSTRAP_SERVERS",
        "POSTGRES_HOST",
        "USE_TESTCONTAINERS",
        "KAFKA_LACKS",
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def no_kafka(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    """Apache Kafka is not installed."""
    monkeypatch.setenv("TESTYARD_CACHE", str(tmp_path))


@pytest.fixture
def no_docker(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No Docker engine answers."""
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    containers.missing_docker.cache_clear()
    yield
    containers.missing_docker.cache_clear()


# ---- the places


@pytest.mark.parametrize(
    ("lab", "environment"),
    [("embedded", Environment.EMBEDDED), ("servers", Environment.SERVERS), ("none", Environment.OWN)],
)
def test_a_place_is_chosen_by_its_name(lab: str, environment: Environment, monkeypatch) -> None:
    assert chosen_environment(lab) is environment
    monkeypatch.setenv("WALDUR_E2E_TESTS", " TRUE ")
    assert chosen_environment(lab) is Environment.OWN


@pytest.mark.parametrize("lab", ["embedded", "servers"])
def test_the_lab_with_real_servers_is_the_lab(lab) -> None:
    library = LabLibrary(lab=lab)
    assert library.lab_is_embedded() is True
    library.close()
    assert LabLibrary(lab="none").lab_is_embedded() is False


@pytest.mark.parametrize(
    "need", ["faults", "listeners", "provisioning", "datacentre", "database", "staff", "pipelines"]
)
def test_the_other_domains_have_all_that_the_embedded_lab_has(need: str) -> None:
    assert missing_need(Environment.SERVERS, need) == missing_need(Environment.EMBEDDED, need) == ""
    assert missing_need(Environment.OWN, need) != ""


def test_the_lab_with_real_servers_needs_the_packages_of_the_lab(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "confluent_kafka" in LAB_MODULES
    monkeypatch.setattr("testyard.lab.environment.find_spec", lambda name: None if name == "moto" else name)
    for environment in (Environment.EMBEDDED, Environment.SERVERS):
        assert missing_lab(environment).startswith("The embedded lab needs moto: pip install ")
    assert missing_lab(Environment.OWN) == ""


def test_a_need_that_nobody_knows_is_told_with_those_that_are() -> None:
    reason = missing_need(Environment.EMBEDDED, "kafka-rebalancing")
    assert reason.startswith("The tag 'needs:kafka-rebalancing' is not known, expected one of ")
    assert all(need in reason for need in (*KAFKA_NEEDS, "kafka", "faults", "libvirt"))


# ---- where Kafka comes from


@pytest.mark.parametrize(
    ("environment", "variables", "source"),
    [
        (Environment.EMBEDDED, {}, KafkaSource.MOCK),
        (Environment.SERVERS, {}, KafkaSource.SERVER),
        (Environment.OWN, {}, KafkaSource.OWN),
        (Environment.EMBEDDED, {"KAFKA_BOOTSTRAP_SERVERS": "kafka:9092"}, KafkaSource.OWN),
        (Environment.SERVERS, {"KAFKA_BOOTSTRAP_SERVERS": "kafka:9092"}, KafkaSource.OWN),
        (Environment.EMBEDDED, {"KAFKA_BOOTSTRAP_SERVERS": ""}, KafkaSource.MOCK),
        (
            Environment.SERVERS,
            {"USE_TESTCONTAINERS": "True", "KAFKA_BOOTSTRAP_SERVERS": "kafka:9092"},
            KafkaSource.CONTAINER,
        ),
        (Environment.SERVERS, {"USE_TESTCONTAINERS": "false"}, KafkaSource.SERVER),
    ],
)
def test_a_variable_goes_before_the_lab(environment, variables: dict[str, str], source: KafkaSource) -> None:
    assert kafka_source(environment, variables) is source


# ---- what it has not


def test_the_mock_cluster_is_a_kafka() -> None:
    assert missing_need(Environment.EMBEDDED, "kafka") == ""


@pytest.mark.parametrize("need", KAFKA_NEEDS)
def test_what_the_mock_cluster_has_not_is_told_with_the_way_to_get_it(need: str) -> None:
    reason = missing_need(Environment.EMBEDDED, need)
    assert reason.startswith("The embedded Kafka is librdkafka's mock cluster, which has no ")
    assert reason.endswith(f": it runs with -v LAB:servers, after '{COMMAND}'.")


@pytest.mark.parametrize("need", ["kafka", *KAFKA_NEEDS])
def test_the_server_has_everything_when_it_is_installed(need: str, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(kafka_install, "missing_kafka", lambda: "")
    assert missing_need(Environment.SERVERS, need) == ""


@pytest.mark.usefixtures("no_kafka")
@pytest.mark.parametrize("need", ["kafka", *KAFKA_NEEDS])
def test_a_server_that_is_not_installed_is_told_with_the_command(need: str) -> None:
    reason = missing_need(Environment.SERVERS, need)
    assert reason.startswith("Apache Kafka 4.")
    assert reason.endswith(f" is not installed: {COMMAND}.")


@pytest.mark.parametrize("need", ["kafka", *KAFKA_NEEDS])
def test_own_systems_name_their_kafka(need: str, monkeypatch) -> None:
    assert missing_need(Environment.OWN, need) == "It talks to your Kafka: set KAFKA_BOOTSTRAP_SERVERS."
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "kafka:9092")
    reason = missing_need(Environment.OWN, need)
    if need == "kafka-durability":
        assert reason == "It kills brokers, which your own Kafka is not for: it runs with -v LAB:servers."
    else:
        assert reason == ""


def test_what_your_own_kafka_has_not_can_be_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "kafka:9092")
    monkeypatch.setenv("KAFKA_LACKS", "kafka-timestamps, kafka-transactions")
    said = [need for need in ("kafka", *KAFKA_NEEDS) if "KAFKA_LACKS" in missing_need(Environment.EMBEDDED, need)]
    assert said == ["kafka-transactions", "kafka-timestamps"]
    assert missing_need(Environment.OWN, "kafka-timestamps") == (
        "KAFKA_LACKS says that your own Kafka does not have it: kafka-timestamps."
    )


@pytest.mark.usefixtures("no_docker")
def test_containers_without_docker_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USE_TESTCONTAINERS", "true")
    reason = missing_need(Environment.EMBEDDED, "kafka")
    assert reason.startswith("No Docker engine answers: ")
    assert reason.endswith("Start one, let DOCKER_HOST name one, or unset USE_TESTCONTAINERS.")


def test_containers_have_all_but_brokers_to_kill(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USE_TESTCONTAINERS", "true")
    monkeypatch.setattr(containers, "missing_docker", lambda: "")
    missing = [need for need in ("kafka", *KAFKA_NEEDS) if missing_need(Environment.EMBEDDED, need)]
    assert missing == ["kafka-durability"]


def test_only_the_lab_s_kafka_is_taken_away(monkeypatch: pytest.MonkeyPatch) -> None:
    assert missing_need(Environment.EMBEDDED, "kafka-outage") == ""
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "kafka:9092")
    assert missing_need(Environment.EMBEDDED, "kafka-outage") == (
        "It takes every broker away, which your own Kafka is not for: it runs on the lab's own brokers."
    )


@pytest.mark.parametrize("environment", [Environment.EMBEDDED, Environment.SERVERS])
def test_only_the_lab_s_postgresql_is_killed(environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    assert missing_need(environment, "postgresql-crash") == ""
    monkeypatch.setenv("POSTGRES_HOST", "db")
    assert missing_need(environment, "postgresql-crash") == (
        "It kills PostgreSQL, which your own is not for: it runs without POSTGRES_HOST."
    )
    monkeypatch.setenv("USE_TESTCONTAINERS", "true")
    assert missing_need(environment, "postgresql-crash") == (
        "It kills PostgreSQL, which a container is not for: it runs without USE_TESTCONTAINERS."
    )


def test_your_own_systems_keep_their_postgresql() -> None:
    assert missing_need(Environment.OWN, "postgresql-crash").startswith("It kills PostgreSQL, which your own")
