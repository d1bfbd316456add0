"""Run one workflow on a deployment of its own, and leave nothing behind, whatever happens.

However the workflow ends, its deployment is destroyed; where it is kept, or cannot be destroyed, its faults are
undone, the last one first. Then the result is written once more, with what became of the deployment. What a killed
run has left is ended in the same way by the next run with the same directory of results.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from testyard.core.errors import UserError
from testyard.core.leftover import Leftover
from testyard.core.redact import secrets_in_use
from testyard.power.deployment import STATE_FILE
from testyard.power.engine import replay
from testyard.power.undo import JOURNAL, process_started
from testyard.workflow.cluster import Cluster
from testyard.workflow.context import Context
from testyard.workflow.deployer import DeployerError
from testyard.workflow.engine import WorkflowExecutor
from testyard.workflow.model import Step
from testyard.workflow.observer import Observer
from testyard.workflow.registry import CheckRegistry, StepRegistry
from testyard.workflow.results import CheckResult, ResultFile, StepResult, SuiteResult, new_deployment_id
from testyard.workflow.selection import WorkflowTest, unmet
from testyard.workflow.settings import WorkflowSettings

DESTROYED = "destroyed"
OWNER_FILE = ".owner.json"
DEPLOYMENTS = "deployments"
RETAINED = "retained-deployments"
# No process has this id.
NOBODY = 0


class Retain(StrEnum):
    """When a deployment is kept after its workflow."""

    NEVER = "never"
    FAILURE = "failure"
    ALWAYS = "always"


@dataclass(frozen=True)
class RunOptions:
    """How workflows are run.

    Attributes:
        results: The directory of results.
        parallel: How many workflows at a time; 0: as many as the limits allow.
        stop_on_error: Begin no further workflow after one has failed.
        retain: When a deployment is kept.
        run_numbers: Of tests that are run again: which run of it this is.
    """

    results: Path
    parallel: int = 1
    stop_on_error: bool = False
    retain: Retain = Retain.NEVER
    run_numbers: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """What became of one workflow, as the summary of a run says it.

    Attributes:
        test: Its id.
        suite: The suite's name.
        provider: Where it ran.
        success: Whether it passed.
        duration: In seconds.
        error: Why it did not pass.
        skipped: Why it was not run; empty when it was.
        deployment_id: The name of its deployment's directory.
        config_path: The workflow file.
        result_file: Its own result JSON.
        log_file: What was said.
        run_number: 1, and more when it was run again.
        retained_deployment_dir: Where its deployment was kept.
        db_version: What was deployed.
    """

    test: str
    suite: str
    provider: str
    success: bool = False
    duration: float = 0.0
    error: str | None = None
    skipped: Sequence[str] = ()
    deployment_id: str | None = None
    config_path: str = ""
    result_file: str | None = None
    log_file: str | None = None
    run_number: int = 1
    retained_deployment_dir: str | None = None
    db_version: str | None = None

    @property
    def failed(self) -> bool:
        """Whether it was run and did not pass."""
        return not self.success and not self.skipped

    def __str__(self) -> str:
        if self.skipped:
            return f"{self.test}: SKIPPED: {'; '.join(self.skipped)}"
        took = f"{self.duration:.1f} s"
        return f"{self.test}: PASSED in {took}" if self.success else f"{self.test}: FAILED in {took}: {self.error}"


class WorkflowRun:
    """One workflow, from an empty directory to a destroyed deployment.

    Args:
        test: The workflow.
        directory: Of the whole run; the workflow's files are made in it.
        settings: Deployer, deadlines.
        steps: The step types.
        checks: The checks.
        options: What to keep.
        say: Is told what goes on, line by line.
    """

    def __init__(
        self,
        test: WorkflowTest,
        directory: Path,
        settings: WorkflowSettings,
        *,
        steps: StepRegistry,
        checks: CheckRegistry,
        options: RunOptions,
        say: Callable[[str], None],
    ) -> None:
        self._test = test
        self._suite = test.suite
        self._settings = settings
        self._steps = steps
        self._checks = checks
        self._retain = options.retain
        self._say = say
        self._number = options.run_numbers.get(test.identifier, 1)
        name = test.identifier if self._number == 1 else f"{test.identifier}-run{self._number}"
        self._directory = directory
        self._result_file = directory / f"{name}.json"
        self._log_file = directory / f"{name}.log"
        self._deployment_id = new_deployment_id(self._suite.provider, self._suite.name)
        self._deployment = directory / DEPLOYMENTS / self._deployment_id
        self._db_version: str | None = None

    @property
    def nodes(self) -> int:
        """How many nodes it deploys."""
        return self._test.nodes

    def run(self, record: Callable[[Verdict], None]) -> None:
        """Run it, clean up, and tell the verdict.

        Args:
            record: Is told the verdict, also when the run is aborted.

        Raises:
            KeyboardInterrupt: Ctrl-C, after everything was cleaned up.
            UserError: The result cannot be written.
        """
        reasons = unmet(self._suite.requirements) if self._settings.requirements_count else []
        if reasons:
            record(self._verdict(skipped=[f"this machine lacks {reason}" for reason in reasons]))
            return
        with _log_to(self._log_file) as write:
            cluster = Cluster(
                self._deployment,
                self._settings,
                provider=self._suite.provider,
                parameters=self._suite.parameters,
                log=write,
            )
            context = Context(
                deploy_dir=self._deployment,
                parameters=dict(self._suite.parameters),
                provider=self._suite.provider,
                cluster=cluster,
                log=write,
            )
            executor = WorkflowExecutor(
                context,
                self._steps,
                self._checks,
                observer=_Progress(self._test.identifier, self._say, write),
                results_path=self._result_file,
                delay_scale=self._settings.delay_scale,
            )
            started = time.monotonic()
            try:
                executor.run(self._suite, deployment_id=self._deployment_id, config_path=self._test.file)
            finally:
                result = executor.result
                if result is not None:
                    self._clean_up(cluster, result, write)
                    result.duration = time.monotonic() - started
                    ResultFile(self._result_file).write_ended(result)
                    record(self._verdict(result))

    def _clean_up(self, cluster: Cluster, result: SuiteResult, write: Callable[[str], None]) -> None:
        """Undo, destroy or keep; what could not be done makes the workflow fail."""
        self._db_version = _state(self._deployment).get("db_version")
        left: list[str] = []
        try:
            keeps = self._retain is Retain.ALWAYS or (self._retain is Retain.FAILURE and not result.success)
            left = end_or_keep(cluster, cluster.undo, keeps=keeps, say=write)
            if keeps and _is_deployed(self._deployment):
                result.retained_deployment_dir = str(_retained(self._directory, self._deployment))
        except KeyboardInterrupt:
            left.append(f"the clean-up was interrupted, {self._deployment} may still be deployed")
        except Exception as problem:  # whatever it was, the result must say that something is left
            left.append(f"the clean-up failed: {type(problem).__name__}: {problem}")
        result.log_file = str(self._log_file)
        if left:
            result.emergency_summary = [secrets_in_use.mask(line) for line in left]
            result.success = False
            result.error = "; ".join(filter(None, [result.error, *result.emergency_summary]))

    def broken(self, error: str) -> Verdict:
        """The verdict on a workflow whose own process could not tell one."""
        return replace(self._verdict(), error=error)

    def _verdict(self, result: SuiteResult | None = None, *, skipped: Sequence[str] = ()) -> Verdict:
        known: dict[str, Any] = {}
        if result is not None:
            known = {
                "success": result.success,
                "duration": round(result.duration, 3),
                "error": _why(result),
                "deployment_id": result.deployment_id,
                "result_file": str(self._result_file),
                "log_file": str(self._log_file),
                "retained_deployment_dir": result.retained_deployment_dir,
                "db_version": self._db_version,
            }
        return Verdict(
            self._test.identifier,
            self._suite.name,
            self._suite.provider.value,
            skipped=tuple(skipped),
            config_path=str(self._test.file.absolute()),
            run_number=self._number,
            **known,
        )


def own_directory(directory: Path, retain: Retain) -> None:
    """Note in the directory of a run whose it is, so that a later run can tell that this one was killed.

    Args:
        directory: The run's.
        retain: Whether what a killed run leaves is to be kept.
    """
    _write_owner(directory, os.getpid(), retain)


def disown_directory(directory: Path) -> None:
    """Note that a run has ended: what it has left, if anything, is for the next run to end."""
    if _left(directory):
        _write_owner(directory, NOBODY, Retain.NEVER)
        return
    with suppress(OSError):  # it holds what was kept, or was never made
        (directory / DEPLOYMENTS).rmdir()
    (directory / OWNER_FILE).unlink(missing_ok=True)


def end_leftovers(results: Path, settings: WorkflowSettings, say: Callable[[str], None]) -> None:
    """Destroy the deployments that killed runs have left in a directory of results, or undo their faults.

    Args:
        results: The directory of results.
        settings: Deployer, deadlines.
        say: Is told what was done, and what could not be.
    """
    for file in sorted(results.glob(f"*/{OWNER_FILE}")):
        owner = _owner(file)
        if owner is None or (owner["pid"] != NOBODY and process_started(owner["pid"]) == owner["started"]):
            continue
        run = file.parent
        keeps = owner["retain"] != Retain.NEVER
        for deployment in _left(run):
            _end_leftover(deployment, settings, keeps=keeps, say=say)
            if keeps and _is_deployed(deployment):
                _retained(run, deployment)
        disown_directory(run)


def end_or_keep(
    cluster: Cluster, undo: Callable[[], Sequence[Leftover]], *, keeps: bool, say: Callable[[str], None]
) -> list[str]:
    """Destroy a deployment and its directory, or put back what its faults have taken down.

    What is destroyed has no faults any more; what is kept, or cannot be destroyed, gets its nodes back.

    Args:
        cluster: The deployment.
        undo: Undoes its faults, and says what became of each.
        keeps: Whether it is to be kept.
        say: Is told what was undone.

    Returns:
        What is left that should not be.
    """
    left = [] if keeps else [problem for problem in [end_deployment(cluster)] if problem]
    if keeps or left:
        try:
            undone = undo()
        except UserError as problem:
            undone = [Leftover(cluster.directory.name, str(problem), ended=False)]
        for leftover in undone:
            say(f"Undo: {leftover.name}: {leftover.outcome}")
            if not leftover.ended:
                left.append(f"{leftover.name} is not undone: {leftover.outcome}")
    cluster.close()
    return left


def end_deployment(cluster: Cluster) -> str:
    """Destroy a deployment, if there is one, and remove its directory.

    Returns:
        Why it could not be destroyed; empty when nothing is left.
    """
    if _is_deployed(cluster.directory):
        try:
            cluster.destroy()
        except DeployerError as problem:
            command = " ".join(cluster.deployer.command("destroy", "--auto-approve"))
            return f"{cluster.directory.name} is not destroyed: {problem} Do it by hand: {command}"
    shutil.rmtree(cluster.directory, ignore_errors=True)
    return ""


def _end_leftover(
    deployment: Path, settings: WorkflowSettings, *, keeps: bool, say: Callable[[str], None]
) -> None:
    provider = str(_state(deployment).get("cloud_provider", ""))
    cluster = Cluster(deployment, settings, provider=provider, log=say)
    what = "its faults are undone" if keeps else "it is destroyed"
    say(f"An earlier run has left {deployment.name}: {what}.")

    def undo() -> Sequence[Leftover]:
        return replay(deployment / JOURNAL, deadlines=cluster.power_deadlines)

    for problem in end_or_keep(cluster, undo, keeps=keeps, say=say):
        say(problem)


def _left(run: Path) -> list[Path]:
    """The deployments of a run that are neither ended nor kept."""
    kept = {it.resolve() for it in (run / RETAINED).glob("*")}
    return [it for it in sorted((run / DEPLOYMENTS).glob("*")) if it.resolve() not in kept]


def _write_owner(run: Path, process: int, retain: Retain) -> None:
    owner = {"pid": process, "started": process_started(process), "retain": retain.value}
    (run / OWNER_FILE).write_text(json.dumps(owner), encoding="utf-8")


def _owner(file: Path) -> dict[str, Any] | None:
    """Whose a run is; nothing when the file is half written or just removed: its run is alive."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return {"pid": int(content["pid"]), "started": int(content["started"]), "retain": content["retain"]}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _state(deployment: Path) -> dict[str, Any]:
    try:
        content = json.loads((deployment / STATE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _is_deployed(deployment: Path) -> bool:
    """Whether the deployer has begun something there that it has not ended."""
    return (deployment / STATE_FILE).is_file() and _state(deployment).get("status") != DESTROYED


def _retained(run: Path, deployment: Path) -> Path:
    kept = run / RETAINED / deployment.name
    kept.parent.mkdir(exist_ok=True)
    kept.symlink_to(Path("..") / DEPLOYMENTS / deployment.name)
    return kept


def _why(result: SuiteResult) -> str | None:
    """The error of the result, and what failed first: the summary is read before the result."""
    if result.success:
        return None
    first = next((f"{step.step_type}: {step.error}" for step in result.failed_steps), "")
    return ": ".join(filter(None, [result.error, first]))


@contextmanager
def _log_to(path: Path) -> Iterator[Callable[[str], None]]:
    with path.open("a", encoding="utf-8") as file:

        def write(line: str) -> None:
            file.write(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S.%f} {secrets_in_use.mask(line)}\n")
            file.flush()

        yield write


class _Progress(Observer):
    """Tells each step when it has ended."""

    def __init__(self, test: str, say: Callable[[str], None], write: Callable[[str], None]) -> None:
        self._test = test
        self._say = say
        self._write = write
        self._depth = 0

    def around_step(self, step: Step, result: StepResult, proceed: Callable[[], None]) -> None:
        """Steps inside steps are told further to the right."""
        self._depth += 1
        try:
            proceed()
        finally:
            self._depth -= 1

    def before_step(self, step: Step, result: StepResult) -> None:
        """For the log: what an aborted run was at."""
        self._write(f"{step.title}: begins")

    def after_check(self, step: Step, result: CheckResult) -> None:
        """For the log: every verdict with what was seen."""
        verdict = "passed" if result.passed else "failed, as it may" if result.allow_failure else "failed"
        self._write(f"{result.check}: {verdict} in attempt {result.attempts}: {result.error or result.measured}")

    def after_step(self, step: Step, result: StepResult) -> None:
        """How the step ended."""
        target = f" {result.target_node}" if result.target_node else ""
        line = f"{step.step}{target}: {result.status.value} in {result.duration:.1f} s"
        line += f": {result.error}" if result.error else ""
        self._write(line)
        self._say(f"{self._test}: {'  ' * (self._depth - 1)}{line}")
