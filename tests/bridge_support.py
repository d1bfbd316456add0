"""The bridge's services in a test: brokers, short waits, and a service in this process or in its own."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

import httpx
import psycopg
import uvicorn
from aiokafka import AIOKafkaConsumer, TopicPartition
from fastapi import FastAPI
from psycopg.types.json import Jsonb
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route as HttpRoute
from testyard.core.deadline import Deadline
from testyard.lab.bridge.breaker import BreakerSettings
from testyard.lab.bridge.envelope import SigningKey
from testyard.lab.bridge.settings import (
    BOOTSTRAP_VARIABLE,
    DATABASE_VARIABLE,
    BusSettings,
    DatabaseSettings,
    Secrets,
    Settings,
)
from testyard.lab.bridge.tables import migrate
from testyard.lab.bridge.topics import Route, dead_letter_topic
from testyard.lab.children import wait_for_the_end
from testyard.lab.servers.fault_proxy import FaultProxy
from testyard.lab.servers.kafka_mock import MockKafka
from testyard.lab.servers.loop_thread import LOOPBACK, LoopThread, loopback_listener
from testyard.lab.waiting import elapse

Value = TypeVar("Value")
CreateApp = Callable[[Settings, Secrets], FastAPI]

ENVIRONMENT = "test"
PATIENCE = timedelta(seconds=20)
# Every test has brokers of its own: three partitions are enough for what it publishes.
PARTITIONS = 3
BREAKER = BreakerSettings(failures=3, open_for=timedelta(milliseconds=300), successes=1)


@contextmanager
def running_bus(environment: str = ENVIRONMENT) -> Iterator[MockKafka]:
    """Three brokers with every topic of the services, and the dead letters of each."""
    with MockKafka(brokers=3) as kafka:
        for route in Route:
            topic = route.topic(environment)
            kafka.create_topic(topic, PARTITIONS)
            kafka.create_topic(dead_letter_topic(topic), 1)
        yield kafka


def migrated(url: str) -> str:
    """The URL of a database that has the services' tables now."""
    asyncio.run(migrate(url))
    return url


def short_settings(bootstrap_servers: str, directory: Path, **sections: Any) -> Settings:
    """Settings with short waits.

    Args:
        bootstrap_servers: Kafka.
        directory: Where events wait; should be the test's own.
        sections: Whole sections, or values, that are to be different.
    """
    given: dict[str, Any] = {
        "environment": ENVIRONMENT,
        "bootstrap_servers": bootstrap_servers,
        "outbox_directory": directory,
        "bus": BusSettings(
            request_timeout=timedelta(seconds=1), breaker=BREAKER, look_after=timedelta(milliseconds=100)
        ),
        "database": DatabaseSettings(timeout=timedelta(seconds=2), breaker=BREAKER),
    }
    return Settings.model_validate({**given, **sections})


def secrets_of(url: str, signing_key: str | None = None) -> Secrets:
    """The secrets of a service on a database."""
    return Secrets(
        database_url=SecretStr(url), signing_key=SigningKey(signing_key) if signing_key is not None else None
    )


