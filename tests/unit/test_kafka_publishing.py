"""Publishing: what became of every event, whatever becomes of the brokers."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import timedelta
from itertools import pairwise

import pytest
from kafka_support import do, new_topic, open_kafka, quiet_client, values_in
from testyard.core.deadline import Deadline, wait_until
from testyard.core.errors import NotMetError, UserError
from testyard.core.history import Happening, Kind
from testyard.kafka.client import Kafka
from testyard.kafka.connection import ProducerSettings
from testyard.kafka.event import Moment, Outgoing, outgoing
from testyard.kafka.problems import UnknownTopicError
from testyard.lab.servers.kafka_mock import Api, Failure, MockKafka

SHORT = timedelta(milliseconds=300)
LONG = timedelta(seconds=20)


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


def numbered(topic: str, count: int, *, keys: int = 5) -> list[Outgoing]:
    """Events with ids ``0``, ``1``… that share some keys."""
    return [outgoing(topic, {"event_id": str(n)}, key=f"key-{n % keys}") for n in range(count)]


def kinds(happenings: Sequence[Happening]) -> dict[str, int]:
    """How often each kind of thing happened."""
    return dict(Counter(it.kind.name for it in happenings))


def test_each_event_is_attempted_and_acknowledged_with_its_place(mock: MockKafka, kafka: Kafka) -> None:
    topic, before = new_topic(mock), time.time_ns()
    publication = kafka.publish(numbered(topic, 200))
    after = time.time_ns()
    publication.check()
    assert publication.has_ended
    assert publication.is_settled
    assert publication.summary == "200 events, 200 acknowledged"
    assert kinds(publication) == {"ATTEMPTED": 200, "ACKNOWLEDGED": 200}
    attempts = [it for it in publication if it.kind is Kind.ATTEMPTED]
    assert [it.event for it in attempts] == [str(n) for n in range(200)]
    assert {it.place for it in attempts} == {topic}
    assert {it.position for it in attempts} == {None}
    for attempt, outcome in zip(publication[::2], publication[1::2], strict=True):
        assert attempt.event == outcome.event
        assert attempt.key == outcome.key == f"key-{int(attempt.event) % 5}"
        assert before <= attempt.at_ns <= outcome.at_ns <= after
    read = {event.id: event for event in kafka.read_all([topic], Deadline(LONG))}
    for outcome in publication.outcomes():
        event = read[outcome.event]
        assert (outcome.place, outcome.position) == (f"{topic}/{event.partition}", event.offset)


def test_events_of_one_key_keep_their_order_over_many_batches(mock: MockKafka, kafka: Kafka) -> None:
    topic = new_topic(mock)
    kafka.publish([outgoing(topic, {"event_id": str(n), "x": "x" * 500}, key=f"key-{n % 7}") for n in range(1000)])
    events = kafka.read_all([topic], Deadline(LONG))
    assert len(events) == 1000
    for key in {event.key for event in events}:
        of_key = [event for event in events if event.key == key]
        assert len({event.partition for event in of_key}) == 1
        numbers = [int(event.id) for event in of_key]
        assert numbers == sorted(numbers)


def test_events_without_a_key_are_spread(mock: MockKafka, kafka: Kafka) -> None:
    topic = new_topic(mock)
    kafka.publish([outgoing(topic, "x") for _ in range(30)]).check()
    assert Counter(event.partition for event in kafka.read_all([topic], Deadline(LONG))) == {0: 10, 1: 10, 2: 10}


def test_an_event_goes_to_the_partition_that_is_asked_for(mock: MockKafka, kafka: Kafka) -> None:
    topic = new_topic(mock)
    publication = kafka.publish([outgoing(topic, "x", key="k", partition=2)])
    assert publication[1].place == f"{topic}/2"
    with pytest.raises(UserError, match=f"The topic '{topic}' has no partition 3; it has 0 to 2"):
        kafka.publish([outgoing(topic, "x", partition=3)])


def test_headers_and_tombstones_arrive(mock: MockKafka, kafka: Kafka) -> None:
    topic = new_topic(mock, partitions=1)
    kafka.publish([outgoing(topic, "x", headers={"trace": "t"}), outgoing(topic, None, key="gone")])
    first, second = kafka.read_all([topic], Deadline(LONG))
    assert first.headers == {"trace": "t"}
    assert (second.key, second.value, second.raw) == ("gone", None, None)


def test_an_event_without_an_id_is_told_by_its_place(mock: MockKafka, kafka: Kafka) -> None:
    topic = new_topic(mock, partitions=1)
    publication = kafka.publish([outgoing(topic, "plain")])
    (event,) = kafka.read_all([topic], Deadline(LONG))
    assert [it.event for it in publication] == [f"{topic}/0@0"] * 2
    assert event.happening(Moment.RECEIVED).event == f"{topic}/0@0"


def test_a_misspelt_topic_is_not_created(mock: MockKafka, kafka: Kafka) -> None:
    topic = new_topic(mock)
    with pytest.raises(UnknownTopicError, match=f"There is no topic '{topic}x'; topics: {topic}"):
        kafka.publish([outgoing(f"{topic}x", "x")])
    assert kafka.topics() == {topic: 3}


def test_nothing_can_be_published_too(kafka: Kafka) -> None:
    publication = kafka.publish([])
    publication.check()
    assert list(publication) == []


# ---- refused, or nobody knows


def test_what_a_broker_refuses_is_refused_and_the_next_event_is_not(mock: MockKafka, kafka: Kafka) -> None:
    topic = new_topic(mock, partitions=1)
    mock.fail_next(Api.PRODUCE, Failure.TOPIC_AUTHORIZATION_FAILED)
    publication = kafka.publish(numbered(topic, 3))
    assert kinds(publication) == {"ATTEMPTED": 3, "REFUSED": 3}
    assert publication.has_failed
    with pytest.raises(NotMetError, match=r"3 of 3 events were not acknowledged: 3 refused: .*(3 x)"):
        publication.check()
    kafka.publish(numbered(topic, 2)).check()
    assert len(kafka.read_all([topic], Deadline(LONG))) == 2


def test_what_a_broker_fails_without_saying_that_it_wrote_nothing_is_indeterminate(
    mock: MockKafka, kafka: Kafka
) -> None:
    topic = new_topic(mock, partitions=1)
    mock.fail_next(Api.PRODUCE, Failure.UNKNOWN_SERVER_ERROR)
    publication = kafka.publish(numbered(topic, 3))
    assert publication.is_settled
    assert kinds(publication) == {"ATTEMPTED": 3, "INDETERMINATE": 3}
    with pytest.raises(NotMetError, match=r"3 of 3 events were not acknowledged: 3 indeterminate: UNKNOWN: "):
        publication.check()
    kafka.publish(numbered(topic, 2)).check()


def test_an_event_that_is_too_large_is_refused_and_the_others_are_sent(mock: MockKafka, kafka: Kafka) -> None:
    topic = new_topic(mock, partitions=1)
    events = [outgoing(topic, "before"), outgoing(topic, "x" * 1_100_000), outgoing(topic, "after")]
    publication = kafka.publish(events)
    assert kinds(publication) == {"ATTEMPTED": 3, "ACKNOWLEDGED": 2, "REFUSED": 1}
    with pytest.raises(NotMetError, match=r"1 of 3 events were not .*: 1 refused: .* more than \d+ bytes"):
        publication.check()
    assert [event.text for event in kafka.read_all([topic], Deadline(LONG))] == ["before", "after"]


def test_failures_that_pass_are_no_failures(mock: MockKafka, kafka: Kafka) -> None:
    topic = new_topic(mock, partitions=1)
    mock.fail_next(Api.PRODUCE, Failure.NOT_ENOUGH_REPLICAS, Failure.DISCONNECT, Failure.NOT_LEADER_OR_FOLLOWER)
    kafka.publish(numbered(topic, 3)).check()


def test_what_is_not_answered_in_time_is_indeterminate_until_the_answer_comes(
    mock: MockKafka, kafka: Kafka
) -> None:
    topic = new_topic(mock, partitions=1)
    kafka.publish([outgoing(topic, "first")]).check()
    mock.slow_down(timedelta(seconds=2))
    publication = kafka.publish(numbered(topic, 2), within=SHORT)
    assert kinds(publication) == {"ATTEMPTED": 2, "INDETERMINATE": 2}
    assert kinds(publication.outcomes()) == {"INDETERMINATE": 2}
    with pytest.raises(NotMetError, match="2 of 2 events were not acknowledged: 2 indeterminate: no answer"):
        publication.check()
    mock.slow_down(timedelta())
    wait_until(lambda: publication.is_settled, bool, Deadline(LONG), "the answers")
    assert kinds(publication) == {"ATTEMPTED": 2, "ACKNOWLEDGED": 2}


def test_while_all_brokers_are_away_nothing_that_was_handed_over_is_called_refused(
    mock: MockKafka, kafka: Kafka
) -> None:
    topic = new_topic(mock, partitions=1)
    kafka.publish([outgoing(topic, "first")]).check()
    mock.down()
    # More than a batch holds: the client cannot take them all.
    events = [outgoing(topic, {"event_id": str(n), "x": "x" * 900}) for n in range(100)]
    publication = kafka.publish(events, within=SHORT)
    found = kinds(publication)
    assert found["ATTEMPTED"] == found["INDETERMINATE"] + found.get("REFUSED", 0)
    assert publication.attempts < 100
    refused = {it.event for it in publication if it.kind is Kind.REFUSED}
    with pytest.raises(NotMetError, match=r"\d+ not sent in time"):
        publication.check()
    mock.up()
    wait_until(lambda: publication.is_settled, bool, Deadline(LONG), "the answers")
    stored = {event.id for event in kafka.read_all([topic], Deadline(LONG))}
    acknowledged = {it.event for it in publication if it.kind is Kind.ACKNOWLEDGED}
    assert acknowledged <= stored
    assert not refused & stored


def test_an_outage_is_waited_for(mock: MockKafka, kafka: Kafka) -> None:
    topic = new_topic(mock)
    kafka.publish([outgoing(topic, "first")]).check()
    mock.down()
    back = threading.Timer(0.5, mock.up)
    back.start()
    kafka.publish(numbered(topic, 50), within=LONG).check()
    back.join()
    assert len(kafka.read_all([topic], Deadline(LONG))) == 51


# ---- at a rate


def test_events_are_published_when_they_are_due(mock: MockKafka, kafka: Kafka) -> None:
    topic = new_topic(mock)
    publication = kafka.publish_at_rate(numbered(topic, 100), 200)
    assert not publication.has_ended
    assert publication.wait(LONG)
    publication.check()
    attempts = [it.at_ns for it in publication if it.kind is Kind.ATTEMPTED]
    steps = {later - earlier for earlier, later in pairwise(attempts)}
    assert {round(step / 1e6, 3) for step in steps} == {5.0}
    assert len(kafka.read_all([topic], Deadline(LONG))) == 100


def test_a_slow_broker_does_not_hide_the_wait_of_the_events_that_were_due_meanwhile(
    mock: MockKafka, kafka: Kafka
) -> None:
    topic = new_topic(mock, partitions=1)
    kafka.publish([outgoing(topic, "first")]).check()
    mock.down()
    back = threading.Timer(0.6, mock.up)
    back.start()
    publication = kafka.publish_at_rate(numbered(topic, 100), 200)
    assert publication.wait(LONG)
    back.join()
    publication.check()
    delays = [
        (outcome.at_ns - attempt.at_ns) / 1e9
        for attempt, outcome in zip(publication[::2], publication[1::2], strict=True)
    ]
    # They were all due within 0.5 s, and nothing was answered before 0.6 s.
    for number, delay in enumerate(delays):
        assert delay > 0.6 - number / 200 - 0.05, number


@pytest.mark.parametrize("rate", [0, -1, float("nan")])
def test_a_rate_is_above_zero(mock: MockKafka, kafka: Kafka, rate: float) -> None:
    topic = new_topic(mock)
    with pytest.raises(UserError, match="The rate must be more than 0 events per second, got"):
        kafka.publish_at_rate(numbered(topic, 1), rate)


def test_publishing_at_a_rate_can_be_stopped(mock: MockKafka, kafka: Kafka) -> None:
    topic = new_topic(mock)
    publication = kafka.publish_at_rate(numbered(topic, 10_000), 500)
    wait_until(lambda: publication.attempts, lambda it: it > 20, Deadline(LONG), "the first events")
    kafka.stop_publishing(publication)
    sent = publication.attempts
    assert publication.has_ended
    assert sent < 10_000
    assert kinds(publication) == {"ATTEMPTED": sent, "ACKNOWLEDGED": sent}
    assert publication.summary == f"10000 events, {sent} acknowledged, {10_000 - sent} not sent"
    assert len(kafka.read_all([topic], Deadline(LONG))) == sent
    kafka.stop_publishing(publication)


def test_publishing_that_waits_for_brokers_can_be_stopped(mock: MockKafka, kafka: Kafka) -> None:
    topic = new_topic(mock, partitions=1)
    kafka.publish([outgoing(topic, "first")]).check()
    mock.down()
    events = [outgoing(topic, {"event_id": str(n), "x": "x" * 900}) for n in range(1000)]
    publication = kafka.publish_at_rate(events, 2000)
    wait_until(lambda: publication.attempts, lambda it: it > 10, Deadline(LONG), "the first events")
    kafka.stop_publishing(publication, SHORT)
    assert publication.has_ended
    assert kinds(publication)["INDETERMINATE"] > 0
    assert "ACKNOWLEDGED" not in kinds(publication)
    mock.up()


# ---- transactions


def test_what_is_published_in_a_transaction_is_acknowledged_when_it_is_committed(
    mock: MockKafka, kafka: Kafka
) -> None:
    topic = new_topic(mock)
    kafka.begin_transaction("writer")
    assert kafka.in_transaction
    publication = kafka.publish(numbered(topic, 3))
    publication.check()
    assert kinds(publication) == {"ATTEMPTED": 3}
    before = time.time_ns()
    outcomes = kafka.commit_transaction()
    assert not kafka.in_transaction
    assert kinds(outcomes) == {"ACKNOWLEDGED": 3}
    assert all(it.at_ns >= before for it in outcomes)
    assert kinds(publication) == {"ATTEMPTED": 3, "ACKNOWLEDGED": 3}


def test_what_is_published_in_a_transaction_is_refused_when_it_is_aborted(mock: MockKafka, kafka: Kafka) -> None:
    topic = new_topic(mock)
    kafka.begin_transaction("writer")
    publication = kafka.publish(numbered(topic, 3))
    assert kinds(kafka.abort_transaction()) == {"REFUSED": 3}
    assert kinds(publication) == {"ATTEMPTED": 3, "REFUSED": 3}
    kafka.begin_transaction("writer")
    kafka.publish(numbered(topic, 1))
    assert kinds(kafka.commit_transaction()) == {"ACKNOWLEDGED": 1}


def test_a_commit_that_is_refused_leaves_its_events_indeterminate(mock: MockKafka, kafka: Kafka) -> None:
    topic = new_topic(mock)
    kafka.begin_transaction("writer")
    publication = kafka.publish(numbered(topic, 2))
    mock.fail_next(Api.END_TXN, Failure.INVALID_PRODUCER_EPOCH)
    with pytest.raises(UserError, match="could not commit the transaction: "):
        kafka.commit_transaction()
    assert kinds(publication) == {"ATTEMPTED": 2, "INDETERMINATE": 2}
    assert not kafka.in_transaction


def test_a_transaction_must_be_open_to_be_ended_and_not_open_to_be_begun(kafka: Kafka) -> None:
    for end in (kafka.commit_transaction, kafka.abort_transaction):
        with pytest.raises(UserError, match=r"There is no open Kafka transaction to (commit|abort)"):
            end()
    kafka.begin_transaction("writer")
    with pytest.raises(UserError, match="A Kafka transaction is open already"):
        kafka.begin_transaction("writer")
    kafka.abort_transaction()


def test_a_producer_that_is_not_idempotent_can_be_had(mock: MockKafka) -> None:
    topic = new_topic(mock)
    with open_kafka(mock, producing=ProducerSettings(idempotent=False)) as kafka:
        kafka.publish(numbered(topic, 10)).check()
    assert len(do(values_in(mock.bootstrap_servers, topic))) == 10
