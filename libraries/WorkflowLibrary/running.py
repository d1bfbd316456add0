"""Keywords that run workflows and single steps."""

from __future__ import annotations

import fnmatch
import importlib.util
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from robot.api import logger
from robot.api.deco import keyword
from testyard.core.errors import NotMetError, UserError
from testyard.workflow.engine import run_suite
from testyard.workflow.hooks import EventFile, Hook, Webhook
from testyard.workflow.loading import load_workflow, parse_workflow
from testyard.workflow.model import Suite
from testyard.workflow.results import SuiteResult, new_deployment_id

from WorkflowLibrary.session import OpenCluster, Session

ANY = "*"


class WorkflowKeywords:
    """Workflows and their steps."""

    _session: Session

    @keyword(tags=["Workflow"])
    def run_workflow(
        self,
        file: Path,
        *,
        suite: str | None = None,
        provider: str | None = None,
        webhook: str | None = None,
        events: Path | None = None,
        retain: bool = False,
    ) -> dict[str, Any]:
        """Run one suite of a workflow file on a deployment of its own; each step is a keyword in the log.

        The file is checked as a whole before anything starts. The result is written to
        `workflows/` below the output directory after each step, so that a run that is killed loses nothing; the
        deployment is destroyed at the end.

        Args:
            file: The JSON file.
            suite: The suite's name; needed when the file has several.
            provider: Where a file without suites runs.
            webhook: A web address that is told of each step and check.
            events: A file that each step and check is appended to, as a line of JSON.
            retain: Keep the deployment.

        Returns:
            The result, with the document's keys, `results_path`, and `events_path` when `events` was given.

        Raises:
            NotMetError: The workflow failed; says in which step.
            UserError: The file is not valid: lists everything that is wrong with it.

        Example:
            | ${result} = | Run Workflow | ${CURDIR}/workflows/failsafety.json | suite=basic |
        """
        hooks: list[Hook] = [Webhook(webhook)] if webhook else []
        hooks += [EventFile(events)] if events else []
        result = self._run(file, suite, provider, hooks=hooks, retain=retain)
        if events:
            result["events_path"] = str(events)
        if not result["success"]:
            message = f"{result['suite']}: {_first_failure(result)}"
            raise NotMetError(message)
        return result

    @keyword(tags=["Workflow", "Assertion"])
    def workflow_should_fail(
        self, file: Path, error: str = ANY, *, suite: str | None = None, provider: str | None = None
    ) -> dict[str, Any]:
        """Run one suite of a workflow file, which must fail.

        Args:
            file: The JSON file.
            error: What the failed step's error must be, `*` standing for anything.
            suite: The suite's name; needed when the file has several.
            provider: Where a file without suites runs.

        Returns:
            The result, with the document's keys, and `results_path`.

        Raises:
            NotMetError: It passed, or failed in another way.

        Example:
            | Workflow Should Fail | ${CURDIR}/workflows/crash.json | *NotImplementedError* | suite=on_libvirt |
        """
        result = self._run(file, suite, provider)
        if result["success"]:
            message = f"The workflow {result['suite']} should have failed, but passed."
            raise NotMetError(message)
        _expect_error(_first_failure(result), error)
        return result

    @keyword(tags=["Workflow"])
    def run_workflow_step(self, step: str, **fields: Any) -> dict[str, Any]:
        """Run one step on the cluster in use, as a workflow would.

        Args:
            step: The step's type, such as `stop_node`.
            fields: The step's own keys, such as `target_node=n12`; lists and mappings as variables.

        Returns:
            The step's result, with the document's keys.

        Raises:
            NotMetError: The step failed.
            UserError: There is no such step, or a key is missing or wrong.

        Example:
            | Run Workflow Step | stop_node | target_node=n12 |
        """
        result = self._step(step, fields)
        if result["status"] == "failed":
            raise NotMetError(f"{step}: {result['error']}")
        return result

    @keyword(tags=["Workflow", "Assertion"])
    def workflow_step_should_fail(self, step: str, error: str = ANY, **fields: Any) -> dict[str, Any]:
        """Run one step on the cluster in use, which must fail.

        Args:
            step: The step's type, such as `stop_node`.
            error: What its error must be, `*` standing for anything.
            fields: The step's own keys.

        Returns:
            The step's result, with the document's keys.

        Raises:
            NotMetError: It did not fail, or in another way.

        Example:
            | Workflow Step Should Fail | stop_node | *NotImplementedError* | target_node=n12 |
        """
        result = self._step(step, fields)
        if result["status"] != "failed":
            message = f"The step {step} should have failed, but is {result['status']}."
            raise NotMetError(message)
        _expect_error(result["error"], error)
        return result

    @keyword(tags=["Getter"])
    def get_last_step_result(self) -> dict[str, Any]:
        """What became of the last step that `Run Workflow Step` or `Workflow Step Should Fail` has run.

        Raises:
            UserError: None was run on the clusters that there are.

        Example:
            | Run Workflow Step | restart_node | target_node=n12 |
            | ${restart} = | Get Last Step Result |
        """
        if not self._session.last_step:
            message = "No step was run yet: 'Run Workflow Step' first."
            raise UserError(message)
        return self._session.last_step

    @keyword(tags=["Workflow"])
    def workflow_step(self, step: str, title: str) -> None:
        """One step of a running workflow; `Run Workflow` calls it, so that the log has a keyword for each step.

        Args:
            step: The step's type.
            title: What it does.

        Raises:
            UserError: No workflow is running.

        Example:
            | Workflow Step | deploy | Deploy cluster |
        """
        if not self._session.shown.waiting:
            message = "Workflow Step is called by 'Run Workflow'; no workflow is running now."
            raise UserError(message)
        self._session.shown.next()()

    @keyword(tags=["Setup"])
    def register_workflow_extension(self, file: Path) -> None:
        """Add a team's own steps and checks to those that workflows may name (document 003, extending).

        Args:
            file: A Python file with a function `register(steps, checks)`; both have the document's method
                `register(name, description, function, allow_failure, retry)`.

        Raises:
            UserError: There is no such file or function, or a name is taken.

        Example:
            | Register Workflow Extension | ${CURDIR}/extensions/own_checks.py |
        """
        specification = importlib.util.spec_from_file_location(file.stem, file)
        if not file.is_file() or specification is None or specification.loader is None:
            message = f"There is no Python file {file}."
            raise UserError(message)
        module = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(module)
        if not callable(getattr(module, "register", None)):
            message = f"{file} has no function register(steps, checks)."
            raise UserError(message)
        module.register(self._session.steps, self._session.checks)

    def _run(
        self,
        file: Path,
        suite_name: str | None,
        provider: str | None,
        *,
        hooks: Sequence[Hook] = (),
        retain: bool = False,
    ) -> dict[str, Any]:
        workflows = load_workflow(file, self._session.steps, self._session.checks, provider=provider)
        suite = workflows.suite(suite_name)
        identifier = new_deployment_id(suite.provider, suite.name)
        directory = self._session.new_directory(identifier)
        opened = self._session.prepare(directory, suite.provider.value, suite.parameters)
        self._session.clusters[identifier] = opened
        try:
            return self._shown_result(suite, opened, identifier, file=file, hooks=hooks)
        finally:
            if retain:
                self._session.current = identifier
            else:
                self._end(identifier)

    def _end(self, identifier: str) -> None:
        """Destroy what a workflow has deployed, unless it has done so itself."""
        for leftover in self._session.clusters[identifier].cluster.undo():
            logger.info(f"Put back: {leftover.name}: {leftover.outcome}")
        if _is_deployed(self._session.clusters[identifier]):
            self._session.destroy(identifier)
        else:
            opened = self._session.clusters.pop(identifier)
            opened.cluster.close()
            shutil.rmtree(opened.cluster.directory, ignore_errors=True)

    def _step(self, step: str, fields: dict[str, Any]) -> dict[str, Any]:
        opened = self._session.here
        document = {
            "test_suites": {
                step: {
                    "provider": opened.context.provider,
                    "test_type": "workflow",
                    "parameters": opened.context.parameters,
                    "workflow": [{"step": step, **fields}],
                }
            }
        }
        suite = parse_workflow(document, self._session.steps, self._session.checks).suite()
        result = self._shown_result(suite, opened, new_deployment_id(suite.provider, step))
        only: dict[str, Any] = result["workflow_steps"][0]
        self._session.last_step = only
        return only

    def _shown_result(
        self,
        suite: Suite,
        opened: OpenCluster,
        identifier: str,
        *,
        file: Path | None = None,
        hooks: Sequence[Hook] = (),
    ) -> dict[str, Any]:
        path = self._session.results_path(identifier) if file else None
        result: SuiteResult = run_suite(
            suite,
            opened.context,
            self._session.steps,
            self._session.checks,
            observer=self._session.shown,
            hooks=hooks,
            results_path=path,
            deployment_id=identifier,
            config_path=file,
            delay_scale=self._session.settings.delay_scale,
        )
        shown: dict[str, Any] = json.loads(json.dumps(result.to_json(), default=str))
        if path is not None:
            logger.info(f"Result: {path}")
            shown["results_path"] = str(path)
        return shown


def _is_deployed(opened: OpenCluster) -> bool:
    try:
        return opened.cluster.deployer.status().get("status") not in {None, "destroyed"}
    except UserError:
        return False


def _first_failure(result: dict[str, Any]) -> str:
    failed = [step for step in result["workflow_steps"] if step["status"] == "failed"]
    return f"{failed[0]['step_type']}: {failed[0]['error']}" if failed else str(result["error"])


def _expect_error(error: str | None, pattern: str) -> None:
    if not fnmatch.fnmatchcase(error or "", pattern):
        message = f"Expected an error like {pattern!r}, got: {error}"
        raise NotMetError(message)
