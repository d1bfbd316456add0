"""Apache Kafka for the lab: brokers in KRaft mode that can be killed, and come back with what they acknowledged.

The server is installed once (``python -m testyard lab install kafka``). Each broker is a process that is also a
controller of the cluster; a guard owns it and ends it when this process ends, however it ends.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

from testyard.core.deadline import Deadline
from testyard.core.redact import secrets_in_use
from testyard.lab.children import new_directory
from testyard.lab.lifetime import Startable
from testyard.lab.servers.certificates import CertificateAuthority, ClientFiles
from testyard.lab.servers.kafka_admin import KafkaAdmin
from testyard.lab.servers.kafka_broker import KafkaBroker, KafkaError, PortTakenError
from testyard.lab.servers.kafka_install import Installation, installed_kafka
from testyard.lab.servers.kafka_settings import HOST, MOST_REPLICAS, Account, BrokerPlan, Listener
from testyard.lab.servers.postgresql import free_port

START_TIMEOUT = timedelta(seconds=60)
SHUT_DOWN_TIMEOUT = timedelta(seconds=15)
START_ATTEMPTS = 5
HEAP_MEGABYTES = 256
USER = "testyard"
CLUSTER_NAME = "The lab's Kafka"


class KafkaCluster(Startable):
    """Brokers 1 to ``brokers`` on loopback ports, each of which it keeps for as long as the cluster lives.

    Topics are replicated to three brokers where there are as many, and a record that was acknowledged with
    ``acks=all`` is on two of them. Topics are not created by asking for them.

    Args:
        brokers: How many: one is enough for a crash that loses nothing, three for one that clients hardly notice.
        listeners: What clients are offered beside ``PLAINTEXT``.
        settings: Properties of the brokers instead of the lab's, or beside them.
        heap_megabytes: The most memory that a broker's objects may take; its process has about 120 MB more.
        place: The directory in which each broker makes one of its own; None is the temporary directory.
        new_class_archive: A file that a broker writes the classes in use to when it is shut down.

    Example:
        >>> with KafkaCluster(listeners=[Listener.SASL_SSL]) as kafka:        # doctest: +SKIP
        ...     kafka.create_topic("orders", partitions=6)
        ...     kafka.take_broker_down(2)
        ...     kafka.bring_broker_up(2)
    """

    def __init__(
        self,
        brokers: int = 3,
        *,
        listeners: Iterable[Listener] = (),
        settings: Mapping[str, str] | None = None,
        heap_megabytes: int = HEAP_MEGABYTES,
        place: Path | None = None,
        new_class_archive: Path | None = None,
    ) -> None:
        if brokers < 1:
            message = f"A Kafka cluster has at least one broker, not {brokers}."
            raise KafkaError(message)
        self.brokers = tuple(range(1, brokers + 1))
        self.account = Account(USER, secrets.token_urlsafe(24))
        self._listeners = tuple(dict.fromkeys([Listener.PLAINTEXT, *listeners]))
        self._settings = dict(settings or {})
        self._heap_megabytes = heap_megabytes
        self._place = place
        self._new_class_archive = new_class_archive
        self._running: dict[int, KafkaBroker] = {}
        self._client_files: ClientFiles | None = None

    def start(self, within: timedelta = START_TIMEOUT) -> None:
        """Start the brokers and wait until they serve; after a kill, those that are down, with the data they had.

        Args:
            within: Give up after this time.

        Raises:
            LabError: Kafka or Java is missing (says the command that helps), or a broker does not serve in time;
                then nothing is left running.
        """
        if self._running:
            self.up(within)
            return
        installation, deadline = installed_kafka(), Deadline(within)
        secrets_in_use.add(self.account.password)
        for attempt in range(1, START_ATTEMPTS + 1):
            try:
                self._start_new(installation, deadline)
            except PortTakenError:
                self.stop()
                if attempt == START_ATTEMPTS:
                    raise
            except BaseException:
                self.stop()
                raise
            else:
                return

    def stop(self) -> None:
        """End the brokers and remove their directories; safe to call again."""
        brokers, self._running = self._running, {}
        self._client_files = None
        for broker in brokers.values():
            broker.close()

    @property
    def bootstrap_servers(self) -> str:
        """Where clients connect to first, without TLS and SASL: ``127.0.0.1:port,…``, by the brokers' ids."""
        return self.bootstrap_servers_of(Listener.PLAINTEXT)

    def bootstrap_servers_of(self, listener: Listener) -> str:
        """Where clients of one kind connect to first: ``127.0.0.1:port,…``, by the brokers' ids.

        Raises:
            KafkaError: The cluster does not run, or was not told to offer it.
        """
        if listener not in self._listeners:
            message = f"{CLUSTER_NAME} has no listener {listener.name}: name it when the cluster is made."
            raise KafkaError(message)
        return ",".join(f"{HOST}:{broker.plan.ports[listener]}" for broker in self._started().values())

    @property
    def client_files(self) -> ClientFiles:
        """What clients need for TLS; gone when the cluster stops.

        Raises:
            KafkaError: The cluster does not run, or has no listener with TLS.
        """
        if self._client_files is None:
            message = f"{CLUSTER_NAME} has no listener with TLS, or is not running."
            raise KafkaError(message)
        return self._client_files

    @property
    def pids(self) -> dict[int, int]:
        """The process ids of the brokers that run, by broker."""
        return {number: broker.pid for number, broker in self._running.items() if broker.is_running}

    def log_of(self, broker: int) -> str:
        """What a broker logged so far."""
        return self._broker(broker).log

    def take_broker_down(self, broker: int) -> None:
        """Kill a broker (SIGKILL) and wait until its process is gone; nothing when it is.

        Raises:
            KafkaError: There is no such broker.
        """
        self._broker(broker).kill()

    def bring_broker_up(self, broker: int, within: timedelta = START_TIMEOUT) -> None:
        """Start a broker again, on its ports and its data, and wait until it serves.

        Args:
            broker: The broker's id.
            within: Give up after this time.

        Raises:
            KafkaError: There is no such broker, or it does not serve in time.
        """
        self._bring_up([broker], within)

    def shut_broker_down(self, broker: int, within: timedelta = SHUT_DOWN_TIMEOUT) -> bool:
        """Let a broker hand over what it leads, and end; ``bring_broker_up`` starts it again.

        Args:
            broker: The broker's id.
            within: Kill it after this time.

        Returns:
            Whether it has ended by itself.

        Raises:
            KafkaError: There is no such broker.
        """
        return self._broker(broker).shut_down(within)

    def suspend_broker(self, broker: int) -> None:
        """Let a broker hang (SIGSTOP): clients can connect, but get no answer.

        Raises:
            KafkaError: There is no such broker.
        """
        self._broker(broker).suspend()

    def resume_broker(self, broker: int) -> None:
        """Let a broker that hangs go on (SIGCONT).

        Raises:
            KafkaError: There is no such broker.
        """
        self._broker(broker).resume()

    def down(self) -> None:
        """Kill every broker (SIGKILL)."""
        for broker in self._started().values():
            broker.kill()

    def up(self, within: timedelta = START_TIMEOUT) -> None:
        """Start every broker that is down again, on its ports and its data, and wait until all serve.

        Args:
            within: Give up after this time.

        Raises:
            KafkaError: One does not serve in time.
        """
        self._bring_up(self._started(), within)

    def create_topic(self, name: str, partitions: int = 3, replication: int | None = None) -> None:
        """Create a topic, and wait until every partition has a leader.

        Args:
            name: The topic's name.
            partitions: How many.
            replication: On how many brokers each is; by default on three, or on all where there are fewer.

        Raises:
            LabError: There is such a topic already.
        """
        self.create_topics({name: partitions}, replication)

    def create_topics(self, partitions: Mapping[str, int], replication: int | None = None) -> None:
        """Create several topics, and wait until every partition has a leader.

        Args:
            partitions: The topics' names with their numbers of partitions.
            replication: On how many brokers each is; by default on three, or on all where there are fewer.

        Raises:
            LabError: There is one of them already.
        """
        self._admin().create_topics(partitions, replication or min(len(self.brokers), MOST_REPLICAS))

    def delete_topic(self, name: str) -> None:
        """Remove a topic with all that is in it.

        Raises:
            LabError: There is no such topic.
        """
        self._admin().delete_topic(name)

    def _start_new(self, installation: Installation, deadline: Deadline) -> None:
        cluster, authority = _new_cluster_id(), CertificateAuthority()
        controllers = {number: free_port() for number in self.brokers}
        for number in self.brokers:
            plan = BrokerPlan(
                number=number,
                controllers=controllers,
                ports={listener: free_port() for listener in self._listeners},
                account=self.account,
                directory=new_directory(self._place),
                settings=self._settings,
            )
            broker = self._running[number] = KafkaBroker(
                plan, installation, self._heap_megabytes, new_class_archive=self._new_class_archive
            )
            if any(listener.has_tls for listener in self._listeners):
                broker.write_certificates(
                    authority.certificate, authority.issue(f"broker {number}", [HOST, "localhost"])
                )
            broker.begin_format(cluster)
        for broker in self._running.values():
            broker.finish_format(deadline)
        self._bring_up(self._running, deadline.remaining)
        if any(listener.has_tls for listener in self._listeners):
            self._client_files = authority.write_client_files(self._running[1].plan.directory)
        if any(listener.has_sasl for listener in self._listeners):
            self._admin().create_account(self.account)

    def _bring_up(self, numbers: Iterable[int], within: timedelta) -> None:
        deadline = Deadline(within)
        brokers = [self._broker(number) for number in numbers]
        for broker in brokers:
            broker.begin()
        for broker in brokers:
            broker.wait_until_started(deadline)

    def _broker(self, number: int) -> KafkaBroker:
        brokers = self._started()
        if number not in brokers:
            message = f"{CLUSTER_NAME} has no broker {number}, expected one of {', '.join(map(str, brokers))}."
            raise KafkaError(message)
        return brokers[number]

    def _started(self) -> dict[int, KafkaBroker]:
        if not self._running:
            message = f"{CLUSTER_NAME} is not running: start it first."
            raise KafkaError(message)
        return self._running

    def _admin(self) -> KafkaAdmin:
        return KafkaAdmin(self.bootstrap_servers, name=CLUSTER_NAME)


