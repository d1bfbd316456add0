"""The mirror between two Kafka clusters: what it copies, in which order, and what breaks on either side."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import pytest
from aiokafka import ConsumerRecord, TopicPartition
from kafka_support import consumer_of, do, producer_of, read
from testyard.core.deadline import Deadline, never_within, wait_until
from testyard.core.errors import NotMetError
from testyard.lab.children import LabError
from testyard.lab.servers.kafka_mirror import BATCH_SIZE, OFFSET_HEADER, SOURCE_HEADER, KafkaMirror
from testyard.lab.servers.kafka_mock import Api, Failure, MockKafka
from testyard.lab.servers.loop_thread import NotRunningError

SOON = timedelta(seconds=20)
TOPIC = "orders"
PARTITIONS = 3
TRACEPARENT = ("traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """A client that is cut off says so again and again."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    yield
    logging.getLogger("aiokafka").setLevel(logging.NOTSET)


@pytest.fixture
def europe() -> Iterator[MockKafka]:
    """A cluster with an empty topic."""
    with MockKafka() as kafka:
        kafka.create_topic(TOPIC, PARTITIONS)
        yield kafka


@pytest.fixture
def america() -> Iterator[MockKafka]:
    """Another one."""
    with MockKafka() as kafka:
        kafka.create_topic(TOPIC, PARTITIONS)
        yield kafka


def mirror_of(
    source: MockKafka, target: MockKafka, name: str = "europe to america", topics: Sequence[str] = (TOPIC,)
) -> KafkaMirror:
    """A mirror that gives up quickly."""
    source_region, _, target_region = name.split()
    return KafkaMirror(
        source.bootstrap_servers,
        target.bootstrap_servers,
        topics,
        source_region=source_region,
        target_region=target_region,
        request_timeout=timedelta(seconds=1),
    )


def publish(
    kafka: MockKafka,
    values: Sequence[bytes | None],
    *,
    key: bytes | None = b"key",
    partition: int | None = 0,
    headers: Sequence[tuple[str, bytes | None]] = (),
    timestamp_ms: int | None = None,
    topic: str = TOPIC,
) -> None:
    """Publish records, in this order."""

    async def send() -> None:
        async with producer_of(kafka.bootstrap_servers, max_request_size=2_000_000) as producer:
            for value in values:
                await producer.send_and_wait(
                    topic, value, key, partition, headers=list(headers), timestamp_ms=timestamp_ms
                )

    do(send())


def numbers(*of: int) -> list[bytes]:
    """Values that tell their place."""
    return [b"%d" % number for number in range(*of)]


def records_in(kafka: MockKafka, topic: str = TOPIC, partitions: int = PARTITIONS) -> list[ConsumerRecord]:
    """What is in a topic now, by partition and offset."""

    async def all_of_it() -> list[ConsumerRecord]:
        async with consumer_of(kafka.bootstrap_servers) as consumer:
            assigned = [TopicPartition(topic, number) for number in range(partitions)]
            consumer.assign(assigned)
            return await read(consumer, sum((await consumer.end_offsets(assigned)).values()))

    return sorted(do(all_of_it()), key=lambda it: (it.partition, it.offset))


def values_in(kafka: MockKafka) -> list[bytes | None]:
    """The values of what is in the topic."""
    return [it.value for it in records_in(kafka)]


def committed_by(mirror: KafkaMirror, kafka: MockKafka) -> dict[int, int | None]:
    """How far a mirror is, by partition, as the source knows it."""

    async def ask() -> dict[int, int | None]:
        async with consumer_of(kafka.bootstrap_servers, group_id=mirror.group) as consumer:
            return {it: await consumer.committed(TopicPartition(TOPIC, it)) for it in range(PARTITIONS)}

    return do(ask())


@contextmanager
def outage(kafka: MockKafka) -> Iterator[None]:
    """The cluster is away meanwhile."""
    kafka.down()
    try:
        yield
    finally:
        kafka.up()


# ---- what it copies


def test_a_record_is_copied_with_all_that_it_is_and_where_it_came_from(
    europe: MockKafka, america: MockKafka
) -> None:
    publish(
        europe, [b"first"], headers=[("empty", None), TRACEPARENT], partition=2, timestamp_ms=1_700_000_000_123
    )
    with mirror_of(europe, america) as mirror:
        mirror.wait_until_level(SOON)
    (copied,) = records_in(america)
    assert (copied.key, copied.value, copied.partition) == (b"key", b"first", 2)
    assert (copied.timestamp, copied.timestamp_type) == (1_700_000_000_123, 0)
    assert copied.headers == (
        ("empty", None),
        TRACEPARENT,
        (SOURCE_HEADER, b"europe"),
        (OFFSET_HEADER, b"orders:2:0"),
    )
    assert mirror.figures.copied == 1


