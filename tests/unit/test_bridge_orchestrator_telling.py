"""What a workflow tells is told in an order that a crash at any moment leaves whole."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from testyard.lab.bridge.events import WorkflowState
from testyard.lab.bridge.orchestrator.telling import Telling
from testyard.lab.bridge.orchestrator.workflow import Workflow, WorkflowRequest
from testyard.lab.bridge.publisher import Publisher
from testyard.lab.bridge.topics import Route


class SlowTransitions:
    """Publishes everything at once, but transitions only when it is let.

    Attributes:
        told: What has been taken.
        may_go_on: Lets transitions go on.
    """

    def __init__(self) -> None:
        self.told: list[Route] = []
        self.may_go_on = asyncio.Event()

    async def publish(self, route: Route, *_: Any, **__: Any) -> None:
        """Take an event."""
        if route is Route.STATE_TRANSITION:
            await self.may_go_on.wait()
        self.told.append(route)


pytestmark = pytest.mark.anyio


async def test_the_end_is_told_when_the_last_change_has_been_taken() -> None:
    publisher = SlowTransitions()
    workflow = Workflow(WorkflowRequest(content="x", file_path="a.txt"))
    workflow.become(WorkflowState.PROCESSING)
    telling = Telling(cast("Publisher", publisher))
    ending = asyncio.create_task(telling.ended(workflow))
    for _ in range(10):
        await asyncio.sleep(0)
    assert publisher.told == []
    publisher.may_go_on.set()
    await ending
    assert publisher.told == [Route.STATE_TRANSITION, Route.WORKFLOW_COMPLETED]
