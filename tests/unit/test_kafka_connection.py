"""Connections: made, refused with a reason, encrypted, and ended when the brokers are away."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    IncompatibleBrokerVersion,
    NodeNotReadyError,
    TopicAuthorizationFailedError,
)
from aiokafka.protocol.metadata import MetadataRequest
from kafka_support import closed_port, do, eventually, new_topic, open_kafka, quiet_client, refusing_broker
from testyard.core.deadline import Deadline
from testyard.core.errors import UserError
from testyard.core.loop_thread import LoopThread
from testyard.kafka import connection
from testyard.kafka.administration import create_topic, delete_topic
from testyard.kafka.client import Kafka
from testyard.kafka.collecting import Start
from testyard.kafka.connection import Connection
from testyard.kafka.connections import KafkaConnections
from testyard.kafka.event import outgoing, partition_called
from testyard.kafka.problems import (
    CannotConnectError,
    CredentialRefusedError,
    NoAnswerError,
    UnknownTopicError,
    UnsupportedRequestError,
    reason,
    unknown_topic,
)
from testyard.kafka.target import Sasl, SaslMechanism, Target, Tls
from testyard.lab.servers.certificates import CertificateAuthority
from testyard.lab.servers.fault_proxy import FaultProxy
from testyard.lab.servers.kafka_mock import Api, Failure, MockKafka
from tls_support import tls_relay

LONG = timedelta(seconds=20)
SHORT = timedelta(milliseconds=500)
PASSWORD = "a-password-that-is-refused"


@pytest.fixture
def mock() -> Iterator[MockKafka]:
    """Brokers of this test's own: it breaks them."""
    with quiet_client(), MockKafka() as cluster:
        yield cluster


@pytest.fixture
def kafka(mock: MockKafka) -> Iterator[Kafka]:
    """A connection to them."""
    with open_kafka(mock) as connection:
        yield connection


@pytest.fixture
def connections() -> Iterator[KafkaConnections]:
    """The connections of a run."""
    known = KafkaConnections()
    with quiet_client():
        yield known
    known.close_all()


