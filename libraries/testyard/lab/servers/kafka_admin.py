"""Topics and accounts of a real Kafka cluster, by librdkafka's administration client."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from datetime import timedelta
from typing import TypeVar

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (
    AdminClient,
    NewTopic,
    ScramCredentialInfo,
    ScramMechanism,
    TopicMetadata,
    UserScramCredentialUpsertion,
)

from testyard.core.deadline import Deadline, wait_until
from testyard.lab.children import LabError
from testyard.lab.servers.kafka_settings import SCRAM_MECHANISMS, Account

ANSWER_TIMEOUT = timedelta(seconds=20)
# The least that Kafka accepts; the password is random, more rounds would only make connections slow.
SCRAM_ITERATIONS = 4096
# As many replicas as the brokers are configured to make (protocol guide, CreateTopics).
BROKERS_DEFAULT = -1

Value = TypeVar("Value")


class KafkaAdmin:
    """Administers one cluster.

    Args:
        bootstrap_servers: Where it is: ``host:port,…``.
        name: What people call it.
        within: How long one request may take.
    """

    def __init__(self, bootstrap_servers: str, *, name: str, within: timedelta = ANSWER_TIMEOUT) -> None:
        self._name = name
        self._within = within
        milliseconds = str(round(within.total_seconds() * 1000))
        settings = {
            "bootstrap.servers": bootstrap_servers,
            "socket.timeout.ms": milliseconds,
            "reconnect.backoff.max.ms": "200",
            # What goes wrong is raised here; librdkafka would also write it to this process's standard error.
            "log_level": "0",
        }
        self._client = AdminClient(settings)

    def create_topics(self, partitions: Mapping[str, int], replication: int) -> None:
        """Create topics and wait until every partition has a leader.

        Args:
            partitions: The topics' names with their numbers of partitions.
            replication: On how many brokers each partition is; -1 is as they are configured.

        Raises:
            LabError: There is one of them already, or too few brokers.
        """
        topics = [NewTopic(name, count, replication) for name, count in partitions.items()]
        if not topics:
            return
        timeout = self._within.total_seconds()
        created = self._client.create_topics(topics, operation_timeout=timeout, request_timeout=timeout)
        for name, future in created.items():
            self._value_of(future, f"create the topic {name!r}")
        wait_until(
            lambda: self._without_leader(partitions), lambda it: not it, Deadline(self._within), "topics to be led"
        )

    def delete_topic(self, name: str) -> None:
        """Remove a topic with all that is in it, and wait until it is no longer listed.

        Raises:
            LabError: There is no such topic.
        """
        timeout = self._within.total_seconds()
        deleted = self._client.delete_topics([name], operation_timeout=timeout, request_timeout=timeout)
        self._value_of(deleted[name], f"delete the topic {name!r}")
        wait_until(self._listed, lambda it: name not in it, Deadline(self._within), f"topic {name!r} to be gone")

    def create_account(self, account: Account) -> None:
        """Let somebody in by SCRAM, and wait until that is known.

        Raises:
            LabError: The cluster refuses or does not answer.
        """
        secret = account.password.encode()
        for mechanism in SCRAM_MECHANISMS:
            kind = ScramMechanism[mechanism.replace("-", "_")]
            credentials = ScramCredentialInfo(kind, SCRAM_ITERATIONS)
            upsertion = UserScramCredentialUpsertion(account.name, credentials, secret)
            answer = self._client.alter_user_scram_credentials([upsertion])
            self._value_of(answer[account.name], f"create the account {account.name!r}")
        wait_until(
            lambda: self._known_mechanisms(account.name),
            lambda known: known == len(SCRAM_MECHANISMS),
            Deadline(self._within),
            f"the account {account.name!r} to be known",
        )

    def _known_mechanisms(self, name: str) -> int:
        described = self._client.describe_user_scram_credentials([name])
        try:
            return len(described[name].result(self._within.total_seconds()).scram_credential_infos)
        except KafkaException:
            return 0

    def _without_leader(self, topics: Mapping[str, int]) -> list[str]:
        listed = self._listed()
        led = {
            name: sum(partition.leader >= 0 for partition in listed[name].partitions.values())
            for name in topics
            if name in listed
        }
        return [name for name, count in topics.items() if led.get(name, 0) < count]

    def _listed(self) -> Mapping[str, TopicMetadata]:
        try:
            topics: Mapping[str, TopicMetadata] = self._client.list_topics(
                timeout=self._within.total_seconds()
            ).topics
            return topics
        except KafkaException as problem:
            raise self._refusal(problem, "list its topics") from None

    def _value_of(self, future: Future[Value], what: str) -> Value:
        try:
            return future.result(self._within.total_seconds())
        except KafkaException as problem:
            raise self._refusal(problem, what) from None
        except TimeoutError:
            message = f"{self._name} did not {what}: no answer in time."
            raise LabError(message) from None

    def _refusal(self, problem: KafkaException, what: str) -> LabError:
        error = problem.args[0]
        reason = error.str() if isinstance(error, KafkaError) else str(error)
        return LabError(f"{self._name} did not {what}: {reason}")
