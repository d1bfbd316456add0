"""Keeps the result of a run up to date: in its file after each change, and with the hooks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from testyard.core.errors import UserError
from testyard.core.redact import secrets_in_use
from testyard.workflow.hooks import Hook
from testyard.workflow.results import CheckResult, ResultFile, StepResult, SuiteResult, now


class Recorder:
    """Told by the engine what has changed; may be told from several threads.

    Args:
        result: What is recorded.
        file: Where to.
        hooks: Who is told; closed at the end.
    """

    def __init__(self, result: SuiteResult, file: ResultFile, hooks: Sequence[Hook]) -> None:
        self._result = result
        self._file = file
        self._hooks = hooks
        self._broken = False

    def suite_started(self) -> None:
        """The run begins."""
        self._write()
        self._tell("suite_started")

    def step_started(self, step: StepResult) -> None:
        """A step begins: a run that is killed shows where it was."""
        self._write()
        self._tell("step_started", step=step)

    def changed(self) -> None:
        """Something about a running step is known now."""
        self._write()

    def check_finished(self, step: StepResult, check: CheckResult) -> None:
        """A check has its verdict."""
        self._write()
        self._tell("check_finished", step=step, check=check)

    def step_finished(self, step: StepResult) -> None:
        """A step has ended."""
        self._write(step)
        self._tell("step_finished", step=step)

    def suite_finished(self) -> None:
        """The run has ended; what went wrong with the hooks goes into the result's log."""
        self._tell("suite_finished", result=self._result)
        for hook in self._hooks:
            self._result.logs += hook.close()
        if not self._broken:
            self._file.write_ended(self._result)

    def _write(self, ended: StepResult | None = None) -> None:
        """Write the result; once that has failed, the run is being aborted and only undoes things."""
        if not self._broken:
            try:
                self._file.write(self._result, ended)
            except UserError:
                self._broken = True
                raise

    def _tell(self, event: str, **what: StepResult | CheckResult | SuiteResult) -> None:
        if not self._hooks:
            return
        told: dict[str, Any] = {
            "event": event,
            "timestamp": now(),
            "deployment_id": self._result.deployment_id,
            "suite": self._result.suite,
            "provider": self._result.provider,
            **{name: secrets_in_use.mask_value(item.to_json()) for name, item in what.items()},
        }
        for hook in self._hooks:
            hook.tell(told)
