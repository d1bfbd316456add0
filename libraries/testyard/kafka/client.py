"""What a test does with Kafka: publish, collect, and run transactions."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from aiokafka import AIOKafkaProducer, TopicPartition

from testyard.core.deadline import Deadline
from testyard.core.errors import UserError
from testyard.core.history import Happening
from testyard.core.loop_thread import LoopThread
from testyard.kafka.collecting import (
    SESSION_TIMEOUT,
    Collector,
    Isolation,
    Offsets,
    Reading,
    Start,
    records_gone,
)
from testyard.kafka.connection import CONNECT_TIMEOUT, Connection, ProducerSettings
from testyard.kafka.event import IDENTITY, Event, Identity, Outgoing, place_of
from testyard.kafka.problems import RecordsGoneError
from testyard.kafka.publication import Publication, TransactionOutcome, TransactionState
from testyard.kafka.publishing import publish_at_once, publish_at_rate
from testyard.kafka.target import Target

MILLISECONDS = 1000
DRAIN_NAME = "a single reading"
# How long a publication that is stopped may still wait for its open answers.
STOP_TIMEOUT = timedelta(seconds=10)

Since = Start | Mapping[TopicPartition, int] | datetime


@dataclass
class _Transaction:
    """An open transaction.

    Attributes:
        producer: Who sends in it.
        state: What has become of it.
        publications: What was published in it.
    """

    producer: AIOKafkaProducer
    state: TransactionState
    publications: list[Publication]


class Kafka(Connection):
    """A connection with all that a test does over it.

    Args:
        loop: The thread that its clients live on.
        target: The brokers.
        producing: How events are sent.
        within: Give up connecting after this time.

    Raises:
        CannotConnectError: No broker answers, or the credentials are refused.

    Example:
        >>> kafka = Kafka(LoopThread("kafka"), Target("broker:9092"))
        >>> kafka.collect("all", ["orders"])
        >>> kafka.publish([outgoing("orders", {"event_id": "1"})]).check()
        >>> selection = Selection.of("orders", ["$.event_id=1"])
        >>> kafka.collector("all").wait_for(selection, Deadline(timedelta(seconds=2)))
    """

    def __init__(
        self,
        loop: LoopThread,
        target: Target,
        *,
        producing: ProducerSettings | None = None,
        within: timedelta = CONNECT_TIMEOUT,
    ) -> None:
        super().__init__(loop, target, producing=producing, within=within)
        self._collectors: dict[str, Collector] = {}
        self._running: dict[Publication, tuple[Future[None], asyncio.Event]] = {}
        self._producers: dict[str, AIOKafkaProducer] = {}
        self._transaction: _Transaction | None = None

    def close(self) -> None:
        """Stop what it publishes and collects, and end every connection."""
        for publication in list(self._running):
            self.stop_publishing(publication, timedelta())
        for name in list(self._collectors):
            self._collectors.pop(name).stop()
        self._transaction = None
        super().close()

    # Publishing.

    def publish(self, events: Sequence[Outgoing], within: timedelta = STOP_TIMEOUT) -> Publication:
        """Publish events as fast as it goes, and wait for their answers.

        Args:
            events: The events; those of one key keep their order.
            within: Give up waiting after this time.

        Returns:
            What came of each; ``check`` tells whether all were acknowledged.

        Raises:
            UnknownTopicError: A topic is not there.
            NoAnswerError: No broker answers, so that nothing was sent.
        """
        producer, publication = self._prepared(events)
        self.loop.run(publish_at_once(producer, publication, within))
        if publication.has_failed and not publication.transaction:
            self.replace_producer()
        return publication

    def publish_at_rate(
        self, events: Sequence[Outgoing], rate: float, within: timedelta = STOP_TIMEOUT
    ) -> Publication:
        """Start to publish events at a rate, in the background, whatever becomes of earlier ones.

        Args:
            events: The events.
            rate: How many in a second.
            within: Give up waiting for the answers this long after the last event.

        Returns:
            What is coming of each; ``wait`` until it has ended.

        Raises:
            UserError: The rate is not above zero.
            UnknownTopicError: A topic is not there.
        """
        if not rate > 0:
            message = f"The rate must be more than 0 events per second, got {rate:g}."
            raise UserError(message)
        producer, publication = self._prepared(events)
        stopping = self.loop.run(_new_event())
        future = self.loop.spawn(publish_at_rate(producer, publication, rate, stopping, within))
        self._running[publication] = future, stopping
        return publication

    def stop_publishing(self, publication: Publication, within: timedelta = STOP_TIMEOUT) -> None:
        """Publish no more of a publication's events, and wait for the answers that are open.

        Args:
            publication: What goes on in the background; one that has ended is left as it is.
            within: Give up waiting after this time.
        """
        if publication not in self._running:
            return
        future, stopping = self._running.pop(publication)
        self.loop.run(_set(stopping))
        if not publication.wait(within):
            future.cancel()
            publication.wait(within)
        with suppress(CancelledError):
            future.result()

    # Transactions.

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""
        return self._transaction is not None

    def begin_transaction(self, transactional_id: str) -> None:
        """Open a transaction: what is published until its end becomes visible all together, or never.

        Args:
            transactional_id: The producer's id; whoever else has it is fenced off.

        Raises:
            UserError: One is open already, or the brokers do not let it.
        """
        if self._transaction:
            message = "A Kafka transaction is open already: commit or abort it first."
            raise UserError(message)
        if transactional_id not in self._producers:
            self._producers[transactional_id] = self.new_transactional_producer(transactional_id)
        producer = self._producers[transactional_id]
        self.ask(producer.begin_transaction, "begin a transaction", repeatable=False)
        self._transaction = _Transaction(producer, TransactionState(), [])

    def commit_transaction(self) -> list[Happening]:
        """Make what was published in the open transaction visible.

        Returns:
            What came of each event: acknowledged, now.

        Raises:
            UserError: No transaction is open, or the brokers refused: nobody may know what has become of it.
        """
        return self._end_transaction("commit", TransactionOutcome.COMMITTED)

    def abort_transaction(self) -> list[Happening]:
        """Let what was published in the open transaction never become visible.

        Returns:
            What came of each event: refused.

        Raises:
            UserError: No transaction is open, or the brokers refused.
        """
        return self._end_transaction("abort", TransactionOutcome.ABORTED)

    # Collecting.

    def collect(
        self,
        name: str,
        topics: Sequence[str],
        *,
        since: Since = Start.NOW,
        group: str | None = None,
        session_timeout: timedelta = SESSION_TIMEOUT,
        isolation: Isolation = Isolation.READ_UNCOMMITTED,
        identity: Identity = IDENTITY,
    ) -> Collector:
        """Keep what arrives from now on; a collector that already has the name is stopped.

        Args:
            name: How it is called.
            topics: What it reads.
            since: Where it begins; a moment, or the offsets of some partitions, with the others from now.
            group: The consumer group that it joins: it begins where that has committed.
            session_timeout: After which silence the group takes it for dead.
            isolation: Whether it reads what is not committed.
            identity: Where events have their ids.

        Raises:
            UnknownTopicError: A topic is not there.
            RecordsGoneError: It should read records that retention has dropped.
        """
        if not topics:
            message = "Say which topics to collect."
            raise UserError(message)
        reading = Reading(
            name, self._begin(topics, since), group, isolation, identity, session_timeout, self.options
        )
        if name in self._collectors:
            self.stop_collecting(name)
        self._collectors[name] = Collector(self.loop, reading)
        return self._collectors[name]

    def collector(self, name: str) -> Collector:
        """What collects under a name.

        Raises:
            UserError: Nothing does; lists what does.
        """
        if name not in self._collectors:
            known = ", ".join(self._collectors) or "none"
            message = f"There is no collector called {name!r}; collectors: {known}."
            raise UserError(message)
        return self._collectors[name]

    def stop_collecting(self, name: str) -> list[Event]:
        """Stop what collects under a name.

        Returns:
            What has arrived.

        Raises:
            UserError: Nothing collects under the name, or reading had failed.
        """
        collector = self.collector(name)
        del self._collectors[name]
        collector.stop()
        return collector.events

    def drain(self, name: str, deadline: Deadline) -> list[Event]:
        """Wait until a collector has read everything that is there now.

        Raises:
            NotMetError: It was not read in time.
            UserError: Nothing collects under the name, or reading has failed.
        """
        collector = self.collector(name)
        return collector.drain(self.ends(self.partitions(collector.reading.topics)), deadline)

    def read_all(
        self,
        topics: Sequence[str],
        deadline: Deadline,
        *,
        since: Since = Start.OLDEST,
        isolation: Isolation = Isolation.READ_UNCOMMITTED,
        identity: Identity = IDENTITY,
    ) -> list[Event]:
        """Read everything that is in some topics now, to the end.

        Args:
            topics: What to read.
            deadline: Give up after this.
            since: Where to begin.
            isolation: Whether to read what is not committed.
            identity: Where events have their ids.

        Raises:
            NotMetError: It was not read in time.
            UserError: A topic is not there, or records are gone.
        """
        start = self._begin(topics, since)
        ends = self.ends(list(start))
        reading = Reading(DRAIN_NAME, start, None, isolation, identity, options=self.options)
        collector = Collector(self.loop, reading)
        try:
            return collector.drain(ends, deadline)
        finally:
            collector.stop()

    # How it is done.

    def _prepared(self, events: Sequence[Outgoing]) -> tuple[AIOKafkaProducer, Publication]:
        self.require_topics({event.topic for event in events})
        for topic, number in {(event.topic, event.partition) for event in events}:
            self.chosen_partitions(topic, number)
        if self._transaction is None:
            return self.producer(), Publication(events)
        publication = Publication(events, self._transaction.state)
        self._transaction.publications.append(publication)
        return self._transaction.producer, publication

    def _end_transaction(self, verb: str, outcome: TransactionOutcome) -> list[Happening]:
        if self._transaction is None:
            message = f"There is no open Kafka transaction to {verb}."
            raise UserError(message)
        transaction, self._transaction = self._transaction, None
        for publication in transaction.publications:
            self.stop_publishing(publication)
        producer = transaction.producer
        end = (
            producer.commit_transaction if outcome is TransactionOutcome.COMMITTED else producer.abort_transaction
        )
        try:
            self.ask(end, f"{verb} the transaction", repeatable=False)
        except UserError:
            transaction.state.end(TransactionOutcome.INDETERMINATE)
            raise
        transaction.state.end(outcome)
        return [it for publication in transaction.publications for it in publication.outcomes()]

    def _begin(self, topics: Sequence[str], since: Since) -> Offsets:
        partitions = self.partitions(topics)
        match since:
            case Start.NOW:
                return self.ends(partitions)
            case Start.OLDEST:
                return self.beginnings(partitions)
            case Start.BEGINNING:
                self._require_beginnings(dict.fromkeys(partitions, 0))
                return dict.fromkeys(partitions, 0)
            case datetime():
                return self.offsets_at(partitions, round(since.timestamp() * MILLISECONDS))
            case _:
                if unknown := [place_of(*it) for it in since if it not in partitions]:
                    message = f"There is no partition {', '.join(unknown)} in {', '.join(topics)}."
                    raise UserError(message)
                self._require_beginnings(since)
                return {**self.ends(partitions), **since}

    def _require_beginnings(self, offsets: Offsets) -> None:
        for partition, beginning in self.beginnings(list(offsets)).items():
            if beginning > offsets[partition]:
                raise RecordsGoneError(records_gone(place_of(*partition), offsets[partition], beginning))


async def _new_event() -> asyncio.Event:
    return asyncio.Event()


async def _set(event: asyncio.Event) -> None:
    event.set()
