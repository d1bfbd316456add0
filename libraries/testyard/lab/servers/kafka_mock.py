"""A Kafka cluster in this process: librdkafka's mock brokers, which speak the real protocol on loopback sockets.

The brokers come with the ``confluent-kafka`` package and are reached by ctypes, as its Python interface does not
show them (librdkafka, ``rdkafka_mock.h``). They keep everything in memory, and are a stand-in in these ways:

- A partition keeps :data:`PARTITION_CAPACITY` bytes or :data:`PARTITION_BATCHES` record batches. Beyond that the
  oldest batches vanish without a word, although they were acknowledged: size the partitions with
  :func:`partitions_for`, and ask :meth:`MockKafka.dropped_records` at the end.
- A broker that is down is an outage, not a crash: what it has acknowledged is there when it is up again.
- A request for records that finds none is answered when its time is up (``fetch.max.wait.ms``), also when a record
  comes in the meantime: a consumer that asks for 500 ms gets its records up to 500 ms late. Ask for about 20 ms.
- A consumer group has one member: a second one is refused (``InvalidRequestError``). When a member has left, the
  next one is let in after its session timeout less one second (after all of it when it is one second or less);
  when it was killed, after about twice its session timeout. Session timeouts of about 1.5 s keep restarts short.
  The first member of a group is let in at once.
- A group whose members were cut off from all brokers for longer than their session timeout forgets them: the next
  commit fails (``CommitFailedError``), and the member joins again.
- There are no requests that create topics: topics are created by :meth:`MockKafka.create_topic`, or with
  :data:`AUTO_CREATED_PARTITIONS` partitions when a client asks for one that does not exist. Groups can neither be
  listed nor described.
- An idempotent producer is let in, but only transactional ones have their sequence numbers checked: a request that
  is repeated because its answer came too late is stored twice.
- What is published in a transaction cannot be read: the records come back with a wrong checksum.
- Neither TLS nor SASL. Offsets cannot be asked for by time.

What works as on real brokers: keys and headers, gzip, committed offsets and reading on from them, failed requests
that are repeated, records and groups after an outage.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import timedelta
from enum import IntEnum
from typing import Any

from testyard.core.deadline import Deadline
from testyard.lab.children import LabError
from testyard.lab.lifetime import Startable
from testyard.lab.servers.librdkafka import Handle, librdkafka

# What librdkafka 2.16 keeps of a partition (rdkafka_mock.c, rd_kafka_mock_partition_init): more is dropped.
PARTITION_CAPACITY = 5 * 1024 * 1024
PARTITION_BATCHES = 100_000
# What a run may put into one partition, so that keys that are spread unevenly do not reach the capacity.
PARTITION_SAFE_SIZE = 4_000_000
# What a topic gets that nobody created; librdkafka lets nobody choose it.
AUTO_CREATED_PARTITIONS = 4

ALL_BROKERS = -1
BETWEEN_COMMANDS = timedelta(milliseconds=1)


class Api(IntEnum):
    """Requests of the Kafka protocol, by their API key (protocol guide, "API keys")."""

    PRODUCE = 0
    FETCH = 1
    LIST_OFFSETS = 2
    METADATA = 3
    OFFSET_COMMIT = 8
    OFFSET_FETCH = 9
    FIND_COORDINATOR = 10
    JOIN_GROUP = 11
    HEARTBEAT = 12
    LEAVE_GROUP = 13
    SYNC_GROUP = 14
    API_VERSIONS = 18
    INIT_PRODUCER_ID = 22
    ADD_PARTITIONS_TO_TXN = 24
    ADD_OFFSETS_TO_TXN = 25
    END_TXN = 26
    TXN_OFFSET_COMMIT = 28


class Failure(IntEnum):
    """What a broker may answer (protocol guide, "Error codes"), or do instead of answering."""

    DISCONNECT = -195
    UNKNOWN_SERVER_ERROR = -1
    NONE = 0
    OFFSET_OUT_OF_RANGE = 1
    CORRUPT_MESSAGE = 2
    UNKNOWN_TOPIC_OR_PARTITION = 3
    LEADER_NOT_AVAILABLE = 5
    NOT_LEADER_OR_FOLLOWER = 6
    REQUEST_TIMED_OUT = 7
    MESSAGE_TOO_LARGE = 10
    COORDINATOR_LOAD_IN_PROGRESS = 14
    COORDINATOR_NOT_AVAILABLE = 15
    NOT_COORDINATOR = 16
    NOT_ENOUGH_REPLICAS = 19
    NOT_ENOUGH_REPLICAS_AFTER_APPEND = 20
    ILLEGAL_GENERATION = 22
    UNKNOWN_MEMBER_ID = 25
    REBALANCE_IN_PROGRESS = 27
    TOPIC_AUTHORIZATION_FAILED = 29
    GROUP_AUTHORIZATION_FAILED = 30
    POLICY_VIOLATION = 44
    OUT_OF_ORDER_SEQUENCE_NUMBER = 45
    INVALID_PRODUCER_EPOCH = 47
    KAFKA_STORAGE_ERROR = 56


def partitions_for(events: int, size_bytes: int, *, at_least: int = 3) -> int:
    """How many partitions a topic needs so that no event of a run is dropped.

    Args:
        events: How many events the run publishes to the topic, of all kinds.
        size_bytes: How many bytes one has, with key and headers.
        at_least: The least number.

    Example:
        >>> partitions_for(100_000, 800)
        24
    """
    # What a record has beside its contents, and every record could be a batch of its own.
    per_record = size_bytes + 100
    return max(
        at_least, math.ceil(events * per_record / PARTITION_SAFE_SIZE), math.ceil(events / PARTITION_BATCHES)
    )


class MockKafka(Startable):
    """Brokers 1 to ``brokers``, each on a free port of the loopback interface that it keeps while it is down.

    Args:
        brokers: How many.

    Example:
        >>> with MockKafka() as kafka:
        ...     kafka.create_topic("orders", partitions=6)
        ...     connect(kafka.bootstrap_servers)
    """

    def __init__(self, brokers: int = 3) -> None:
        self.brokers = tuple(range(1, brokers + 1))
        self._stack = ExitStack()
        self._cluster: int | None = None
        self._topics: dict[str, _Topic] = {}
        self._up: set[int] = set()
        self._settled = Deadline(timedelta())

    def start(self) -> None:
        """Open the brokers' ports; returns when clients can connect.

        Raises:
            LabError: librdkafka is not installed, or has no free port.
        """
        if self._cluster is not None:
            return
        library = librdkafka()
        with ExitStack() as stack:
            handle = stack.enter_context(Handle(library))
            cluster = library.rd_kafka_mock_cluster_new(handle.pointer, len(self.brokers))
            if not cluster:
                message = "The mock Kafka cluster could not be started: librdkafka gave no reason."
                raise LabError(message)
            stack.callback(library.rd_kafka_mock_cluster_destroy, cluster)
            # A real broker waits 3 s for more members (group.initial.rebalance.delay.ms).
            library.rd_kafka_mock_group_initial_rebalance_delay_ms(cluster, 0)
            self._stack = stack.pop_all()
        self._cluster = cluster
        self._up = set(self.brokers)

    def stop(self) -> None:
        """Close every connection and forget every record; safe to call again."""
        self._cluster = None
        self._topics.clear()
        self._stack.close()

    @property
    def bootstrap_servers(self) -> str:
        """Where clients connect to first: ``127.0.0.1:port,…``, one for each broker in the order of their ids."""
        bootstraps: bytes = librdkafka().rd_kafka_mock_cluster_bootstraps(self._running)
        return bootstraps.decode()

    @property
    def topics(self) -> dict[str, int]:
        """The topics that were created here, with their numbers of partitions."""
        return {name: len(topic.leaders) for name, topic in self._topics.items()}

    def create_topic(self, name: str, partitions: int = 3, replication: int = 3) -> None:
        """Create a topic; its partitions are led by the brokers in turn, the first by broker 1.

        Args:
            name: The topic's name.
            partitions: How many.
            replication: On how many brokers each is; those with more than one get another leader when a broker is
                taken down.

        Raises:
            LabError: There is such a topic already.
        """
        self._call("topic_create", f"create the topic {name!r}", name.encode(), partitions, replication)
        topic = _Topic(replicated=replication > 1, leaders=[])
        for partition in range(partitions):
            topic.leaders.append(self.brokers[partition % len(self.brokers)])
            self._lead(name, partition, topic.leaders[partition])
        self._topics[name] = topic

    def create_topics(self, partitions: Mapping[str, int], replication: int = 3) -> None:
        """Create several topics.

        Args:
            partitions: The topics' names with their numbers of partitions.
            replication: On how many brokers each partition is.

        Raises:
            LabError: There is one of them already.
        """
        for name, count in partitions.items():
            self.create_topic(name, count, replication)

    def delete_topic(self, name: str) -> None:
        """Remove a topic with all that is in it; a client that asks for it later creates it anew.

        Raises:
            LabError: There is no such topic.
        """
        self._call("topic_delete", f"delete the topic {name!r}", name.encode())
        self._topics.pop(name, None)

    def delete_records(self, topic: str, partition: int, before: int) -> None:
        """Let a partition begin at a later offset, as retention does.

        Args:
            topic: The topic.
            partition: Which of its partitions.
            before: The first offset that is left.

        Raises:
            LabError: There is no such partition or offset.
        """
        what = f"delete records of {topic!r} partition {partition} before offset {before}"
        self._call("partition_delete_records", what, topic.encode(), partition, ctypes.c_int64(before))

    def take_broker_down(self, broker: int) -> None:
        """Close a broker's connections and refuse new ones; what it has acknowledged is kept.

        Replicated partitions that it leads get another leader, if another broker is up. The groups that it
        coordinates do without, as there is no election of another coordinator: see :meth:`coordinate_group`.

        Raises:
            LabError: There is no such broker.
        """
        self._call("broker_set_down", f"take broker {broker} down", broker)
        self._up.discard(broker)
        self._elect()

    def bring_broker_up(self, broker: int) -> None:
        """Let a broker answer again, on the port that it had.

        Raises:
            LabError: There is no such broker.
        """
        self._call("broker_set_up", f"bring broker {broker} up", broker)
        self._up.add(broker)
        self._elect()

    def down(self) -> None:
        """Take all brokers down, with their leaders as they are."""
        self._call("broker_set_down", "take all brokers down", ALL_BROKERS)
        self._up.clear()

    def up(self) -> None:
        """Let all brokers answer again, on the ports that they had."""
        self._call("broker_set_up", "bring all brokers up", ALL_BROKERS)
        self._up.update(self.brokers)
        self._elect()

    def advertise(self, broker: int, host: str, port: int) -> None:
        """Let clients connect to a broker through something else, such as a proxy; it still listens where it did.

        Args:
            broker: The broker's id.
            host: What clients are told to connect to.
            port: The TCP port there.
        """
        librdkafka().rd_kafka_mock_broker_set_host_port(self._running, broker, host.encode(), port)

    def coordinate_group(self, group: str, broker: int) -> None:
        """Let a broker be the one that a consumer group answers to.

        Args:
            group: The group's id.
            broker: The broker's id.
        """
        what = f"let broker {broker} coordinate the group {group!r}"
        self._call("coordinator_set", what, b"group", group.encode(), broker)

    def fail_next(
        self, api: Api, *failures: Failure, broker: int | None = None, delay: timedelta = timedelta()
    ) -> None:
        """Let the next requests of a kind fail, the first with the first failure, the second with the second…

        A request that fails does nothing else: a failed produce request stores no record.

        Args:
            api: The kind of request, from whichever client.
            failures: What they are answered; ``Failure.NONE`` lets one pass.
            broker: Only those that reach this broker; None is any.
            delay: How much later the failures are answered; only with a broker.

        Raises:
            LabError: There is no such broker, or the delay has none.
        """
        if broker is None:
            if delay:
                message = "A delayed failure needs the broker that it comes from."
                raise LabError(message)
            codes = (ctypes.c_int * len(failures))(*failures)
            librdkafka().rd_kafka_mock_push_request_errors_array(self._running, api, len(failures), codes)
            return
        milliseconds = round(delay.total_seconds() * 1000)
        pairs = [ctypes.c_int(value) for failure in failures for value in (failure, milliseconds)]
        what = f"let broker {broker} fail"
        self._call("broker_push_request_error_rtts", what, broker, api, ctypes.c_size_t(len(failures)), *pairs)

    def fail_no_more(self, api: Api) -> None:
        """Forget the failures of a kind of request that have not happened yet; those of one broker stay.

        Args:
            api: The kind of request.
        """
        librdkafka().rd_kafka_mock_clear_request_errors(self._running, api)

    def slow_down(self, latency: timedelta, broker: int = ALL_BROKERS) -> None:
        """Let answers take longer; requests are still done at once, so that a client may give up on what was done.

        Args:
            latency: How much longer; zero ends it.
            broker: Which broker; by default all of them.

        Raises:
            LabError: There is no such broker.
        """
        self._call("broker_set_rtt", "slow down", broker, round(latency.total_seconds() * 1000))

    def dropped_records(self) -> dict[str, int]:
        """How many records are no longer there, by topic; only topics that were created here and lost some.

        Raises:
            LabError: A partition's leader does not answer.
        """
        library = librdkafka()
        dropped: dict[str, int] = {}
        with Handle(library, {"bootstrap.servers": self.bootstrap_servers}) as handle:
            for name, topic in self._topics.items():
                beginnings = (handle.beginning(name, partition) for partition in range(len(topic.leaders)))
                if lost := sum(beginnings):
                    dropped[name] = lost
        return dropped

    def _elect(self) -> None:
        """Give replicated partitions a leader that is up: the one that they were created with when it is."""
        for name, topic in self._topics.items():
            if not topic.replicated or not self._up:
                continue
            for partition, leader in enumerate(topic.leaders):
                first = self.brokers[partition % len(self.brokers)]
                wanted = first if first in self._up else min(self._up, key=lambda it: (it < first, it))
                if leader != wanted:
                    self._lead(name, partition, wanted)
                    topic.leaders[partition] = wanted

    def _lead(self, topic: str, partition: int, broker: int) -> None:
        what = f"let broker {broker} lead {topic!r} partition {partition}"
        self._call("partition_set_leader", what, topic.encode(), partition, broker)

    def _call(self, function: str, what: str, *arguments: Any) -> None:
        library = librdkafka()
        # A command that comes right after another one's answer may find the brokers' thread just going to sleep,
        # which does not notice it for a second.
        self._settled.pause()
        error = getattr(library, f"rd_kafka_mock_{function}")(self._running, *arguments)
        self._settled = Deadline(BETWEEN_COMMANDS)
        if error:
            message = f"The mock Kafka cluster could not {what}: {library.rd_kafka_err2str(error).decode()}."
            raise LabError(message)

    @property
    def _running(self) -> int:
        if self._cluster is None:
            message = "The mock Kafka cluster is not running: start it first."
            raise LabError(message)
        return self._cluster


class _Topic:
    """What is known of a topic.

    Args:
        replicated: Whether its partitions may get another leader.
        leaders: The broker of each partition.
    """

    def __init__(self, *, replicated: bool, leaders: list[int]) -> None:
        self.replicated = replicated
        self.leaders = leaders
