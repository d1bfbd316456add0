"""The services that workflows are made of, each behind its own breaker, with its own timeout and its own queue.

One that does not answer slows down, or fails, only the step that needs it (document 004, section 4: isolation).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import Any, Final, TypeVar

import blake3

from testyard.lab.bridge.breaker import BreakerState, CircuitBreaker, CircuitOpenError
from testyard.lab.bridge.node import Node
from testyard.lab.bridge.onextree_client import (
    Intelligence,
    OnextreeClient,
    OnextreeError,
    OnextreeRefusedError,
)
from testyard.lab.bridge.orchestrator.workflow import LONGEST_ERROR, Workflow
from testyard.lab.bridge.stamping.records import bare
from testyard.lab.bridge.stamping_client import (
    Stamp,
    StampingClient,
    StampingRefusedError,
    StampingUnavailableError,
)

Value = TypeVar("Value")

STAMPING: Final = "stamping"
ONEXTREE: Final = "onextree"
TOO_MANY_REQUESTS: Final = 429


class Source(Enum):
    """Where a hash comes from."""

    SERVICE = "metadata_stamping"
    IN_MEMORY = "in_memory_fallback"


class StepError(Exception):
    """A step cannot be done, and nothing can stand in for it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason[:LONGEST_ERROR])


@dataclass(frozen=True)
class Hashed:
    """A file's hash, and its stamp when there is one.

    Attributes:
        source: Who has hashed.
        result: What the workflow's result tells of it.
        hashing_took_ms: How long hashing took, in milliseconds.
    """

    source: Source
    result: dict[str, Any]
    hashing_took_ms: float


class _Guarded:
    """One service: how many calls are under way, how long each may take, and whether it is asked at all."""

    def __init__(self, breaker: CircuitBreaker, timeout: timedelta, concurrent: int) -> None:
        self._breaker = breaker
        self._timeout = timeout
        self._places = asyncio.Semaphore(concurrent)

    @property
    def is_closed(self) -> bool:
        """Whether the service is taken to work."""
        return self._breaker.state is BreakerState.CLOSED

    async def call(self, ask: Callable[[], Awaitable[Value]], *harmless: type[Exception]) -> Value:
        """Ask the service; the time begins when there is a place.

        Raises:
            TimeoutError: It took too long.
            CircuitOpenError: It was not asked.
        """
        if self._breaker.state is BreakerState.OPEN:
            # Who is not let through need not wait for a place behind those whom nobody answers.
            return await self._ask(ask, harmless)
        async with self._places:
            return await self._ask(ask, harmless)

    async def _ask(self, ask: Callable[[], Awaitable[Value]], harmless: tuple[type[Exception], ...]) -> Value:
        with self._breaker.call(*harmless):
            async with asyncio.timeout(self._timeout.total_seconds()):
                return await ask()


class Services:
    """Stamping and OnexTree, as workflows see them.

    Args:
        node: The orchestrator's.
        stamping: Stamps files.
        onextree: Knows the project.
    """

    def __init__(self, node: Node, stamping: StampingClient, onextree: OnextreeClient) -> None:
        settings = node.settings.orchestrator
        self._stamping = stamping
        self._onextree = onextree
        self._hash_without_stamping = settings.hash_without_stamping
        stamping_breaker = node.new_breaker(CircuitBreaker(STAMPING, settings.breaker))
        onextree_breaker = node.new_breaker(CircuitBreaker(ONEXTREE, settings.breaker))
        node.keep_probing(stamping_breaker, stamping.ask)
        node.keep_probing(onextree_breaker, onextree.ask)
        places = settings.concurrent_calls
        self._ask_stamping = _Guarded(stamping_breaker, settings.stamping_timeout, places)
        self._ask_onextree = _Guarded(onextree_breaker, settings.onextree_timeout, places)

    async def intelligence(self, workflow: Workflow) -> Intelligence | str:
        """Ask OnexTree about a file.

        Returns:
            What it says, or why it could not be had: the workflow goes on without.
        """
        request = workflow.request
        try:
            found = await self._ask_onextree.call(
                lambda: self._onextree.intelligence(
                    f"{request.file_path}\n{request.content}",
                    # A probe is one call: the workflow waits for its outcome.
                    retries=None if self._ask_onextree.is_closed else 0,
                ),
                OnextreeRefusedError,
            )
        except TimeoutError:
            return "onextree timeout"
        except (OnextreeError, CircuitOpenError) as problem:
            return str(problem)[:LONGEST_ERROR]
        return f"onextree is degraded: {found.reason}" if found.degraded else found

    async def stamp(self, workflow: Workflow, intelligence: dict[str, Any] | None) -> Hashed:
        """Have a file stamped; when the stamping service is away, hash it here.

        Raises:
            StepError: The service refuses the file, or takes too long.
        """
        try:
            stamp = await self._ask_stamping.call(
                lambda: self._ask_for_a_stamp(workflow, intelligence), StampingRefusedError
            )
        except TimeoutError:
            raise StepError("metadata stamping timeout") from None
        except StampingRefusedError as problem:
            if problem.status != TOO_MANY_REQUESTS:
                raise StepError(str(problem)) from None
            return self._hash_here(workflow, problem)
        except (StampingUnavailableError, CircuitOpenError) as problem:
            return self._hash_here(workflow, problem)
        # The stamped content is the file again: the stamping service has it for who asks.
        result = stamp.model_dump(mode="json", exclude={"stamped_content"})
        took_ms = stamp.performance_metrics.get("execution_time_ms")
        return Hashed(
            Source.SERVICE,
            {**result, "source": Source.SERVICE.value},
            max(took_ms, 0.0) if isinstance(took_ms, float) else 0.0,
        )

    async def _ask_for_a_stamp(self, workflow: Workflow, intelligence: dict[str, Any] | None) -> Stamp:
        request = workflow.request
        return await self._stamping.stamp(
            request.content,
            request.file_path,
            namespace=request.namespace,
            correlation_id=workflow.correlation_id,
            # A workflow that is resumed is the same operation again.
            op_id=workflow.event_id(STAMPING),
            metadata=request.metadata,
            intelligence_data=intelligence,
        )

    def _hash_here(self, workflow: Workflow, problem: Exception) -> Hashed:
        reason = str(problem)[:LONGEST_ERROR]
        if not self._hash_without_stamping:
            raise StepError(reason)
        began = time.perf_counter()
        # The service hashes what is below the stamps that a file may have.
        file_hash = blake3.blake3(bare(workflow.request.content).encode()).hexdigest()
        took_ms = (time.perf_counter() - began) * 1000
        result = {"stamp_id": None, "file_hash": file_hash, "source": Source.IN_MEMORY.value, "reason": reason}
        return Hashed(Source.IN_MEMORY, result, took_ms)
