"""Creating and deleting topics by the brokers' own administration."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from aiokafka.admin import NewTopic
from aiokafka.errors import NotControllerError, TopicAlreadyExistsError, UnknownTopicOrPartitionError, for_code

from testyard.core.deadline import Deadline, wait_until
from testyard.core.errors import UserError
from testyard.kafka.connection import Connection
from testyard.kafka.problems import UnsupportedRequestError, reason, unknown_topic

# What brokers that have just started say of their controller.
NOT_KNOWN_YET = -1
VISIBLE_TIMEOUT = timedelta(seconds=10)


def create_topic(
    connection: Connection,
    topic: str,
    *,
    partitions: int = 3,
    replication: int = 1,
    settings: Mapping[str, str] | None = None,
) -> None:
    """Create a topic, and wait until it is there.

    Args:
        connection: The brokers.
        topic: Its name.
        partitions: How many partitions it has.
        replication: On how many brokers each is; -1 leaves it to the brokers.
        settings: The topic's configuration, such as ``retention.ms``.

    Raises:
        UserError: There is one of that name, or the brokers refuse.
        UnsupportedRequestError: The brokers take no such requests; librdkafka's mock cluster does not.
    """
    _require_controller(connection)
    new = NewTopic(topic, partitions, replication, topic_configs=dict(settings or {}))
    response = connection.ask(lambda: connection.admin.create_topics([new]), f"create the topic {topic!r}")
    for _, code, *told in response.topic_errors:
        problem = for_code(code)
        if problem is TopicAlreadyExistsError:
            message = f"There is a topic {topic!r} already."
            raise UserError(message)
        if code:
            why = next((text for text in told if text), "") or reason(problem())
            message = f"{connection.target} could not create the topic {topic!r}: {why.rstrip('.')}."
            raise UserError(message)
    wait_until(connection.topics, lambda it: topic in it, Deadline(VISIBLE_TIMEOUT), f"the topic {topic!r}")


def delete_topic(connection: Connection, topic: str) -> None:
    """Delete a topic with all that is in it, and wait until it is gone.

    Raises:
        UnknownTopicError: There is none of that name.
        UserError: The brokers refuse.
        UnsupportedRequestError: The brokers take no such requests; librdkafka's mock cluster does not.
    """
    _require_controller(connection)
    response = connection.ask(lambda: connection.admin.delete_topics([topic]), f"delete the topic {topic!r}")
    for _, code in response.topic_error_codes:
        problem = for_code(code)
        if problem is UnknownTopicOrPartitionError:
            raise unknown_topic(topic, connection.topics())
        if code:
            message = f"{connection.target} could not delete the topic {topic!r}: {reason(problem())}."
            raise UserError(message)
    wait_until(connection.topics, lambda it: topic not in it, Deadline(VISIBLE_TIMEOUT), "the topic's end")


def _require_controller(connection: Connection) -> None:
    async def question() -> bool:
        cluster = await connection.admin.describe_cluster()
        if cluster["controller_id"] == NOT_KNOWN_YET:
            raise NotControllerError
        return cluster["controller_id"] in {broker["node_id"] for broker in cluster["brokers"]}

    if not connection.ask(question, "name its controller"):
        message = (
            f"{connection.target} takes no requests for topics: its brokers name no controller (librdkafka's mock "
            "cluster has none; the lab creates its topics)."
        )
        raise UnsupportedRequestError(message)