@asynccontextmanager
async def called_here(application: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A service that is called in this process, without any socket."""
    transport = httpx.ASGITransport(application, client=("127.0.0.1", 1))
    async with (
        application.router.lifespan_context(application),
        httpx.AsyncClient(transport=transport, base_url="http://service") as client,
    ):
        yield client


@asynccontextmanager
async def served(application: Any, *, with_lifespan: bool = True, port: int = 0) -> AsyncIterator[str]:
    """The URL of an application that is served on the running loop."""
    listener = loopback_listener(port)
    server = uvicorn.Server(
        uvicorn.Config(
            application,
            lifespan="on" if with_lifespan else "off",
            ws="none",
            access_log=False,
            log_config=None,
            timeout_graceful_shutdown=1,
        )
    )
    serving = asyncio.create_task(server._serve([listener]))
    try:
        await until(lambda: server.started or serving.done(), "the application is served")
        host, port = listener.getsockname()[:2]
        yield f"http://{host}:{port}"
    finally:
        server.should_exit = True
        await serving


class HealthDouble(LoopThread):
    """Something that only says how it is, at ``/health`` and everywhere else.

    Attributes:
        port: Where it answers; 0 before ``start``, and then always the same one.
        asked: How often it was.
    """

    def __init__(self) -> None:
        super().__init__("health double")
        self.port = 0
        self.asked = 0
        self._said: tuple[dict[str, Any], int] = ({"status": "healthy"}, 200)

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{LOOPBACK}:{self.port}"

    def tell(self, status: str, http_status: int = 200) -> None:
        """Let it say so from now on."""
        self._said = ({"status": status}, http_status)

    @asynccontextmanager
    async def _serving(self) -> AsyncIterator[None]:
        async def say(_: Request) -> Response:
            self.asked += 1
            return JSONResponse(*self._said)

        application = Starlette(routes=[HttpRoute("/{path:path}", say)])
        async with served(application, with_lifespan=False, port=self.port) as url:
            self.port = int(url.rpartition(":")[2])
            yield


@dataclass
class ServiceProcess:
    """A started service that takes requests.

    Attributes:
        process: The process.
        url: Where it answers.
    """

    process: subprocess.Popen[bytes]
    url: str


@contextmanager
def service_process(
    module: str, settings: Settings, url: str | None, directory: Path, *, stderr: int | None = None
) -> Iterator[ServiceProcess]:
    """A service as a process on a free port; it ends with its standard input, or when it is killed.

    Args:
        module: Such as ``testyard.lab.bridge.stamping``.
        settings: Of all services.
        url: The database; None for a service that has none.
        directory: Where its settings are written.
        stderr: As ``Popen`` takes it.
    """
    path = directory / f"{module.rpartition('.')[2]}.json"
    path.write_text(settings.model_dump_json(), encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if name != BOOTSTRAP_VARIABLE}
    if url is not None:
        environment[DATABASE_VARIABLE] = url
    command = [sys.executable, "-m", module, "--settings", str(path), "--end-with-stdin"]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr
    ) as process:
        try:
            assert process.stdout is not None
            yield ServiceProcess(process, process.stdout.readline().decode().strip())
        finally:
            assert process.stdin is not None
            process.stdin.close()
            wait_for_the_end(process)


@dataclass(frozen=True)
class Event:
    """One event as a consumer sees it.

    Attributes:
        key: The record's key.
        envelope: The decoded envelope.
        headers: The record's headers.
        partition: Where it is.
        offset: Where it is there.
    """

    key: str
    envelope: dict[str, Any]
    headers: Mapping[str, str]
    partition: int
    offset: int

    @property
    def payload(self) -> dict[str, Any]:
        """What it tells."""
        payload: dict[str, Any] = self.envelope["payload"]
        return payload


async def events_of(
    kafka: MockKafka, route: Route, at_least: int = 1, environment: str = ENVIRONMENT
) -> list[Event]:
    """Read what was published from the beginning, until there are so many, and all that is there then.

    Args:
        kafka: The brokers.
        route: What sort of event.
        at_least: How many are waited for.
        environment: The first part of the topic's name.
    """
    topic = route.topic(environment)
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap_servers, fetch_max_wait_ms=20)
    await consumer.start()
    try:
        partitions = [TopicPartition(topic, number) for number in range(kafka.topics[topic])]
        consumer.assign(partitions)
        await consumer.seek_to_beginning()
        events: list[Event] = []
        async with asyncio.timeout(PATIENCE.total_seconds()):
            while len(events) < at_least or await _is_behind(consumer, partitions):
                for records in (await consumer.getmany(timeout_ms=100)).values():
                    events += [
                        Event(
                            record.key.decode(),
                            json.loads(record.value),
                            {name: value.decode() for name, value in record.headers},
                            record.partition,
                            record.offset,
                        )
                        for record in records
                    ]
        return events
    finally:
        await consumer.stop()


async def _is_behind(consumer: AIOKafkaConsumer, partitions: list[TopicPartition]) -> bool:
    ends = await consumer.end_offsets(partitions)
    return any([await consumer.position(it) < ends[it] for it in partitions])


async def until(holds: Callable[[], bool], what: str, within: timedelta = PATIENCE) -> None:
    """Wait for a condition on the running loop."""
    deadline = Deadline(within)
    while not holds():
        assert not deadline.expired, f"not within {within.total_seconds():g} s: {what}"
        await elapse(timedelta(milliseconds=2))


def proxy_to(url: str) -> FaultProxy:
    """A proxy before a service."""
    parts = urlsplit(url)
    return FaultProxy(parts.hostname or "", parts.port or 0)


@contextmanager
def behind_a_proxy(url: str) -> Iterator[tuple[str, FaultProxy]]:
    """A database's URL through a proxy, whose faults end with the test."""
    with proxy_to(url) as proxy:
        parts = urlsplit(url)
        through = parts._replace(netloc=f"{parts.netloc.rpartition('@')[0]}@{proxy.host}:{proxy.port}")
        yield urlunsplit(through), proxy
        proxy.heal()


def rows(url: str, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
    """What stands in the database."""
    with psycopg.connect(url) as connection:
        return connection.execute(statement, parameters).fetchall()


INSERT_STAMP = """
    INSERT INTO metadata_stamps (id, file_hash, file_path, file_size, content_type, stamp_data, protocol_version,
        intelligence_data, version, op_id, namespace, metadata_version, created_at)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT (file_hash) DO NOTHING"""


def store_stamp(url: str, payload: Mapping[str, Any]) -> int:
    """Do what the database adapter does with a stamp; how many rows that made."""
    values = [
        UUID(payload["stamp_id"]),
        *(payload[name] for name in ("file_hash", "file_path", "file_size_bytes")),
        payload.get("content_type"),
        Jsonb(payload["stamp_data"]),
        payload["protocol_version"],
        Jsonb(payload["intelligence_data"]) if payload.get("intelligence_data") is not None else None,
        *(payload.get(name) for name in ("version", "op_id", "namespace", "metadata_version", "created_at")),
    ]
    with psycopg.connect(url) as connection:
        return connection.execute(INSERT_STAMP, values).rowcount
