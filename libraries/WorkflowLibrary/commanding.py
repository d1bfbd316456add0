"""Keywords about the command line `testyard workflow`, and about the results that it writes."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

from robot.api import logger
from robot.api.deco import keyword
from testyard.core.deadline import Deadline, wait_until
from testyard.core.errors import NotMetError
from testyard.core.redact import secrets_in_use
from testyard.workflow.settings import SETTINGS_VARIABLE

from WorkflowLibrary.reading import read_result
from WorkflowLibrary.session import Session

COMMAND = (sys.executable, "-m", "testyard", "workflow")
RUNNING = "running"


class CommandKeywords:
    """The command line."""

    _session: Session

    @keyword(tags=["Workflow"])
    def workflow_command(self, *arguments: str, status: int = 0, within: timedelta = timedelta(minutes=2)) -> str:
        """Run `testyard workflow` with arguments, in a process of its own and with this run's settings.

        Args:
            arguments: Such as `run`, a file, `--parallel`, `2`.
            status: The exit status that it must end with: 0 all passed, 1 some failed, 2 a mistake in the call.
            within: Give up after this time.

        Returns:
            What it printed.

        Raises:
            NotMetError: Another exit status, or it took too long; tells what it printed.

        Example:
            | ${output} = | Workflow Command | list | workflows/ | --provider | aws |
        """
        with self._start(*arguments) as process:
            try:
                printed, _ = process.communicate(timeout=within.total_seconds())
            except subprocess.TimeoutExpired:
                process.kill()
                printed, _ = process.communicate()
                message = f"testyard workflow {' '.join(arguments)} did not end in {within}: {printed}"
                raise NotMetError(message) from None
        logger.info(f"testyard workflow {' '.join(arguments)}: status {process.returncode}\n{printed}")
        if process.returncode != status:
            message = (
                f"testyard workflow {' '.join(arguments)} ended with status {process.returncode}, "
                f"expected {status}: {secrets_in_use.mask(printed)}"
            )
            raise NotMetError(message)
        return printed

    @keyword(tags=["Getter"])
    def list_workflow_tests(self, *arguments: str) -> list[str]:
        """The ids of workflow tests that `testyard workflow list` prints.

        Args:
            arguments: Such as a directory, `--provider`, `hetzner`.

        Returns:
            The ids, in the order of the list.

        Raises:
            NotMetError: The command failed; tells what it printed.

        Example:
            | ${ids} = | List Workflow Tests | workflows/ | --provider | hetzner |
        """
        return [line.split()[0] for line in self.workflow_command("list", *arguments).splitlines()]

    @keyword(tags=["Workflow"])
    def kill_workflow_run_in_step(
        self, file: Path, test: str, step: str, *, within: timedelta = timedelta(minutes=1)
    ) -> dict[str, Any]:
        """Run one test by the command line, kill it (SIGKILL) while a step runs, and read what it has written.

        Args:
            file: The JSON file.
            test: The test's id, such as `aws-workflow-quick`.
            step: The type of the step in which it is killed.
            within: Give up after this time.

        Returns:
            The result as it was written.

        Raises:
            NotMetError: The step did not begin in time.

        Example:
            | ${result} = | Kill Workflow Run In Step | ${file} | aws-workflow-quick | deploy |
        """
        results = self._session.new_directory("results")

        def step_that_runs() -> list[str]:
            return [
                it["step_type"]
                for path in results.rglob("*.json")
                for it in read_result(path).get("workflow_steps", [])
                if it["status"] == RUNNING
            ]

        arguments = ("run", str(file), "--run-test", test, "--results-dir", str(results))
        with self._start(*arguments) as process:
            try:
                wait_until(
                    step_that_runs, lambda found: step in found, Deadline(within), f"the step {step} to run"
                )
            finally:
                process.kill()
                process.communicate()
        (written,) = [path for path in results.rglob("*.json") if "workflow_steps" in read_result(path)]
        logger.info(f"Killed: {written}")
        return read_result(written)

    @keyword(tags=["Setup"])
    def new_results_directory(self) -> Path:
        """An empty directory for the results of the command line, removed at the end of the run.

        Example:
            | ${directory} = | New Results Directory |
        """
        return self._session.new_directory("results")

    def _start(self, *arguments: str) -> subprocess.Popen[str]:
        settings = self._session.new_directory("settings") / "settings.json"
        settings.write_text(self._session.settings.model_dump_json(), encoding="utf-8")
        return subprocess.Popen(
            [*COMMAND, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, SETTINGS_VARIABLE: str(settings)},
        )
