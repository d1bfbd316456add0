"""The metadata stamping service as other services call it, and as a process of its own."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from blake3 import blake3
from bridge_support import events_of, running_bus, secrets_of, served, service_process, short_settings
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route as HttpRoute
from testyard.lab.bridge.settings import Settings, StampingSettings
from testyard.lab.bridge.stamping.app import create_app
from testyard.lab.bridge.stamping_client import (
    StampingClient,
    StampingRefusedError,
    StampingTimeoutError,
    StampingUnavailableError,
)
from testyard.lab.bridge.topics import Route
from testyard.lab.children import listening_socket
from testyard.lab.servers.kafka_mock import MockKafka

pytestmark = pytest.mark.anyio
MODULE = "testyard.lab.bridge.stamping"


@pytest.fixture(scope="module")
def kafka() -> Iterator[MockKafka]:
    """Brokers with every topic of the services."""
    with running_bus() as kafka:
        yield kafka


@pytest.fixture
def settings(kafka: MockKafka, tmp_path: Path) -> Settings:
    """Settings with short waits, and few requests in a minute."""
    return short_settings(kafka.bootstrap_servers, tmp_path, stamping=StampingSettings(requests_per_minute=2))


@pytest.fixture
async def client(settings: Settings, database_url: str) -> AsyncIterator[StampingClient]:
    """A client of a running service."""
    application = create_app(settings, secrets_of(database_url))
    async with served(application) as url, StampingClient(Settings(), url=url) as client:
        yield client


async def test_a_file_is_stamped_and_its_event_belongs_to_the_workflow(
    client: StampingClient, kafka: MockKafka
) -> None:
    correlation, operation = uuid4(), uuid4()

    stamp = await client.stamp(
        "a file",
        "a.md",
        "acme.files",
        correlation,
        op_id=operation,
        metadata={"author": "qa"},
        intelligence_data={"analysis_type": "x", "patterns": [1]},
        stamp_type="rich",
    )

    assert stamp.file_hash == blake3(b"a file").hexdigest()
    assert (stamp.namespace, stamp.op_id, stamp.stamp_type) == ("acme.files", operation, "rich")
    assert stamp.stamped_content == f"{stamp.stamp}\na file"
    (event,) = [it for it in await events_of(kafka, Route.METADATA_STAMPED) if it.key == stamp.file_hash]
    assert event.envelope["correlation_id"] == str(correlation)
    assert event.payload["intelligence_data"] == {"analysis_type": "x", "patterns": [1]}


async def test_a_content_is_hashed(client: StampingClient) -> None:
    of_text = await client.hash_("a file")
    of_bytes = await client.hash_(bytes(range(256)))

    assert (of_text.file_hash, of_text.file_size_bytes) == (blake3(b"a file").hexdigest(), 6)
    assert of_bytes.file_hash == blake3(bytes(range(256))).hexdigest()


async def test_what_the_service_refuses_is_told_with_its_code(client: StampingClient) -> None:
    with pytest.raises(StampingRefusedError, match="NAMESPACE_INVALID: the namespace is expected") as refused:
        await client.stamp("a file", "a.md", "no namespace")
    await client.stamp("a file", "a.md")
    with pytest.raises(StampingRefusedError, match="RATE_LIMIT_EXCEEDED") as limited:
        await client.stamp("a file", "a.md")

    assert (refused.value.code, refused.value.status) == ("NAMESPACE_INVALID", 400)
    assert (limited.value.code, limited.value.status) == ("RATE_LIMIT_EXCEEDED", 429)


@pytest.mark.parametrize(
    ("response", "said"),
    [
        (JSONResponse({"error": [{"code": "DATABASE_CONNECTION_FAILED"}], "message": "away"}, 503), "DATABASE"),
        (PlainTextResponse("Internal Server Error", 500), "answered 500"),
        (PlainTextResponse("hello"), "does not speak JSON"),
        (JSONResponse([]), "not understood"),
        (JSONResponse({"data": {"file_hash": "short"}}), "not understood"),
    ],
)
async def test_a_service_that_cannot_work_is_unavailable(response: Response, said: str) -> None:
    async def answer(_: Any) -> Response:
        return response

    application = Starlette(routes=[HttpRoute("/{path:path}", answer, methods=["POST"])])
    async with (
        served(application, with_lifespan=False) as url,
        StampingClient(Settings(), url=url) as client,
    ):
        with pytest.raises(StampingUnavailableError, match=said):
            await client.stamp("a file", "a.md")


async def test_nobody_there_is_unavailable() -> None:
    with listening_socket("127.0.0.1", 0) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    async with StampingClient(Settings(), url=url) as client:
        with pytest.raises(StampingUnavailableError, match="metadata-stamping-service does not answer"):
            await client.hash_("a file")


async def test_a_service_that_takes_too_long_is_told_as_a_timeout_too() -> None:
    with listening_socket("127.0.0.1", 0) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        async with StampingClient(Settings(), url=url, timeout=timedelta(milliseconds=100)) as client:
            with pytest.raises(StampingTimeoutError) as late:
                await client.hash_("a file")

    assert isinstance(late.value, TimeoutError)


def test_the_service_is_a_process_that_ends_when_it_is_told_to(
    settings: Settings, database_url: str, tmp_path: Path
) -> None:
    with service_process(MODULE, settings, database_url, tmp_path) as service:
        answer = httpx.get(f"{service.url}/api/v1/metadata-stamping/health", trust_env=False).json()
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(20) == 0

    assert answer["data"]["status"] == "healthy"


def test_a_killed_process_leaves_stamps_that_the_next_one_knows(
    settings: Settings, kafka: MockKafka, database_url: str, tmp_path: Path
) -> None:
    body = {"content": "before the kill", "file_path": "a.md"}
    stamps = []
    for _ in range(2):
        with service_process(MODULE, settings, database_url, tmp_path) as service:
            url = f"{service.url}/api/v1/metadata-stamping/stamp"
            stamps.append(httpx.post(url, json=body, trust_env=False).json()["data"])
            service.process.kill()
            assert service.process.wait(20) == -signal.SIGKILL

    assert stamps[0]["stamp_id"] == stamps[1]["stamp_id"]


def test_a_process_without_a_database_says_why_it_does_not_start(settings: Settings, tmp_path: Path) -> None:
    with service_process(MODULE, settings, None, tmp_path, stderr=subprocess.PIPE) as service:
        assert service.process.wait(20) == 2
        assert service.process.stderr is not None
        said = service.process.stderr.read().decode()

    assert said == (f"{MODULE}: BRIDGE_DATABASE_URL is not set; expected postgresql://user:password@host/name\n")
