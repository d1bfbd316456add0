"""Collecting: what arrives, from where, how it is waited for, and that nothing is missing unnoticed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from kafka_support import new_topic, open_kafka, quiet_client
from testyard.core.deadline import Deadline
from testyard.core.errors import NotMetError, UserError
from testyard.core.history import Kind
from testyard.kafka.client import Kafka
from testyard.kafka.collecting import Collector, Isolation, Start
from testyard.kafka.event import Moment, outgoing, partition_called
from testyard.kafka.groups import committed_offsets
from testyard.kafka.problems import RecordsGoneError, UnknownTopicError
from testyard.kafka.selection import Selection
from testyard.lab.servers.kafka_mock import MockKafka

LONG = timedelta(seconds=20)
# The mock lets nobody else into a group for that long, less one second.
SESSION = {"session_timeout": timedelta(seconds=1.5)}
SHORT = timedelta(milliseconds=200)


@pytest.fixture(scope="module")
def mock() -> Iterator[MockKafka]:
    """Brokers for all tests; each has topics of its own."""
    with quiet_client(), MockKafka() as cluster:
        yield cluster


@pytest.fixture
def kafka(mock: MockKafka) -> Iterator[Kafka]:
    """A connection to them."""
    with open_kafka(mock) as connection:
        yield connection


def publish(kafka: Kafka, topic: str, first: int, last: int) -> None:
    """Publish events with ids from one number to another."""
    kafka.publish([outgoing(topic, {"event_id": str(n), "n": n}, key="k") for n in range(first, last + 1)]).check()


def ids(collector: Collector, count: int) -> list[str]:
    """The first events' ids."""
    return [event.id for event in collector.wait_for(Selection(), Deadline(LONG), count)]


def pause(collector: Collector) -> None:
    """Let a collector read no more, and wait until no request for records is under way either."""
    collector.pause()
    collector.never(Selection.of(None, ["$.nothing"]), Deadline(timedelta(milliseconds=500)))


# ---- where it begins


def test_from_now_means_what_is_published_after_the_call(mock: MockKafka, kafka: Kafka) -> None:
    topic = new_topic(mock)
    publish(kafka, topic, 0, 4)
    collector = kafka.collect("one", [topic])
    publish(kafka, topic, 5, 6)
    assert ids(collector, 2) == ["5", "6"]


def test_from_the_beginning_means_everything(mock: MockKafka, kafka: Kafka) -> None:
    topic = new_topic(mock)
    publish(kafka, topic, 0, 4)
    for start in (Start.BEGINNING, Start.OLDEST):
        assert ids(kafka.collect("one", [topic], since=start), 5) == ["0", "1", "2", "3", "4"]


def test_from_offsets_means_those_and_the_rest_from_now(mock: MockKafka, kafka: Kafka) -> None:
    topic = new_topic(mock, partitions=2)
    for partition in range(2):
        kafka.publish([outgoing(topic, {"event_id": f"{partition}-{n}"}, partition=partition) for n in range(3)])
    collector = kafka.collect("one", [topic], since={partition_called(f"{topic}/0"): 1})
    kafka.publish([outgoing(topic, {"event_id": "1-3"}, partition=1)])
    assert sorted(ids(collector, 3)) == ["0-1", "0-2", "1-3"]


def test_from_an_unknown_partition_is_told(mock: MockKafka, kafka: Kafka) -> None:
    topic = new_topic(mock)
    with pytest.raises(UserError, match=f"There is no partition {topic}/7 in {topic}"):
        kafka.collect("one", [topic], since={partition_called(f"{topic}/7"): 0})


def test_several_topics_are_read_in_the_order_of_arrival(mock: MockKafka, kafka: Kafka) -> None:
    first, second = new_topic(mock), new_topic(mock)
    collector = kafka.collect("one", [first, second])
    for number, topic in enumerate([first, second, first, second]):
        publish(kafka, topic, number, number)
        collector.wait_for(Selection.of(None, [f"$.n={number}"]), Deadline(LONG))
    assert [event.topic for event in collector.events] == [first, second, first, second]


