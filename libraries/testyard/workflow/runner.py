"""Run several workflows, one after the other or beside each other, and write the summary of the run.

Workflows that run beside each other have a process each, so that Ctrl-C ends each of them as it ends one alone.

Layout of a run, below the directory of results (contract 2.4):
``run-<time>-<random>/results.json``, ``<test>.json``, ``<test>.log`` (``<test>-run2.*`` when it is run again),
``deployments/<id>`` while it is deployed, ``retained-deployments/<id>`` where it was kept.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import secrets
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

from testyard.core.deadline import seconds
from testyard.core.errors import UserError
from testyard.core.redact import secrets_in_use
from testyard.workflow.lifecycle import (
    RunOptions,
    Verdict,
    WorkflowRun,
    disown_directory,
    end_leftovers,
    own_directory,
)
from testyard.workflow.registry import CheckRegistry, StepRegistry
from testyard.workflow.selection import SUMMARY_FILE, WorkflowTest
from testyard.workflow.settings import WorkflowSettings

AUTOMATIC = 0
INTERRUPTED = 130


@dataclass(frozen=True)
class RunSummary:
    """A whole run.

    Attributes:
        directory: Of this run.
        verdicts: On the workflows that were run or skipped.
        planned: The workflows that were to be run.
        parallel: How many at a time.
        duration: Of everything.
        notifications: What somebody should look at: failed and slow workflows, kept deployments.
    """

    directory: Path
    verdicts: Sequence[Verdict]
    planned: Sequence[WorkflowTest]
    parallel: int
    duration: timedelta
    notifications: Sequence[Mapping[str, str]]

    @property
    def passed(self) -> bool:
        """Whether every workflow was run, or skipped for a reason, and none failed."""
        return not self.not_run and not any(verdict.failed for verdict in self.verdicts)

    @property
    def not_run(self) -> list[str]:
        """The ids of the workflows that were not reached."""
        reached = {verdict.test for verdict in self.verdicts}
        return [test.identifier for test in self.planned if test.identifier not in reached]

    def to_json(self) -> dict[str, Any]:
        """The summary's JSON (contract 2.4)."""
        return {
            "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
            "execution_dir": str(self.directory.absolute()),
            "db_version": next((it.db_version for it in self.verdicts if it.db_version), None),
            "provider": ",".join(dict.fromkeys(test.suite.provider.value for test in self.planned)),
            "total_tests": len(self.planned),
            "passed": sum(verdict.success for verdict in self.verdicts),
            "failed": sum(verdict.failed for verdict in self.verdicts),
            "skipped": sum(bool(verdict.skipped) for verdict in self.verdicts),
            "not_run": self.not_run,
            "total_time": round(self.duration.total_seconds(), 3),
            "results": [asdict(verdict) for verdict in self.verdicts],
            "resource_plan": {
                "tests": {test.identifier: {"nodes": test.nodes} for test in self.planned},
                "total_nodes": sum(test.nodes for test in self.planned),
                "parallel": self.parallel,
            },
            "notifications": list(self.notifications),
        }

    def __str__(self) -> str:
        json_form = self.to_json()
        told = [f"{json_form[name]} {name}" for name in ("passed", "failed", "skipped")]
        if self.not_run:
            told.append(f"{len(self.not_run)} not run")
        return f"{', '.join(told)} in {seconds(self.duration)}; {self.directory / SUMMARY_FILE}"


