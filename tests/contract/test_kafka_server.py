"""The lab's Apache Kafka is real: it is killed and loses nothing it acknowledged, and nothing survives it."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaConnectionError, KafkaError
from kafka_server_support import (
    ANSWER_SECONDS,
    NEEDS_KAFKA,
    Load,
    consumer,
    java_processes,
    lost_and_doubled,
    producer,
    stored,
)
from kafka_support import eventually
from postgresql_support import still_alive
from testyard.core.deadline import Deadline, wait_until
from testyard.core.redact import secrets_in_use
from testyard.lab.children import LabError
from testyard.lab.servers.kafka import KafkaCluster, KafkaServer
from testyard.lab.servers.kafka_settings import Listener
from testyard.lab.waiting import elapse

pytestmark = NEEDS_KAFKA
MEMBER_SETTINGS = {"session_timeout_ms": 2000, "heartbeat_interval_ms": 200, "metadata_max_age_ms": 1000}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the broker's directory is."""
    return tmp_path_factory.mktemp("kafka")


@pytest.fixture(scope="module")
def server(place: Path) -> Iterator[KafkaServer]:
    """A broker with every kind of listener, which tests may kill but must start again."""
    with KafkaServer(listeners=list(Listener), place=place) as server:
        yield server


@pytest.fixture
def topic(server: KafkaServer) -> str:
    """A new topic with two partitions."""
    name = f"orders-{uuid.uuid4().hex[:8]}"
    server.create_topic(name, partitions=2)
    return name


# ---- what runs


def test_what_is_published_is_read_again(server: KafkaServer, topic: str) -> None:
    async def scenario() -> None:
        async with producer(server.bootstrap_servers) as publisher:
            answer = await publisher.send_and_wait(topic, b"value", key=b"key", headers=[("trace", b"1")])
            assert answer.offset == 0
        async with consumer(server.bootstrap_servers, topic, group_id=topic) as member:
            record = await asyncio.wait_for(member.getone(), ANSWER_SECONDS)
        assert (record.key, record.value, record.headers) == (b"key", b"value", (("trace", b"1"),))

    asyncio.run(scenario())


def test_it_listens_on_loopback_only_and_its_directory_is_private(server: KafkaServer, place: Path) -> None:
    sockets = psutil.Process(server.pid).net_connections()
    listening = {each.laddr for each in sockets if each.status == psutil.CONN_LISTEN}
    assert len(listening) == len(Listener) + 1, "and the controller"
    assert {address.ip for address in listening} == {"127.0.0.1"}
    (directory,) = place.iterdir()
    assert directory.stat().st_mode & 0o777 == 0o700


def test_no_password_is_on_a_command_line_or_in_the_log(server: KafkaServer) -> None:
    password = server.account.password
    assert secrets_in_use.mask(password) == "***"
    commands = [" ".join(process.cmdline()) for process in java_processes(os.getpid())]
    assert any("server.arguments" in command for command in commands)
    assert password not in "\n".join(commands)
    assert "Kafka Server started" in server.log
    assert password not in server.log
    assert password not in repr(server.account)


def test_its_memory_is_bounded(server: KafkaServer) -> None:
    assert psutil.Process(server.pid).memory_info().rss < 400_000_000


# ---- what the mock cluster has not


def test_topics_are_created_described_and_deleted(server: KafkaServer) -> None:
    async def scenario() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=server.bootstrap_servers)

        async def has_its_partitions() -> bool:
            (described,) = await admin.describe_topics(["administered"])
            return len(described["partitions"]) == 4

        async def is_gone() -> bool:
            return "administered" not in await admin.list_topics()

        await admin.start()
        try:
            await admin.create_topics([NewTopic("administered", num_partitions=4, replication_factor=1)])
            # The broker knows of either as soon as its controller has told it.
            # The broker knows of either as soon as its controller has told it.
            await eventually(has_its_partitions)
            await admin.delete_topics(["administered"])
            await eventually(is_gone)
        finally:
            await admin.close()

    asyncio.run(scenario())