def test_an_event_that_was_read_is_a_happening(mock: MockKafka, kafka: Kafka) -> None:
    topic = new_topic(mock, partitions=1)
    collector = kafka.collect("one", [topic])
    before = time.time_ns()
    publish(kafka, topic, 7, 7)
    ids(collector, 1)
    (happening,) = collector.happenings(Moment.RECEIVED)
    assert (happening.kind, happening.event, happening.key) == (Kind.RECEIVED, "7", "k")
    assert (happening.place, happening.position) == (f"{topic}/0", 0)
    assert before <= happening.at_ns <= time.time_ns()
    (event,) = collector.events
    assert abs(event.received - datetime.now(UTC)) < timedelta(minutes=1)


def test_a_misspelt_topic_is_told_and_not_created(kafka: Kafka) -> None:
    before = kafka.topics()
    with pytest.raises(UnknownTopicError, match="There is no topic 'misspelt'"):
        kafka.collect("one", ["misspelt"])
    with pytest.raises(UserError, match="Say which topics to collect"):
        kafka.collect("one", [])
    assert kafka.topics() == before


# ---- waiting


def test_an_event_that_arrived_before_counts(mock: MockKafka, kafka: Kafka) -> None:
    topic = new_topic(mock)
    collector = kafka.collect("one", [topic])
    publish(kafka, topic, 0, 4)
    ids(collector, 5)
    (event,) = collector.wait_for(Selection.of(topic, ["$.n=3"]), Deadline(timedelta()))
    assert event.id == "3"


def test_a_wait_in_vain_shows_the_last_events_that_did_arrive(mock: MockKafka, kafka: Kafka) -> None:
    topic = new_topic(mock)
    collector = kafka.collect("one", [topic])
    with pytest.raises(NotMetError, match=r"arrived within 0\.2 s; nothing arrived"):
        collector.wait_for(Selection(), Deadline(SHORT))
    publish(kafka, topic, 0, 14)
    ids(collector, 15)
    with pytest.raises(NotMetError) as told:
        collector.wait_for(Selection.of(topic, ["$.n=99"], key="k"), Deadline(SHORT))
    lines = str(told.value).splitlines()
    assert lines[0] == (
        f"No event on {topic} with key 'k' with $.n=99 arrived within 0.2 s; 15 events arrived, the last ones:"
    )
    assert len(lines) == 11
    assert lines[-1].endswith('key=\'k\' {"event_id":"14","n":14}')
    with pytest.raises(NotMetError, match=r"Only 2 of 3 events .* arrived within"):
        collector.wait_for(Selection.of(None, ["$[?@ > 12]"]), Deadline(SHORT), 3)


def test_what_must_never_arrive_is_noticed_whenever_it_arrives(mock: MockKafka, kafka: Kafka) -> None:
    topic = new_topic(mock)
    collector = kafka.collect("one", [topic])
    publish(kafka, topic, 0, 3)
    ids(collector, 4)
    collector.never(Selection.of(topic, ["$.n=9"]), Deadline(SHORT))
    with pytest.raises(NotMetError, match=r"An event .* with \$.n=2 must not arrive, but did: .*@2 "):
        collector.never(Selection.of(topic, ["$.n=2"]), Deadline(SHORT))
    later = kafka.publish_at_rate([outgoing(topic, {"n": n}) for n in range(4, 10)], 20)
    with pytest.raises(NotMetError, match=r"must not arrive, but did"):
        collector.never(Selection.of(topic, ["$.n=9"]), Deadline(LONG))
    assert later.wait(LONG)


def test_everything_is_read_to_the_end(mock: MockKafka, kafka: Kafka) -> None:
    topic = new_topic(mock)
    kafka.collect("one", [topic], since=Start.BEGINNING)
    for first in range(0, 2000, 500):
        publish(kafka, topic, first, first + 499)
        assert len(kafka.drain("one", Deadline(LONG))) == first + 500
    assert len(kafka.read_all([topic], Deadline(LONG))) == 2000
    assert kafka.read_all([new_topic(mock)], Deadline(LONG)) == []


