"""Keywords about what is refused before anything starts, and about dry runs."""

from __future__ import annotations

from pathlib import Path

from robot.api import logger
from robot.api.deco import keyword
from testyard.core.errors import NotMetError
from testyard.core.tables import html_table
from testyard.workflow.loading import load_workflow
from testyard.workflow.plan import plan_suite
from testyard.workflow.problems import WorkflowInvalidError

from WorkflowLibrary.session import Session


class RefusalKeywords:
    """Workflow files that must not run, and runs that only say what they would do."""

    _session: Session

    @keyword(tags=["Assertion"])
    def workflow_should_be_invalid(self, file: Path, *texts: str, problems: int | None = None) -> None:
        """Fail unless a workflow file is refused as a whole, with these texts in one of its problems.

        Args:
            file: The JSON file.
            texts: All of them must be in one problem: the JSON path, and what is wrong there.
            problems: How many problems there must be; any number when not given.

        Raises:
            NotMetError: It is valid, or its problems are others.

        Example:
            | Workflow Should Be Invalid | ${CURDIR}/mistakes/unknown_step.json | workflow[1].step | stop_clutser |
        """
        try:
            load_workflow(file, self._session.steps, self._session.checks)
        except WorkflowInvalidError as refusal:
            rows = [(problem.path, problem.message) for problem in refusal.problems]
            logger.info(html_table(f"{file.name}: {len(rows)} problems", ("where", "what"), rows), html=True)
            told = [f"{where}: {what}" for where, what in rows]
        else:
            message = f"{file} should have been refused, but is valid."
            raise NotMetError(message)
        if texts and not any(all(text in line for text in texts) for line in told):
            message = f"No problem of {file.name} has {' and '.join(map(repr, texts))}: {'; '.join(told)}"
            raise NotMetError(message)
        if problems is not None and len(told) != problems:
            message = f"{file.name} has {len(told)} problems, expected {problems}: {'; '.join(told)}"
            raise NotMetError(message)

    @keyword(tags=["Getter"])
    def plan_workflow(self, file: Path, *, suite: str | None = None, provider: str | None = None) -> list[str]:
        """What a workflow would do: each step, its target and the call, without making any.

        Args:
            file: The JSON file.
            suite: The suite's name; needed when the file has several.
            provider: Where a file without suites runs.

        Returns:
            One line for each call.

        Raises:
            UserError: The file is not valid.

        Example:
            | ${calls} = | Plan Workflow | ${CURDIR}/workflows/failsafety.json | suite=basic |
        """
        workflows = load_workflow(file, self._session.steps, self._session.checks, provider=provider)
        chosen = workflows.suite(suite)
        opened = self._session.prepare(Path(f"{chosen.name}-deployment"), chosen.provider.value, chosen.parameters)
        lines = [
            str(step) for step in plan_suite(chosen, opened.context, self._session.steps, self._session.checks)
        ]
        for line in lines:
            logger.info(line)
        return lines