@contextmanager
def silent_port() -> Iterator[int]:
    """A port that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


# ---- connecting


def test_a_connection_is_known_by_its_alias(mock: MockKafka, connections: KafkaConnections) -> None:
    topic = new_topic(mock)
    with pytest.raises(UserError, match="There is no Kafka connection called 'default'; open connections: none"):
        connections.get()
    first = connections.open(Target(mock.bootstrap_servers))
    assert connections.get() is first
    assert first.topics() == {topic: 3}
    second = connections.open(Target(mock.bootstrap_servers), alias="second")
    assert connections.open(Target(mock.bootstrap_servers)) is not first
    assert connections.get("second") is second
    connections.close("second")
    with pytest.raises(UserError, match="called 'second'; open connections: default"):
        connections.close("second")


def test_nobody_is_left_when_every_connection_is_closed(mock: MockKafka) -> None:
    connections, topic, before = KafkaConnections(), new_topic(mock), threading.active_count()
    kafka = connections.open(Target(mock.bootstrap_servers))
    kafka.collect("one", [topic])
    kafka.publish_at_rate([outgoing(topic, "x")] * 1000, 100)
    kafka.begin_transaction("writer")
    connections.close_all()
    connections.close_all()
    assert threading.active_count() == before


def test_closing_takes_no_longer_when_the_brokers_are_away(mock: MockKafka) -> None:
    connections, topic = KafkaConnections(), new_topic(mock)
    kafka = connections.open(Target(mock.bootstrap_servers))
    kafka.collect("one", [topic])
    kafka.publish([outgoing(topic, "first")])
    mock.down()
    kafka.publish([outgoing(topic, "second")], timedelta(milliseconds=100))
    started = time.monotonic()
    connections.close_all()
    assert time.monotonic() - started < 15


@pytest.mark.parametrize(
    ("server", "said"),
    [
        ("127.0.0.1:{closed}", "Cannot connect to Kafka at 127.0.0.1:{closed}: Connection refused."),
        (
            "127.0.0.1:{closed},a.invalid:1",
            "Cannot connect to Kafka at 127.0.0.1:{closed},a.invalid:1: 127.0.0.1:{closed}: Connection refused;",
        ),
        (
            "127.0.0.1:{closed},127.0.0.1:{closed}",
            "Cannot connect to Kafka at 127.0.0.1:{closed},127.0.0.1:{closed}: Connection refused.",
        ),
        ("nowhere.invalid:9092", "Cannot connect to Kafka at nowhere.invalid:9092: the name is not known ("),
        ("127.0.0.1:{silent}", "Cannot connect to Kafka at 127.0.0.1:{silent}: no answer in time."),
    ],
)
def test_who_cannot_be_reached_is_told(connections: KafkaConnections, server: str, said: str) -> None:
    with closed_port() as closed, silent_port() as silent, pytest.raises(CannotConnectError) as told:
        connections.open(Target(server.format(closed=closed, silent=silent)), within=SHORT)
    assert str(told.value).startswith(said.format(closed=closed, silent=silent))
    with pytest.raises(UserError, match="open connections: none"):
        connections.get()


def test_one_server_that_answers_is_enough(mock: MockKafka, connections: KafkaConnections) -> None:
    with closed_port() as closed:
        servers = f"127.0.0.1:{closed},{mock.bootstrap_servers}"
        assert connections.open(Target(servers)).topics() == {}


def test_brokers_that_tell_addresses_which_cannot_be_reached_are_told(
    mock: MockKafka, connections: KafkaConnections
) -> None:
    with closed_port() as closed:
        for broker in mock.brokers:
            mock.advertise(broker, "127.0.0.1", closed)
        said = (
            r"answers, but its brokers call themselves by addresses that cannot be reached from here \(advertised"
        )
        with pytest.raises(CannotConnectError, match=said) as told:
            connections.open(Target(mock.bootstrap_servers), within=SHORT)
        assert f"127.0.0.1:{closed}: Connection refused" in str(told.value)


def test_a_refused_credential_is_told_without_it(connections: KafkaConnections) -> None:
    with refusing_broker(58, "Authentication failed: Invalid username or password") as port:
        target = Target(f"127.0.0.1:{port}", sasl=Sasl("reader", PASSWORD))
        with pytest.raises(CredentialRefusedError) as told:
            connections.open(target)
    assert str(told.value) == (
        f"The credentials were refused by Kafka at 127.0.0.1:{port} as 'reader': "
        "SASL_AUTHENTICATION_FAILED: Authentication failed: Invalid username or password."
    )


def test_a_mechanism_that_the_broker_does_not_have_is_told(connections: KafkaConnections) -> None:
    with refusing_broker(58, "") as port:
        target = Target(f"127.0.0.1:{port}", sasl=Sasl("reader", PASSWORD, SaslMechanism.SCRAM_SHA_512))
        with pytest.raises(CannotConnectError, match=r"does not support SCRAM-SHA-512 .*: \['PLAIN'\]"):
            connections.open(target)


# ---- TLS, done by something in front of the brokers


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[CertificateAuthority, Path]:
    """An authority, and a directory with its certificate and a client's."""
    authority, directory = CertificateAuthority(), tmp_path_factory.mktemp("tls")
    client = authority.issue("client")
    (directory / "authority.pem").write_text(authority.certificate, encoding="ascii")
    (directory / "client.pem").write_text(client.certificate + client.key, encoding="ascii")
    (directory / "stranger.pem").write_text(CertificateAuthority().certificate, encoding="ascii")
    return authority, directory


def server_side(authority: tuple[CertificateAuthority, Path]) -> ssl.SSLContext:
    """TLS as a broker that is called ``localhost`` offers it."""
    issuer, directory = authority
    server = issuer.issue("broker", ["localhost"])
    (directory / "server.pem").write_text(server.certificate + server.key, encoding="ascii")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=directory / "authority.pem")
    context.load_cert_chain(directory / "server.pem")
    return context


@contextmanager
def encrypted(
    mock: MockKafka, authority: tuple[CertificateAuthority, Path], *, client_needs_certificate: bool = False
) -> Iterator[str]:
    """The brokers behind TLS; yields the bootstrap servers."""
    context = server_side(authority)
    if client_needs_certificate:
        context.verify_mode = ssl.CERT_REQUIRED
    with ExitStack() as stack:
        ports = []
        for broker, server_address in zip(mock.brokers, mock.bootstrap_servers.split(","), strict=True):
            host, port = server_address.split(":")
            ports.append(stack.enter_context(tls_relay(context, host, int(port))).port)
            mock.advertise(broker, "localhost", ports[-1])
        yield ",".join(f"localhost:{port}" for port in ports)


@pytest.mark.parametrize("mutual", [False, True])
def test_everything_works_over_tls(
    mock: MockKafka, connections: KafkaConnections, authority: tuple[CertificateAuthority, Path], mutual: bool
) -> None:
    topic, directory = new_topic(mock), authority[1]
    with encrypted(mock, authority, client_needs_certificate=mutual) as servers:
        tls = Tls(directory / "authority.pem", directory / "client.pem" if mutual else None)
        kafka = connections.open(Target(servers, tls=tls))
        kafka.collect("one", [topic], since=Start.BEGINNING)
        kafka.publish([outgoing(topic, {"n": n}) for n in range(100)]).check()
        assert len(kafka.drain("one", Deadline(LONG))) == 100
        connections.close_all()


