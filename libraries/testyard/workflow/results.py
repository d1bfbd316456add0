"""What became of a workflow: results with the document's keys, in a file that no crash loses (contract 2.4)."""

from __future__ import annotations

import json
import re
import secrets
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from testyard.core.errors import UserError
from testyard.core.redact import SecretRegistry, secrets_in_use
from testyard.workflow.replacing import replace_content

NOT_ENDED = "The run has not ended: it is still going on, or it was killed."


class Status(StrEnum):
    """The states of a step (contract 2.3). Steps that were never reached are absent from a result."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass
class CheckResult:
    """One check's verdict.

    Attributes:
        check: As the workflow writes it, such as ``node_status:n12:stopped``.
        attempts: How often it was tried.
        allow_failure: Its failure does not fail the step.
        error: Why it failed; None after an attempt that passed.
        measured: What a built-in check saw in its last attempt.
    """

    check: str
    passed: bool = False
    attempts: int = 0
    allow_failure: bool = False
    error: str | None = None
    measured: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The check's part of the result JSON."""
        return dict(vars(self))


@dataclass
class StepResult:
    """What became of one step.

    Attributes:
        duration: In seconds.
        result: What the step function returned.
        timestamp: When it began, ISO 8601 in UTC.
        steps: The results of the steps inside ``parallel``, ``group`` and ``chaos``.
        rollback: The results of the steps that undid them.
        rendered: How a step that has ended is written into the file of a run that goes on.
    """

    step_type: str
    description: str = ""
    status: Status = Status.PENDING
    duration: float = 0.0
    error: str | None = None
    result: dict[str, Any] | None = None
    validation_results: list[CheckResult] = field(default_factory=list)
    target_node: str | None = None
    method: str | None = None
    id: str | None = None
    attempts: int = 0
    allow_failure: bool = False
    timestamp: str = ""
    steps: list[StepResult] = field(default_factory=list)
    rollback: list[StepResult] = field(default_factory=list)
    rendered: str = field(default="", init=False, repr=False, compare=False)

    @property
    def stops(self) -> bool:
        """Whether the workflow ends here: the step failed and may not."""
        return self.status is Status.FAILED and not self.allow_failure

    def to_json(self) -> dict[str, Any]:
        """The step's part of the result JSON: the document's keys; nested steps only where there are any."""
        nested = {"steps": self.steps, "rollback": self.rollback}
        return {
            **self.own(),
            **{name: [step.to_json() for step in steps] for name, steps in nested.items() if steps},
        }

    def own(self) -> dict[str, Any]:
        """The step's part of the result JSON without the steps inside it."""
        document = {
            **vars(self),
            "duration": round(self.duration, 3),
            "validation_results": [check.to_json() for check in self.validation_results],
        }
        return {name: value for name, value in document.items() if name not in {"steps", "rollback", "rendered"}}


@dataclass
class SuiteResult:
    """What became of a suite; the keys are those of the result JSON (document 003, contract 2.4).

    Attributes:
        error: ``N workflow step(s) failed``, why the run was aborted, or None.
        logs: The lines that steps, checks and hooks had to say.
        config_path: The workflow file.
        retained_deployment_dir: Where the deployment was kept, by whoever keeps or removes it.
        emergency_summary: What whoever cleans up had to do by force.
    """

    deployment_id: str
    suite: str
    provider: str
    test_type: str = "workflow"
    success: bool = False
    duration: float = 0.0
    error: str | None = NOT_ENDED
    timestamp: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    config_path: str | None = None
    deployment_dir: str | None = None
    retained_deployment_dir: str | None = None
    log_file: str | None = None
    log_directory: str | None = None
    emergency_summary: Any = None
    logs: list[str] = field(default_factory=list)
    workflow_steps: list[StepResult] = field(default_factory=list)

    @property
    def failed_steps(self) -> list[StepResult]:
        """The steps that failed and were not allowed to."""
        return [step for step in self.workflow_steps if step.stops]

    def to_json(self) -> dict[str, Any]:
        """The whole result JSON."""
        return {**self.head(), "workflow_steps": [step.to_json() for step in self.workflow_steps]}

    def head(self) -> dict[str, Any]:
        """The result JSON without its steps."""
        document = {**vars(self), "duration": round(self.duration, 3)}
        del document["workflow_steps"]
        return document

    def summary(self) -> str:
        """One line for people: what failed first, or that all is well."""
        took = f"{len(self.workflow_steps)} steps in {self.duration:.1f} s"
        if self.success:
            return f"{self.suite}: passed, {took}"
        first = next((f": {step.step_type}: {step.error}" for step in self.failed_steps), "")
        return f"{self.suite}: failed, {took}: {self.error}{first}"


