"""The metadata stamping service: what it refuses, what its headers say, and how it does without its servers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from blake3 import blake3
from bridge_stamping_support import CONTENT, Api, stamping_on
from bridge_support import behind_a_proxy, running_bus, short_settings
from testyard.lab.bridge.settings import Settings, StampingSettings
from testyard.lab.bridge.stamping.answers import ErrorCode
from testyard.lab.bridge.stamping.gate import LARGEST_BODY
from testyard.lab.servers.kafka_mock import MockKafka
from testyard.lab.waiting import elapse

pytestmark = pytest.mark.anyio
PIECE = 1024 * 1024
FILE = {"content": CONTENT, "file_path": "README.md"}


@pytest.fixture
def kafka() -> Iterator[MockKafka]:
    """Brokers of the test's own, which it may take down."""
    with running_bus() as kafka:
        yield kafka


@pytest.fixture
def settings(kafka: MockKafka, tmp_path: Path) -> Settings:
    """Settings with short waits."""
    return short_settings(kafka.bootstrap_servers, tmp_path)


@pytest.fixture
async def api(settings: Settings, kafka: MockKafka, database_url: str) -> AsyncIterator[Api]:
    """A running service."""
    async with stamping_on(settings, kafka, database_url) as api:
        yield api


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"content": None}, "body.content"),
        ({"content": 7}, "body.content"),
        ({"file_path": ""}, "body.file_path"),
        ({"file_path": "a\x00b"}, "body.file_path"),
        ({"file_path": "x" * 4097}, "body.file_path"),
        ({"version": 0}, "body.version"),
        ({"version": 2**31}, "body.version"),
        ({"op_id": "seven"}, "body.op_id"),
        ({"metadata": {"a": {"b": "\x00"}}}, "body.metadata"),
        ({"metadata": [1]}, "body.metadata"),
        ({"metadata": {"text": "x" * 300_000}}, "body.metadata"),
        ({"intelligence_data": {"b\x00": 1}}, "body.intelligence_data"),
        ({"options": {"stamp_type": "heavy"}}, "body.options.stamp_type"),
        ({"colour": "red"}, "body.colour"),
    ],
)
async def test_a_value_that_cannot_be_stamped_is_named(api: Api, fields: dict[str, Any], field: str) -> None:
    answer = await api.call("POST", "/stamp", {**FILE, **fields})

    assert (answer.status_code, answer.json()["status"]) == (422, "error")
    assert {(it["code"], it["field"]) for it in answer.json()["error"]} == {("VALIDATION_ERROR", field)}


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b"",
        b'{"content": "\\ud800", "file_path": "x"}',
        b'{"content": "x", "file_path": "\\ud800"}',
        b'{"content": "x", "file_path": "x", "metadata": {"text": "\\ud800"}}',
        b'{"content": "x", "file_path": "x", "metadata": {"number": NaN}}',
        b'{"content": "x", "file_path": "x", "metadata": ' + b'{"a":' * 200 + b"1" + b"}" * 200 + b"}",
        b'{"content": "x", "file_path": "x", "metadata": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
        b"\xff\xfe",
    ],
)
async def test_a_body_that_is_no_request_is_refused(api: Api, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    assert await api.refused("POST", "/stamp", content=body, headers=headers) == (422, "VALIDATION_ERROR")


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"namespace": "no namespace"}, 400, "NAMESPACE_INVALID"),
        ({"namespace": "-x"}, 400, "NAMESPACE_INVALID"),
        ({"namespace": "x" * 256}, 400, "NAMESPACE_INVALID"),
        ({"protocol_version": "2.0"}, 409, "VERSION_MISMATCH"),
        ({"metadata_version": "0.2"}, 409, "VERSION_MISMATCH"),
    ],
)
async def test_what_is_well_formed_and_not_done_has_its_own_code(
    api: Api, fields: dict[str, Any], status: int, code: str
) -> None:
    assert await api.refused("POST", "/stamp", {**FILE, **fields}) == (status, code)


async def test_a_stamp_is_not_changed_to_another_version(api: Api) -> None:
    assert (await api.stamp(version=3))["version"] == 3
    assert await api.refused("POST", "/stamp", {**FILE, "version": 4}) == (409, "VERSION_MISMATCH")


async def test_an_operation_stamps_one_content_only(api: Api) -> None:
    operation = str(uuid4())
    first = await api.stamp(op_id=operation)

    assert (await api.stamp(op_id=operation))["stamp_id"] == first["stamp_id"]
    other = {**FILE, "content": "another content", "op_id": operation}
    assert await api.refused("POST", "/stamp", other) == (409, "OPERATION_ID_CONFLICT")


