"""Runs robot in a process of its own and reads what was measured there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lifecycle_meter import Lifecycle

PROJECT = Path(__file__).resolve().parents[2]
LIFECYCLES_SUITE = PROJECT / "tests" / "data" / "benchmarks" / "lifecycles.robot"
SUITES = PROJECT / "suites"
OWN_VARIABLES = "WALDUR_E2E_"

# Keywords that prepare a federation.
POLLING = "A Federation Between Two Waldurs"
LISTENING = "A Federation That Listens To Events"


@dataclass(frozen=True)
class LifecycleRun:
    """What the meter measured in one run.

    Attributes:
        lifecycles: In the order they were lived.
        memory: The resident set in bytes: after so many lifecycles, by process.
    """

    lifecycles: Sequence[Lifecycle]
    memory: Mapping[int, Mapping[str, int]]


def run_lifecycles(preparation: str, results: Path) -> LifecycleRun:
    """Run many lifecycles by keywords.

    Args:
        preparation: The keyword that prepares the federation.
        results: Where robot writes; empty.
    """
    figures = results / "lifecycles.json"
    run_suites(
        "robot",
        results,
        *("--pythonpath", str(Path(__file__).parent)),
        *("--listener", f"lifecycle_meter.LifecycleMeter:{figures}"),
        *("--variable", f"PREPARATION:{preparation}"),
        str(LIFECYCLES_SUITE),
    )
    measured = json.loads(figures.read_text())
    return LifecycleRun(
        [Lifecycle(*values) for values in measured["lifecycles"]],
        {int(after): sets for after, sets in measured["memory"].items()},
    )


def run_suites(command: str, results: Path, *arguments: str) -> float:
    """Run ``robot`` or ``pabot`` on the embedded lab; all tests must pass.

    Args:
        command: The command's name.
        results: Where it writes; also where it runs, as pabot remembers the suites' names there.
        arguments: Its other arguments.

    Returns:
        Wall time in seconds.

    Raises:
        AssertionError: The command failed; shows the end of what it said.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith(OWN_VARIABLES)}
    # pabot starts `robot` by its name.
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", "")])
    started = time.perf_counter()
    run = subprocess.run(
        [str(Path(sys.executable).parent / command), "--outputdir", str(results), *arguments],
        env=environment,
        cwd=results,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    wall = time.perf_counter() - started
    assert run.returncode == 0, f"{command} ended with {run.returncode}:\n{run.stdout[-3000:]}"
    return wall