def now() -> str:
    """This moment, ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def workflow_test_id(provider: str, suite: str) -> str:
    """A suite's name in listings: ``libvirt-workflow-failsafety_basic`` for ``libvirt_failsafety_basic``."""
    return f"{provider}-workflow-{suite.removeprefix(f'{provider}_')}"


def new_deployment_id(provider: str, suite: str) -> str:
    """A name that no other run has, fit for a cloud's tags: ``libvirt-workflow-basic-20260131-094501-3f9a``."""
    name = re.sub(r"[^a-z0-9_-]+", "-", workflow_test_id(provider, suite).lower())
    return f"{name}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


class ResultFile:
    """Writes a result after each change, so that what was done is known whatever happens to this process.

    The file is replaced as a whole: a reader sees the state before or after a change. It is not forced onto the
    disk, as it is to survive the end of the process, not of the machine. While the run goes on, a step is one
    line, and steps that have ended are not rendered again; at the end the file is laid out for people.

    Args:
        path: The file; None writes nothing. Its directory is made.
        secrets_to_mask: Values that must not get into it.

    Raises:
        UserError: The directory cannot be made.
    """

    def __init__(self, path: Path | None, secrets_to_mask: SecretRegistry = secrets_in_use) -> None:
        self.path = path
        self._secrets = secrets_to_mask
        self._lock = threading.Lock()
        if path is not None:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as problem:
                message = f"The directory for results {path.parent} cannot be made: {problem.strerror}."
                raise UserError(message) from None

    def write(self, result: SuiteResult, ended: StepResult | None = None) -> None:
        """Write the result of a run that goes on.

        Args:
            result: What to write.
            ended: A step that has just ended.

        Raises:
            UserError: The file cannot be written.
        """
        if self.path is None:
            return
        with self._lock:
            if ended is not None:
                ended.rendered = self._rendered(ended)
            steps = ",\n".join([step.rendered or self._rendered(step) for step in result.workflow_steps])
            self._replace(f'{self._dumped(result.head())[:-1]}, "workflow_steps": [\n{steps}\n]}}\n')

    def write_ended(self, result: SuiteResult) -> None:
        """Write the result of a run that has ended, all of it: secrets may have become known since.

        Raises:
            UserError: The file cannot be written.
        """
        if self.path is None:
            return
        with self._lock:
            document = self._secrets.mask_value(result.to_json())
            self._replace(json.dumps(document, indent=2, default=str) + "\n")

    def _rendered(self, step: StepResult) -> str:
        text = self._dumped(step.own())
        for name, nested in (("steps", step.steps), ("rollback", step.rollback)):
            if nested:
                inner = ", ".join([inner.rendered or self._rendered(inner) for inner in nested])
                text = f'{text[:-1]}, "{name}": [{inner}]}}'
        return text

    def _dumped(self, document: dict[str, Any]) -> str:
        return json.dumps(self._secrets.mask_value(document), default=str)

    def _replace(self, text: str) -> None:
        assert self.path is not None
        try:
            replace_content(self.path, text.encode())
        except OSError as problem:
            message = f"The result {self.path} cannot be written: {problem.strerror}."
            raise UserError(message) from None
