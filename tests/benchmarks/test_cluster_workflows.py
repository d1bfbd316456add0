"""What the workflow engine adds to the functions that it calls, and what a parallel group gains."""

import os
import statistics
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from testyard.workflow.context import Context
from testyard.workflow.engine import run_suite
from testyard.workflow.loading import default_steps, parse_workflow
from testyard.workflow.model import Step, Suite
from testyard.workflow.registry import CheckRegistry, StepRegistry

ROUNDS = 20
STEPS = 50
TOGETHER = 8
OVERHEAD = timedelta(milliseconds=2)
GROUP = timedelta(seconds=1.5)
WORK = {"step": "work"}


def work(_: Context, __: Step) -> dict[str, Any]:
    """What a step does here: almost nothing."""
    return {"sum": sum(range(100))}


def registry() -> StepRegistry:
    """The steps."""
    steps = StepRegistry()
    steps.register("work", "Do almost nothing", work)
    return steps


def suite_of(steps: StepRegistry, *workflow: dict[str, Any]) -> Suite:
    """A suite with these steps."""
    raw = {"test_suites": {"basic": {"provider": "aws", "workflow": list(workflow)}}}
    return parse_workflow(raw, steps, CheckRegistry(), path=Path("basic.json")).suite()


def context_in(directory: Path) -> Context:
    """What steps are given; they need no cluster."""
    return Context(deploy_dir=directory, parameters={}, provider="aws")


def test_a_steps_overhead(tmp_path: Path, report: Callable[[str], None]) -> None:
    """Each step of a workflow with a result file, against calling its function bare."""
    steps = registry()
    suite, context = suite_of(steps, *[WORK] * STEPS), context_in(tmp_path)
    engine, bare = [], []
    # What other benchmarks have written is not to be waited for when a result file is.
    os.sync()
    for number in range(ROUNDS):
        started = time.perf_counter()
        result = run_suite(
            suite, context, steps, CheckRegistry(), results_path=tmp_path / f"{number}.json", deployment_id="bench"
        )
        between = time.perf_counter()
        for step in suite.workflow:
            work(context, step)
        ended = time.perf_counter()
        assert result.success
        assert len(result.workflow_steps) == STEPS
        engine.append((between - started) / STEPS)
        bare.append((ended - between) / STEPS)
    added = statistics.median(engine) - statistics.median(bare)
    report(
        f"a step of {STEPS} with a result file: engine {statistics.median(engine) * 1000:.2f} ms, "
        f"its function bare {statistics.median(bare) * 1000:.3f} ms"
    )
    assert added <= OVERHEAD.total_seconds()


def test_a_parallel_group(tmp_path: Path, report: Callable[[str], None]) -> None:
    """Eight programs of one second each, at once."""
    steps = default_steps()
    second = {"step": "custom_command", "custom_command": ["sleep", "1"]}
    suite = suite_of(steps, {"step": "parallel", "steps": [second] * TOGETHER})
    started = time.perf_counter()
    result = run_suite(suite, context_in(tmp_path), steps, CheckRegistry(), results_path=tmp_path / "result.json")
    took = time.perf_counter() - started
    assert result.success
    report(f"a parallel group of {TOGETHER} x 1 s: {took:.2f} s")
    assert took <= GROUP.total_seconds()
