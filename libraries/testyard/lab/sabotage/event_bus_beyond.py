"""Defects of the event bus that show in outages, crashes, traces, regions and reports (document 004)."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import replace
from datetime import timedelta
from typing import Any

from testyard.lab.sabotage.defect import Defect, defect, wrap
from testyard.lab.sabotage.event_bus_defect import (
    change_setting,
    change_text,
    drop_one_probe_in_500,
    event_bus_defect,
)
from testyard.lab.waiting import elapse

SERVERS = ("LAB:servers",)
LARGE = 64 * 1024

# ---- breakers, and what the adapter tells of itself


@event_bus_defect("breaker-opens-late", "a breaker opens a while after the fifth failure", "BUS-4.1")
def breaker_opens_late() -> None:
    from testyard.lab.bridge.breaker import BreakerState, CircuitBreaker

    def turn(original: Any, self: Any, target: Any, reason: str) -> None:
        if self.name != "stamping" or target is not BreakerState.OPEN or "in a row" not in reason:
            original(self, target, reason)
        elif not hasattr(self, "opens_later"):

            def open_now() -> None:
                del self.opens_later
                original(self, target, reason)

            self.opens_later = asyncio.get_running_loop().call_later(1.5, open_now)

    wrap(CircuitBreaker, "_turn", turn)


@event_bus_defect("breaker-never-closes", "probes that succeed close no breaker", "BUS-4.14", "BUS-6.3")
def breaker_never_closes() -> None:
    from testyard.lab.bridge.breaker import CircuitBreaker

    def turn(original: Any, self: Any, target: Any, reason: str) -> None:
        if not (self.name == "stamping" and "probes in a row" in reason):
            original(self, target, reason)

    wrap(CircuitBreaker, "_turn", turn)


@event_bus_defect("lag-from-consume-time", "the adapter measures its lag from when it reads an event", "BUS-5.8")
def lag_from_consume_time() -> None:
    from testyard.lab.bridge.adapter.figures import Figures

    def stored(original: Any, self: Any, events: Any, fresh: Any) -> None:
        now = time.time() * 1000
        original(self, [replace(it, record=replace(it.record, timestamp=now)) for it in events], fresh)

    wrap(Figures, "stored", stored)


# ---- outages


@event_bus_defect(
    "no-fallback",
    "without Consul nobody knows where a service is",
    *("BUS-3.4", "BUS-3.5", "BUS-3.6", "BUS-3.7", "BUS-3.8", "BUS-3.9", "BUS-3.10", "BUS-3.11"),
)
def no_fallback() -> None:
    from testyard.lab.bridge.discovery.client import DiscoveryClient
    from testyard.lab.bridge.discovery.services import Source

    async def locate(original: Any, self: Any, name: str) -> Any:
        found = await original(self, name)
        return found if found is not None and found.source is Source.CONSUL else None

    wrap(DiscoveryClient, "_locate", locate)


@event_bus_defect(
    "lost-without-kafka",
    "events are not kept while Kafka is away",
    *("BUS-4.4", "BUS-4.5", "BUS-4.6", "BUS-4.7", "BUS-4.9", "BUS-4.11"),
)
def lost_without_kafka() -> None:
    from testyard.lab.bridge.outbox import Outbox

    async def put(original: Any, self: Any, event: Any) -> None:
        pass

    wrap(Outbox, "put", put)


@event_bus_defect("queries-wait-for-the-bus", "who looks for a stamp waits for Kafka first", "BUS-4.8")
def queries_wait_for_the_bus() -> None:
    from aiokafka.errors import KafkaError

    from testyard.lab.bridge.stamping.service import Stamping

    def start(original: Any, self: Any, node: Any, hasher: Any) -> None:
        original(self, node, hasher)
        find = self.table.find

        async def slowly(key: Any) -> Any:
            try:
                await node.publisher._bus.ask()
            except KafkaError:
                await elapse(timedelta(milliseconds=200))
            return await find(key)

        self.table.find = slowly

    wrap(Stamping, "__init__", start)


# A service that believes that something waits stays degraded, in which state the suite's other tests end.
@event_bus_defect("file-forgotten", "what waits in the file is not written", "BUS-4.12", "BUS-4.13", "BUS-4.14")
def file_forgotten() -> None:
    from testyard.lab.bridge.outbox_file import OutboxFile

    wrap(OutboxFile, "append", lambda original, self, events: None)


@event_bus_defect("replay-comes-late", "after an outage, what waits is replayed only after a while", "BUS-4.13")
def replay_comes_late() -> None:
    from testyard.lab.bridge.replay import Replay

    waited = set()

    async def publish(original: Any, self: Any, event: Any) -> Any:
        if event.key.startswith("outage-") and event.key not in waited:
            waited.add(event.key)
            await elapse(timedelta(seconds=8))
        return await original(self, event)

    wrap(Replay, "_publish", publish)


@event_bus_defect("late-success-counts", "a success that comes late closes the breaker", "BUS-4.14")
def late_success_counts() -> None:
    from testyard.lab.bridge.breaker import BreakerState, CircuitBreaker

    def succeeded(original: Any, self: Any, period: int) -> None:
        original(self, self._period)
        if self._state is BreakerState.OPEN:
            self._turn(BreakerState.CLOSED, "something has succeeded")

    wrap(CircuitBreaker, "_succeeded", succeeded)


# ---- crashes


@event_bus_defect("last-batch-lost", "a reducer that starts goes on with what comes from now on", "BUS-1.6")
def last_batch_lost() -> None:
    from testyard.lab.bridge.reducer.service import Reducer
    from testyard.lab.bridge.reducer.store import read_offsets

    async def go_on(original: Any, self: Any, consumer: Any) -> None:
        await original(self, consumer)
        if await read_offsets(self._node.pool, list(self._routes)):
            await consumer.seek_to_end()

    wrap(Reducer, "_go_on_where_the_tables_say", go_on)


@event_bus_defect("not-resumed", "what a crash left unfinished stays so", "BUS-6.1")
def not_resumed() -> None:
    from testyard.lab.bridge.orchestrator.engine import Orchestrator

    wrap(Orchestrator, "resume", lambda original, self, workflow: None)


@event_bus_defect("counted-again", "a reducer reads everything again when it starts, and counts it", "BUS-6.2")
def counted_again() -> None:
    from testyard.lab.bridge.reducer import service, store

    async def none(*_: Any) -> dict[Any, int]:
        return {}

    setattr(service, "read_offsets", none)  # noqa: B010 mypy knows another signature
    change_text(store, "WRITE_EXECUTIONS", "WHERE stored.current_state NOT IN ('COMPLETED', 'FAILED')", "")


@event_bus_defect("no-hash-of-its-own", "without stamping a workflow fails", "BUS-3.10", "BUS-6.3")
def no_hash_of_its_own() -> None:
    change_setting("orchestrator", "hash_without_stamping", lambda _: False)


@event_bus_defect(
    "onextree-is-needed",
    "without OnexTree a workflow fails",
    *("BUS-3.5", "BUS-3.7", "BUS-3.9", "BUS-6.4"),
)
def onextree_is_needed() -> None:
    from testyard.lab.bridge.orchestrator.services import Services, StepError

    async def intelligence(original: Any, self: Any, workflow: Any) -> Any:
        found = await original(self, workflow)
        if isinstance(found, str):
            raise StepError(found)
        return found

    wrap(Services, "intelligence", intelligence)


@event_bus_defect(
    "each-adapter-for-itself",
    "adapters do not share their group",
    *("BUS-5.5", "BUS-5.8", "BUS-5.9"),
    variables=SERVERS,
)
def each_adapter_for_itself() -> None:
    change_setting("adapter", "group", lambda group: f"{group}-{os.getpid()}")


@event_bus_defect(
    "dropped-in-crashes", "the adapter drops one event in 500", "BUS-6.5", "BUS-6.6", variables=SERVERS
)
def dropped_in_crashes() -> None:
    drop_one_probe_in_500()


@event_bus_defect("payload-changed", "the adapter stores less than was published", "BUS-5.1")
def payload_changed() -> None:
    from testyard.lab.bridge.adapter import store

    change_text(
        store, "LOG", "envelope -> 'payload', coalesce", "(envelope -> 'payload') - 'entity_type', coalesce"
    )


# ---- traces, regions, reports


@event_bus_defect("trace-ends-on-the-bus", "a record does not say which trace it belongs to", "BUS-F3")
def trace_ends_on_the_bus() -> None:
    from testyard.lab.bridge.recording import RecordingTracing

    wrap(RecordingTracing, "inject_headers", lambda original, self: ())


@defect("cut-for-good", "regions that were cut off stay so", "BUS-F4")
def cut_for_good() -> None:
    from testyard.lab.servers.kafka_mirror import KafkaMirror

    wrap(KafkaMirror, "resume", lambda original, self: None)


@defect("report-is-empty", "the report leaves its lines out", "BUS-F6")
def report_is_empty() -> None:
    from EventBusLibrary import reporting

    wrap(reporting, "markdown_table", lambda original, header, rows: original(header, []))


# ---- what is timed


@event_bus_defect(
    "large-files-fail",
    "a workflow with a file of 64 KiB fails, and quickly",
    *("BUS-1.1", "BUS-1.2", "BUS-3.2", "BUS-3.4", "BUS-3.6", "BUS-3.7", "BUS-3.8", "BUS-3.9", "BUS-3.10"),
)
def large_files_fail() -> None:
    from testyard.lab.bridge.orchestrator import engine
    from testyard.lab.bridge.orchestrator.services import StepError

    async def validate(original: Any, request: Any) -> Any:
        if len(request.content) >= LARGE:
            raise StepError("validation: the file is too large")
        return await original(request)

    wrap(engine, "_validate", validate)


EVENT_BUS_BEYOND_DEFECTS = tuple(value for value in globals().values() if isinstance(value, Defect))
