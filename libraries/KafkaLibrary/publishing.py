"""Keywords that publish events."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from robot.api import logger
from robot.api.deco import keyword
from testyard.core.deadline import seconds
from testyard.core.errors import NotMetError
from testyard.kafka.publication import Publication

from KafkaLibrary.session import Session

TEN_SECONDS = timedelta(seconds=10)


class PublishKeywords:
    """Keywords that publish events."""

    _session: Session

    @keyword(tags=["Setup"])
    def publish_event(
        self,
        topic: str,
        value: Any = None,
        *,
        key: str | None = None,
        headers: dict[str, Any] | None = None,
        partition: int | None = None,
        all_acknowledged: bool = True,
        within: timedelta = TEN_SECONDS,
        alias: str = "default",
    ) -> Publication:
        """Publish one event, and wait until all replicas that are in sync have it.

        Args:
            topic: Where to; it must exist.
            value: A dictionary or list is sent as JSON, text and bytes as they are; nothing is a tombstone.
            key: What its order is kept by; an envelope has its own.
            headers: Its headers.
            partition: Which partition; by its key, or any, when not given.
            all_acknowledged: Whether the keyword fails when it is not acknowledged.
            within: Give up waiting after this time.
            alias: The connection.

        Returns:
            What happened: the attempt, and that it was acknowledged (with its place and offset), refused, or is
            indeterminate, as it may have been written; for the ledger.

        Raises:
            AssertionError: It was not acknowledged in time.
            UserError: There is no such topic or partition, no broker answers, or it cannot be sent.

        Example:
            | ${happened} = | Publish Event | orders | ${envelope} |
            | Publish Event | orders | {"state": "DONE"} | key=order-1 |
        """
        event = self._session.outgoing(topic, value, key, headers, partition=partition)
        publication = self._session.connections.get(alias).publish([event], within)
        _told(publication, topic, all_acknowledged)
        return publication

    @keyword(tags=["Setup"])
    def publish_events(
        self,
        topic: str,
        values: list[Any],
        *,
        key: str | None = None,
        headers: dict[str, Any] | None = None,
        partition: int | None = None,
        all_acknowledged: bool = True,
        within: timedelta = timedelta(seconds=30),
        alias: str = "default",
    ) -> Publication:
        """Publish many events as fast as it goes, and wait until all replicas that are in sync have them.

        Args:
            topic: Where to; it must exist.
            values: Dictionaries and lists are sent as JSON, texts and bytes as they are.
            key: What their order is kept by; envelopes have their own.
            headers: Headers that each of them has.
            partition: Which partition; by their keys, or any, when not given.
            all_acknowledged: Whether the keyword fails when not all are acknowledged.
            within: Give up waiting after this time.
            alias: The connection.

        Returns:
            What happened to each: the attempt, and what came of it; for the ledger.

        Raises:
            AssertionError: Not all were acknowledged in time; says how many, and why.
            UserError: There is no such topic or partition, no broker answers, or one cannot be sent.

        Example:
            | ${happened} = | Publish Events | orders | ${envelopes} |
        """
        outgoing = self._session.outgoing
        events = [outgoing(topic, value, key, headers, partition=partition) for value in values]
        publication = self._session.connections.get(alias).publish(events, within)
        _told(publication, topic, all_acknowledged)
        return publication

    @keyword(tags=["Setup"])
    def publish_events_at_rate(
        self,
        topic: str,
        values: list[Any],
        rate: float,
        *,
        key: str | None = None,
        headers: dict[str, Any] | None = None,
        background: bool = False,
        all_acknowledged: bool = True,
        within: timedelta = TEN_SECONDS,
        alias: str = "default",
    ) -> Publication:
        """Publish events when they are due, whatever becomes of earlier ones.

        An event counts as attempted when it was due. When brokers are slow or away, what follows is sent later
        than it should be, and that wait is part of every delay that is measured.

        Args:
            topic: Where to; it must exist.
            values: Dictionaries and lists are sent as JSON, texts and bytes as they are.
            rate: How many per second.
            key: What their order is kept by; envelopes have their own.
            headers: Headers that each of them has.
            background: Whether the test goes on meanwhile, until `Publishing Should End` or `Stop Publishing`.
            all_acknowledged: Whether the keyword fails when not all are acknowledged; not in the background.
            within: Give up waiting for answers this long after the last event.
            alias: The connection.

        Returns:
            What happened to each: the attempt, and what came of it; for the ledger. In the background, it is
            complete when publishing has ended.

        Raises:
            AssertionError: Not all were acknowledged in time; says how many, and why.
            UserError: The rate is not above 0, there is no such topic, or an event cannot be sent.

        Example:
            | ${load} = | Publish Events At Rate | orders | ${envelopes} | 1000 | background=True |
            | Kill The Broker |
            | Publishing Should End | ${load} |
        """
        connection = self._session.connections.get(alias)
        events = [self._session.outgoing(topic, value, key, headers) for value in values]
        publication = connection.publish_at_rate(events, rate, within)
        if not background:
            publication.wait(timedelta(seconds=len(events) / rate) + within + TEN_SECONDS)
            connection.stop_publishing(publication)
            _told(publication, topic, all_acknowledged)
        return publication

    @keyword(tags=["Wait", "Assertion"])
    def publishing_should_end(
        self,
        publication: Publication,
        *,
        all_acknowledged: bool = True,
        within: timedelta = timedelta(seconds=30),
        alias: str = "default",
    ) -> Publication:
        """Wait until events that are published in the background have been sent and answered.

        Args:
            publication: What `Publish Events At Rate` returned.
            all_acknowledged: Whether the keyword fails when not all were acknowledged.
            within: Give up after this time; publishing goes on.
            alias: The connection that it runs over.

        Returns:
            What happened to each event; for the ledger.

        Raises:
            AssertionError: It did not end in time, or not all were acknowledged.

        Example:
            | Publishing Should End | ${load} | within=20s |
        """
        if not publication.wait(within):
            message = (
                f"Publishing did not end within {seconds(within)}: {publication.attempts} of "
                f"{len(publication.events)} events were sent so far."
            )
            raise NotMetError(message)
        self._session.connections.get(alias).stop_publishing(publication)
        _told(publication, "the background", all_acknowledged)
        return publication

    @keyword(tags=["Setup"])
    def stop_publishing(
        self, publication: Publication, *, within: timedelta = TEN_SECONDS, alias: str = "default"
    ) -> Publication:
        """Publish no more in the background, and wait for the answers that are open.

        Args:
            publication: What `Publish Events At Rate` returned.
            within: Give up waiting after this time.
            alias: The connection that it runs over.

        Returns:
            What happened to each event that was sent; for the ledger.

        Example:
            | ${happened} = | Stop Publishing | ${load} |
        """
        self._session.connections.get(alias).stop_publishing(publication, within)
        _told(publication, "the background", must_be=False)
        return publication


def _told(publication: Publication, where: str, must_be: bool) -> None:
    late = f", at most {seconds(publication.most_late)} after they were due" if publication.most_late else ""
    logger.info(f"Published in {where}: {publication.summary}{late}.")
    if must_be:
        publication.check()
