"""The test tool's Kafka client against a real Kafka: what the mock cluster cannot do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from kafka_server_support import NEEDS_KAFKA
from kafka_support import quiet_client
from testyard.core.deadline import Deadline, wait_until
from testyard.core.errors import UserError
from testyard.core.history import Kind
from testyard.core.loop_thread import LoopThread
from testyard.kafka.administration import create_topic, delete_topic
from testyard.kafka.client import Kafka
from testyard.kafka.collecting import Isolation, Start
from testyard.kafka.event import outgoing, partition_called
from testyard.kafka.groups import GroupState, committed_offsets, describe, lags
from testyard.kafka.problems import CannotConnectError, CredentialRefusedError, RecordsGoneError, UnknownTopicError
from testyard.kafka.selection import Selection
from testyard.kafka.target import Sasl, SaslMechanism, Target, Tls
from testyard.lab.servers.kafka import KafkaCluster
from testyard.lab.servers.kafka_settings import Listener

pytestmark = [NEEDS_KAFKA, pytest.mark.slow]
LONG = timedelta(seconds=30)


@pytest.fixture(scope="module")
def cluster() -> Iterator[KafkaCluster]:
    """One broker that also wants to be told who connects, encrypted or not."""
    with quiet_client(), KafkaCluster(brokers=1, listeners=[Listener.SASL_SSL, Listener.SSL]) as cluster:
        yield cluster


@contextmanager
def connected(target: Target) -> Iterator[Kafka]:
    """A connection that is closed at the end."""
    loop = LoopThread("kafka under test")
    try:
        kafka = Kafka(loop, target, within=LONG)
        yield kafka
        kafka.close()
    finally:
        loop.stop()


@pytest.fixture
def kafka(cluster: KafkaCluster) -> Iterator[Kafka]:
    """A connection to the broker."""
    with connected(Target(cluster.bootstrap_servers)) as kafka:
        yield kafka


@pytest.fixture
def topic(kafka: Kafka) -> str:
    """A topic of one partition that no other test has."""
    name = f"topic-{uuid4().hex[:8]}"
    create_topic(kafka, name, partitions=1)
    return name


def test_topics_are_created_and_deleted(kafka: Kafka) -> None:
    name = f"topic-{uuid4().hex[:8]}"
    create_topic(kafka, name, partitions=4, settings={"retention.ms": "60000"})
    assert kafka.topics()[name] == 4
    with pytest.raises(UserError, match=f"There is a topic '{name}' already"):
        create_topic(kafka, name)
    delete_topic(kafka, name)
    assert name not in kafka.topics()
    with pytest.raises(UnknownTopicError, match=f"There is no topic '{name}'"):
        delete_topic(kafka, name)


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("a b", {}, "could not create the topic 'a b': "),
        ("odd", {"no.such": "1"}, "could not create the topic 'odd': "),
    ],
)
def test_a_topic_that_is_refused_is_told(kafka: Kafka, name: str, settings: dict[str, str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        create_topic(kafka, name, settings=settings)


def test_what_is_committed_is_read_and_what_is_aborted_is_not(kafka: Kafka, topic: str) -> None:
    collector = kafka.collect("committed", [topic], isolation=Isolation.READ_COMMITTED)
    kafka.begin_transaction("writer")
    committed = kafka.publish([outgoing(topic, {"event_id": f"c{n}"}) for n in range(3)])
    collector.never(Selection(), Deadline(timedelta(milliseconds=300)))
    kafka.commit_transaction()
    kafka.begin_transaction("writer")
    aborted = kafka.publish([outgoing(topic, {"event_id": f"a{n}"}) for n in range(3)])
    kafka.abort_transaction()
    assert [event.id for event in kafka.drain("committed", Deadline(LONG))] == ["c0", "c1", "c2"]
    assert {it.kind for it in committed.outcomes()} == {Kind.ACKNOWLEDGED}
    assert {it.kind for it in aborted.outcomes()} == {Kind.REFUSED}
    assert len(kafka.read_all([topic], Deadline(LONG))) == 6
    assert len(kafka.read_all([topic], Deadline(LONG), isolation=Isolation.READ_COMMITTED)) == 3


def test_who_takes_a_transactional_id_over_fences_the_other_off(
    cluster: KafkaCluster, kafka: Kafka, topic: str
) -> None:
    kafka.begin_transaction("shared")
    publication = kafka.publish([outgoing(topic, {"event_id": "1"})])
    with connected(Target(cluster.bootstrap_servers)) as other:
        other.begin_transaction("shared")
        other.publish([outgoing(topic, {"event_id": "2"})]).check()
        with pytest.raises(UserError, match="could not commit the transaction: "):
            kafka.commit_transaction()
        other.commit_transaction()
    assert {it.kind for it in publication.outcomes()} == {Kind.INDETERMINATE}
    read = kafka.read_all([topic], Deadline(LONG), isolation=Isolation.READ_COMMITTED)
    assert [event.id for event in read] == ["2"]


def test_a_group_is_known_with_its_members(kafka: Kafka, topic: str) -> None:
    group = f"group-of-{topic}"
    assert describe(kafka, group).state is GroupState.DEAD
    kafka.collect("member", [topic], group=group, since=Start.BEGINNING)
    known = wait_until(
        lambda: describe(kafka, group), lambda it: it.state is GroupState.STABLE, Deadline(LONG), "the group"
    )
    (member,) = known.members
    assert (member.client_id, member.partitions) == ("testyard", (f"{topic}/0",))
    kafka.stop_collecting("member")
    wait_until(lambda: describe(kafka, group).state, lambda it: it is GroupState.EMPTY, Deadline(LONG), "the end")


def test_two_members_share_the_partitions(cluster: KafkaCluster, kafka: Kafka) -> None:
    topic = f"topic-{uuid4().hex[:8]}"
    create_topic(kafka, topic, partitions=4)
    group = f"group-of-{topic}"
    with connected(Target(cluster.bootstrap_servers, client_id="other")) as other:
        kafka.collect("one", [topic], group=group, since=Start.BEGINNING, session_timeout=timedelta(seconds=6))
        other.collect("two", [topic], group=group, since=Start.BEGINNING, session_timeout=timedelta(seconds=6))
        wait_until(
            lambda: sorted(len(it.partitions) for it in describe(kafka, group).members),
            lambda it: it == [2, 2],
            Deadline(LONG),
            "two members with two partitions each",
        )
        kafka.publish([outgoing(topic, {"event_id": str(n)}, partition=n % 4) for n in range(40)]).check()
        read = wait_until(
            lambda: [*kafka.collector("one").events, *other.collector("two").events],
            lambda it: len({event.id for event in it}) == 40,
            Deadline(LONG),
            "all events",
        )
        assert {event.partition for event in read} == {0, 1, 2, 3}


def test_lag_and_commits_are_told(kafka: Kafka, topic: str) -> None:
    group, partition = f"group-of-{topic}", partition_called(f"{topic}/0")
    kafka.publish([outgoing(topic, "x") for _ in range(5)])
    (lag,) = lags(kafka, group, [partition])
    assert (lag.committed, lag.lag) == (None, 5)
    collector = kafka.collect("member", [topic], group=group, since=Start.BEGINNING)
    collector.wait_for(Selection(), Deadline(LONG), 5)
    assert collector.commit() == {partition: 5}
    kafka.publish([outgoing(topic, "x") for _ in range(2)])
    (lag,) = lags(kafka, group, [partition])
    assert (lag.committed, lag.end, lag.lag) == (5, 7, 2)
    assert committed_offsets(kafka, group, [partition]) == {partition: 5}


def test_events_are_read_from_a_moment_on(kafka: Kafka, topic: str) -> None:
    kafka.publish([outgoing(topic, "before")])
    moment = wait_until(
        lambda: datetime.now(UTC),
        lambda it: it > kafka.read_all([topic], Deadline(LONG))[-1].timestamp,
        Deadline(LONG),
        "a later moment",
    )
    kafka.publish([outgoing(topic, "after")])
    assert [event.text for event in kafka.read_all([topic], Deadline(LONG), since=moment)] == ["after"]
    later = datetime.now(UTC) + timedelta(hours=1)
    assert kafka.read_all([topic], Deadline(LONG), since=later) == []


def test_records_that_an_administrator_deletes_are_missed(kafka: Kafka, topic: str) -> None:
    kafka.publish([outgoing(topic, str(n)) for n in range(10)])
    kafka.ask(lambda: kafka.admin.delete_records({partition_called(f"{topic}/0"): _Before(4)}), "delete records")
    with pytest.raises(RecordsGoneError, match=f"4 records of {topic}/0 were dropped"):
        kafka.read_all([topic], Deadline(LONG), since=Start.BEGINNING)
    assert len(kafka.read_all([topic], Deadline(LONG))) == 6


class _Before:
    """Up to where records are deleted."""

    def __init__(self, before_offset: int) -> None:
        self.before_offset = before_offset


def test_a_refusal_by_the_broker_does_not_spoil_what_follows(kafka: Kafka) -> None:
    topic = f"topic-{uuid4().hex[:8]}"
    create_topic(kafka, topic, partitions=1, settings={"max.message.bytes": "2000"})
    kafka.publish([outgoing(topic, "before")]).check()
    refused = kafka.publish([outgoing(topic, "x" * 10_000)])
    assert [it.kind for it in refused.outcomes()] == [Kind.REFUSED]
    kafka.publish([outgoing(topic, "after")]).check()
    assert [event.text for event in kafka.read_all([topic], Deadline(LONG))] == ["before", "after"]


# ---- TLS and SASL


@pytest.fixture(scope="module")
def tls(cluster: KafkaCluster, tmp_path_factory: pytest.TempPathFactory) -> Tls:
    """What a client needs to trust the broker."""
    files = cluster.client_files
    return Tls(files.authority, files.certificate, files.key)


@pytest.mark.parametrize("mechanism", SaslMechanism)
def test_a_user_is_let_in_over_tls(cluster: KafkaCluster, tls: Tls, mechanism: SaslMechanism) -> None:
    sasl = Sasl(cluster.account.name, cluster.account.password, mechanism)
    with connected(Target(cluster.bootstrap_servers_of(Listener.SASL_SSL), tls=tls, sasl=sasl)) as kafka:
        topic = f"topic-{uuid4().hex[:8]}"
        create_topic(kafka, topic, partitions=1)
        kafka.publish([outgoing(topic, "x")]).check()
        assert len(kafka.read_all([topic], Deadline(LONG))) == 1


@pytest.mark.parametrize("mechanism", SaslMechanism)
def test_a_wrong_password_is_told(cluster: KafkaCluster, tls: Tls, mechanism: SaslMechanism) -> None:
    sasl = Sasl(cluster.account.name, "a-password-that-is-wrong", mechanism)
    said = f"refused by Kafka at .* as '{cluster.account.name}' with TLS: SASL_AUTHENTICATION_FAILED"
    with (
        pytest.raises(CredentialRefusedError, match=said),
        connected(Target(cluster.bootstrap_servers_of(Listener.SASL_SSL), tls=tls, sasl=sasl)),
    ):
        pass


def test_a_broker_of_another_authority_is_told(cluster: KafkaCluster) -> None:
    with (
        pytest.raises(CannotConnectError, match="the broker's certificate is not trusted: "),
        connected(Target(cluster.bootstrap_servers_of(Listener.SSL), tls=Tls())),
    ):
        pass