def test_topics_of_the_lab_are_created_once_and_deleted(server: KafkaServer, topic: str) -> None:
    with pytest.raises(LabError, match=f"^The lab's Kafka did not create the topic '{topic}': .*already exists"):
        server.create_topic(topic)
    with pytest.raises(LabError, match="did not create the topic 'x': Unable to replicate"):
        server.create_topic("x", replication=3)
    server.delete_topic(topic)
    with pytest.raises(LabError, match=f"did not delete the topic '{topic}': "):
        server.delete_topic(topic)
    server.create_topics({})


def test_a_topic_is_not_created_by_asking_for_it(server: KafkaServer) -> None:
    async def scenario() -> None:
        async with producer(server.bootstrap_servers, request_timeout_ms=1000) as publisher:
            with pytest.raises(KafkaError):
                await publisher.send_and_wait("never-created", b"value")

    asyncio.run(scenario())


def test_two_members_share_the_partitions_and_one_takes_over(server: KafkaServer, topic: str) -> None:
    async def scenario() -> None:
        async with AsyncExitStack() as stack:
            settings = {"group_id": topic, **MEMBER_SETTINGS}
            first, second = [
                await stack.enter_async_context(consumer(server.bootstrap_servers, topic, **settings))
                for _ in range(2)
            ]
            await until(lambda: sizes(first, second) == [1, 1], first, second)
            await second.stop()
            await until(lambda: sizes(first) == [2], first)

    asyncio.run(scenario())


def sizes(*members: AIOKafkaConsumer) -> list[int]:
    return [len(member.assignment()) for member in members]


async def until(holds: Callable[[], bool], *members: AIOKafkaConsumer) -> None:
    async with asyncio.timeout(ANSWER_SECONDS):
        while not holds():
            await asyncio.gather(*(member.getmany(timeout_ms=50) for member in members))


def test_an_aborted_transaction_is_not_read_and_offsets_belong_to_it(server: KafkaServer, topic: str) -> None:
    async def scenario() -> None:
        partition = TopicPartition(topic, 0)
        async with producer(server.bootstrap_servers, transactional_id=topic) as publisher:
            async with publisher.transaction():
                await publisher.send(topic, b"committed", partition=0)
                await publisher.send_offsets_to_transaction({partition: 7}, topic)
            await publisher.begin_transaction()
            await publisher.send(topic, b"aborted", partition=0)
            await publisher.send_offsets_to_transaction({partition: 99}, topic)
            await publisher.abort_transaction()
        servers = server.bootstrap_servers
        assert await stored(servers, topic, isolation_level="read_committed") == [b"committed"]
        assert await stored(servers, topic, isolation_level="read_uncommitted") == [b"committed", b"aborted"]
        async with consumer(servers, group_id=topic) as member:
            member.assign([partition])
            assert await member.committed(partition) == 7

    asyncio.run(scenario())


def test_offsets_are_found_by_time(server: KafkaServer, topic: str) -> None:
    async def scenario() -> None:
        partition = TopicPartition(topic, 0)
        async with producer(server.bootstrap_servers) as publisher:
            for milliseconds in (1000, 2000, 3000):
                await publisher.send_and_wait(topic, b"value", partition=0, timestamp_ms=milliseconds)
        async with consumer(server.bootstrap_servers, topic) as reader:
            found = await reader.offsets_for_times({partition: 1500})
            assert (found[partition].offset, found[partition].timestamp) == (1, 2000)
            assert await reader.offsets_for_times({partition: 3001}) == {partition: None}

    asyncio.run(scenario())


# ---- TLS and SASL


def tls(server: KafkaServer, *, own_certificate: bool = False) -> ssl.SSLContext:
    files = server.client_files
    context = ssl.create_default_context(cafile=files.authority)
    if own_certificate:
        context.load_cert_chain(files.certificate, files.key)
    return context


def login(server: KafkaServer, mechanism: str, password: str | None = None) -> dict[str, object]:
    return {
        "sasl_mechanism": mechanism,
        "sasl_plain_username": server.account.name,
        "sasl_plain_password": password or server.account.password,
    }


async def publish_by(server: KafkaServer, listener: Listener, topic: str, **settings: object) -> None:
    servers = server.bootstrap_servers_of(listener)
    async with producer(servers, security_protocol=listener.protocol, **settings) as publisher:
        await publisher.send_and_wait(topic, listener.name.encode(), partition=0)


