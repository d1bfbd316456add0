"""Keywords about topics and the offsets in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from aiokafka import TopicPartition
from assertionengine import AssertionOperator
from robot.api import logger
from robot.api.deco import keyword
from testyard.core.tables import html_table
from testyard.kafka.administration import create_topic, delete_topic
from testyard.kafka.event import place_of

from KafkaLibrary.checking import AT_ONCE, Check
from KafkaLibrary.session import Session
from KafkaLibrary.showing import show_offsets


class TopicKeywords:
    """Keywords about topics and the offsets in them."""

    _session: Session

    @keyword(tags=["Getter", "Evidence"])
    def topics(self, *, alias: str = "default") -> dict[str, int]:
        """Draw and return the topics, with their numbers of partitions; Kafka's own are left out.

        Args:
            alias: The connection.

        Example:
            | ${topics} = | Topics |
            | Should Be Equal | ${topics}[orders] | ${3} |
        """
        topics = self._session.connections.get(alias).topics()
        logger.info(
            html_table(f"Topics: {len(topics)}", ("topic", "partitions"), sorted(topics.items())), html=True
        )
        return topics

    @keyword(tags=["Assertion"])
    def topic_should_exist(self, topic: str, *, alias: str = "default") -> int:
        """Check that there is a topic, without making the brokers create it.

        Args:
            topic: Its name.
            alias: The connection.

        Returns:
            How many partitions it has.

        Raises:
            UserError: There is none; lists those there are.

        Example:
            | Topic Should Exist | orders |
        """
        return len(self._session.connections.get(alias).partitions([topic]))

    @keyword(tags=["Setup"])
    def create_topic(
        self,
        topic: str,
        partitions: int = 3,
        replication: int = 1,
        *,
        settings: dict[str, str] | None = None,
        alias: str = "default",
    ) -> None:
        """Create a topic, and wait until it is there.

        Args:
            topic: Its name.
            partitions: How many partitions it has.
            replication: On how many brokers each is; `-1` leaves it to the brokers.
            settings: The topic's configuration, such as `retention.ms`.
            alias: The connection.

        Raises:
            UserError: There is one of that name, the brokers refuse, or they take no such requests.

        Example:
            | Create Topic | orders | partitions=6 |
        """
        connection = self._session.connections.get(alias)
        create_topic(connection, topic, partitions=partitions, replication=replication, settings=settings)
        logger.info(f"Created the topic {topic!r} with {partitions} partitions.")

    @keyword(tags=["Setup"])
    def delete_topic(self, topic: str, *, alias: str = "default") -> None:
        """Delete a topic with all that is in it, and wait until it is gone.

        Args:
            topic: Its name.
            alias: The connection.

        Raises:
            UserError: There is none of that name, the brokers refuse, or they take no such requests.

        Example:
            | Delete Topic | orders |
        """
        delete_topic(self._session.connections.get(alias), topic)

    @keyword(tags=["Getter", "Assertion", "Wait"])
    def end_offset(
        self,
        place: str,
        assertion_operator: AssertionOperator | None = None,
        assertion_expected: Any = None,
        message: str | None = None,
        *,
        retry_for: timedelta = AT_ONCE,
        alias: str = "default",
    ) -> int:
        """Read which offset the next event of a partition will get, and check it when an operator is given.

        Args:
            place: A partition, such as `orders/0`; of a topic, the sum of all its partitions.
            assertion_operator: `==`, `!=`, `<`, `>=`, `validate`…
            assertion_expected: What the offset is compared with.
            message: Said instead when it fails; `{value}` and `{expected}` are filled in.
            retry_for: How long the offset may take to become right.
            alias: The connection.

        Returns:
            The offset, or what the operator makes of it.

        Raises:
            AssertionError: The offset is not right (in time).
            UserError: There is no such topic or partition, or no broker answers.

        Example:
            | End Offset | orders/0 | >= | 100 | retry_for=5s |
        """
        check = Check(assertion_operator, assertion_expected, message, retry_for)
        connection = self._session.connections.get(alias)
        partitions = connection.partitions_of(place)
        return _offset(f"The end offset of {place}", lambda: connection.ends(partitions), check)

    @keyword(tags=["Getter", "Assertion", "Wait"])
    def beginning_offset(
        self,
        place: str,
        assertion_operator: AssertionOperator | None = None,
        assertion_expected: Any = None,
        message: str | None = None,
        *,
        retry_for: timedelta = AT_ONCE,
        alias: str = "default",
    ) -> int:
        """Read the first offset of a partition that is still there, and check it when an operator is given.

        Args:
            place: A partition, such as `orders/0`; of a topic, the sum of all its partitions.
            assertion_operator: `==`, `!=`, `<`, `>=`, `validate`…
            assertion_expected: What the offset is compared with.
            message: Said instead when it fails; `{value}` and `{expected}` are filled in.
            retry_for: How long the offset may take to become right.
            alias: The connection.

        Returns:
            The offset, or what the operator makes of it.

        Raises:
            AssertionError: The offset is not right (in time).
            UserError: There is no such topic or partition, or no broker answers.

        Example:
            | Beginning Offset | orders | == | 0 |
        """
        check = Check(assertion_operator, assertion_expected, message, retry_for)
        connection = self._session.connections.get(alias)
        partitions = connection.partitions_of(place)
        return _offset(f"The beginning offset of {place}", lambda: connection.beginnings(partitions), check)

    @keyword(tags=["Getter", "Evidence"])
    def end_offsets(self, *topics: str, alias: str = "default") -> dict[str, int]:
        """Draw and return where the partitions of some topics end now, for reading on from there later.

        Args:
            topics: The topics.
            alias: The connection.

        Returns:
            For each partition, such as `orders/0`, the offset that its next event will get.

        Example:
            | ${before} = | End Offsets | orders |
            | ${events} = | Read All Events | orders | since=${before} |
        """
        connection = self._session.connections.get(alias)
        ends = connection.ends(connection.partitions(topics))
        offsets = {place_of(*partition): offset for partition, offset in ends.items()}
        show_offsets("End offsets", offsets)
        return offsets


def _offset(name: str, read: Callable[[], Mapping[TopicPartition, int]], check: Check) -> int:
    offset: int = check.until_right(lambda: sum(read().values()), name)
    logger.info(f"{name} is {offset}.")
    return offset
