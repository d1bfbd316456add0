"""The parts of the metadata stamping service that need neither Kafka nor PostgreSQL."""

from __future__ import annotations

import asyncio
import io
import threading
from datetime import UTC, datetime, timedelta
from typing import Any, BinaryIO
from uuid import uuid4

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st
from testyard.lab.bridge.breaker import BreakerSettings, CircuitBreaker
from testyard.lab.bridge.stamping import store
from testyard.lab.bridge.stamping.answers import ErrorCode
from testyard.lab.bridge.stamping.hashing import LARGE, Hasher, hash_bytes
from testyard.lab.bridge.stamping.json_text import DEEPEST, storable
from testyard.lab.bridge.stamping.known import KnownStamps
from testyard.lab.bridge.stamping.limits import RateLimits
from testyard.lab.bridge.stamping.metrics import LAST, Metrics
from testyard.lab.bridge.stamping.payloads import ProtocolLevel, is_namespace
from testyard.lab.bridge.stamping.protocol import violations
from testyard.lab.bridge.stamping.records import (
    StampRecord,
    StampType,
    bare,
    one_fields,
    stamp_id,
    stamp_text,
    stamps_in,
)
from testyard.lab.database import DatabaseUnavailableError

NAMESPACE = "omninode.services.metadata"


def record_of(content: str, **fields: Any) -> StampRecord:
    """The stamp of a content."""
    file_hash = blake3(content.encode()).hexdigest()
    given = {
        "stamp_id": stamp_id(fields.get("namespace", NAMESPACE), file_hash),
        "file_hash": file_hash,
        "file_path": "README.md",
        "file_size_bytes": len(content),
        "content_type": "text/markdown",
        "stamp_data": {"metadata": {}},
        "protocol_version": "1.0",
        "intelligence_data": None,
        "version": 1,
        "op_id": uuid4(),
        "namespace": NAMESPACE,
        "metadata_version": "0.1",
        "created_at": datetime.now(UTC),
    }
    return StampRecord.model_validate({**given, **fields})


# ---- hashes


def test_a_hash_is_blake3() -> None:
    """The first test vector of the BLAKE3 team: no bytes at all."""
    hashed = hash_bytes(b"")

    assert hashed.digest == "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
    assert (hashed.size, hashed.milliseconds > 0) == (0, True)