class Runner:
    """Runs workflows.

    Args:
        settings: Deployer, deadlines, limits.
        steps: The step types.
        checks: The checks.
        say: Is told what goes on, line by line.

    Example:
        >>> steps, checks = default_steps(), default_checks()  # doctest: +SKIP
        >>> tests = find_tests([Path("suites/cluster/workflows")], steps, checks)  # doctest: +SKIP
        >>> Runner(load_settings(), steps, checks, say=print).run(tests, RunOptions(Path("results"))).passed
        ... # doctest: +SKIP
        True
    """

    def __init__(
        self, settings: WorkflowSettings, steps: StepRegistry, checks: CheckRegistry, *, say: Callable[[str], None]
    ) -> None:
        self._settings = settings
        self._steps = steps
        self._checks = checks
        self._say = say

    def run(self, tests: Sequence[WorkflowTest], options: RunOptions) -> RunSummary:
        """Run workflows and write the summary, also when the run is aborted.

        Args:
            tests: Which.
            options: How.

        Raises:
            UserError: They need more than the limits allow, or the results cannot be written.
            KeyboardInterrupt: Ctrl-C; everything was undone and written by then.
        """
        parallel = self._parallel(tests, options.parallel)
        end_leftovers(options.results, self._settings, self._say)
        directory = _new_directory(options)
        verdicts: list[Verdict] = []
        started = time.monotonic()

        def record(verdict: Verdict) -> None:
            verdicts.append(verdict)
            self._say(str(verdict))

        try:
            if parallel == 1:
                for test in tests:
                    self._workflow(test, directory, options).run(record)
                    if options.stop_on_error and verdicts[-1].failed:
                        break
            else:
                runs = [self._workflow(test, directory, options) for test in tests]
                processes = _Processes(self._settings.limits.instances, parallel, record)
                processes.run(runs, stop_on_error=options.stop_on_error)
        finally:
            duration = timedelta(seconds=time.monotonic() - started)
            summary = RunSummary(directory, verdicts, tests, parallel, duration, self._notifications(verdicts))
            text = json.dumps(secrets_in_use.mask_value(summary.to_json()), indent=2)
            (directory / SUMMARY_FILE).write_text(f"{text}\n", encoding="utf-8")
            disown_directory(directory)
        return summary

    def _workflow(self, test: WorkflowTest, directory: Path, options: RunOptions) -> WorkflowRun:
        return WorkflowRun(
            test,
            directory,
            self._settings,
            steps=self._steps,
            checks=self._checks,
            options=options,
            say=self._say,
        )

    def _parallel(self, tests: Sequence[WorkflowTest], wanted: int) -> int:
        limits = self._settings.limits
        for test in tests:
            if test.nodes > limits.nodes_per_test:
                message = (
                    f"{test.identifier} needs {test.nodes} nodes, the limit is {limits.nodes_per_test} "
                    "(settings: limits.nodes_per_test)."
                )
                raise UserError(message)
        if wanted > limits.parallel:
            self._say(f"At most {limits.parallel} workflows run at a time (settings: limits.parallel).")
        if wanted == AUTOMATIC:
            wanted = max(2, os.cpu_count() or 1)
        return max(1, min(wanted, limits.parallel, len(tests)))

    def _notifications(self, verdicts: Sequence[Verdict]) -> list[Mapping[str, str]]:
        slow = self._settings.slow_after
        told: list[Mapping[str, str]] = []
        for verdict in verdicts:
            if verdict.failed:
                told.append({"type": "failure", "test": verdict.test, "message": verdict.error or "failed"})
            if verdict.duration > slow.total_seconds():
                message = f"took {verdict.duration:.0f} s, longer than {seconds(slow)}"
                told.append({"type": "slow", "test": verdict.test, "message": message})
            if verdict.retained_deployment_dir:
                message = f"its deployment was kept: {verdict.retained_deployment_dir}"
                told.append({"type": "retained", "test": verdict.test, "message": message})
        return told


class _Processes:
    """Workflows in a process each, as many as may run at a time; those that come first begin first."""

    def __init__(self, instances: int, parallel: int, record: Callable[[Verdict], None]) -> None:
        self._instances = instances
        self._parallel = parallel
        self._record = record
        self._running: dict[Connection, tuple[ForkProcess, WorkflowRun]] = {}

    def run(self, runs: Sequence[WorkflowRun], *, stop_on_error: bool) -> None:
        waiting = list(runs)
        failed = False
        try:
            while self._running or (waiting and not (failed and stop_on_error)):
                while waiting and not (failed and stop_on_error) and self._has_room(waiting[0]):
                    self._begin(waiting.pop(0))
                failed = self._await_one() or failed
        except KeyboardInterrupt:
            for process, _ in self._running.values():
                if process.pid is not None:
                    os.kill(process.pid, signal.SIGINT)
            while self._running:
                self._await_one()
            raise

    def _has_room(self, run: WorkflowRun) -> bool:
        nodes = run.nodes + sum(running.nodes for _, running in self._running.values())
        return not self._running or (len(self._running) < self._parallel and nodes <= self._instances)

    def _begin(self, run: WorkflowRun) -> None:
        here, there = multiprocessing.Pipe(duplex=False)
        process = multiprocessing.get_context("fork").Process(target=_in_a_process, args=(run, there))
        process.start()
        there.close()
        self._running[here] = process, run

    def _await_one(self) -> bool:
        """Wait for the next one to end; whether it failed."""
        (connection, *_) = wait(list(self._running))
        assert isinstance(connection, Connection)
        process, run = self._running[connection]
        try:
            verdict: Verdict = connection.recv()
        except EOFError:
            process.join()
            verdict = run.broken(f"its process ended without a verdict (exit status {process.exitcode})")
        del self._running[connection]
        connection.close()
        process.join()
        self._record(verdict)
        return verdict.failed


def _in_a_process(run: WorkflowRun, connection: Connection) -> None:
    # Ctrl-C of a terminal is for the parent, which passes it on once: a second one would interrupt the clean-up.
    os.setpgrp()
    try:
        run.run(connection.send)
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None
    except UserError as problem:
        connection.send(run.broken(str(problem)))
    finally:
        connection.close()


def _new_directory(options: RunOptions) -> Path:
    directory = options.results / f"run-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    try:
        directory.mkdir(parents=True)
        own_directory(directory, options.retain)
    except OSError as problem:
        message = f"The directory for results {directory} cannot be made: {problem.strerror}."
        raise UserError(message) from None
    return directory