def test_a_broker_that_is_not_trusted_is_told(
    mock: MockKafka, connections: KafkaConnections, authority: tuple[CertificateAuthority, Path]
) -> None:
    directory = authority[1]
    with encrypted(mock, authority) as servers:
        with pytest.raises(CannotConnectError, match=r"the broker's certificate is not trusted: .*certificate"):
            connections.open(Target(servers, tls=Tls(directory / "stranger.pem")))
        elsewhere = servers.replace("localhost", "127.0.0.1")
        with pytest.raises(CannotConnectError, match="not trusted: IP address mismatch"):
            connections.open(Target(elsewhere, tls=Tls(directory / "authority.pem")))
        connections.open(Target(elsewhere, tls=Tls(directory / "authority.pem", check_hostname=False)))
        connections.close_all()


def test_nothing_is_left_open_where_a_credential_is_refused_over_tls(
    authority: tuple[CertificateAuthority, Path],
) -> None:
    loop = LoopThread("refused")
    with (
        refusing_broker(58, "") as port,
        tls_relay(server_side(authority), "127.0.0.1", port) as relay,
        FaultProxy("127.0.0.1", relay.port) as proxy,
    ):
        proxy.delay(timedelta(milliseconds=20))
        target = Target(
            f"localhost:{proxy.port}", tls=Tls(authority[1] / "authority.pem"), sasl=Sasl("reader", PASSWORD)
        )
        with pytest.raises(CredentialRefusedError):
            Kafka(loop, target)
        loop.stop()
        # A socket that nobody has closed would fail this test now.
        gc.collect()