@pytest.mark.anyio
@pytest.mark.parametrize("size", [0, 1, LARGE - 1, LARGE, 3 * LARGE + 1])
async def test_bytes_and_files_have_the_same_hash(size: int) -> None:
    content = b"0123456789abcdef" * (size // 16) + b"x" * (size % 16)
    with Hasher(2) as hasher:
        in_memory = await hasher.of_bytes(content)
        in_file = await hasher.of_file(io.BytesIO(content), size)

    assert (in_memory.digest, in_memory.size) == (blake3(content).hexdigest(), size)
    assert (in_file.digest, in_file.size) == (in_memory.digest, in_memory.size)


class _Watched(io.BytesIO):
    """A file that knows which threads have read it."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.threads: set[threading.Thread] = set()

    def read(self, size: int | None = -1, /) -> bytes:
        """Read, and note who did."""
        self.threads.add(threading.current_thread())
        return super().read(size)


@pytest.mark.anyio
@pytest.mark.parametrize(("size", "here"), [(LARGE - 1, True), (LARGE, False)])
async def test_only_large_files_are_hashed_in_another_thread(size: int, here: bool) -> None:
    file = _Watched(b"x" * size)
    with Hasher(1) as hasher:
        await hasher.of_file(file, size)

    assert (threading.main_thread() in file.threads) is here


@pytest.mark.anyio
async def test_no_more_large_files_are_hashed_at_a_time_than_there_are_threads() -> None:
    at_a_time, most, lock = 0, 0, threading.Lock()

    class Slow(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            nonlocal at_a_time, most
            with lock:
                at_a_time += 1
                most = max(most, at_a_time)
            piece = super().read(size)
            with lock:
                at_a_time -= 1
            return piece

    files: list[BinaryIO] = [Slow(b"x" * LARGE) for _ in range(20)]
    with Hasher(2) as hasher:
        await asyncio.gather(*(hasher.of_file(file, LARGE) for file in files))

    assert 1 <= most <= 2


# ---- stamps


@pytest.mark.parametrize("stamp_type", StampType)
@given(content=st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_what_was_stamped_is_read_again(stamp_type: StampType, content: str) -> None:
    content = bare(content)
    stamp = stamp_text(record_of(content), stamp_type)

    found, rest = stamps_in(f"{stamp}\n{content}")

    assert rest == content
    assert found[0].leading
    assert found[0].file_hash == blake3(content.encode()).hexdigest()
    assert found[0].stamp_type is stamp_type


def test_a_rich_stamp_carries_its_fields_whatever_is_in_them() -> None:
    other = stamp_text(record_of("other"), StampType.LIGHTWEIGHT)
    record = record_of("x", stamp_data={"metadata": {"comment": f"--> {other} \n <b>"}})

    (found,), rest = stamps_in(f"{stamp_text(record, StampType.RICH)}\nx")

    assert rest == "x"
    assert found.fields == one_fields(record)


def test_only_what_stands_at_the_beginning_stamps_the_content() -> None:
    stamp = stamp_text(record_of("x"), StampType.LIGHTWEIGHT)

    found, rest = stamps_in(f"{stamp}\n{stamp}\ntext\n{stamp}\n")

    assert [it.leading for it in found] == [True, True, False]
    assert rest == f"text\n{stamp}\n"
    assert bare(f"{stamp}\n{stamp}\ntext") == "text"


@pytest.mark.parametrize(
    "text",
    [
        f"<!-- METADATA_STAMP:lightweight:sha256:{'0' * 64} -->",
        f"<!-- METADATA_STAMP:lightweight:blake3:{'0' * 63} -->",
        f"<!-- METADATA_STAMP:heavy:blake3:{'0' * 64} -->",
        f"<!-- METADATA_STAMP:lightweight:blake3:{'G' * 64} -->",
    ],
)
def test_what_only_looks_like_a_stamp_is_none(text: str) -> None:
    assert stamps_in(text) == ([], text)


def test_a_stamps_id_tells_contents_and_namespaces_apart() -> None:
    ids = {stamp_id(namespace, file_hash * 64) for namespace in ("a", "b") for file_hash in "01"}

    assert len(ids) == 4
    assert stamp_id("a", "0" * 64) == stamp_id("a", "0" * 64)


def test_each_level_of_the_protocol_asks_for_more() -> None:
    whole = one_fields(record_of("x"))
    levels = list(ProtocolLevel)

    assert [violations(whole, level) for level in levels] == [[], [], []]
    found = {level: len(violations({}, level)) for level in levels}
    assert found[ProtocolLevel.LENIENT] < found[ProtocolLevel.MODERATE] < found[ProtocolLevel.STRICT]
    for field in (
        "protocol_version",
        "metadata_version",
        "namespace",
        "version",
        "op_id",
        "created_at",
        "stamp_id",
    ):
        assert field in {it.field for it in violations({**whole, field: "wrong value"}, ProtocolLevel.STRICT)}, (
            field
        )


@pytest.mark.parametrize("good", ["a", "omninode.services.metadata", "A-b_c.9", "x" * 255])
def test_a_namespace_has_letters_digits_dots_hyphens_and_underscores(good: str) -> None:
    assert is_namespace(good)
    assert not any(is_namespace(bad) for bad in ("", ".a", "a.", "a b", "a/b", "ä", "a\n", "x" * 256))


# ---- JSON


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text("aä\n"),
        lambda inner: st.lists(inner) | st.dictionaries(st.text("ab"), inner),
        max_leaves=20,
    )
)
def test_json_that_a_table_can_hold_passes(value: Any) -> None:
    assert storable(value) == value


@pytest.mark.parametrize("bad", ["\x00", "\ud800", float("nan"), float("-inf")])
@pytest.mark.parametrize("inside", ["itself", "list", "value"])
def test_json_that_a_table_cannot_hold_does_not_pass(bad: Any, inside: str) -> None:
    value = {"itself": bad, "list": [1, [bad]], "value": {"a": {"b": bad}}}[inside]
    with pytest.raises(ValueError, match="holds"):
        storable(value)
    if isinstance(bad, str):
        with pytest.raises(ValueError, match="holds"):
            storable({bad: 1})


def test_json_has_a_greatest_depth() -> None:
    value: Any = 1
    for _ in range(DEEPEST):
        value = [value]

    assert storable(value) is value
    with pytest.raises(ValueError, match="deeper"):
        storable([value])


# ---- limits, memory, counters


def test_a_client_may_ask_so_often_in_any_minute() -> None:
    now = 0.0
    limits = RateLimits(lambda: now)

    def refused_for(client: str = "a", kind: str = "stamp") -> timedelta:
        return limits.refused_for(client, kind, 2)

    assert refused_for() == timedelta()
    now = 40.0
    assert refused_for() == timedelta()
    assert refused_for() == timedelta(seconds=20)
    assert (refused_for("b"), refused_for("a", "batch")) == (timedelta(), timedelta())
    now = 59.5
    assert refused_for() == timedelta(seconds=0.5)
    now = 60.0
    assert refused_for() == timedelta()
    # The second one is still within the last minute.
    assert refused_for() == timedelta(seconds=40)


def test_the_first_stamp_of_a_content_is_remembered_and_the_oldest_forgotten() -> None:
    known = KnownStamps(2)
    first, again = record_of("x"), record_of("x")
    elsewhere = record_of("x", namespace="elsewhere")

    assert known.remember(first) is first
    assert known.remember(again) is first
    assert known.remember(elsewhere) is elsewhere
    assert known.find(first.file_hash) is first
    assert known.find_by_id(elsewhere.stamp_id) is elsewhere
    for number in range(2):
        known.remember(record_of(f"other {number}"))
    assert known.find(first.file_hash) is None
    assert len(known) == 2


def test_a_stamp_that_came_to_nothing_is_forgotten() -> None:
    known = KnownStamps(2)
    record = known.remember(record_of("x"))

    known.forget(record)

    assert (known.find(record.file_hash), known.find_by_id(record.stamp_id)) == (None, None)


def test_durations_are_told_with_their_number() -> None:
    metrics = Metrics()
    for number in range(LAST + 100):
        metrics.count("stamp", 200 if number % 2 else 422, float(number))

    summary = metrics.summary()

    assert summary["requests_total"] == LAST + 100
    assert summary["answers_by_status"] == {"200": 550, "422": 550}
    assert summary["operations"]["stamp"]["refused"] == 550
    assert summary["operations"]["stamp"]["duration_ms"] == {
        "samples": LAST,
        "p50": 599.0,
        "p95": 1049.0,
        "p99": 1089.0,
        "max": 1099.0,
    }


def test_every_code_has_a_status() -> None:
    assert all(400 <= code.http_status < 600 for code in ErrorCode)


# ---- looking for stamps in the table


@pytest.mark.anyio
async def test_what_is_asked_while_a_query_is_under_way_goes_into_one_query(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    queries: list[list[str]] = []
    may_answer = asyncio.Event()

    async def fetch(_: Any, __: str, parameters: Any) -> list[dict[str, Any]]:
        queries.append(parameters["hashes"])
        await may_answer.wait()
        found = [record_of(name) for name in ("a", "b", "c") if record_of(name).file_hash in parameters["hashes"]]
        return [{**dict(it), "id": it.stamp_id, "file_size": it.file_size_bytes} for it in found]

    monkeypatch.setattr(store, "fetch", fetch)
    table = store.StampTable(None, CircuitBreaker("database", BreakerSettings()))  # type: ignore[arg-type]
    hashes = {name: record_of(name).file_hash for name in "abcd"}
    first = asyncio.create_task(table.find(hashes["a"]))
    while not queries:
        await asyncio.wait([first], timeout=0)
    others = [asyncio.create_task(table.find(hashes[name])) for name in "bbcd"]
    cancelled = asyncio.create_task(table.find(hashes["c"]))
    await asyncio.wait(others, timeout=0)
    cancelled.cancel()
    may_answer.set()

    found = await asyncio.gather(first, *others)

    assert [None if it is None else it.file_hash for it in found] == [
        *(hashes[name] for name in "abbc"),
        None,
    ]
    assert [sorted(it) for it in queries] == [[hashes["a"]], sorted(hashes[name] for name in "bcd")]
    await table.close()


@pytest.mark.anyio
async def test_everybody_who_has_asked_is_told_that_the_database_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fetch(*_: Any) -> list[dict[str, Any]]:
        raise DatabaseUnavailableError("gone")

    monkeypatch.setattr(store, "fetch", fetch)
    breaker = CircuitBreaker("database", BreakerSettings(failures=2))
    table = store.StampTable(None, breaker)  # type: ignore[arg-type]

    told = await asyncio.gather(*(table.find("0" * 64) for _ in range(3)), return_exceptions=True)

    assert [type(it) for it in told] == [DatabaseUnavailableError] * 3
    assert breaker.metrics()["totals"]["failures"] == 1
    await table.close()