def test_what_cannot_be_read_to_the_end_is_told(mock: MockKafka, kafka: Kafka) -> None:
    topic = new_topic(mock, partitions=1)
    collector = kafka.collect("one", [topic])
    collector.pause()
    publish(kafka, topic, 0, 2)
    with pytest.raises(NotMetError, match=f"were not read to the end within 0.2 s: 3 of {topic}/0 are left"):
        kafka.drain("one", Deadline(SHORT))
    collector.resume()
    assert len(kafka.drain("one", Deadline(LONG))) == 3


# ---- nothing is missing unnoticed


def test_records_that_were_dropped_before_they_were_read_are_an_error(mock: MockKafka, kafka: Kafka) -> None:
    topic = new_topic(mock, partitions=1)
    collector = kafka.collect("one", [topic])
    publish(kafka, topic, 0, 1)
    ids(collector, 2)
    pause(collector)
    publish(kafka, topic, 2, 9)
    mock.delete_records(topic, 0, 6)
    collector.resume()
    said = f"4 records of {topic}/0 were dropped before they were read: it begins at offset 6, and 2 was next"
    with pytest.raises(RecordsGoneError, match=said):
        collector.wait_for(Selection.of(None, ["$.n=9"]), Deadline(LONG))
    for look in (
        lambda: collector.events,
        lambda: collector.happenings(Moment.RECEIVED),
        lambda: kafka.drain("one", Deadline(LONG)),
    ):
        with pytest.raises(RecordsGoneError, match=said):
            look()
    with pytest.raises(RecordsGoneError, match=said):
        kafka.stop_collecting("one")


def test_what_the_mock_drops_by_itself_is_noticed(mock: MockKafka, kafka: Kafka) -> None:
    topic = new_topic(mock, partitions=1)
    collector = kafka.collect("one", [topic])
    pause(collector)
    kafka.publish([outgoing(topic, {"event_id": str(n), "x": "x" * 1000}) for n in range(6000)]).check()
    collector.resume()
    with pytest.raises(RecordsGoneError, match=r"\d+ records of .* were dropped before they were read"):
        kafka.drain("one", Deadline(LONG))


def test_a_group_notices_dropped_records_too(mock: MockKafka, kafka: Kafka) -> None:
    topic = new_topic(mock, partitions=1)
    collector = kafka.collect("one", [topic], group=f"group-of-{topic}", since=Start.BEGINNING, **SESSION)
    publish(kafka, topic, 0, 1)
    ids(collector, 2)
    pause(collector)
    publish(kafka, topic, 2, 9)
    mock.delete_records(topic, 0, 6)
    collector.resume()
    with pytest.raises(RecordsGoneError, match=f"4 records of {topic}/0 were dropped"):
        collector.wait_for(Selection.of(None, ["$.n=9"]), Deadline(LONG))


def test_a_beginning_that_is_gone_is_an_error_and_the_oldest_that_is_there_is_not(
    mock: MockKafka, kafka: Kafka
) -> None:
    topic = new_topic(mock, partitions=1)
    publish(kafka, topic, 0, 9)
    mock.delete_records(topic, 0, 4)
    for since in (Start.BEGINNING, {partition_called(f"{topic}/0"): 3}):
        with pytest.raises(RecordsGoneError, match=r"records of .* were dropped before they were read"):
            kafka.read_all([topic], Deadline(LONG), since=since)
        # At once, and not when somebody looks.
        with pytest.raises(RecordsGoneError):
            kafka.collect("one", [topic], since=since)
    assert [event.id for event in kafka.read_all([topic], Deadline(LONG))] == ["4", "5", "6", "7", "8", "9"]
    from_five = {partition_called(f"{topic}/0"): 5}
    assert len(kafka.read_all([topic], Deadline(LONG), since=from_five)) == 5


def test_an_offset_that_is_not_there_yet_is_told(mock: MockKafka, kafka: Kafka) -> None:
    topic = new_topic(mock, partitions=1)
    collector = kafka.collect("one", [topic], since={partition_called(f"{topic}/0"): 5})
    with pytest.raises(UserError, match=f"There is no offset 5 in {topic}/0 yet: it ends at 0"):
        collector.wait_for(Selection(), Deadline(LONG))


