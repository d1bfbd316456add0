"""Measures lifecycles: how long they take, whose time that is, and what memory they cost.

``LifecycleClock`` serves the benchmarks in this process; ``LifecycleMeter`` is a listener for a robot process.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar
from unittest import mock

import psutil
from testyard.core.json_client import JsonClient
from waldur_site_agent.common.processors import OfferingOrderProcessor

TIMED_KEYWORD = "A Resource Has Been Created"
WHOLE_KEYWORD = "A Resource Is Created And Terminated"
DOUBLE_MODULE = "testyard.lab.waldur"
SAMPLED_AFTER = (20, 60, 100, 140, 200)


Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Lifecycle:
    """How long a resource took from its order to its order being done, in seconds.

    Attributes:
        wall: Altogether.
        inside: Of it, inside the agent's own code.
        asking: Of it, in the REST calls of customer and provider, which are not the agent's.
    """

    wall: float
    inside: float
    asking: float

    @property
    def overhead(self) -> float:
        """The share of the time that was not the agent's."""
        return (self.wall - self.inside) / self.wall

    @property
    def own(self) -> float:
        """The share of the time that was neither the agent's nor spent in REST calls."""
        return (self.wall - self.inside - self.asking) / self.wall


class LifecycleClock:
    """Tells whose time a lifecycle is: adds up what the agent's ``process_offering`` and REST calls take."""

    def __init__(self) -> None:
        self._inside = 0.0
        self._asking = 0.0
        self._started = 0.0

    def start(self) -> None:
        """A lifecycle starts."""
        self._inside = self._asking = 0.0
        self._started = time.perf_counter()

    def stop(self) -> Lifecycle:
        """A lifecycle ends."""
        return Lifecycle(time.perf_counter() - self._started, self._inside, self._asking)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Measure every order processor and every client of testyard for a while."""

        def agent(seconds: float) -> None:
            self._inside += seconds

        def client(seconds: float) -> None:
            self._asking += seconds

        processing = _timed(OfferingOrderProcessor.process_offering, agent)
        sending = _timed(JsonClient.send, client)
        with (
            mock.patch.object(OfferingOrderProcessor, "process_offering", processing),
            mock.patch.object(JsonClient, "send", sending),
        ):
            yield


def _timed(function: Callable[Parameters, Result], add: Callable[[float], None]) -> Callable[Parameters, Result]:
    def timed(*arguments: Parameters.args, **options: Parameters.kwargs) -> Result:
        started = time.perf_counter()
        try:
            return function(*arguments, **options)
        finally:
            add(time.perf_counter() - started)

    return timed


class LifecycleMeter:
    """Listens to a run of ``lifecycles.robot`` and writes its figures at the end.

    Args:
        path: The JSON file for the figures: ``lifecycles`` holds the attributes of each; ``memory`` is the
            resident set in bytes, by process, after so many lifecycles.
    """

    ROBOT_LISTENER_API_VERSION = 3

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._clock = LifecycleClock()
        self._stack = ExitStack()
        self._stack.enter_context(self._clock.watching())
        self._lifecycles: list[Lifecycle] = []
        self._memory: dict[int, dict[str, int]] = {}

    def start_user_keyword(self, data: Any, implementation: Any, result: Any) -> None:
        """Start the clock of a lifecycle."""
        if result.name == TIMED_KEYWORD:
            self._clock.start()

    def end_user_keyword(self, data: Any, implementation: Any, result: Any) -> None:
        """Stop the clock of a lifecycle; look at the memory after some."""
        if result.name == TIMED_KEYWORD:
            self._lifecycles.append(self._clock.stop())
        elif result.name == WHOLE_KEYWORD and len(self._lifecycles) in SAMPLED_AFTER:
            self._memory[len(self._lifecycles)] = resident_sets()

    def close(self) -> None:
        """Write the figures."""
        self._stack.close()
        figures = {"lifecycles": list(map(astuple, self._lifecycles)), "memory": self._memory}
        self._path.write_text(json.dumps(figures))


def resident_sets() -> dict[str, int]:
    """The resident set of this process and of its Waldur doubles, in bytes."""
    robot = psutil.Process()
    sets = {"robot": robot.memory_info().rss}
    for child in robot.children():
        command = child.cmdline()
        if DOUBLE_MODULE in command:
            sets[f"Waldur {command[command.index('--name') + 1]}"] = child.memory_info().rss
    return sets
