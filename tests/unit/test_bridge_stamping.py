"""The metadata stamping service on a real PostgreSQL and on real Kafka connections."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from blake3 import blake3
from bridge_stamping_support import CONTENT, Api, stamping_on
from bridge_support import rows, running_bus, short_settings, store_stamp
from testyard.lab.bridge.settings import Settings, StampingSettings
from testyard.lab.servers.kafka_mock import MockKafka

pytestmark = pytest.mark.anyio
HASH = blake3(CONTENT.encode()).hexdigest()
DEFAULT_NAMESPACE = "omninode.services.metadata"


@pytest.fixture(scope="module")
def kafka() -> Iterator[MockKafka]:
    """Brokers with every topic of the services; tests use different contents."""
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


async def test_a_file_is_stamped_with_the_blake3_of_its_content(api: Api) -> None:
    stamped = await api.stamp()

    assert stamped["success"] is True
    assert stamped["file_hash"] == HASH
    assert stamped["stamp"] == f"<!-- METADATA_STAMP:lightweight:blake3:{HASH} -->"
    assert stamped["stamped_content"] == f"{stamped['stamp']}\n{CONTENT}"
    assert (stamped["namespace"], stamped["version"]) == (DEFAULT_NAMESPACE, 1)
    assert (stamped["protocol_version"], stamped["metadata_version"]) == ("1.0", "0.1")
    metrics = stamped["performance_metrics"]
    assert metrics["file_size_bytes"] == len(CONTENT)
    assert metrics["execution_time_ms"] > 0
    assert metrics["performance_grade"] in "ABC"
    assert UUID(stamped["stamp_id"]).version == 5
    assert UUID(stamped["op_id"]).version == 4


async def test_the_event_tells_everything_that_the_table_needs(api: Api) -> None:
    correlation, operation = uuid4(), uuid4()
    content = "event of a stamp"
    data = await api.good(
        "POST",
        "/stamp",
        {
            "content": content,
            "file_path": "src/login.py",
            "metadata": {"author": "qa"},
            "intelligence_data": {"analysis_type": "security_analysis"},
            "op_id": str(operation),
            "namespace": "acme.files",
        },
        headers={"X-Correlation-ID": str(correlation)},
    )

    (event,) = await api.events(data["file_hash"])

    assert event.envelope["event_type"] == "METADATA_STAMPED"
    assert event.envelope["correlation_id"] == str(correlation)
    assert event.envelope["source_service"] == "metadata-stamping"
    assert event.envelope["partition_key"] == data["file_hash"]
    payload = event.payload
    assert payload["hash_algorithm"] == "BLAKE3"
    assert payload["execution_time_ms"] == data["performance_metrics"]["execution_time_ms"]
    assert store_stamp(api.database_url, payload) == 1
    columns = "id, file_hash, file_path, file_size, content_type, namespace, op_id, version, metadata_version"
    assert rows(api.database_url, f"SELECT {columns} FROM metadata_stamps") == [
        (
            UUID(data["stamp_id"]),
            data["file_hash"],
            "src/login.py",
            len(content),
            "text/x-python",
            "acme.files",
            operation,
            1,
            "0.1",
        )
    ]
    ((stamp_data, intelligence),) = rows(
        api.database_url, "SELECT stamp_data, intelligence_data FROM metadata_stamps"
    )
    assert stamp_data["metadata"] == {"author": "qa"}
    assert intelligence == {"analysis_type": "security_analysis"}


async def test_metadata_that_is_not_to_be_included_is_kept_nowhere(api: Api) -> None:
    data = await api.stamp("no metadata", metadata={"author": "qa"}, options={"include_metadata": False})

    (event,) = await api.events(data["file_hash"])

    assert "author" not in json.dumps(event.payload)


async def test_the_same_content_in_the_same_namespace_has_the_same_stamp(api: Api) -> None:
    first = await api.stamp("idempotent")
    again = await api.stamp("idempotent", file_path="elsewhere.md")

    same = ("stamp_id", "file_hash", "stamp", "created_at")
    assert {name: first[name] for name in same} == {name: again[name] for name in same}
    one, other = await api.events(first["file_hash"], at_least=2)
    assert one.envelope["event_id"] != other.envelope["event_id"]
    assert [it.payload["file_path"] for it in (one, other)] == ["README.md", "elsewhere.md"]
    assert [store_stamp(api.database_url, it.payload) for it in (one, other)] == [1, 0]


async def test_many_stampings_of_one_content_at_once_have_one_stamp(api: Api) -> None:
    stamped = await asyncio.gather(*(api.stamp("all at once") for _ in range(20)))

    assert len({(it["stamp_id"], it["created_at"]) for it in stamped}) == 1


async def test_what_another_process_has_stamped_is_the_same_stamp(
    settings: Settings, kafka: MockKafka, database_url: str
) -> None:
    async with stamping_on(settings, kafka, database_url) as api:
        first = await api.stamp("before a restart", metadata={"number": 1})
        await api.store(first["file_hash"])
    async with stamping_on(settings, kafka, database_url) as api:
        answer = await api.call("POST", "/stamp", {"content": "before a restart", "file_path": "README.md"})

    again = answer.json()
    assert again["data"]["created_at"] == first["created_at"]
    assert again["metadata"]["stamped_before"] is True


async def test_an_operation_that_another_process_has_seen_is_not_used_for_another_content(
    settings: Settings, kafka: MockKafka, database_url: str
) -> None:
    operation = str(uuid4())
    async with stamping_on(settings, kafka, database_url) as api:
        first = await api.stamp("one content", op_id=operation)
        await api.store(first["file_hash"])
    async with stamping_on(settings, kafka, database_url) as api:
        body = {"content": "another content", "file_path": "README.md", "op_id": operation}
        assert await api.refused("POST", "/stamp", body) == (409, "OPERATION_ID_CONFLICT")


async def test_another_namespace_has_another_stamp_and_the_table_keeps_the_first(api: Api) -> None:
    first = await api.stamp("two owners", namespace="first.owner")
    body = {"content": "two owners", "file_path": "README.md", "namespace": "second.owner"}
    answer = (await api.call("POST", "/stamp", body)).json()
    second = answer["data"]

    assert first["stamp_id"] != second["stamp_id"]
    assert (await api.stamp("two owners", namespace="second.owner"))["created_at"] == second["created_at"]
    assert answer["metadata"]["kept_in_namespace"] == "first.owner"
    await api.store(first["file_hash"])
    path = f"/stamp/{first['file_hash']}"
    assert (await api.good("GET", path))["stamp_id"] == first["stamp_id"]
    assert await api.refused("GET", f"{path}?namespace=second.owner") == (404, "STAMP_NOT_FOUND_IN_NAMESPACE")


async def test_a_stamp_is_found_in_memory_and_then_in_the_table(api: Api) -> None:
    stamped = await api.stamp("to be found", metadata={"author": "qa"})
    path = f"/stamp/{stamped['file_hash']}"

    in_memory = (await api.call("GET", path)).json()
    await api.store(stamped["file_hash"])
    in_table = (await api.call("GET", path.upper().replace("/STAMP/", "/stamp/"))).json()

    assert (in_memory["metadata"]["source"], in_table["metadata"]["source"]) == ("memory", "database")
    assert in_table["metadata"]["query_time_ms"] > 0
    assert in_memory["data"] == in_table["data"]
    assert in_table["data"]["stamp"] == stamped["stamp"]
    assert in_table["data"]["stamp_data"]["metadata"] == {"author": "qa"}


async def test_only_so_many_stamps_are_remembered(kafka: MockKafka, tmp_path: Path, database_url: str) -> None:
    settings = short_settings(kafka.bootstrap_servers, tmp_path, stamping=StampingSettings(cached_stamps=2))
    async with stamping_on(settings, kafka, database_url) as api:
        hashes = [(await api.stamp(f"remembered {number}"))["file_hash"] for number in range(3)]
        assert await api.refused("GET", f"/stamp/{hashes[0]}") == (404, "STAMP_NOT_FOUND")
        for file_hash in hashes[1:]:
            await api.good("GET", f"/stamp/{file_hash}")


@pytest.mark.parametrize("wrong", ["abc", "g" * 64, "0" * 63, "0" * 65, "0" * 64 + "%0A"])
async def test_what_is_no_hash_is_not_looked_for(api: Api, wrong: str) -> None:
    assert await api.refused("GET", f"/stamp/{wrong}") == (400, "INVALID_HASH_FORMAT")


async def test_what_nobody_has_stamped_is_not_found(api: Api) -> None:
    assert await api.refused("GET", f"/stamp/{'0' * 64}") == (404, "STAMP_NOT_FOUND")


@pytest.mark.parametrize("size", [0, 1, 65_536, 3_000_000])
async def test_an_uploaded_file_is_hashed(api: Api, size: int) -> None:
    content = bytes(number % 251 for number in range(1000)) * (size // 1000) + b"x" * (size % 1000)

    data = await api.good("POST", "/hash", files={"file": ("data.bin", content)})

    assert data["file_hash"] == blake3(content).hexdigest()
    assert data["file_size_bytes"] == size
    assert data["file_name"] == "data.bin"
    assert data["performance_metrics"]["execution_time_ms"] > 0


async def test_a_stamped_content_is_valid_until_it_is_changed(api: Api) -> None:
    stamped = (await api.stamp("to be checked"))["stamped_content"]

    good = await api.good("POST", "/validate", {"content": stamped})
    changed = await api.good("POST", "/validate", {"content": f"{stamped}!"})
    bare = await api.good("POST", "/validate", {"content": "to be checked"})

    assert (good["is_valid"], good["stamps_found"]) == (True, 1)
    assert good["current_hash"] == blake3(b"to be checked").hexdigest()
    assert (changed["is_valid"], changed["stamps_found"], changed["details"][0]["matches"]) == (False, 1, False)
    assert (bare["is_valid"], bare["stamps_found"]) == (False, 0)


async def test_a_content_is_compared_with_the_hash_that_is_expected(api: Api) -> None:
    stamped = await api.stamp("expected")
    body = {"content": stamped["stamped_content"]}

    right = await api.good("POST", "/validate", {**body, "expected_hash": stamped["file_hash"].upper()})
    wrong = await api.good("POST", "/validate", {**body, "expected_hash": "0" * 64})

    assert (right["is_valid"], wrong["is_valid"]) == (True, False)
    assert await api.refused("POST", "/validate", {**body, "expected_hash": "x"}) == (400, "INVALID_HASH_FORMAT")


async def test_stamping_what_is_stamped_gives_the_same_stamp(api: Api) -> None:
    once = await api.stamp("again and again")
    twice = await api.stamp(once["stamped_content"])

    assert twice["stamped_content"] == once["stamped_content"]


async def test_a_rich_stamp_follows_the_protocol_strictly_and_a_lightweight_one_leniently(api: Api) -> None:
    rich = await api.stamp(
        "rich", options={"stamp_type": "rich"}, metadata={"comment": "--> <!-- METADATA_STAMP:"}
    )
    lightweight = await api.stamp("light")

    data = await api.good(
        "POST", "/validate-protocol", {"content": rich["stamped_content"], "validation_level": "strict"}
    )
    lenient = {"content": lightweight["stamped_content"], "validation_level": "lenient"}

    assert data["is_compliant"] is True
    assert data["stamp_data"]["metadata"] == {"comment": "--> <!-- METADATA_STAMP:"}
    assert data["stamp_data"]["stamp_id"] == rich["stamp_id"]
    assert (await api.good("POST", "/validate", {"content": rich["stamped_content"]}))["is_valid"] is True
    assert (await api.good("POST", "/validate-protocol", lenient))["is_compliant"] is True
    moderate = {**lenient, "validation_level": "moderate"}
    assert await api.refused("POST", "/validate-protocol", moderate) == (422, "PROTOCOL_COMPLIANCE_FAILED")


async def test_a_batch_stamps_what_it_can(api: Api) -> None:
    items = [{"content": f"file {number}", "file_path": f"{number}.md"} for number in range(3)]
    bad: list[Any] = [{"content": "no path"}, "nothing", {**items[0], "namespace": "no namespace"}]

    whole = (await api.call("POST", "/batch", {"items": items})).json()
    part = (await api.call("POST", "/batch", {"items": [*items, *bad]})).json()
    none = (await api.call("POST", "/batch", {"items": bad})).json()

    assert (whole["status"], part["status"], none["status"]) == ("success", "partial", "error")
    totals = [[it["data"][name] for name in ("total", "successful", "failed")] for it in (whole, part, none)]
    assert totals == [[3, 3, 0], [6, 3, 3], [3, 0, 3]]
    assert (part["data"]["success_rate"], none["data"]["success_rate"]) == (0.5, 0.0)
    results = part["data"]["results"]
    assert [it["success"] for it in results] == [True] * 3 + [False] * 3
    assert results[1]["data"]["file_hash"] == blake3(b"file 1").hexdigest()
    assert [it["error"][0]["field"] for it in results[3:]] == [
        "body.items.3.file_path",
        "body.items.4",
        "body.items.5.namespace",
    ]
    assert {it["code"] for it in part["error"]} == {"VALIDATION_ERROR", "NAMESPACE_INVALID"}


async def test_every_file_of_a_batch_is_published(api: Api) -> None:
    items = [{"content": f"batched {number}", "file_path": f"{number}.md"} for number in range(10)]

    await api.good("POST", "/batch", {"items": items})

    hashes = [blake3(item["content"].encode()).hexdigest() for item in items]
    assert {it.key for it in await api.events(*hashes, at_least=10)} == set(hashes)


@pytest.mark.parametrize(
    ("count", "refusal"), [(0, (400, "EMPTY_BATCH_REQUEST")), (101, (422, "VALIDATION_ERROR"))]
)
async def test_a_batch_has_some_and_not_too_many_files(api: Api, count: int, refusal: tuple[int, str]) -> None:
    items = [{"content": "x", "file_path": "x"}] * count

    assert await api.refused("POST", "/batch", {"items": items}) == refusal


async def test_the_stamps_of_a_namespace_are_listed_in_pages(api: Api) -> None:
    hashes = []
    for number in range(3):
        stamped = await api.stamp(f"listed {number}", namespace="listed.files")
        hashes.append(stamped["file_hash"])
    await api.store(*hashes, (await api.stamp("listed elsewhere"))["file_hash"])

    everything = await api.good("GET", "/namespace/listed.files")
    page = await api.good("GET", "/namespace/listed.files?limit=2&offset=1")
    beyond = await api.good("GET", "/namespace/listed.files?offset=10")

    assert [it["file_hash"] for it in everything["stamps"]] == hashes
    assert [it["file_hash"] for it in page["stamps"]] == hashes[1:]
    assert [it["total"] for it in (everything, page, beyond)] == [3, 3, 3]
    assert everything["limit"] == 50
    assert await api.refused("GET", "/namespace/listed.files?limit=1001") == (422, "VALIDATION_ERROR")
    assert await api.refused("GET", "/namespace/no%20namespace") == (400, "NAMESPACE_INVALID")


async def test_health_and_metrics_tell_what_the_service_does(api: Api) -> None:
    await api.stamp("counted")
    await api.refused("GET", "/stamp/x")

    health = await api.good("GET", "/health")
    metrics = await api.good("GET", "/metrics")

    assert (health["status"], health["reasons"]) == ("healthy", [])
    assert health["breakers"] == {"database": "closed", "event-bus": "closed"}
    assert metrics["operations"]["stamp"]["requests"] == 1
    assert metrics["operations"]["query"] == {
        "requests": 1,
        "refused": 1,
        "duration_ms": metrics["operations"]["query"]["duration_ms"],
    }
    assert metrics["operations"]["stamp"]["duration_ms"]["p95"] > 0
    assert metrics["stamps_in_memory"] == 1
    assert metrics["outbox"]["waiting"] == 0
    assert (await api.client.get("/health")).json()["service"] == "metadata-stamping"
    assert (await api.client.get("/configuration")).json()["stamping"]["largest_batch"] == 100