def test_a_record_without_key_or_value_is_copied_as_it_is(europe: MockKafka, america: MockKafka) -> None:
    publish(europe, [None], key=b"deleted")
    publish(europe, [b"anonymous"], key=None)
    with mirror_of(europe, america) as mirror:
        mirror.wait_until_level(SOON)
    assert [(it.key, it.value) for it in records_in(america)] == [(b"deleted", None), (None, b"anonymous")]


def test_the_records_of_every_partition_keep_their_order(europe: MockKafka, america: MockKafka) -> None:
    for partition in range(PARTITIONS):
        publish(europe, numbers(400), partition=partition)
    with mirror_of(europe, america) as mirror:
        mirror.wait_until_level(SOON)
        publish(europe, numbers(400, 500), partition=1)
        mirror.wait_until_level(SOON)
    for partition, count in enumerate((400, 500, 400)):
        copied = [it.value for it in records_in(america) if it.partition == partition]
        assert copied == numbers(count)


def test_records_that_came_together_and_fill_more_than_one_request_are_copied(
    europe: MockKafka, america: MockKafka
) -> None:
    values = [b"%d" % number * (BATCH_SIZE // 4) for number in range(10)]

    async def send_together() -> None:
        options = {"max_batch_size": 5 * BATCH_SIZE, "max_request_size": 5 * BATCH_SIZE, "linger_ms": 1000}
        async with producer_of(europe.bootstrap_servers, **options) as producer:
            answers = [await producer.send(TOPIC, value, b"key", 0) for value in values]
            await producer.flush()
            assert [(await it).offset for it in answers] == list(range(10))

    do(send_together())
    publish(europe, [b"x" * 2 * BATCH_SIZE])
    with mirror_of(europe, america) as mirror:
        mirror.wait_until_level(SOON)
        assert mirror.figures.copied == 11
    assert values_in(america) == [*values, b"x" * 2 * BATCH_SIZE]


def test_a_target_with_fewer_partitions_takes_all_records(europe: MockKafka, america: MockKafka) -> None:
    europe.create_topic("wide", 4)
    america.create_topic("wide", 2)
    for partition in range(4):
        publish(europe, [b"%d" % partition], partition=partition, topic="wide")
    with mirror_of(europe, america, topics=["wide"]) as mirror:
        mirror.wait_until_level(SOON)
    copied = [(it.partition, it.value) for it in records_in(america, "wide", 2)]
    assert sorted(copied) == [(0, b"0"), (0, b"2"), (1, b"1"), (1, b"3")]


def test_only_the_topics_that_were_named_are_copied(europe: MockKafka, america: MockKafka) -> None:
    for kafka in (europe, america):
        kafka.create_topic("payments", PARTITIONS)
        kafka.create_topic("secrets", PARTITIONS)
    for topic in (TOPIC, "payments", "secrets"):
        publish(europe, [topic.encode()], topic=topic)
    with mirror_of(europe, america, topics=[TOPIC, "payments"]) as mirror:
        mirror.wait_until_level(SOON)
    assert [it.value for it in records_in(america, "payments")] == [b"payments"]
    assert records_in(america, "secrets") == []


def test_a_mirror_needs_two_regions(europe: MockKafka, america: MockKafka) -> None:
    with pytest.raises(LabError, match="two regions, found 'europe' as source and as target"):
        mirror_of(europe, america, "europe to europe")


# ---- both ways


def test_two_mirrors_give_both_regions_everything_once(europe: MockKafka, america: MockKafka) -> None:
    with mirror_of(europe, america) as there, mirror_of(america, europe, "america to europe") as back:
        publish(europe, [b"from europe"])
        publish(america, [b"from america"])
        for _ in range(2):
            there.wait_until_level(SOON)
            back.wait_until_level(SOON)
        publish(europe, [b"later"])
        there.wait_until_level(SOON)
        back.wait_until_level(SOON)
        assert (there.figures.copied, back.figures.copied) == (2, 1)
        assert (there.figures.skipped, back.figures.skipped) == (1, 2)
    everything = [b"from america", b"from europe", b"later"]
    assert sorted(map(bytes, values_in(europe))) == everything
    assert sorted(map(bytes, values_in(america))) == everything


def test_a_ring_of_three_regions_gives_each_everything_once(europe: MockKafka, america: MockKafka) -> None:
    with MockKafka() as asia:
        asia.create_topic(TOPIC, PARTITIONS)
        with (
            mirror_of(europe, america) as first,
            mirror_of(america, asia, "america to asia") as second,
            mirror_of(asia, europe, "asia to europe") as third,
            mirror_of(asia, america, "asia to america") as back,
        ):
            publish(europe, [b"from europe"])
            for mirror in (first, second, third, back):
                mirror.wait_until_level(SOON)
            assert [third.figures.skipped, back.figures.skipped] == [1, 1]
        assert [values_in(kafka) for kafka in (europe, america, asia)] == [[b"from europe"]] * 3
        (last,) = records_in(asia)
        assert [value for name, value in last.headers if name == SOURCE_HEADER] == [b"europe", b"america"]


# ---- what breaks


def test_a_mirror_goes_on_where_the_last_one_ended(europe: MockKafka, america: MockKafka) -> None:
    publish(europe, numbers(10))
    with mirror_of(europe, america) as mirror:
        mirror.wait_until_level(SOON)
    publish(europe, numbers(10, 20))
    with mirror:
        mirror.wait_until_level(SOON)
    publish(europe, numbers(20, 30))
    with mirror_of(europe, america) as another:
        another.wait_until_level(SOON)
        assert another.figures.copied == 10
    assert values_in(america) == numbers(30)


def test_a_mirror_that_ends_while_records_are_under_way_copies_none_twice(
    europe: MockKafka, america: MockKafka
) -> None:
    america.slow_down(timedelta(milliseconds=300))
    publish(europe, numbers(5))
    with mirror_of(europe, america) as mirror:
        wait_until(lambda: mirror.figures.copied, bool, Deadline(SOON), "the first copy: the next is under way")
    america.slow_down(timedelta())
    with mirror:
        mirror.wait_until_level(SOON)
    assert values_in(america) == numbers(5)


def test_a_target_that_was_away_gets_everything(europe: MockKafka, america: MockKafka) -> None:
    with mirror_of(europe, america) as mirror:
        publish(europe, numbers(10))
        mirror.wait_until_level(SOON)
        with outage(america):
            publish(europe, numbers(10, 20))
            wait_until(lambda: mirror.trouble, bool, Deadline(SOON), "the mirror to notice")
            assert committed_by(mirror, europe)[0] == 10
            assert mirror.figures.copied == 10
        mirror.wait_until_level(SOON)
        assert mirror.trouble is None
        assert mirror.figures.connected > 1
    assert values_in(america) == numbers(20)


def test_a_target_that_is_away_at_first_gets_everything(europe: MockKafka, america: MockKafka) -> None:
    publish(europe, numbers(10))
    america.down()
    with mirror_of(europe, america) as mirror:
        wait_until(lambda: mirror.trouble, bool, Deadline(SOON), "the mirror to notice")
        america.up()
        mirror.wait_until_level(SOON)
    assert values_in(america) == numbers(10)


def test_a_source_that_was_away_is_read_on(europe: MockKafka, america: MockKafka) -> None:
    with mirror_of(europe, america) as mirror:
        publish(europe, numbers(10))
        mirror.wait_until_level(SOON)
        with outage(europe), pytest.raises(LabError, match="from europe to america cannot be measured"):
            mirror.lag()
        publish(europe, numbers(10, 20))
        mirror.wait_until_level(SOON)
    assert values_in(america) == numbers(20)


def test_nothing_is_committed_that_the_target_has_not_acknowledged(europe: MockKafka, america: MockKafka) -> None:
    with mirror_of(europe, america) as mirror:
        publish(europe, numbers(10))
        mirror.wait_until_level(SOON)
        america.fail_next(Api.PRODUCE, *[Failure.MESSAGE_TOO_LARGE] * 1000)
        publish(europe, numbers(10, 20))
        wait_until(lambda: mirror.trouble, bool, Deadline(SOON), "the mirror to notice")
        assert "MessageSizeTooLarge" in str(mirror.trouble)
        assert committed_by(mirror, europe)[0] == 10
        america.fail_no_more(Api.PRODUCE)
        mirror.wait_until_level(SOON)
        assert committed_by(mirror, europe)[0] == 20
    assert values_in(america) == numbers(20)


def test_what_was_acknowledged_but_not_committed_is_copied_again_in_order(
    europe: MockKafka, america: MockKafka
) -> None:
    with mirror_of(europe, america) as mirror:
        publish(europe, numbers(10))
        mirror.wait_until_level(SOON)
        europe.fail_next(Api.OFFSET_COMMIT, Failure.TOPIC_AUTHORIZATION_FAILED)
        publish(europe, numbers(10, 11))
        mirror.wait_until_level(SOON)
    assert values_in(america) == [*numbers(10), b"10", b"10"]


def test_ending_while_the_target_is_away_is_bounded(europe: MockKafka, america: MockKafka) -> None:
    mirror = mirror_of(europe, america)
    mirror.start()
    mirror.wait_until_level(SOON)
    with outage(america):
        publish(europe, numbers(10))
        ending = Deadline(SOON)
        mirror.stop()
        assert ending.elapsed < timedelta(seconds=5)
    with pytest.raises(NotRunningError):
        mirror.lag()


def test_an_unexpected_end_is_told(europe: MockKafka, america: MockKafka, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object) -> None:
        message = "no such thing"
        raise LookupError(message)

    mirror = mirror_of(europe, america)
    monkeypatch.setattr(mirror, "_copy_some", broken)
    mirror.start()
    with pytest.raises(LookupError, match="no such thing"):
        mirror.wait_until_level(SOON)
    with pytest.raises(LookupError, match="no such thing"):
        mirror.stop()


# ---- the cut between the regions, and the lag


def test_a_cut_lets_nothing_through_and_the_lag_tells_how_much_waits(
    europe: MockKafka, america: MockKafka
) -> None:
    with mirror_of(europe, america) as mirror:
        publish(europe, numbers(10))
        mirror.wait_until_level(SOON)
        assert mirror.lag() == 0
        assert not mirror.paused
        mirror.pause()
        publish(europe, numbers(10, 30))
        publish(europe, numbers(5), partition=1)
        assert mirror.paused
        assert mirror.lag() == 25
        assert mirror.lags() == {(TOPIC, 0): 20, (TOPIC, 1): 5, (TOPIC, 2): 0}
        with pytest.raises(NotMetError, match=r"europe to america .*the last value was 25"):
            mirror.wait_until_level(timedelta(milliseconds=300))
        assert values_in(america) == numbers(10)
        mirror.resume()
        mirror.wait_until_level(SOON)
    assert values_in(america) == [*numbers(30), *numbers(5)]


def test_a_cut_while_records_flow_is_exact(europe: MockKafka, america: MockKafka) -> None:
    with mirror_of(europe, america) as mirror:
        for start in range(0, 300, 100):
            publish(europe, numbers(start, start + 100))
            mirror.pause()
            there = len(records_in(america))
            assert mirror.lag() == start + 100 - there
            assert mirror.figures.copied == there
            mirror.resume()
        mirror.wait_until_level(SOON)
    assert values_in(america) == numbers(300)


def test_a_cut_begins_when_what_is_under_way_has_arrived(europe: MockKafka, america: MockKafka) -> None:
    with mirror_of(europe, america) as mirror:
        mirror.wait_until_level(SOON)
        america.slow_down(timedelta(milliseconds=300))
        publish(europe, numbers(10))
        wait_until(
            lambda: mirror.figures.copied, bool, Deadline(SOON), "the first copy; the next one is under way"
        )
        mirror.pause()
        copied = mirror.figures.copied
        cut = Deadline(timedelta(milliseconds=700))
        never_within(lambda: mirror.figures.copied, lambda now: now != copied, cut, "a copy during the cut")
        mirror.resume()
        mirror.wait_until_level(SOON)


def test_a_mirror_that_begins_after_records_were_deleted_knows_its_lag(
    europe: MockKafka, america: MockKafka
) -> None:
    publish(europe, numbers(10))
    europe.delete_records(TOPIC, 0, 4)
    america.fail_next(Api.PRODUCE, *[Failure.MESSAGE_TOO_LARGE] * 1000)
    with mirror_of(europe, america) as mirror:
        wait_until(lambda: mirror.figures.connected, bool, Deadline(SOON), "the mirror to connect")
        mirror.pause()
        with pytest.raises(NotMetError, match="the last value was 6"):
            mirror.wait_until_level(timedelta(milliseconds=500))
        america.fail_no_more(Api.PRODUCE)
        mirror.resume()
        mirror.wait_until_level(SOON)
    assert values_in(america) == numbers(4, 10)


def test_each_copy_tells_how_late_it_was(europe: MockKafka, america: MockKafka) -> None:
    with mirror_of(europe, america) as mirror:
        publish(europe, numbers(10))
        mirror.wait_until_level(SOON)
        delays = mirror.delays()
        assert len(delays) == 10
        assert timedelta() <= min(delays) <= max(delays) < timedelta(seconds=5)
        mirror.pause()
        publish(europe, [b"late"])
        cut = Deadline(timedelta(milliseconds=300))
        wait_until(lambda: cut.expired, bool, Deadline(SOON), "the cut to last")
        mirror.resume()
        mirror.wait_until_level(SOON)
        assert mirror.delays()[-1] >= timedelta(milliseconds=300)
