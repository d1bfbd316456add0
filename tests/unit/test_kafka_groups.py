"""Consumer groups: how far behind they are, and who is in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from aiokafka.structs import OffsetAndMetadata
from kafka_support import consumer_of, do, new_topic, open_kafka, quiet_client, read
from testyard.core.errors import UserError
from testyard.kafka.client import Kafka
from testyard.kafka.event import outgoing
from testyard.kafka.groups import Group, GroupState, Member, committed_offsets, describe, lags
from testyard.kafka.problems import UnsupportedRequestError
from testyard.lab.servers.kafka_mock import Api, Failure, MockKafka

ASSIGNMENT = ConsumerProtocolMemberAssignment(0, [("orders", [0, 2]), ("payments", [1])], b"").encode()


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


def commit(mock: MockKafka, group: str, topic: str, count: int) -> None:
    """Let a member of a group read and commit so many events."""

    async def member() -> None:
        async with consumer_of(mock.bootstrap_servers, topic, group_id=group) as consumer:
            await read(consumer, count)
            await consumer.commit()

    do(member())


def test_the_lag_is_what_is_there_and_not_committed(mock: MockKafka, kafka: Kafka) -> None:
    topic = new_topic(mock, partitions=2)
    first, second = kafka.partitions([topic])
    kafka.publish([outgoing(topic, "x", partition=0) for _ in range(5)])
    commit(mock, f"readers-of-{topic}", topic, 5)
    kafka.publish([outgoing(topic, "x", partition=n % 2) for n in range(4)])
    found = {it.partition: it for it in lags(kafka, f"readers-of-{topic}", [first, second])}
    assert (found[first].committed, found[first].end, found[first].lag) == (5, 7, 2)
    assert (found[second].end, found[second].lag) == (2, 2)
    # The member has committed its place also where there was nothing.
    assert found[second].committed in {0, None}


def test_a_group_that_has_committed_nothing_lags_by_all_that_is_there(mock: MockKafka, kafka: Kafka) -> None:
    topic = new_topic(mock, partitions=1)
    kafka.publish([outgoing(topic, "x") for _ in range(6)])
    mock.delete_records(topic, 0, 2)
    (lag,) = lags(kafka, "nobody", kafka.partitions([topic]))
    assert (lag.committed, lag.beginning, lag.end, lag.lag) == (None, 2, 6, 4)


def test_what_was_dropped_is_no_lag(mock: MockKafka, kafka: Kafka) -> None:
    topic = new_topic(mock, partitions=1)
    kafka.publish([outgoing(topic, "x") for _ in range(6)])
    commit(mock, f"readers-of-{topic}", topic, 6)
    kafka.publish([outgoing(topic, "x") for _ in range(6)])
    mock.delete_records(topic, 0, 9)
    (lag,) = lags(kafka, f"readers-of-{topic}", kafka.partitions([topic]))
    assert (lag.committed, lag.lag) == (6, 3)


def test_what_is_committed_is_asked_for_again_while_nobody_coordinates(mock: MockKafka, kafka: Kafka) -> None:
    topic = new_topic(mock, partitions=1)
    mock.fail_next(Api.FIND_COORDINATOR, Failure.COORDINATOR_NOT_AVAILABLE, Failure.COORDINATOR_NOT_AVAILABLE)
    partition = TopicPartition(topic, 0)
    assert committed_offsets(kafka, "nobody", [partition]) == {partition: None}


def test_what_is_committed_is_asked_for_again_when_the_answer_is_empty(
    kafka: Kafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    partition = TopicPartition("orders", 0)
    answers: list[Any] = [{}, {partition: OffsetAndMetadata(7, "")}]

    async def list_consumer_group_offsets(*_: Any, **__: Any) -> Any:
        return answers.pop(0)

    monkeypatch.setattr(kafka.admin, "list_consumer_group_offsets", list_consumer_group_offsets)
    assert committed_offsets(kafka, "readers", [partition]) == {partition: 7}


def test_the_mock_cannot_tell_who_is_in_a_group(kafka: Kafka) -> None:
    with pytest.raises(UnsupportedRequestError, match="could not describe the group 'readers': its"):
        describe(kafka, "readers")


def answer(**group: Any) -> Any:
    """What a real broker answers (DescribeGroups), with some fields of the group instead of the usual ones."""
    member = {
        "member_id": "m-1",
        "client_id": "adapter",
        "client_host": "/10.0.0.1",
        "member_metadata": b"",
        "member_assignment": ASSIGNMENT,
    }
    usual = {"error_code": 0, "group": "readers", "state": "Stable", "members": [member]}
    return SimpleNamespace(to_object=lambda: {"groups": [{**usual, **group}]})


@pytest.fixture
def told(kafka: Kafka, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Group]:
    """What is told of a group when brokers answer one thing after the other."""

    def tell(*answers: Any) -> Group:
        remaining = list(answers)

        async def describe_consumer_groups(_: list[str]) -> list[Any]:
            return [remaining.pop(0)]

        monkeypatch.setattr(kafka.admin, "describe_consumer_groups", describe_consumer_groups)
        return describe(kafka, "readers")

    return tell


def test_a_group_is_told_with_its_members_and_their_partitions(told: Callable[..., Group]) -> None:
    member = Member("m-1", "adapter", "/10.0.0.1", ("orders/0", "orders/2", "payments/1"))
    assert told(answer()) == Group("readers", GroupState.STABLE, (member,))


@pytest.mark.parametrize("state", GroupState)
def test_every_state_is_known(told: Callable[..., Group], state: GroupState) -> None:
    assert told(answer(state=state.value, members=[])).state is state


def test_a_member_that_was_given_nothing_has_no_partitions(told: Callable[..., Group]) -> None:
    known = {"member_id": "m", "client_id": "c", "client_host": "h"}
    member = {**known, "member_metadata": b"", "member_assignment": b""}
    assert told(answer(members=[member])).members[0].partitions == ()


def test_a_broker_that_does_not_coordinate_the_group_yet_is_asked_again(told: Callable[..., Group]) -> None:
    not_coordinator, loading = 16, 14
    assert (
        told(answer(error_code=not_coordinator), answer(error_code=loading), answer()).state is GroupState.STABLE
    )


def test_a_group_that_may_not_be_seen_is_told(told: Callable[..., Group]) -> None:
    with pytest.raises(UserError, match="could not describe the group 'readers': GROUP_AUTHORIZATION_FAILED"):
        told(answer(error_code=30))