@pytest.mark.parametrize("listener", [Listener.SSL, Listener.MUTUAL_SSL])
def test_tls_is_spoken(server: KafkaServer, topic: str, listener: Listener) -> None:
    context = tls(server, own_certificate=listener is Listener.MUTUAL_SSL)
    asyncio.run(publish_by(server, listener, topic, ssl_context=context))
    assert asyncio.run(stored(server.bootstrap_servers, topic)) == [listener.name.encode()]


@pytest.mark.parametrize("listener", [Listener.SASL_PLAINTEXT, Listener.SASL_SSL])
@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_sasl_lets_the_account_in(server: KafkaServer, topic: str, listener: Listener, mechanism: str) -> None:
    context = {"ssl_context": tls(server)} if listener.has_tls else {}
    asyncio.run(publish_by(server, listener, topic, **context, **login(server, mechanism)))
    assert asyncio.run(stored(server.bootstrap_servers, topic)) == [listener.name.encode()]


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512"])
def test_sasl_refuses_a_wrong_password(server: KafkaServer, topic: str, mechanism: str) -> None:
    with pytest.raises(KafkaConnectionError):
        asyncio.run(publish_by(server, Listener.SASL_PLAINTEXT, topic, **login(server, mechanism, "wrong")))


@pytest.mark.parametrize("listener", [Listener.SSL, Listener.MUTUAL_SSL])
def test_tls_refuses_who_is_not_trusted(server: KafkaServer, topic: str, listener: Listener) -> None:
    context = ssl.create_default_context() if listener is Listener.SSL else tls(server)
    with pytest.raises(KafkaConnectionError):
        asyncio.run(publish_by(server, listener, topic, ssl_context=context))


# ---- kills


def test_a_killed_broker_keeps_what_it_acknowledged_and_what_was_committed(server: KafkaServer) -> None:
    server.create_topic("killed", partitions=4)
    before = server.bootstrap_servers, server.pid

    async def scenario() -> tuple[Load, list[bytes]]:
        servers = server.bootstrap_servers
        async with producer(servers) as publisher:
            load = Load(publisher, "killed", per_second=1000)
            publishing = asyncio.create_task(load.publish())
            await load.at_least(500)
            async with consumer(servers, "killed", group_id="killed") as member:
                await asyncio.wait_for(member.getone(), ANSWER_SECONDS)
                await member.commit({TopicPartition("killed", 0): 3})
            for _ in range(3):
                await load.at_least(200)
                await asyncio.to_thread(server.kill)
                await asyncio.to_thread(server.start)
                await load.at_least(200)
            load.stop()
            await publishing
        async with consumer(servers, group_id="killed") as member:
            member.assign([TopicPartition("killed", 0)])
            assert await member.committed(TopicPartition("killed", 0)) == 3
        return load, await stored(servers, "killed")

    load, found = asyncio.run(scenario())
    assert load.refused == []
    assert len(load.acknowledged) >= 1700
    assert lost_and_doubled(load.acknowledged, found) == ([], [])
    assert (server.bootstrap_servers, server.pid != before[1]) == (before[0], True)


@pytest.mark.slow
def test_three_brokers_lose_nothing_when_each_is_killed_under_load() -> None:
    async def scenario(cluster: KafkaCluster) -> tuple[Load, list[bytes]]:
        async with producer(cluster.bootstrap_servers) as publisher:
            load = Load(publisher, "events", per_second=1000)
            publishing = asyncio.create_task(load.publish())
            for broker in cluster.brokers:
                await load.at_least(500)
                await asyncio.to_thread(cluster.take_broker_down, broker)
                # The other two go on without it.
                await load.at_least(500)
                await asyncio.to_thread(cluster.bring_broker_up, broker)
            load.stop()
            await publishing
        return load, await stored(cluster.bootstrap_servers, "events")

    with KafkaCluster(3) as cluster:
        cluster.create_topic("events", partitions=6)
        load, found = asyncio.run(scenario(cluster))
        assert len(cluster.pids) == 3
    assert load.refused == []
    assert len(load.acknowledged) >= 3000
    assert lost_and_doubled(load.acknowledged, found) == ([], [])


