"""Defects of the datacentre (FLOW-V8, F6) and of the command line (FLOW-L, R3, V9), each in its own process."""

from __future__ import annotations

import dataclasses
import os
import sys
import tempfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from testyard.lab.sabotage.defect import DEFECT_VARIABLE, Defect, wrap

PATCHES: dict[str, Callable[[], None]] = {}


def break_this_process() -> None:
    """Put the defect in place that the environment names."""
    PATCHES[os.environ[DEFECT_VARIABLE]]()


def datacentre_defect(name: str, what: str, *turns_red: str) -> Callable[[Callable[[], None]], Defect]:
    """Make a defect of the decorated function, which the datacentre calls when it starts."""

    def decorate(patch: Callable[[], None]) -> Defect:
        PATCHES[name] = patch
        return Defect(name, what, frozenset(turns_red), _datacentre_with_defect)

    return decorate


def command_defect(name: str, what: str, *turns_red: str) -> Callable[[Callable[[], None]], Defect]:
    """Make a defect of the decorated function, which the command line calls when it starts."""

    def decorate(patch: Callable[[], None]) -> Defect:
        PATCHES[name] = patch
        return Defect(name, what, frozenset(turns_red), _command_with_defect)

    return decorate


def _datacentre_with_defect() -> None:
    from testyard.lab.supervisor.clusters import ClusterLab

    def start(original: Any, self: Any) -> None:
        original(self)
        self.module = "testyard.lab.sabotage.cluster_datacentre"

    wrap(ClusterLab, "__init__", start)


def _command_with_defect() -> None:
    # By name: a library of Robot Framework is not checked with the strictness of this package.
    commanding = import_module("WorkflowLibrary.commanding")
    commanding.__dict__["COMMAND"] = (sys.executable, "-m", "testyard.lab.sabotage.workflow_command", "workflow")


# The datacentre.


@datacentre_defect("expired-credential-accepted", "a provider accepts credentials that have expired", "FLOW-V8")
def expired_credential_accepted() -> None:
    from testyard.lab.clouds.machines import CloudAccount

    setattr(CloudAccount, "expired", property(lambda _: False, lambda _, __: None))  # noqa: B010 it is a field


@datacentre_defect("standbys-not-awaited", "a commit waits for no standby", "FLOW-F6")
def standbys_not_awaited() -> None:
    from testyard.lab.cluster.deployment import Deployment

    def create(original: Any, self: Any, wish: Any, *arguments: Any) -> None:
        original(self, dataclasses.replace(wish, synchronous=False), *arguments)

    wrap(Deployment, "__init__", create)


# The command line: what is chosen.


@command_defect("listing-leaves-one-out", "the last of several workflow tests is not listed", "FLOW-L1")
def listing_leaves_one_out() -> None:
    from testyard.workflow import command_line

    wrap(command_line, "_show", lambda original, tests: original(tests[:-1] or tests))


@command_defect("provider-ignored", "--provider chooses nothing", "FLOW-L2")
def provider_ignored() -> None:
    from testyard.workflow import selection

    wrap(
        selection, "select", lambda original, tests, *, identifiers, **_: original(tests, identifiers=identifiers)
    )


@command_defect("typo-passes", "an id that no test has selects nothing, and the run passes", "FLOW-L2")
def typo_passes() -> None:
    from testyard.core.errors import UserError
    from testyard.workflow import selection

    def select(original: Any, *arguments: Any, **options: Any) -> Any:
        try:
            return original(*arguments, **options)
        except UserError:
            raise SystemExit(0) from None

    wrap(selection, "select", select)


@command_defect("one-at-a-time", "--parallel runs one test after the other", "FLOW-L3", "FLOW-L4")
def one_at_a_time() -> None:
    from testyard.workflow.runner import Runner

    wrap(Runner, "_parallel", lambda *_: 1)


@command_defect("rerun-of-everything", "what has passed is run again as well", "FLOW-L3", "FLOW-L4")
def rerun_of_everything() -> None:
    from testyard.workflow.selection import EarlierRun

    wrap(EarlierRun, "tests", lambda _, self, __: [str(result["test"]) for result in self.results])


# The command line: what is written, and what a dry run does.


@command_defect("written-at-the-end", "the result is written when the run has ended", "FLOW-R3")
def written_at_the_end() -> None:
    from testyard.workflow.results import ResultFile

    wrap(ResultFile, "write", lambda *_: None)


@command_defect("ended-steps-unwritten", "while a run goes on, steps that have ended are not written", "FLOW-R3")
def ended_steps_unwritten() -> None:
    from testyard.workflow.results import ResultFile, Status

    def write(original: Any, self: Any, result: Any, ended: Any = None) -> None:
        running = [step for step in result.workflow_steps if step.status is Status.RUNNING]
        original(self, dataclasses.replace(result, workflow_steps=running), ended)

    wrap(ResultFile, "write", write)


@command_defect("dry-run-without-targets", "a dry run does not say whom a step is for", "FLOW-V9")
def dry_run_without_targets() -> None:
    from testyard.workflow.plan import PlannedStep

    wrap(PlannedStep, "__str__", lambda _, self: "\n".join([f"{self.number}. {self.step.step}", *self.calls]))


@command_defect("dry-run-without-calls", "a dry run does not say what would be called", "FLOW-V9")
def dry_run_without_calls() -> None:
    from testyard.workflow.plan import PlannedStep

    wrap(PlannedStep, "__str__", lambda original, self: original(self).splitlines()[0])


@command_defect("dry-run-deploys", "a dry run deploys", "FLOW-V9")
def dry_run_deploys() -> None:
    from testyard.workflow import command_line
    from testyard.workflow.deployer import Deployer

    def dry_run(original: Any, tests: Any, settings: Any) -> int:
        with tempfile.TemporaryDirectory(prefix="testyard-") as directory:
            deployer = Deployer(Path(directory), settings)
            deployer.init(tests[0].suite.provider, {"cluster_size": 1, "database": False})
            deployer.deploy()
        status: int = original(tests, settings)
        return status

    wrap(command_line, "_dry_run", dry_run)


PROCESS_DEFECTS: tuple[Defect, ...] = tuple(
    value for value in dict(globals()).values() if isinstance(value, Defect)
)
