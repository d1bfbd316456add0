"""Keywords that read events and wait for them."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from robot.api import logger
from robot.api.deco import keyword
from testyard.core.deadline import Deadline
from testyard.core.history import Happening
from testyard.kafka.collecting import SESSION_TIMEOUT, Isolation, Start
from testyard.kafka.event import Event, Moment
from testyard.kafka.selection import Selection

from KafkaLibrary.session import DEFAULT_COLLECTOR, Session
from KafkaLibrary.showing import show_events

TEN_SECONDS = timedelta(seconds=10)


class CollectKeywords:
    """Keywords that read events and wait for them."""

    _session: Session

    @keyword(tags=["Setup"])
    def collect_events(
        self,
        *topics: str,
        name: str = DEFAULT_COLLECTOR,
        since: Start | datetime | dict[str, int] = Start.NOW,
        group: str | None = None,
        session_timeout: timedelta = SESSION_TIMEOUT,
        isolation: Isolation = Isolation.READ_UNCOMMITTED,
        alias: str = "default",
    ) -> None:
        """Keep what arrives in the background, in the order of its arrival, until `Stop Collecting Events`.

        Args:
            topics: What to read; they must exist.
            name: How the collector is called; one that has the name is stopped.
            since: `NOW`; `BEGINNING`, the very first event; `OLDEST`, the first that is still there; a moment; or
                offsets such as `End Offsets` returns, with the other partitions from now.
            group: The consumer group to join: then each partition begins where that has committed, and only where
                it has not, where `since` says. Without it, every partition is read, and nobody knows.
            session_timeout: After which silence the group takes the collector for dead.
            isolation: `READ_COMMITTED` leaves out what is in a transaction that is open or was aborted.
            alias: The connection.

        Raises:
            UserError: There is no such topic, or the first events that should be read are no longer there.

        Example:
            | Collect Events | orders | payments |
            | Collect Events | orders | name=audit | since=BEGINNING |
        """
        connection = self._session.connections.get(alias)
        since_when = self._session.since(since)
        collector = connection.collect(
            name,
            topics,
            since=since_when,
            group=group,
            session_timeout=session_timeout,
            isolation=isolation,
            identity=self._session.identity,
        )
        logger.info(f"Collecting {', '.join(collector.reading.topics)} as '{name}'.")

    @keyword(tags=["Setup", "Evidence"])
    def stop_collecting_events(self, name: str = DEFAULT_COLLECTOR, *, alias: str = "default") -> list[Event]:
        """Stop a collector; draw and return what it has.

        Args:
            name: The collector.
            alias: The connection.

        Returns:
            The events in the order of their arrival.

        Raises:
            UserError: There is no such collector, or events were dropped before they were read.

        Example:
            | ${events} = | Stop Collecting Events |
        """
        events = self._session.connections.get(alias).stop_collecting(name)
        show_events(f"Events of '{name}'", events)
        return events

    @keyword(tags=["Getter", "Evidence"])
    def collected_events(
        self,
        topic: str | None = None,
        *fields: str,
        key: str | None = None,
        headers: dict[str, Any] | None = None,
        name: str = DEFAULT_COLLECTOR,
        to_the_end: bool = False,
        within: timedelta = TEN_SECONDS,
        alias: str = "default",
    ) -> list[Event]:
        """Draw and return what has arrived so far.

        Args:
            topic: Only events on this topic.
            fields: Only those whose value is so; see `Kafka Event Should Arrive`.
            key: Only those with this key.
            headers: Only those with these headers.
            name: The collector.
            to_the_end: Whether to wait first until everything that is there now has been read.
            within: Give up waiting after this time.
            alias: The connection.

        Returns:
            The events in the order of their arrival; each has `topic`, `partition`, `offset`, `key`, `headers`,
            `value` (read as JSON), `text`, `id`, `timestamp` and `received`.

        Raises:
            AssertionError: Not everything could be read in time.
            UserError: There is no such collector, or events were dropped before they were read.

        Example:
            | ${events} = | Collected Events | orders | $.payload.state=DONE | to_the_end=True |
            | Should Be Equal | ${events}[0].value[payload][state] | DONE |
        """
        connection = self._session.connections.get(alias)
        selection = Selection.of(topic, fields, key=key, headers=headers)
        collector = connection.collector(name)
        events = connection.drain(name, Deadline(within)) if to_the_end else collector.events
        found = [event for event in events if selection.accepts(event)]
        show_events(f"Events of '{name}' {selection}", found)
        return found

    @keyword(tags=["Getter"])
    def history_of_collected_events(
        self,
        name: str = DEFAULT_COLLECTOR,
        *,
        to_the_end: bool = True,
        moment: Moment = Moment.RECEIVED,
        within: timedelta = TEN_SECONDS,
        alias: str = "default",
    ) -> list[Happening]:
        """What a collector has received, for the ledger.

        Args:
            name: The collector.
            to_the_end: Whether to wait first until everything that is there now has been read: only then can be
                said what is missing.
            moment: When an event happened: when it was `RECEIVED`, or when it was `SENT`, however late it is read.
            within: Give up waiting after this time.
            alias: The connection.

        Returns:
            That each event was received, when, and at which place and offset.

        Raises:
            AssertionError: Not everything could be read in time.
            UserError: There is no such collector, or events were dropped before they were read.

        Example:
            | ${received} = | History Of Collected Events | audit |
            | ${sent} = | History Of Collected Events | audit | moment=SENT |
        """
        connection = self._session.connections.get(alias)
        if to_the_end:
            connection.drain(name, Deadline(within))
        history = connection.collector(name).happenings(moment)
        logger.info(f"'{name}' has received {len(history)} events.")
        return history

    @keyword(tags=["Assertion", "Wait"])
    def kafka_event_should_arrive(
        self,
        topic: str | None = None,
        *fields: str,
        key: str | None = None,
        headers: dict[str, Any] | None = None,
        name: str = DEFAULT_COLLECTOR,
        within: timedelta = TEN_SECONDS,
        alias: str = "default",
    ) -> Event:
        """Wait until a collector has such an event; one that arrived before counts too.

        A field is a JSONPath (RFC 9535) and what it must find in the value: `$.payload.state=DONE`. Without an
        equals sign it must find something: `$.payload.files[?@.size > 100]`.

        Args:
            topic: Where it must be.
            fields: What its value must have.
            key: Its key.
            headers: Headers that it must have.
            name: The collector.
            within: Give up after this time.
            alias: The connection.

        Returns:
            The first such event.

        Raises:
            AssertionError: None arrived in time; shows the last ones that did arrive.
            UserError: A field is no JSONPath, there is no such collector, or events are missing.

        Example:
            | Collect Events | orders |
            | Start The Workflow |
            | ${event} = | Kafka Event Should Arrive | orders | $.event_type=WORKFLOW_STARTED | within=2s |
        """
        selection = Selection.of(topic, fields, key=key, headers=headers)
        collector = self._session.connections.get(alias).collector(name)
        (event,) = collector.wait_for(selection, Deadline(within))
        show_events(f"Event {selection}", [event])
        return event

    @keyword(tags=["Assertion", "Wait"])
    def kafka_events_should_arrive(
        self,
        count: int,
        topic: str | None = None,
        *fields: str,
        key: str | None = None,
        headers: dict[str, Any] | None = None,
        name: str = DEFAULT_COLLECTOR,
        within: timedelta = TEN_SECONDS,
        alias: str = "default",
    ) -> list[Event]:
        """Wait until a collector has so many such events; those that arrived before count too.

        Args:
            count: How many, at least.
            topic: Where they must be.
            fields: What their value must have; see `Kafka Event Should Arrive`.
            key: Their key.
            headers: Headers that they must have.
            name: The collector.
            within: Give up after this time.
            alias: The connection.

        Returns:
            The first ``count`` of them.

        Raises:
            AssertionError: Fewer arrived in time; shows the last ones that did arrive.
            UserError: A field is no JSONPath, there is no such collector, or events are missing.

        Example:
            | Kafka Events Should Arrive | 3 | orders | key=${workflow} | within=2s |
        """
        selection = Selection.of(topic, fields, key=key, headers=headers)
        collector = self._session.connections.get(alias).collector(name)
        events = collector.wait_for(selection, Deadline(within), count)
        show_events(f"Events {selection}", events)
        return events

    @keyword(tags=["Assertion", "Wait"])
    def kafka_event_should_never_arrive(
        self,
        topic: str | None = None,
        *fields: str,
        key: str | None = None,
        headers: dict[str, Any] | None = None,
        name: str = DEFAULT_COLLECTOR,
        within: timedelta = timedelta(seconds=1),
        alias: str = "default",
    ) -> None:
        """Check for some time that a collector gets no such event, and has none already.

        Args:
            topic: Where it would be.
            fields: What its value would have; see `Kafka Event Should Arrive`.
            key: Its key.
            headers: Headers that it would have.
            name: The collector.
            within: How long.
            alias: The connection.

        Raises:
            AssertionError: There is one.
            UserError: A field is no JSONPath, there is no such collector, or events are missing.

        Example:
            | Kafka Event Should Never Arrive | orders.dlq | key=${workflow} | within=500ms |
        """
        selection = Selection.of(topic, fields, key=key, headers=headers)
        self._session.connections.get(alias).collector(name).never(selection, Deadline(within))

    @keyword(tags=["Getter", "Evidence"])
    def read_all_events(
        self,
        *topics: str,
        since: Start | datetime | dict[str, int] = Start.BEGINNING,
        isolation: Isolation = Isolation.READ_UNCOMMITTED,
        within: timedelta = timedelta(seconds=30),
        alias: str = "default",
    ) -> list[Event]:
        """Read everything that is in some topics now, to the end; draw and return it.

        Args:
            topics: What to read; they must exist.
            since: `BEGINNING`, the very first event; `OLDEST`, the first that is still there; a moment; or offsets
                such as `End Offsets` returns.
            isolation: `READ_COMMITTED` leaves out what is in a transaction that is open or was aborted.
            within: Give up after this time.
            alias: The connection.

        Returns:
            The events; those of one partition in their order.

        Raises:
            AssertionError: Not everything could be read in time.
            UserError: There is no such topic, or the first events that should be read are no longer there.

        Example:
            | ${events} = | Read All Events | orders |
            | Length Should Be | ${events} | 1500 |
        """
        events = self._session.connections.get(alias).read_all(
            topics,
            Deadline(within),
            since=self._session.since(since),
            isolation=isolation,
            identity=self._session.identity,
        )
        show_events(f"Events of {', '.join(topics)}", events)
        return events
