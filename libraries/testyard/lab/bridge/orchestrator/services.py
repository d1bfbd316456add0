"""The services that workflows are made of, each behind its own breaker, with its own timeout and its own queue.

One that does not answer slows down, or fails, only the step that needs it (document 004, section 4: isolation).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from enum import Enum
from typing import Any, Final, TypeVar
from uuid import UUID

import blake3

from testyard.lab.bridge.breaker import CircuitBreaker, CircuitOpenError
from testyard.lab.bridge.node import Node
from testyard.lab.bridge.onextree_client import Intelligence, OnextreeClient, OnextreeError
from testyard.lab.bridge.orchestrator.workflow import Workflow
from testyard.lab.bridge.stamping_client import (
    Stamp,
    StampingClient,
    StampingRefusedError,
    StampingUnavailableError,
)

Value = TypeVar("Value")

STAMPING: Final = "stamping"
ONEXTREE: Final = "onextree"


class Source(Enum):
    """Where a hash comes from."""

    SERVICE = "metadata_stamping"
    IN_MEMORY = "in_memory_fallback"


class StepError(Exception):
    """A step cannot be done, and nothing can stand in for it."""


class _Guarded:
    """One service: how many calls are under way, how long each may take, and whether it is asked at all."""

    def __init__(self, name: str, breaker: CircuitBreaker, timeout: timedelta, concurrent: int) -> None:
        self.name = name
        self._breaker = breaker
        self._timeout = timeout
        self._places = asyncio.Semaphore(concurrent)

    async def call(self, ask: Callable[[], Awaitable[Value]], *harmless: type[Exception]) -> Value:
        """Ask the service.

        Raises:
            TimeoutError: It took too long.
            CircuitOpenError: It was not asked.
        """
        async with self._places:
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
        self._ask_stamping = _Guarded(
            STAMPING,
            node.new_breaker(CircuitBreaker(STAMPING, settings.breaker)),
            settings.stamping_timeout,
            settings.concurrent_calls,
        )
        self._ask_onextree = _Guarded(
            ONEXTREE,
            node.new_breaker(CircuitBreaker(ONEXTREE, settings.breaker)),
            settings.onextree_timeout,
            settings.concurrent_calls,
        )

    async def intelligence(self, workflow: Workflow) -> Intelligence | str:
        """Ask OnexTree about a file.

        Returns:
            What it says, or why it could not be had: the workflow goes on without.
        """
        request = workflow.request
        try:
            found = await self._ask_onextree.call(
                lambda: self._onextree.intelligence(f"{request.file_path}\n{request.content}")
            )
        except TimeoutError:
            return "onextree timeout"
        except (OnextreeError, CircuitOpenError) as problem:
            return str(problem)
        return "onextree is degraded" if found.degraded else found

    async def stamp(self, workflow: Workflow, intelligence: dict[str, Any] | None) -> dict[str, Any]:
        """Have a file stamped; when the stamping service is away, hash it here.

        Returns:
            The stamp, with its ``source``.

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
            raise StepError(str(problem)) from None
        except (StampingUnavailableError, CircuitOpenError) as problem:
            if not self._hash_without_stamping:
                raise StepError(str(problem)) from None
            return {
                "stamp_id": None,
                "file_hash": blake3.blake3(workflow.request.content.encode()).hexdigest(),
                "source": Source.IN_MEMORY.value,
                "reason": str(problem),
            }
        return {**stamp.model_dump(mode="json"), "source": Source.SERVICE.value}

    async def _ask_for_a_stamp(self, workflow: Workflow, intelligence: dict[str, Any] | None) -> Stamp:
        request = workflow.request
        correlation: UUID = workflow.correlation_id
        return await self._stamping.stamp(
            request.content,
            request.file_path,
            namespace=request.namespace,
            correlation_id=correlation,
            intelligence_data=intelligence,
        )
