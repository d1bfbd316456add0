"""Measures lifecycles: how long they take, how much of that the agent takes, and what memory they cost.

``AgentClock`` serves the benchmarks in this process; ``LifecycleMeter`` is a listener for a robot process.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import psutil
from waldur_site_agent.common.processors import OfferingOrderProcessor

TIMED_KEYWORD = "A Resource Has Been Created"
WHOLE_KEYWORD = "A Resource Is Created And Terminated"
DOUBLE_MODULE = "testyard.lab.waldur"
SAMPLED_AFTER = (20, 60, 100, 140, 200)


class AgentClock:
    """Adds up the time spent inside the agent's own code: its ``process_offering``.

    Attributes:
        inside: Seconds since the start, or since somebody set it to zero.
    """

    def __init__(self) -> None:
        self.inside = 0.0

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Measure every order processor's cycles for a while."""
        process = OfferingOrderProcessor.process_offering

        def timed(processor: OfferingOrderProcessor) -> None:
            started = time.perf_counter()
            try:
                process(processor)
            finally:
                self.inside += time.perf_counter() - started

        with mock.patch.object(OfferingOrderProcessor, "process_offering", timed):
            yield


class LifecycleMeter:
    """Listens to a run of ``lifecycles.robot`` and writes its figures at the end.

    Args:
        path: The JSON file for the figures: ``lifecycles`` are pairs of wall time and time inside the agent, in
            seconds; ``memory`` is the resident set in bytes, by process, after so many lifecycles.
    """

    ROBOT_LISTENER_API_VERSION = 3

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._clock = AgentClock()
        self._stack = ExitStack()
        self._stack.enter_context(self._clock.watching())
        self._started = 0.0
        self._lifecycles: list[tuple[float, float]] = []
        self._memory: dict[int, dict[str, int]] = {}

    def start_user_keyword(self, data: Any, implementation: Any, result: Any) -> None:
        """Start the clock of a lifecycle."""
        if result.name == TIMED_KEYWORD:
            self._clock.inside = 0.0
            self._started = time.perf_counter()

    def end_user_keyword(self, data: Any, implementation: Any, result: Any) -> None:
        """Stop the clock of a lifecycle; look at the memory after some."""
        if result.name == TIMED_KEYWORD:
            self._lifecycles.append((time.perf_counter() - self._started, self._clock.inside))
        elif result.name == WHOLE_KEYWORD and len(self._lifecycles) in SAMPLED_AFTER:
            self._memory[len(self._lifecycles)] = resident_sets()

    def close(self) -> None:
        """Write the figures."""
        self._stack.close()
        self._path.write_text(json.dumps({"lifecycles": self._lifecycles, "memory": self._memory}))


def resident_sets() -> dict[str, int]:
    """The resident set of this process and of its Waldur doubles, in bytes."""
    robot = psutil.Process()
    sets = {"robot": robot.memory_info().rss}
    for child in robot.children():
        command = child.cmdline()
        if DOUBLE_MODULE in command:
            sets[f"Waldur {command[command.index('--name') + 1]}"] = child.memory_info().rss
    return sets