async def test_the_headers_say_what_the_body_does_not(api: Api) -> None:
    operation, correlation = str(uuid4()), str(uuid4())
    headers = {
        "X-Request-ID": "request-7",
        "X-Correlation-ID": correlation,
        "X-Namespace": "of.a.header",
        "X-Protocol-Version": "1.0",
        "X-Metadata-Version": "0.1",
        "X-Operation-ID": operation,
    }

    answer = await api.call("POST", "/stamp", FILE, headers=headers)

    data, metadata = answer.json()["data"], answer.json()["metadata"]
    assert (data["namespace"], data["op_id"]) == ("of.a.header", operation)
    assert (metadata["request_id"], metadata["correlation_id"]) == ("request-7", correlation)
    assert {name: answer.headers[name] for name in headers} == headers


async def test_an_answer_names_the_request_and_the_operation_that_nobody_has_named(api: Api) -> None:
    answer = await api.call("POST", "/stamp", FILE)
    refused = await api.call("GET", "/stamp/x")

    assert UUID(answer.headers["X-Request-ID"])
    assert answer.headers["X-Operation-ID"] == answer.json()["data"]["op_id"]
    assert answer.headers["X-Namespace"] == "omninode.services.metadata"
    assert refused.headers["X-Request-ID"] == refused.json()["metadata"]["request_id"]


@pytest.mark.parametrize(
    ("headers", "fields", "status", "code"),
    [
        ({"X-Correlation-ID": "seven"}, {}, 422, "VALIDATION_ERROR"),
        ({"X-Operation-ID": "seven"}, {}, 422, "VALIDATION_ERROR"),
        ({"X-Request-ID": "x" * 256}, {}, 422, "VALIDATION_ERROR"),
        ({"X-Request-ID": b"caf\xe9"}, {}, 422, "VALIDATION_ERROR"),
        ({"X-Namespace": "one"}, {"namespace": "other"}, 400, "NAMESPACE_INVALID"),
        ({"X-Namespace": "no namespace"}, {}, 400, "NAMESPACE_INVALID"),
        ({"X-Protocol-Version": "9"}, {}, 409, "VERSION_MISMATCH"),
        ({"X-Protocol-Version": "9"}, {"protocol_version": "1.0"}, 409, "VERSION_MISMATCH"),
        ({"X-Operation-ID": str(uuid4())}, {"op_id": str(uuid4())}, 409, "OPERATION_ID_CONFLICT"),
    ],
)
async def test_headers_that_are_wrong_or_contradict_the_body_are_refused(
    api: Api, headers: dict[str, Any], fields: dict[str, Any], status: int, code: str
) -> None:
    assert await api.refused("POST", "/stamp", {**FILE, **fields}, headers=headers) == (status, code)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 422, "VALIDATION_ERROR"),
        ({"content": "x", "stamp_data": {}}, 422, "VALIDATION_ERROR"),
        ({"content": "x", "validation_level": "loose"}, 422, "VALIDATION_ERROR"),
        ({"content": "no stamp"}, 422, "PROTOCOL_COMPLIANCE_FAILED"),
        ({"stamp_data": {}}, 422, "PROTOCOL_COMPLIANCE_FAILED"),
    ],
)
async def test_what_does_not_follow_the_protocol_is_refused(
    api: Api, body: dict[str, Any], status: int, code: str
) -> None:
    assert await api.refused("POST", "/validate-protocol", body) == (status, code)


async def test_a_refused_stamp_names_each_field_that_does_not_follow_the_protocol(api: Api) -> None:
    body = {"stamp_data": {"file_hash": "0" * 64, "version": True}, "validation_level": "strict"}

    answer = (await api.call("POST", "/validate-protocol", body)).json()

    assert answer["data"]["is_compliant"] is False
    assert [it["field"].removeprefix("stamp_data.") for it in answer["error"]] == [
        "protocol_version",
        "metadata_version",
        "namespace",
        "version",
        "op_id",
        "created_at",
        "stamp_id",
    ]


async def test_what_is_not_there_is_refused_in_the_same_shape(api: Api) -> None:
    assert await api.refused("GET", "/nothing") == (404, "NOT_FOUND")
    assert await api.refused("GET", "/stamp") == (405, "METHOD_NOT_ALLOWED")
    assert await api.refused("POST", "/hash", {}) == (422, "VALIDATION_ERROR")
    assert (await api.client.get("/nothing")).json() == {"detail": "Not Found"}