def test_a_connection_is_closed_when_asking_over_it_is_interrupted(
    mock: MockKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[AIOKafkaConnection] = []

    class Silent(AIOKafkaConnection):
        async def send(self, request: Any, **options: Any) -> Any:
            if isinstance(request, MetadataRequest):
                asked.append(self)
                await asyncio.Event().wait()
            return await super().send(request, **options)

    async def scenario() -> None:
        target = Target(mock.bootstrap_servers)
        reaching = asyncio.create_task(connection._reach(target, target.options, target.servers, Deadline(LONG)))
        await eventually(lambda: bool(asked))
        assert asked[0].connected()
        reaching.cancel()
        await asyncio.wait([reaching])
        assert not asked[0].connected()
        asked[0].close()

    monkeypatch.setattr(connection, "AIOKafkaConnection", Silent)
    do(scenario())


def test_tls_to_a_broker_without_it_is_told(mock: MockKafka, connections: KafkaConnections) -> None:
    with pytest.raises(CannotConnectError, match=r"Cannot connect to Kafka at .* with TLS: "):
        connections.open(Target(mock.bootstrap_servers, tls=Tls()), within=timedelta(seconds=2))


# ---- asking


def test_brokers_that_are_away_are_asked_until_they_are_back(mock: MockKafka, kafka: Kafka) -> None:
    topic = new_topic(mock)
    mock.down()
    back = threading.Timer(0.5, mock.up)
    back.start()
    assert kafka.topics() == {topic: 3}
    assert kafka.ends(kafka.partitions([topic]))[partition_called(f"{topic}/0")] == 0
    back.join()


def test_brokers_that_stay_away_are_told(mock: MockKafka, kafka: Kafka) -> None:
    mock.down()
    with pytest.raises(NoAnswerError, match=r"could not list its topics: .* \(tried for 0\.5"):
        kafka.ask(kafka.admin.list_topics, "list its topics", SHORT)
    mock.up()


@pytest.mark.parametrize(
    ("problem", "kind", "said"),
    [
        (NodeNotReadyError("not ready"), NoAnswerError, r"could not tell: .*not ready \(tried for"),
        (GroupCoordinatorNotAvailableError(), NoAnswerError, r"could not tell: .* \(tried for"),
        (OSError(111, "refused"), NoAnswerError, r"could not tell: Connection refused \(tried for"),
        (TopicAuthorizationFailedError("orders"), UserError, "could not tell: .*orders"),
        (
            IncompatibleBrokerVersion("x"),
            UnsupportedRequestError,
            "could not tell: its brokers do not know that request",
        ),
    ],
)
def test_what_brokers_answer_is_told(kafka: Kafka, problem: Exception, kind: type[UserError], said: str) -> None:
    asked = 0

    async def question() -> None:
        nonlocal asked
        asked += 1
        raise problem

    with pytest.raises(kind, match=said) as told:
        kafka.ask(question, "tell", timedelta(milliseconds=200))
    assert type(told.value) is kind
    assert (asked > 1) is (kind is NoAnswerError)
    asked = 0
    with pytest.raises(kind):
        kafka.ask(question, "tell", timedelta(milliseconds=200), repeatable=False)
    assert asked == 1


def test_offsets_are_those_of_the_partitions(mock: MockKafka, kafka: Kafka) -> None:
    topic = new_topic(mock, partitions=2)
    kafka.publish([outgoing(topic, "x", partition=1) for _ in range(5)])
    mock.delete_records(topic, 1, 2)
    first, second = kafka.partitions([topic])
    assert kafka.ends([first, second]) == {first: 0, second: 5}
    assert kafka.beginnings([first, second]) == {first: 0, second: 2}
    assert kafka.ends([]) == {}
    assert kafka.partitions_of(topic) == [first, second]
    assert kafka.partitions_of(f"{topic}/1") == [second]
    with pytest.raises(UserError, match="has no partition 2; it has 0 to 1"):
        kafka.partitions_of(f"{topic}/2")


def test_the_mock_tells_no_offsets_by_time_so_that_the_end_is_taken(mock: MockKafka, kafka: Kafka) -> None:
    topic = new_topic(mock, partitions=1)
    kafka.publish([outgoing(topic, "x")])
    assert set(kafka.offsets_at(kafka.partitions([topic]), 0).values()) == {1}


def test_an_unknown_topic_is_told_with_those_that_are_alike_first() -> None:
    known = ["zebra", "orders", "order", "__consumer_offsets", *(f"t{n}" for n in range(30))]
    said = str(unknown_topic("ordrs", known))
    assert said.startswith("There is no topic 'ordrs'; topics: orders, order, t0, t1, t10")
    assert said.endswith(" and 13 more.")
    assert str(unknown_topic("x", [])) == "There is no topic 'x'; topics: none."


def test_topics_of_the_mock_are_not_created_or_deleted_by_asking(mock: MockKafka, kafka: Kafka) -> None:
    topic = new_topic(mock)
    for change in (lambda: create_topic(kafka, "new"), lambda: delete_topic(kafka, topic)):
        with pytest.raises(UnsupportedRequestError, match="takes no requests for topics: its brokers name no"):
            change()
    assert kafka.topics() == {topic: 3}


def test_brokers_that_have_just_started_are_asked_for_their_controller_again(
    kafka: Kafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [-1, -1, 0]

    async def describe_cluster() -> dict[str, object]:
        return {"controller_id": answers.pop(0), "brokers": [{"node_id": 1}]}

    monkeypatch.setattr(kafka.admin, "describe_cluster", describe_cluster)
    with pytest.raises(UnsupportedRequestError):
        create_topic(kafka, "new")
    assert answers == []


def test_a_topic_that_was_made_meanwhile_is_found(mock: MockKafka, kafka: Kafka) -> None:
    with pytest.raises(UnknownTopicError):
        kafka.partitions(["late"])
    mock.create_topic("late", 2)
    assert len(kafka.partitions(["late"])) == 2


def test_a_request_that_fails_for_now_is_repeated(mock: MockKafka, kafka: Kafka) -> None:
    topic = new_topic(mock)
    mock.fail_next(Api.LIST_OFFSETS, Failure.NOT_LEADER_OR_FOLLOWER, Failure.LEADER_NOT_AVAILABLE)
    assert sum(kafka.ends(kafka.partitions([topic])).values()) == 0


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        (ValueError("wrong.\nvery"), "wrong. very"),
        (ValueError(), "ValueError"),
        (TimeoutError(), "no answer in time"),
        (TopicAuthorizationFailedError(), "TOPIC_AUTHORIZATION_FAILED: Returned by the broker when the client"),
        (TopicAuthorizationFailedError("orders"), "TOPIC_AUTHORIZATION_FAILED: orders"),
        (NodeNotReadyError(), "NodeNotReadyError"),
        (OSError("odd"), "odd"),
    ],
)
def test_a_reason_is_a_few_words(problem: Exception, said: str) -> None:
    assert reason(problem).startswith(said)
    assert "\n" not in reason(problem)


def test_an_interrupted_wait_is_cancelled(kafka: Kafka) -> None:
    ended = threading.Event()

    async def for_ever() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.set()

    with pytest.raises(NoAnswerError):
        kafka.ask(for_ever, "end", timedelta(milliseconds=100))
    assert ended.wait(5)


def test_a_connection_is_not_made_twice_on_its_own_loop() -> None:
    loop = LoopThread("own")

    async def inside() -> None:
        with pytest.raises(UserError, match="The loop of own cannot wait for itself"):
            Connection(loop, Target("127.0.0.1:1"))

    loop.run(inside())
    loop.stop()
