"""Publishing by the KafkaLibrary's keyword, against the same events sent by bare aiokafka, to the same brokers."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from KafkaLibrary import KafkaLibrary
from pytest_benchmark.fixture import BenchmarkFixture
from testyard.core.history import Kind
from testyard.lab.servers.kafka_mock import MockKafka, partitions_for

LEAST_RATIO = 0.9
EVENTS = 4000
SIZE = 600
KEYS = 500
ROUNDS = 7
RATES = (100, 1000, 5000)
# What an event may take, and up to which rate this is asserted: beyond it, other work of the machine counts.
MOST_MILLISECONDS = 100
QUIET_RATE = 1000
RATE_SECONDS = 2


@dataclass
class Bare:
    """A producer of aiokafka as a script would use it, with the settings that the keyword has."""

    runner: asyncio.Runner
    producer: AIOKafkaProducer

    def publish(self, topic: str, envelopes: list[dict[str, Any]]) -> float:
        """How many seconds it takes until all events are acknowledged."""

        async def send_all() -> float:
            await self.producer.partitions_for(topic)
            started = time.perf_counter()
            sent = [
                await self.producer.send(topic, json.dumps(it).encode(), key=it["partition_key"].encode())
                for it in envelopes
            ]
            await asyncio.gather(*sent)
            return time.perf_counter() - started

        return self.runner.run(send_all())


@pytest.fixture(scope="module")
def kafka() -> Iterator[MockKafka]:
    """Three brokers."""
    with MockKafka() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def library(kafka: MockKafka) -> Iterator[KafkaLibrary]:
    """The library, connected."""
    with ExitStack() as stack:
        library = KafkaLibrary()
        stack.callback(library.close)
        library.connect_to_kafka(kafka.bootstrap_servers)
        yield library


@pytest.fixture(scope="module")
def bare(kafka: MockKafka) -> Iterator[Bare]:
    """The bare producer, started."""
    with asyncio.Runner() as runner:

        async def start() -> AIOKafkaProducer:
            producer = AIOKafkaProducer(
                bootstrap_servers=kafka.bootstrap_servers, acks="all", enable_idempotence=True
            )
            await producer.start()
            return producer

        producer = runner.run(start())
        yield Bare(runner, producer)
        runner.run(producer.stop())


def new_topic(kafka: MockKafka, name: str) -> str:
    """A topic with room for one round."""
    kafka.create_topic(name, partitions_for(EVENTS, SIZE))
    return name


def test_publishing_a_batch_by_keyword_is_as_fast_as_by_the_bare_client(
    benchmark: BenchmarkFixture,
    kafka: MockKafka,
    library: KafkaLibrary,
    bare: Bare,
    report: Callable[[str], None],
) -> None:
    envelopes = library.new_envelopes(EVENTS, "WORKFLOW_STARTED", keys=KEYS, size=SIZE)
    by_keyword, by_bare, ratios = [], [], []

    def keyword(topic: str) -> float:
        library.topic_should_exist(topic)
        started = time.perf_counter()
        library.publish_events(topic, envelopes)
        return time.perf_counter() - started

    def compare() -> None:
        number = len(ratios)
        topics = [new_topic(kafka, f"{who}-{number}") for who in ("keyword", "bare")]
        turns = [
            lambda: by_keyword.append(keyword(topics[0])),
            lambda: by_bare.append(bare.publish(topics[1], envelopes)),
        ]
        for publish in turns if number % 2 else reversed(turns):
            publish()
        ratios.append(by_bare[-1] / by_keyword[-1])
        assert [library.end_offset(topic) for topic in topics] == [EVENTS, EVENTS]

    benchmark.pedantic(compare, rounds=ROUNDS, warmup_rounds=1)
    ratio = statistics.median(ratios)
    benchmark.extra_info["ratios"] = ratios
    report(
        f"publish {EVENTS} events of {SIZE} bytes: keyword {EVENTS / statistics.median(by_keyword):,.0f}/s, bare "
        f"aiokafka {EVENTS / statistics.median(by_bare):,.0f}/s, median ratio {ratio:.2f} (target {LEAST_RATIO})"
    )
    assert ratio >= LEAST_RATIO
    assert kafka.dropped_records() == {}


@pytest.mark.parametrize("rate", RATES)
def test_the_schedule_of_a_rate_is_kept(
    kafka: MockKafka, library: KafkaLibrary, report: Callable[[str], None], rate: int
) -> None:
    count = rate * RATE_SECONDS
    envelopes = library.new_envelopes(count, "WORKFLOW_STARTED", keys=KEYS, size=SIZE)
    kafka.create_topic(f"rate-{rate}", partitions_for(count, SIZE))
    started = time.perf_counter()
    publication = library.publish_events_at_rate(f"rate-{rate}", envelopes, rate)
    elapsed = time.perf_counter() - started
    attempts = {it.event: it.at_ns for it in publication if it.kind is Kind.ATTEMPTED}
    delays = sorted((it.at_ns - attempts[it.event]) / 1e6 for it in publication.outcomes())
    assert publication.count(Kind.ACKNOWLEDGED) == count
    p50, p95, p99 = (delays[int(len(delays) * share)] for share in (0.5, 0.95, 0.99))
    report(
        f"publish at {rate}/s for {RATE_SECONDS} s: from due to acknowledged p50 {p50:.1f}, p95 {p95:.1f}, "
        f"p99 {p99:.1f} ms of {count}; sent at most {publication.most_late.total_seconds() * 1000:.1f} ms late"
    )
    assert elapsed < RATE_SECONDS * 1.5
    assert rate > QUIET_RATE or p95 < MOST_MILLISECONDS
