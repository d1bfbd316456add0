"""How workflows are run: many at a time, the steps of each one after the other, each step told on the bus."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final
from uuid import UUID, uuid4

from testyard.lab.bridge.ending import end_tasks
from testyard.lab.bridge.events import Step, WorkflowState
from testyard.lab.bridge.node import Node
from testyard.lab.bridge.orchestrator.services import Services, Source, StepError
from testyard.lab.bridge.orchestrator.stored import find_stored
from testyard.lab.bridge.orchestrator.telling import Telling
from testyard.lab.bridge.orchestrator.time_limit import TimeLimit, time_limit
from testyard.lab.bridge.orchestrator.workflow import Workflow, WorkflowRequest
from testyard.lab.waiting import both

REMEMBERED: Final = 20_000
"""How many workflows that have ended are still answered for without a look into the tables."""
COUNTED: Final = ("accepted", "completed", "failed", "resumed")

WITHOUT_INTELLIGENCE: Final = "onextree_unavailable_skip_intelligence"
WITHOUT_STAMP: Final = "metadata_stamping_in_memory_hash"

_log = logging.getLogger(__name__)


class StoppingError(Exception):
    """The orchestrator is about to end, and takes no workflow on any more."""


class Orchestrator:
    """Runs workflows.

    Args:
        node: Publishes what they go through, and has the tables.
        services: Do the work.

    Attributes:
        in_flight: The workflows that have not ended, by their id.
        most_in_flight: How many there have been at a time.
        counts: How many were accepted, completed, failed, resumed.
    """

    def __init__(self, node: Node, services: Services) -> None:
        self.in_flight: dict[UUID, Workflow] = {}
        self.most_in_flight = 0
        self.counts = Counter(dict.fromkeys(COUNTED, 0))
        self._node = node
        self._services = services
        self._telling = Telling(node.publisher)
        self._running: dict[UUID, asyncio.Task[None]] = {}
        # Only while nobody can be told yet that the workflow was taken on.
        self._accepting: dict[UUID, asyncio.Future[None]] = {}
        self._ended: OrderedDict[UUID, Workflow] = OrderedDict()
        # When OnexTree is slow, only those that ask it wait for each other.
        at_work = node.settings.orchestrator.at_work
        self._at_work = {with_intelligence: asyncio.Semaphore(at_work) for with_intelligence in (False, True)}
        self._stopping = False
        node.degraded_for.append(self._telling.outage.reasons)

    async def accept(self, requests: Sequence[WorkflowRequest]) -> list[Workflow | BaseException]:
        """Take workflows on; from then on a crash does not lose them.

        Args:
            requests: What each is asked to do.

        Returns:
            For each the workflow, which runs, or the one that has the request's correlation id already; or why it
            was not taken on: ``KafkaError`` when it is too large for an event, ``OSError`` when nothing can take
            it, ``StoppingError``.
        """
        wanted = [Workflow(request, request.correlation_id or uuid4()) for request in requests]
        # Only those that may have been taken on by an earlier process: a new id cannot be in the tables.
        asked_for = [
            it.correlation_id for it in wanted if it.request.correlation_id and not self.find(it.workflow_id)
        ]
        for stored in await find_stored(self._node, asked_for) if asked_for else ():
            self.resume(stored)
        return await asyncio.gather(*map(self._accept, wanted), return_exceptions=True)

    async def _accept(self, workflow: Workflow) -> Workflow:
        known = self.find(workflow.workflow_id)
        if known is None:
            if self._stopping:
                raise StoppingError
            known = workflow
            self._accepting[workflow.workflow_id] = asyncio.get_running_loop().create_future()
            self._start(workflow)
        accepted = self._accepting.get(workflow.workflow_id)
        if accepted is not None:
            # Who asks may go away meanwhile; the workflow is taken on all the same, for others who ask.
            await asyncio.wait([accepted])
            if accepted.cancelled():
                raise StoppingError
            accepted.result()
        return known

    def resume(self, workflow: Workflow) -> None:
        """Go on with a workflow of an earlier process; one that has ended is remembered."""
        if self._stopping or self.find(workflow.workflow_id) is not None:
            return
        if workflow.has_ended:
            self._remember(workflow)
        else:
            self.counts["resumed"] += 1
            self._start(Workflow(workflow.request, workflow.correlation_id, workflow.started_at))

    def find(self, workflow_id: UUID) -> Workflow | None:
        """A workflow of this process; None when there is none or it is forgotten."""
        return self.in_flight.get(workflow_id) or self._ended.get(workflow_id)

    async def end_of(self, workflow: Workflow) -> Workflow:
        """Wait until a workflow has ended, or is left to the next process."""
        running = self._running.get(workflow.workflow_id)
        if running is not None:
            await asyncio.wait([running])
        return workflow

    async def stop(self) -> None:
        """Leave what is in flight unfinished: the next process resumes it."""
        self._stopping = True
        await end_tasks(self._running.values())

    def _start(self, workflow: Workflow) -> None:
        self.in_flight[workflow.workflow_id] = workflow
        self.most_in_flight = max(self.most_in_flight, len(self.in_flight))
        task = asyncio.create_task(self._live(workflow), name=f"workflow {workflow.workflow_id}")
        self._running[workflow.workflow_id] = task

    def _remember(self, workflow: Workflow) -> None:
        workflow.forget_content()
        self._ended[workflow.workflow_id] = workflow
        if len(self._ended) > REMEMBERED:
            self._ended.popitem(last=False)

    async def _live(self, workflow: Workflow) -> None:
        try:
            if await self._is_taken_on(workflow) and await self._run(workflow):
                self.counts[workflow.state.value.lower()] += 1
                self._remember(workflow)
        finally:
            self.in_flight.pop(workflow.workflow_id, None)
            self._running.pop(workflow.workflow_id, None)

    async def _is_taken_on(self, workflow: Workflow) -> bool:
        accepted = self._accepting.get(workflow.workflow_id)
        if accepted is None:
            return True
        try:
            await self._telling.started(workflow)
        except Exception as problem:
            accepted.set_exception(problem)
            # Nobody may be waiting any more.
            accepted.exception()
            return False
        else:
            accepted.set_result(None)
            self.counts["accepted"] += 1
            return True
        finally:
            accepted.cancel()
            del self._accepting[workflow.workflow_id]

    async def _run(self, workflow: Workflow) -> bool:
        """Run a workflow to its end; whether that could be told."""
        async with self._at_work[workflow.request.intelligence]:
            await self._work(workflow)
            try:
                await self._telling.ended(workflow)
            except Exception:
                # The row stays unfinished: the next process tries again.
                _log.exception("the end of the workflow %s could not be told", workflow.workflow_id)
                return False
            return True

    async def _work(self, workflow: Workflow) -> None:
        settings = self._node.settings.orchestrator

        def warn() -> None:
            _log.warning("The workflow %s has used up most of its time.", workflow.workflow_id)

        try:
            async with time_limit(settings.workflow_timeout, settings.workflow_grace, warn) as limit:
                await self._go_through(workflow, limit)
        except StepError as problem:
            workflow.fail(str(problem))
        except TimeoutError:
            workflow.fail("workflow timeout")
        except Exception as problem:
            # One workflow that meets what nobody has thought of must not end all others.
            _log.exception("the workflow %s fails", workflow.workflow_id)
            workflow.fail(f"internal error: {type(problem).__name__}: {problem}")

    async def _go_through(self, workflow: Workflow, limit: TimeLimit) -> None:
        started = self._telling.change(workflow, WorkflowState.PROCESSING, "workflow_started")
        # Topics of their own: neither has to wait until Kafka has the other.
        await both(started, self._step(workflow, Step.VALIDATION, lambda: _validate(workflow.request)))
        if workflow.request.intelligence:
            await self._step(workflow, Step.ONEXTREE_INTELLIGENCE, lambda: self._intelligence(workflow, limit))
        await self._step(workflow, Step.STAMP_CREATION, lambda: self._stamp(workflow))

    async def _intelligence(self, workflow: Workflow, limit: TimeLimit) -> dict[str, Any]:
        try:
            # What can be left out does not use up the grace.
            async with asyncio.timeout_at(limit.ends_at):
                found = await self._services.intelligence(workflow)
        except TimeoutError:
            found = "the workflow's time is over"
        if isinstance(found, str):
            workflow.fall_back(WITHOUT_INTELLIGENCE)
            return {"skipped": found}
        workflow.result["intelligence"] = found.model_dump(mode="json")
        return {"analysis_type": found.analysis_type, "confidence_score": found.confidence_score}

    async def _stamp(self, workflow: Workflow) -> dict[str, Any]:
        stamp = await self._services.stamp(workflow, workflow.result["intelligence"])
        workflow.result["stamp"] = stamp.result
        hashed = {"file_hash": stamp.result["file_hash"], "source": stamp.source.value}
        await self._telling.step(workflow, Step.HASH_GENERATION, hashed, stamp.hashing_took_ms)
        if stamp.source is Source.SERVICE:
            return {"stamp_id": stamp.result["stamp_id"], **hashed}
        workflow.fall_back(WITHOUT_STAMP)
        return {"skipped": stamp.result["reason"]}

    async def _step(self, workflow: Workflow, step: Step, do: Callable[[], Awaitable[dict[str, Any]]]) -> None:
        began = time.monotonic()
        try:
            data = await do()
        except StepError as problem:
            took_ms = (time.monotonic() - began) * 1000
            await self._telling.step(workflow, step, {}, took_ms, error=str(problem))
            raise
        took_ms = (time.monotonic() - began) * 1000
        workflow.result.setdefault("steps", {})[step.value] = took_ms
        await self._telling.step(workflow, step, data, took_ms)


async def _validate(request: WorkflowRequest) -> dict[str, Any]:
    if not request.content:
        raise StepError("validation: the file is empty")
    if not request.file_path.strip():
        raise StepError("validation: the path of the file is empty")
    return {"file_size_bytes": len(request.content.encode())}
