"""Consumer groups: how far they are, how far behind, and who is in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from aiokafka import TopicPartition
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from aiokafka.errors import GroupCoordinatorNotAvailableError, for_code

from testyard.kafka.connection import Connection
from testyard.kafka.event import place_of

# What the brokers tell of a group that has committed nothing there.
NOTHING_COMMITTED = -1


class GroupState(Enum):
    """What a consumer group is doing (Kafka's own words; KIP-848 for the last two)."""

    STABLE = "Stable"
    EMPTY = "Empty"
    DEAD = "Dead"
    PREPARING_REBALANCE = "PreparingRebalance"
    COMPLETING_REBALANCE = "CompletingRebalance"
    ASSIGNING = "Assigning"
    RECONCILING = "Reconciling"


@dataclass(frozen=True)
class Member:
    """One member of a group.

    Attributes:
        id: What the group calls it.
        client_id: What it calls itself.
        host: Where it is.
        partitions: What it was given.
    """

    id: str
    client_id: str
    host: str
    partitions: tuple[str, ...]


@dataclass(frozen=True)
class Group:
    """A consumer group.

    Attributes:
        name: Its id.
        state: What it is doing; a group that nobody knows is dead.
        members: Who is in it.
    """

    name: str
    state: GroupState
    members: tuple[Member, ...]


@dataclass(frozen=True)
class PartitionLag:
    """How far a group is in one partition.

    Attributes:
        partition: The partition.
        committed: The offset that it would go on with; None when it has committed nothing there.
        beginning: The first offset that is there.
        end: The offset that the next event will get.
    """

    partition: TopicPartition
    committed: int | None
    beginning: int
    end: int

    @property
    def lag(self) -> int:
        """How many events are not yet committed: all that are there when nothing is."""
        return self.end - max(self.beginning, self.committed or 0)


def committed_offsets(
    connection: Connection, group: str, partitions: Sequence[TopicPartition]
) -> dict[TopicPartition, int | None]:
    """Where a group would go on; None where it has committed nothing.

    Raises:
        NoAnswerError: The group's coordinator does not answer.
    """

    async def question() -> Mapping[TopicPartition, Any]:
        found: Mapping[TopicPartition, Any]
        found = await connection.admin.list_consumer_group_offsets(group, partitions=list(partitions))
        if any(partition not in found for partition in partitions):
            # A coordinator that is not one yet, or no longer, answers nothing, and its client does not say so.
            raise GroupCoordinatorNotAvailableError
        return found

    found = connection.ask(question, f"tell what the group {group!r} has committed")
    offsets = {partition: found[partition].offset for partition in partitions}
    return {it: None if offset == NOTHING_COMMITTED else offset for it, offset in offsets.items()}


def lags(connection: Connection, group: str, partitions: Sequence[TopicPartition]) -> list[PartitionLag]:
    """How far a group is in some partitions.

    Raises:
        NoAnswerError: The brokers do not answer.
    """
    # What is committed is asked first: a lag that is too large may be waited for, one that is too small deceives.
    committed = committed_offsets(connection, group, partitions)
    beginnings, ends = connection.beginnings(partitions), connection.ends(partitions)
    return [PartitionLag(it, committed[it], beginnings[it], ends[it]) for it in partitions]


def describe(connection: Connection, group: str) -> Group:
    """What a group is doing, and who is in it.

    Raises:
        UnsupportedRequestError: The brokers cannot tell, as librdkafka's mock cluster cannot.
        UserError: They refuse to.
    """

    async def question() -> dict[str, Any]:
        (response,) = await connection.admin.describe_consumer_groups([group])
        (answer,) = response.to_object()["groups"]
        if answer["error_code"]:
            # A coordinator that is not one yet, or no longer, says so here.
            raise for_code(answer["error_code"])
        return dict(answer)

    described = connection.ask(question, f"describe the group {group!r}")
    members = tuple(
        Member(it["member_id"], it["client_id"], it["client_host"], _partitions(it["member_assignment"]))
        for it in described["members"]
    )
    return Group(group, GroupState(described["state"]), members)


def _partitions(assignment: bytes) -> tuple[str, ...]:
    if not assignment:
        return ()
    decoded = ConsumerProtocolMemberAssignment.decode(assignment)
    return tuple(
        place_of(topic, partition) for topic, partitions in decoded.assignment for partition in partitions
    )