class KafkaServer(KafkaCluster):
    """A cluster of one broker.

    Args:
        listeners: What clients are offered beside ``PLAINTEXT``.
        settings: Properties of the broker instead of the lab's, or beside them.
        heap_megabytes: The most memory that its objects may take; its process has about 120 MB more.
        place: The directory in which it makes one of its own; None is the temporary directory.

    Example:
        >>> with KafkaServer() as kafka:                                      # doctest: +SKIP
        ...     kafka.kill()
        ...     kafka.start()
    """

    def __init__(
        self,
        *,
        listeners: Iterable[Listener] = (),
        settings: Mapping[str, str] | None = None,
        heap_megabytes: int = HEAP_MEGABYTES,
        place: Path | None = None,
    ) -> None:
        super().__init__(1, listeners=listeners, settings=settings, heap_megabytes=heap_megabytes, place=place)

    @property
    def pid(self) -> int:
        """The id of its process; another one after each start."""
        return self._broker(1).pid

    @property
    def log(self) -> str:
        """What it logged so far."""
        return self.log_of(1)

    def kill(self) -> None:
        """End it like a crash (SIGKILL); ``start`` starts it again on the same ports and data."""
        self.take_broker_down(1)


def _new_cluster_id() -> str:
    """A UUID as Kafka writes it; one that begins with a dash would look like an option."""
    while True:
        text = base64.urlsafe_b64encode(uuid4().bytes).decode().rstrip("=")
        if not text.startswith("-"):
            return text