def test_what_cannot_be_read_is_told(mock: MockKafka, kafka: Kafka) -> None:
    topic = new_topic(mock, partitions=1)
    kafka.begin_transaction("writer")
    kafka.publish([outgoing(topic, "x")])
    kafka.commit_transaction()
    collector = kafka.collect("one", [topic], since=Start.BEGINNING, isolation=Isolation.READ_COMMITTED)
    with pytest.raises(UserError, match=r"Reading .* has failed: .*mock cluster cannot return the records"):
        collector.wait_for(Selection.of(None, ["$.n=1"]), Deadline(LONG))


def test_an_outage_is_sat_out(mock: MockKafka, kafka: Kafka) -> None:
    topic = new_topic(mock)
    collector = kafka.collect("one", [topic])
    publish(kafka, topic, 0, 9)
    mock.down()
    mock.up()
    publish(kafka, topic, 10, 19)
    assert sorted(map(int, ids(collector, 20))) == list(range(20))


# ---- steering


def test_a_collector_reads_again_from_another_offset(mock: MockKafka, kafka: Kafka) -> None:
    topic = new_topic(mock, partitions=1)
    collector = kafka.collect("one", [topic])
    publish(kafka, topic, 0, 2)
    ids(collector, 3)
    collector.seek(partition_called(f"{topic}/0"), 1)
    assert ids(collector, 5) == ["0", "1", "2", "1", "2"]
    with pytest.raises(UserError, match=f"does not read {topic}/1; it reads {topic}/0"):
        collector.seek(partition_called(f"{topic}/1"), 0)


def test_a_collector_in_a_group_commits_what_it_has_read(mock: MockKafka, kafka: Kafka) -> None:
    topic = new_topic(mock, partitions=1)
    group = f"group-of-{topic}"
    partition = partition_called(f"{topic}/0")
    assert committed_offsets(kafka, group, [partition]) == {partition: None}
    publish(kafka, topic, 0, 2)
    collector = kafka.collect("one", [topic], group=group, since=Start.BEGINNING, **SESSION)
    ids(collector, 3)
    assert collector.commit() == {partition: 3}
    assert committed_offsets(kafka, group, [partition]) == {partition: 3}


def test_a_collector_in_a_group_goes_on_where_the_group_has_committed(mock: MockKafka, kafka: Kafka) -> None:
    topic = new_topic(mock, partitions=1)
    publish(kafka, topic, 0, 4)
    first = kafka.collect("one", [topic], group=f"group-of-{topic}", since=Start.BEGINNING, **SESSION)
    first.wait_for(Selection(), Deadline(LONG), 5)
    first.pause()
    first.seek(partition_called(f"{topic}/0"), 3)
    assert first.commit() == {partition_called(f"{topic}/0"): 3}
    kafka.stop_collecting("one")
    again = kafka.collect("one", [topic], group=f"group-of-{topic}", since=Start.BEGINNING, **SESSION)
    assert ids(again, 2) == ["3", "4"]


def test_a_collector_without_a_group_has_nothing_to_commit(mock: MockKafka, kafka: Kafka) -> None:
    collector = kafka.collect("one", [new_topic(mock)])
    with pytest.raises(UserError, match="The collector 'one' is in no consumer group"):
        collector.commit()


def test_collectors_are_known_by_name(mock: MockKafka, kafka: Kafka) -> None:
    topic = new_topic(mock)
    with pytest.raises(UserError, match="There is no collector called 'one'; collectors: none"):
        kafka.collector("one")
    kafka.collect("one", [topic])
    kafka.collect("two", [topic])
    publish(kafka, topic, 0, 0)
    assert [event.id for event in kafka.drain("two", Deadline(LONG))] == ["0"]
    assert [event.id for event in kafka.stop_collecting("two")] == ["0"]
    with pytest.raises(UserError, match="There is no collector called 'two'; collectors: one"):
        kafka.drain("two", Deadline(LONG))


def test_a_collector_of_the_same_name_takes_over(mock: MockKafka, kafka: Kafka) -> None:
    topic = new_topic(mock)
    publish(kafka, topic, 0, 0)
    kafka.collect("one", [topic])
    assert ids(kafka.collect("one", [topic], since=Start.BEGINNING), 1) == ["0"]
