"""Workflows that an earlier process has left unfinished are run again."""

from __future__ import annotations

from testyard.lab.bridge.node import Node
from testyard.lab.bridge.orchestrator.engine import Orchestrator
from testyard.lab.bridge.orchestrator.stored import Unfinished
from testyard.lab.waiting import elapse


async def resume_for_ever(node: Node, orchestrator: Orchestrator) -> None:
    """Look for such workflows again and again: what tells of them may still have been on the bus at the start.

    Args:
        node: The orchestrator's.
        orchestrator: Runs them.
    """
    unfinished = Unfinished(node)
    while True:
        for workflow in await unfinished.find():
            orchestrator.resume(workflow)
        await elapse(node.settings.orchestrator.resume_after)
