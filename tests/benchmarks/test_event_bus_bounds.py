"""How far the event bus of the lab is from each bound of document 004: 200 samples each, files of 64 KiB."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import yaml
from blake3 import blake3
from bridge_support import rows
from robot.utils import timestr_to_secs
from testyard.core.deadline import Deadline, wait_until
from testyard.core.percentiles import MEDIAN, P95, P99
from testyard.event_bus.files import TextFile, make_files
from testyard.event_bus.measuring import timed_each
from testyard.event_bus.services import EventBus
from testyard.lab.bridge.stamping.hashing import hash_bytes
from testyard.lab.supervisor.bridge_service import BridgeService
from testyard.lab.supervisor.event_bus import EventBusLab

ROOT = Path(__file__).parents[2]
PROJECT = ROOT / "suites" / "event_bus" / "project"
DOCUMENTED: Mapping[str, Any] = yaml.safe_load((ROOT / "variables" / "defaults.yaml").read_text())["BUS"]
SAMPLES = 200
SIZE = 65_536
PATIENCE = timedelta(seconds=30)
MOST_HASHING = 1.2
"""How many times as long as bare BLAKE3 hashing may take."""
ROUNDS = 2000

ENDED = """
    SELECT id, updated_at FROM workflow_executions
    WHERE current_state IN ('COMPLETED', 'FAILED') AND id = ANY(%s::uuid[])"""
LOGGED = "SELECT count(*) FROM event_logs WHERE event_id = ANY(%s::uuid[])"


@dataclass
class Bench:
    """An event bus, and where its figures go."""

    lab: EventBusLab
    bus: EventBus
    report: Callable[[str], None]
    mark: str = field(default_factory=lambda: uuid4().hex[:8])

    def files(self, seed: int, count: int = SAMPLES) -> list[TextFile]:
        """New files."""
        return make_files(count, SIZE, mark=self.mark, seed=seed)

    def should_hold(self, what: str, times: Sequence[timedelta], bound: str) -> None:
        """Say how long something took, and how far that is from its bound; it must be within."""
        assert len(times) >= SAMPLES
        ordered = sorted(it / timedelta(milliseconds=1) for it in times)
        p50, p95, p99 = (it.value_in(ordered) for it in (MEDIAN, P95, P99))
        most = timestr_to_secs(DOCUMENTED[bound]) * 1000
        self.report(
            f"event bus, {what}: p50 {p50:.2f} ms, p95 {p95:.2f} ms, p99 {p99:.2f} ms of {len(ordered)} samples; "
            f"documented {most:g} ms, {1 - p95 / most:.0%} below"
        )
        assert p95 < most

    def probes(self, count: int, key: str | None = None) -> list[dict[str, Any]]:
        """Have the orchestrator publish."""
        probe = {"entity_id": self.mark, "entity_type": "probe", "to_state": "DONE", "transition_event": "probed"}
        return self.bus.publish(
            [
                {"route": "STATE_TRANSITION", "partition_key": key or str(uuid4()), "payload": probe}
                for _ in range(count)
            ]
        )


@pytest.fixture
def bench(report: Callable[[str], None]) -> Iterator[Bench]:
    """A new event bus for each benchmark: none meets what another one has left behind."""
    with EventBusLab() as lab:
        bus = EventBus({it.value: lab.url_of(it) for it in BridgeService})
        yield Bench(lab, bus, report)
        bus.close()


def test_workflows(bench: Bench) -> None:
    """From the request to the answer, and to the row."""
    bench.bus.read_project(str(PROJECT))
    without = timed_each(bench.bus.run_workflow, bench.files(1))
    asking = timed_each(lambda it: bench.bus.run_workflow(it, intelligence=True), bench.files(2))
    began = {UUID(it.answer["workflow_id"]): it.began_ns for it in without}
    ids = [str(it) for it in began]
    ended = wait_until(
        lambda: rows(bench.lab.database_url, ENDED, ids),
        lambda it: len(it) == SAMPLES,
        Deadline(PATIENCE),
        "every row to be final",
    )
    bench.should_hold("workflow without intelligence", [it.took for it in without], "without_intelligence")
    bench.should_hold("workflow with intelligence", [it.took for it in asking], "with_intelligence")
    flow = [timedelta(seconds=at.timestamp() - began[workflow] / 1e9) for workflow, at in ended]
    bench.should_hold("from the request to the row", flow, "flow")


def test_stamping(bench: Bench) -> None:
    """Hashing as the service tells it, and finding stamps as a caller sees it."""
    hashes = [bench.bus.hash(it)["performance_metrics"]["execution_time_ms"] for it in bench.files(1)]
    bench.should_hold("hashing 64 KiB", [timedelta(milliseconds=it) for it in hashes], "hash")
    stamps = [bench.bus.stamp(it)["file_hash"] for it in bench.files(2)]
    found = timed_each(bench.bus.find_stamp, stamps)
    bench.should_hold("finding a stamp", [it.took for it in found], "stamp_query")


def test_publishing_and_failing_fast(bench: Bench) -> None:
    """While Kafka is there, and while its breaker is open."""
    bench.should_hold("publishing an event", took(bench.probes(SAMPLES)), "publish")
    bench.lab.breakable_kafka.down()
    bench.probes(5)
    bench.should_hold("keeping an event while the breaker is open", took(bench.probes(SAMPLES)), "fail_fast")


def test_opening(bench: Bench) -> None:
    """From five requests that fail until the breaker is open."""
    bench.lab.kill(BridgeService.STAMPING)
    (file,) = make_files(1, 100, mark=bench.mark)
    times = bench.bus.opening_times("orchestrator", "stamping", file, SAMPLES)
    bench.should_hold("opening a breaker", times, "opens")


def test_replay(bench: Bench) -> None:
    """From when Kafka is back until a hundred events that waited are stored."""
    bench.lab.breakable_kafka.down()
    bench.probes(5)
    waiting = bench.probes(95, key="replayed")
    assert {it["delivery"] for it in waiting} == {"waiting"}
    ids = [it["event_id"] for it in waiting]
    began = time.monotonic()
    bench.lab.breakable_kafka.up()
    wait_until(
        lambda: rows(bench.lab.database_url, LOGGED, ids),
        lambda it: it == [(len(ids),)],
        Deadline(PATIENCE),
        "all to be stored",
        interval=timedelta(milliseconds=10),
    )
    seconds, most = time.monotonic() - began, timestr_to_secs(DOCUMENTED["replay"])
    bench.report(
        f"event bus, replay of 95 events: {seconds:.2f} s; documented {most:g} s, {1 - seconds / most:.0%} below"
    )
    assert seconds < most


def test_hashing_against_bare_blake3(report: Callable[[str], None]) -> None:
    """What the service's own hashing adds, in turns with the bare one."""
    content = make_files(1, SIZE, mark="bare")[0].content.encode()
    ours, bare = [], []
    for _ in range(ROUNDS):
        began = time.perf_counter_ns()
        hash_bytes(content)
        between = time.perf_counter_ns()
        blake3(content).hexdigest()
        ours.append(between - began)
        bare.append(time.perf_counter_ns() - between)
    ratio = statistics.median(ours) / statistics.median(bare)
    report(f"hashing 64 KiB: {ratio:.2f} times as long as bare BLAKE3 ({statistics.median(bare) / 1000:.0f} µs)")
    assert ratio <= MOST_HASHING


def took(published: Sequence[Mapping[str, Any]]) -> list[timedelta]:
    """How long the orchestrator took for each event."""
    return [timedelta(milliseconds=it["took_ms"]) for it in published]
