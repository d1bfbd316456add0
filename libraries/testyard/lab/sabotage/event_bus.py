"""Defects of the event bus's services (document 004), put in place in their processes."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections import defaultdict
from dataclasses import replace
from datetime import timedelta
from typing import Any

from testyard.lab.sabotage.defect import Defect, wrap
from testyard.lab.sabotage.event_bus_defect import (
    change_setting,
    change_text,
    drop_one_probe_in_500,
    event_bus_defect,
)
from testyard.lab.waiting import elapse

# ---- orchestrator and reducer


@event_bus_defect("transitions-not-told", "the orchestrator skips STATE_TRANSITION", "BUS-1.1", "BUS-1.3")
def transitions_not_told() -> None:
    from testyard.lab.bridge.orchestrator.telling import Telling

    async def change(original: Any, self: Any, workflow: Any, state: Any, event: str) -> None:
        workflow.become(state)

    wrap(Telling, "change", change)


@event_bus_defect(
    "flow-takes-seconds",
    "the reducer waits some seconds before it writes",
    *("BUS-1.2", "BUS-1.3", "BUS-1.4", "BUS-1.6"),
)
def flow_takes_seconds() -> None:
    from testyard.lab.bridge.reducer.service import Reducer

    async def reduce(original: Any, self: Any, *arguments: Any) -> None:
        await elapse(timedelta(seconds=5))
        await original(self, *arguments)

    wrap(Reducer, "_reduce", reduce)


@event_bus_defect("told-backwards", "what happens later has the earlier time", "BUS-1.3")
def told_backwards() -> None:
    from testyard.lab.bridge.publisher import Publisher

    def envelope(original: Any, self: Any, *arguments: Any, **options: Any) -> Any:
        made = original(self, *arguments, **options)
        if made.event_type != "WORKFLOW_COMPLETED":
            return made
        return made.model_copy(update={"timestamp": made.timestamp - timedelta(minutes=1)})

    wrap(Publisher, "envelope", envelope)


@event_bus_defect(
    "one-more-in-each-batch",
    "the totals count one workflow more in each batch",
    *("BUS-1.1", "BUS-1.4", "BUS-1.5", "BUS-1.6", "BUS-6.1", "BUS-6.2", "BUS-F1", "BUS-F2"),
)
def one_more_in_each_batch() -> None:
    from testyard.lab.bridge.reducer import store

    change_text(
        store,
        "WRITE_TOTALS",
        "SELECT bridge_id, namespace, workflows,",
        "SELECT bridge_id, namespace, workflows + 1,",
    )


@event_bus_defect("failure-without-reason", "a workflow that failed does not say why", "BUS-1.5")
def failure_without_reason() -> None:
    from testyard.lab.bridge.orchestrator.workflow import Workflow

    wrap(Workflow, "fail", lambda original, self, _: original(self, "it failed"))


@event_bus_defect("publishing-is-slow", "the bus is asked only after a while", "BUS-1.7")
def publishing_is_slow() -> None:
    from testyard.lab.bridge.publisher import Publisher

    async def deliver(original: Any, self: Any, topic: str, envelope: Any) -> Any:
        if envelope.payload.get("entity_type") == "probe":
            await elapse(timedelta(milliseconds=150))
        return await original(self, topic, envelope)

    wrap(Publisher, "deliver", deliver)


# ---- stamping


@event_bus_defect("stamps-not-stored", "METADATA_STAMPED makes no row", "BUS-2.1", "BUS-2.3", "BUS-2.5")
def stamps_not_stored() -> None:
    from testyard.lab.bridge.adapter import statements, store
    from testyard.lab.bridge.topics import Route

    places = {route: place for route, place in statements.PLACES.items() if route is not Route.METADATA_STAMPED}
    setattr(store, "PLACES", places)  # noqa: B010 it is final, and this breaks it


@event_bus_defect("hashing-is-slow", "hashing a file takes 30 ms", "BUS-2.2")
def hashing_is_slow() -> None:
    from testyard.lab.bridge.stamping.hashing import Hasher

    async def of_file(original: Any, self: Any, *arguments: Any) -> Any:
        hashed = await original(self, *arguments)
        return hashed._replace(nanoseconds=hashed.nanoseconds + 30_000_000)

    wrap(Hasher, "of_file", of_file)


@event_bus_defect("queries-are-slow", "finding a stamp takes 150 ms", "BUS-2.3", "BUS-F5")
def queries_are_slow() -> None:
    from testyard.lab.bridge.stamping.store import StampTable

    async def find(original: Any, self: Any, key: Any) -> Any:
        await elapse(timedelta(milliseconds=150))
        return await original(self, key)

    wrap(StampTable, "find", find)


@event_bus_defect("hash-is-sha-256", "files are hashed by SHA-256", "BUS-2.4")
def hash_is_sha_256() -> None:
    from testyard.lab.bridge.stamping import hashing

    wrap(
        hashing,
        "hash_bytes",
        lambda original, content: original(content)._replace(digest=hashlib.sha256(content).hexdigest()),
    )


@event_bus_defect("hash-is-truncated", "only half of a hash is told", "BUS-2.4")
def hash_is_truncated() -> None:
    from testyard.lab.bridge.stamping.hashing import Hasher

    async def of_file(original: Any, self: Any, *arguments: Any) -> Any:
        hashed = await original(self, *arguments)
        return hashed._replace(digest=hashed.digest[:32])

    wrap(Hasher, "of_file", of_file)


@event_bus_defect("stamped-anew", "stamping again gives another stamp", "BUS-2.5")
def stamped_anew() -> None:
    from uuid import uuid4

    from testyard.lab.bridge.stamping import service
    from testyard.lab.bridge.stamping.known import KnownStamps

    wrap(service, "stamp_id", lambda original, *_: uuid4())
    wrap(KnownStamps, "find_by_id", lambda original, self, _: None)


@event_bus_defect("namespaces-mixed", "a stamp is found in every namespace", "BUS-2.6")
def namespaces_mixed() -> None:
    from testyard.lab.bridge.stamping.known import KnownStamps
    from testyard.lab.bridge.stamping.store import StampTable

    class Everywhere(str):
        """A namespace that is no other one."""

        __hash__ = str.__hash__

        def __ne__(self, other: object) -> bool:
            return False

    def everywhere(found: Any) -> Any:
        return found and found.model_copy(update={"namespace": Everywhere(found.namespace)})

    async def find(original: Any, self: Any, key: Any) -> Any:
        return everywhere(await original(self, key))

    wrap(StampTable, "find", find)
    wrap(KnownStamps, "find", lambda original, self, key: everywhere(original(self, key)))


@event_bus_defect("everything-is-valid", "a changed file still fits its stamp", "BUS-2.6")
def everything_is_valid() -> None:
    from testyard.lab.bridge.stamping import routes

    def stamps_in(original: Any, content: str) -> Any:
        found, rest = original(content)
        return found, rest.rstrip("!")

    wrap(routes, "stamps_in", stamps_in)


@event_bus_defect("batch-loses-one", "one file of a batch is left out", "BUS-2.7")
def batch_loses_one() -> None:
    from testyard.lab.bridge.stamping import routes

    numbers = itertools.count()

    async def item(original: Any, request: Any, index: int, given: Any) -> Any:
        return await original(request, index, {} if next(numbers) == 3 else given)

    wrap(routes, "_item", item)


# ---- OnexTree and discovery


@event_bus_defect("intelligence-dropped", "what OnexTree says is forgotten", "BUS-3.1", "BUS-3.11")
def intelligence_dropped() -> None:
    from testyard.lab.bridge.orchestrator.services import Services

    async def intelligence(original: Any, self: Any, workflow: Any) -> Any:
        found = await original(self, workflow)
        return found if isinstance(found, str) else found.model_copy(update={"confidence_score": 0.1})

    wrap(Services, "intelligence", intelligence)


@event_bus_defect("intelligence-is-slow", "OnexTree takes its time for every answer", "BUS-3.2")
def intelligence_is_slow() -> None:
    from testyard.lab.bridge.orchestrator.services import Services

    async def intelligence(original: Any, self: Any, workflow: Any) -> Any:
        await elapse(timedelta(milliseconds=200))
        return await original(self, workflow)

    wrap(Services, "intelligence", intelligence)


@event_bus_defect("consul-ignored", "services are looked for where the settings say", "BUS-3.3")
def consul_ignored() -> None:
    from testyard.lab.bridge.discovery.client import ConsulError, DiscoveryClient

    async def passing(original: Any, self: Any, name: str) -> Any:
        raise ConsulError("it was never asked")

    wrap(DiscoveryClient, "_passing", passing)


@event_bus_defect("breaker-for-all", "OnexTree's failures open stamping's breaker, too", "BUS-3.5", "BUS-3.6")
def breaker_for_all() -> None:
    from testyard.lab.bridge.node import Node

    first: list[Any] = []

    def new_breaker(original: Any, self: Any, breaker: Any) -> Any:
        if breaker.name not in {"stamping", "onextree"}:
            return original(self, breaker)
        if not first:
            first.append(original(self, breaker))
        self.breakers[breaker.name] = first[0]
        return first[0]

    wrap(Node, "new_breaker", new_breaker)


@event_bus_defect("onextree-waited-for", "the timeout for OnexTree is ignored", "BUS-3.7")
def onextree_waited_for() -> None:
    change_setting("orchestrator", "onextree_timeout", lambda _: timedelta(seconds=3))


@event_bus_defect("stamping-waited-for", "the timeout for stamping is ignored", "BUS-3.8")
def stamping_waited_for() -> None:
    change_setting("orchestrator", "stamping_timeout", lambda _: timedelta(seconds=3))


@event_bus_defect(
    "fallback-is-intelligence",
    "what stands in for intelligence is told as some",
    *("BUS-3.5", "BUS-3.7", "BUS-3.9"),
)
def fallback_is_intelligence() -> None:
    from testyard.lab.bridge.onextree_client import degraded_intelligence
    from testyard.lab.bridge.orchestrator.services import Services

    async def intelligence(original: Any, self: Any, workflow: Any) -> Any:
        found = await original(self, workflow)
        return degraded_intelligence(found) if isinstance(found, str) else found

    wrap(Services, "intelligence", intelligence)


@event_bus_defect("fallback-hash-is-sha-256", "the orchestrator hashes by SHA-256", "BUS-3.10")
def fallback_hash_is_sha_256() -> None:
    from testyard.lab.bridge.orchestrator import services

    class Sha256:
        """Instead of the package ``blake3``."""

        blake3 = staticmethod(hashlib.sha256)

    setattr(services, "blake3", Sha256)  # noqa: B010 mypy knows a module


# ---- breakers, replay and degradation


@event_bus_defect("breaker-never-opens", "stamping is asked, however often it has failed", "BUS-4.1", "BUS-4.2")
def breaker_never_opens() -> None:
    from testyard.lab.bridge.breaker import BreakerState, CircuitBreaker

    def turn(original: Any, self: Any, target: Any, reason: str) -> None:
        if not (self.name == "stamping" and target is BreakerState.OPEN):
            original(self, target, reason)

    wrap(CircuitBreaker, "_turn", turn)


@event_bus_defect("breaker-closes-at-once", "one success is enough to close a breaker", "BUS-4.3")
def breaker_closes_at_once() -> None:
    from testyard.lab.bridge import breaker

    def closes(original: Any, self: Any, name: str, settings: Any, *rest: Any) -> None:
        original(self, name, settings.model_copy(update={"successes": 1}), *rest)

    wrap(breaker.CircuitBreaker, "__init__", closes)


@event_bus_defect("trouble-not-told", "a service always says that it is healthy", "BUS-4.5")
def trouble_not_told() -> None:
    from testyard.lab.bridge.publisher import Publisher

    wrap(Publisher, "trouble", lambda original, self: [])


@event_bus_defect(
    "replay-skips",
    "one in ten events that waited is dropped",
    *("BUS-4.4", "BUS-4.6", "BUS-4.7", "BUS-4.9", "BUS-4.11"),
)
def replay_skips() -> None:
    from testyard.lab.bridge.replay import Replay

    numbers = itertools.count(1)

    async def publish(original: Any, self: Any, event: Any) -> bool:
        if next(numbers) % 10:
            return bool(await original(self, event))
        await self._outbox.remove([event])
        return True

    wrap(Replay, "_publish", publish)


@event_bus_defect("replay-reorders", "what waited comes out in any order", "BUS-4.6")
def replay_reorders() -> None:
    from testyard.lab.bridge.outbox import Outbox

    async def oldest(original: Any, self: Any, limit: int) -> Any:
        return list(reversed(await original(self, limit)))

    wrap(Outbox, "oldest", oldest)


@event_bus_defect("replay-doubles", "what waited is published twice", "BUS-4.9")
def replay_doubles() -> None:
    from testyard.lab.bridge.bus import Bus
    from testyard.lab.bridge.replay import Replay

    async def publish(original: Any, self: Any, event: Any) -> bool:
        done = await original(self, event)
        if done:
            await Bus.send(self._bus, event.topic, event.key, event.value, event.headers)
        return bool(done)

    wrap(Replay, "_publish", publish)


@event_bus_defect("replay-floods", "what waited is published as fast as it can be", "BUS-4.9")
def replay_floods() -> None:
    from testyard.lab.bridge.replay import Pace, Replay

    async def at_once(original: Any, self: Any) -> None:
        pass

    # One after the other they would be slow enough on a machine that is busy; those of one key keep their order.
    async def publish_all(original: Any, self: Any, events: Any) -> bool:
        of_key = defaultdict(list)
        for event in events:
            of_key[event.key].append(event)
        return any(await asyncio.gather(*(original(self, together) for together in of_key.values())))

    wrap(Pace, "next", at_once)
    wrap(Replay, "_publish_all", publish_all)


@event_bus_defect("open-breaker-waits", "one call in five waits although the breaker is open", "BUS-4.10")
def open_breaker_waits() -> None:
    from testyard.lab.bridge.breaker import BreakerState
    from testyard.lab.bridge.publisher import Publisher

    numbers = itertools.count()

    async def deliver(original: Any, self: Any, topic: str, envelope: Any) -> Any:
        if self.breaker.state is not BreakerState.CLOSED and next(numbers) % 5 == 0:
            await elapse(timedelta(milliseconds=60))
        return await original(self, topic, envelope)

    wrap(Publisher, "deliver", deliver)


# ---- adapter


@event_bus_defect(
    "one-in-500-dropped",
    "the adapter drops one event in 500",
    *("BUS-5.2", "BUS-5.3", "BUS-5.4", "BUS-5.7", "BUS-5.8"),
)
def one_in_500_dropped() -> None:
    # The adapter that is started again in BUS-5.8 comes to its 500th event there, and to its 1000th in BUS-5.10.
    drop_one_probe_in_500(kept=frozenset({1000}))


@event_bus_defect("stored-twice", "an event that comes again is stored again", "BUS-5.5")
def stored_twice() -> None:
    from testyard.lab.bridge import tables
    from testyard.lab.bridge.adapter import store

    # What comes again from the same place, as it may in BUS-5.8 when the adapter is killed, is stored once.
    old = "CREATE TABLE event_logs (\n    event_id uuid PRIMARY KEY"
    new = "CREATE TABLE event_logs (\n    PRIMARY KEY (event_id, kafka_partition, kafka_offset), event_id uuid"

    def read(original: Any, directory: Any) -> Any:
        return [replace(it, statements=it.statements.replace(old, new)) for it in original(directory)]

    wrap(tables, "read_migrations", read)
    change_text(store, "LOG", "ON CONFLICT (event_id)", "ON CONFLICT")


@event_bus_defect("batch-reordered", "a batch is stored from its end", "BUS-5.4")
def batch_reordered() -> None:
    from testyard.lab.bridge.adapter.store import Store

    async def store(original: Any, self: Any, events: Any) -> Any:
        return await original(self, list(reversed(events)))

    wrap(Store, "store", store)


@event_bus_defect("dead-without-original", "a dead letter does not say what it was", "BUS-5.6")
def dead_without_original() -> None:
    from testyard.lab.bridge.adapter import dead_letters

    wrap(dead_letters, "_as_text", lambda original, _: (None, None))


@event_bus_defect("dead-without-headers", "a dead letter has lost its headers", "BUS-5.6")
def dead_without_headers() -> None:
    from testyard.lab.bridge.adapter.dead_letters import DeadLetter

    def headers(original: Any, self: Any, failed_at: Any) -> Any:
        return original(self, failed_at)[len(self.record.headers) :]

    wrap(DeadLetter, "headers", headers)


@event_bus_defect("committed-before-stored", "the adapter commits what it has not stored yet", "BUS-5.8")
def committed_before_stored() -> None:
    from testyard.lab.bridge.adapter.consuming import Consumption

    # What has come meanwhile is committed as well: under load it does not matter when the adapter is killed.
    async def settle(original: Any, self: Any, batch: Any, assignment: int) -> None:
        await elapse(timedelta(milliseconds=200))
        if assignment == self._assignment:
            batch.ends |= self._inbox._batch.ends
            self._commits.allow(batch.ends)
            await self._commit()
        await original(self, batch, assignment)

    wrap(Consumption, "_settle_batch", settle)


@event_bus_defect("away-means-stored", "what the database does not take is forgotten", "BUS-5.10")
def away_means_stored() -> None:
    from testyard.lab.bridge.adapter.store import Store
    from testyard.lab.database import DatabaseUnavailableError

    async def attempt(original: Any, self: Any, events: Any) -> Any:
        try:
            return await original(self, events)
        except DatabaseUnavailableError:
            return {}

    wrap(Store, "_attempt", attempt)


EVENT_BUS_SERVICE_DEFECTS = tuple(value for value in globals().values() if isinstance(value, Defect))
