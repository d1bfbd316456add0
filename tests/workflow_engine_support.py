"""A small world for the workflow engine's tests: steps and checks that tell what they were asked, no cluster."""

from __future__ import annotations

import gc
import json
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from testyard.workflow.context import Context
from testyard.workflow.engine import WorkflowExecutor
from testyard.workflow.loading import parse_workflow
from testyard.workflow.model import CrashNodeFields, NodeFields, RestartNodeFields, Step, WorkflowFile
from testyard.workflow.problems import WorkflowInvalidError
from testyard.workflow.registry import CheckRegistry, Measurement, StepRegistry
from testyard.workflow.results import SuiteResult

# The document's step types that act on a cluster.
STEP_FIELDS = {
    "init": None,
    "deploy": None,
    "stop_cluster": None,
    "start_cluster": None,
    "destroy": None,
    "stop_node": NodeFields,
    "start_node": NodeFields,
    "restart_node": RestartNodeFields,
    "crash_node": CrashNodeFields,
}
CHECKS = ("cluster_status", "database_running", "database_down", "all_nodes_running")


@contextmanager
def alarm(exception: type[BaseException]) -> Iterator[Callable[[float], object]]:
    """What raises an exception in the main thread after so many seconds, once, as Robot Framework does."""

    def ring(*_: object) -> None:
        raise exception

    before = signal.signal(signal.SIGALRM, ring)
    # Python ignores an exception in a finalizer, and the collector may run one of anybody's at that moment.
    gc.disable()
    try:
        yield lambda seconds: signal.setitimer(signal.ITIMER_REAL, seconds)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        gc.enable()
        signal.signal(signal.SIGALRM, before)


class World:
    """Registries whose steps and checks are remembered, and can be told to fail.

    Attributes:
        acted: What was done, in order: ``stop_node n12``, ``check cluster_status``.
        failing: What fails when it is done next, and how; by the same words.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.acted: list[str] = []
        self.failing: dict[str, list[BaseException | object]] = {}
        self.steps = StepRegistry()
        self.checks = CheckRegistry()
        for name, fields in STEP_FIELDS.items():
            self.steps.register(name, f"Do {name}", self._act, fields=fields)
        for name in CHECKS:
            self.checks.register(name, f"Look at {name}", self._check(name))
        self.checks.register(
            "node_status",
            "Look at a node",
            lambda context, node, state="running": self._verdict(f"node_status:{node}:{state}"),
            arguments=("node", "state?"),
            values={"state": ("running", "stopped")},
        )

    def fail(self, what: str, *how: object) -> None:
        """Let it fail the next times: exceptions are raised, anything else is what a check returns."""
        self.failing.setdefault(what, []).extend(how or (RuntimeError("it broke"),))

    def parse(self, *steps: Mapping[str, Any], **suite: Any) -> WorkflowFile:
        """A file with one suite ``basic`` of three nodes on libvirt."""
        raw = {"provider": "libvirt", "parameters": {"cluster_size": 3}, "workflow": list(steps), **suite}
        return parse_workflow({"test_suites": {"basic": raw}}, self.steps, self.checks, path=Path("suites/x.json"))

    def problems(self, *steps: Mapping[str, Any], **suite: Any) -> list[str]:
        """What is wrong with it: JSON path below the suite, and message."""
        with pytest.raises(WorkflowInvalidError) as invalid:
            self.parse(*steps, **suite)
        assert all(problem.file == "suites/x.json" for problem in invalid.value.problems)
        return [f"{p.path.removeprefix('test_suites.basic.')}: {p.message}" for p in invalid.value.problems]

    def executor(self, **options: Any) -> WorkflowExecutor:
        """An executor of this world, whose pauses are short; it writes ``result.json``."""
        given = {"results_path": self.directory / "result.json", "delay_scale": 0.0, **options}
        return WorkflowExecutor(self.context(), self.steps, self.checks, **given)

    def context(self, log: Callable[[str], None] = lambda _: None) -> Context:
        """A context without a cluster."""
        return Context(deploy_dir=self.directory, parameters={"cluster_size": 3}, provider="libvirt", log=log)

    def run(self, *steps: Mapping[str, Any], **options: Any) -> SuiteResult:
        """Run a workflow of these steps."""
        return self.executor(**options).run(self.parse(*steps).suite())

    def written(self) -> Any:
        """The result file's content."""
        return json.loads((self.directory / "result.json").read_text(encoding="utf-8"))

    def _act(self, context: Context, step: Step) -> Mapping[str, Any] | None:
        what = " ".join(filter(None, (step.step, getattr(step, "target_node", None))))
        self.acted.append(what)
        waiting = self.failing.get(what)
        how = waiting.pop(0) if waiting else None
        if isinstance(how, BaseException):
            raise how
        return None

    def _check(self, name: str) -> Callable[[Context], Any]:
        return lambda context: self._verdict(name)

    def _verdict(self, name: str) -> Any:
        self.acted.append(f"check {name}")
        waiting = self.failing.get(name)
        how = waiting.pop(0) if waiting else Measurement(True, "as it should be")
        if isinstance(how, BaseException):
            raise how
        return how


def statuses(result: SuiteResult) -> list[str]:
    """The states of the steps that were reached."""
    return [str(step.status) for step in result.workflow_steps]