def test_a_broker_that_hangs_answers_when_it_goes_on(server: KafkaServer, topic: str) -> None:
    async def scenario() -> None:
        async with producer(server.bootstrap_servers) as publisher:
            await publisher.send_and_wait(topic, b"before")
            server.suspend_broker(1)
            try:
                answer = await publisher.send(topic, b"during")
                await elapse(timedelta(milliseconds=300))
                assert not answer.done()
            finally:
                server.resume_broker(1)
            await asyncio.wait_for(answer, ANSWER_SECONDS)

    asyncio.run(scenario())


def test_a_broker_that_is_shut_down_ends_by_itself_and_comes_back(server: KafkaServer, topic: str) -> None:
    try:
        assert server.shut_broker_down(1)
        assert server.pids == {}
        assert "Terminating process due to signal SIGTERM" in server.log
    finally:
        server.bring_broker_up(1)
    asyncio.run(publish_by(server, Listener.PLAINTEXT, topic))


# ---- what is left


def directories_of(process: int) -> list[Path]:
    return list(Path(tempfile.gettempdir()).glob(f"testyard-{process}-*"))


OWNER = """
import sys
from testyard.lab.servers.kafka import KafkaServer
server = KafkaServer()
server.start()
print("started", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_nothing_survives_the_process_that_started_it(number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, "1"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"started\n"
        children = java_processes(owner.pid)
        assert {"java"} < {process.name() for process in children}
        assert len(directories_of(owner.pid)) == 1
        owner.send_signal(number)
        owner.wait(ANSWER_SECONDS)
    assert still_alive(children) == []
    wait_until(
        lambda: directories_of(owner.pid), lambda it: it == [], Deadline(timedelta(seconds=5)), "no directory"
    )


def test_a_stop_leaves_nothing_also_when_the_guard_was_killed() -> None:
    with KafkaServer() as server:
        processes = [process for process in java_processes(os.getpid()) if process.pid == server.pid]
        guard = processes[0].parent()
        assert guard is not None
        directory = Path(guard.children()[0].cwd())
        guard.kill()
        with pytest.raises(LabError, match=r"^Broker 1 of the lab's Kafka is gone: who guards it was killed\.$"):
            server.kill()
    assert still_alive([guard, *processes]) == []
    assert not directory.exists()


# ---- what goes wrong


def test_what_a_broker_says_last_is_told() -> None:
    with pytest.raises(LabError, match="Invalid value many for configuration num"):
        KafkaServer(settings={"num.io.threads": "many"}).start()
    assert not any("kafka" in " ".join(process.cmdline()) for process in psutil.Process().children())


def test_a_start_that_takes_too_long_leaves_nothing() -> None:
    server = KafkaServer()
    before = set(directories_of(os.getpid()))
    with pytest.raises(LabError, match=r"^Broker 1 of the lab's Kafka was not prepared after 0\.\d+ s\.$"):
        server.start(timedelta(milliseconds=100))
    assert set(directories_of(os.getpid())) == before
    with pytest.raises(LabError, match=r"^The lab's Kafka is not running: start it first\.$"):
        server.kill()


def test_other_ports_are_taken_when_one_is_not_free(monkeypatch: pytest.MonkeyPatch, server: KafkaServer) -> None:
    taken = int(server.bootstrap_servers.split(":")[1])
    real = sys.modules["testyard.lab.servers.kafka"].free_port
    ports = iter([real(), taken])
    monkeypatch.setattr("testyard.lab.servers.kafka.free_port", lambda: next(ports, None) or real())
    with KafkaServer() as another:
        assert another.bootstrap_servers != server.bootstrap_servers
        assert next(ports, None) is None


def test_what_is_not_there_is_named(server: KafkaServer) -> None:
    with pytest.raises(LabError, match=r"^The lab's Kafka has no broker 2, expected one of 1\.$"):
        server.take_broker_down(2)
    plain = KafkaServer()
    with pytest.raises(LabError, match="has no listener SSL: name it when the cluster is made"):
        plain.bootstrap_servers_of(Listener.SSL)
    with pytest.raises(LabError, match="has no listener with TLS, or is not running"):
        _ = plain.client_files
    with pytest.raises(LabError, match="has at least one broker, not 0"):
        KafkaCluster(0)