async def test_a_client_that_asks_too_often_is_told_when_to_come_back(
    kafka: MockKafka, tmp_path: Path, database_url: str
) -> None:
    limits = StampingSettings(requests_per_minute=3, hashes_per_minute=5)
    settings = short_settings(kafka.bootstrap_servers, tmp_path, stamping=limits)
    async with stamping_on(settings, kafka, database_url) as api:
        files = [await api.call("POST", "/stamp", FILE) for _ in range(4)]
        hashes = [await api.call("POST", "/hash", files={"file": ("a", b"a")}) for _ in range(6)]
        queries = [await api.call("GET", f"/stamp/{'0' * 64}") for _ in range(3)]
        healths = [await api.call("GET", "/health") for _ in range(10)]

    assert [it.status_code for it in files] == [200] * 3 + [429]
    assert [it.status_code for it in hashes] == [200] * 5 + [429]
    assert [it.status_code for it in queries] == [404] * 3
    assert [it.status_code for it in healths] == [200] * 10
    assert files[3].json()["error"][0]["code"] == "RATE_LIMIT_EXCEEDED"
    assert 50 <= int(files[3].headers["Retry-After"]) <= 61


async def test_a_body_that_says_it_is_too_large_is_refused_before_it_is_read(api: Api) -> None:
    headers = {"Content-Type": "application/json", "Content-Length": str(LARGEST_BODY + 1)}

    assert await api.refused("POST", "/stamp", content=b"{}", headers=headers) == (507, "MEMORY_ERROR")


async def test_a_body_that_turns_out_to_be_too_large_is_refused(api: Api) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(LARGEST_BODY // PIECE + 1):
            yield b"x" * PIECE

    headers = {"Content-Type": "application/json"}
    assert await api.refused("POST", "/stamp", content=pieces(), headers=headers) == (507, "MEMORY_ERROR")


async def test_every_error_code_has_its_http_status() -> None:
    documented = {
        "VALIDATION_ERROR": 422,
        "INVALID_HASH_FORMAT": 400,
        "STAMP_NOT_FOUND": 404,
        "STAMP_NOT_FOUND_IN_NAMESPACE": 404,
        "EMPTY_BATCH_REQUEST": 400,
        "PROTOCOL_COMPLIANCE_FAILED": 422,
        "NAMESPACE_INVALID": 400,
        "VERSION_MISMATCH": 409,
        "OPERATION_ID_CONFLICT": 409,
        "DATABASE_CONNECTION_FAILED": 503,
        "DATABASE_OPERATION_FAILED": 503,
        "MEMORY_ERROR": 507,
    }
    assert {name: ErrorCode(name).http_status for name in documented} == documented


async def test_without_kafka_files_are_stamped_and_the_events_follow(
    settings: Settings, kafka: MockKafka, database_url: str
) -> None:
    async with stamping_on(settings, kafka, database_url) as api:
        await api.stamp("warm")
        kafka.down()
        hashes = [(await api.stamp(f"away {number}"))["file_hash"] for number in range(5)]
        health = await api.good("GET", "/health")
        waiting = (await api.good("GET", "/metrics"))["outbox"]["waiting"]
        kafka.up()
        events = await api.events(*hashes, at_least=5)

    assert health["status"] == "degraded"
    assert "event bus" in health["reasons"][0]
    assert waiting == 5
    assert {it.key for it in events} == set(hashes)


async def test_without_postgresql_files_are_stamped_and_queries_are_refused(
    settings: Settings, kafka: MockKafka, database_url: str
) -> None:
    with behind_a_proxy(database_url) as (url, proxy):
        async with stamping_on(settings, kafka, url) as api:
            known = await api.stamp("known")
            proxy.refuse()
            proxy.cut()
            stamped = await api.stamp("stamped without a table")
            path = f"/stamp/{known['file_hash']}"
            refused = [await api.call("GET", path) for _ in range(4)]
            health = await api.good("GET", "/health")
            proxy.heal()
            async with asyncio.timeout(20):
                while (await api.call("GET", path)).status_code != 200:
                    await elapse(timedelta(milliseconds=50))

    assert stamped["file_hash"] == blake3(b"stamped without a table").hexdigest()
    assert {(it.status_code, it.json()["error"][0]["code"]) for it in refused} == {
        (503, "DATABASE_CONNECTION_FAILED")
    }
    assert all(int(it.headers["Retry-After"]) >= 1 for it in refused)
    assert (health["status"], health["breakers"]["database"]) == ("degraded", "open")


async def test_a_table_that_is_not_there_is_told_as_the_databases_failure(api: Api) -> None:
    with psycopg.connect(api.database_url) as connection:
        connection.execute("ALTER TABLE metadata_stamps RENAME TO gone")

    assert await api.refused("GET", f"/stamp/{'0' * 64}") == (503, "DATABASE_OPERATION_FAILED")
    assert (await api.stamp())["success"] is True


async def test_stamping_does_not_wait_for_a_database_that_is_silent(
    settings: Settings, kafka: MockKafka, database_url: str
) -> None:
    with behind_a_proxy(database_url) as (url, proxy):
        async with stamping_on(settings, kafka, url) as api:
            await api.stamp("warm")
            proxy.silence()
            began = time.monotonic()
            await api.stamp("while it is silent")
            took = time.monotonic() - began
            proxy.heal()
    assert took < settings.database.timeout.total_seconds()
