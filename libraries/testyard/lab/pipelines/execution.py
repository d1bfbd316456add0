"""Executing a claimed run: the seam for executors, the lab's own templates, and the log the chaos test reads.

Source: issue 4 (executors are a seam; templates that succeed, fail n times, hang, crash).
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Protocol, Self

from testyard.lab.pipelines.records import Work
from testyard.lab.pipelines.retry import ErrorClass
from testyard.lab.waiting import elapse

LONGEST_DURATION: Final = timedelta(minutes=10)
CLOCK_INTERVAL: Final = timedelta(milliseconds=25)


class PipelineError(Exception):
    """A pipeline failed.

    Args:
        error_class: Whether it is worth another try.
        message: What went wrong.
    """

    def __init__(self, error_class: ErrorClass, message: str) -> None:
        """Keep both."""
        super().__init__(message)
        self.error_class = error_class
        self.message = message


class RunAbandonedError(Exception):
    """The executor is gone, as after a crash, in a process that has to live on: nothing is reported of the run."""


class Executor(Protocol):
    """What runs a pipeline. It may be cancelled, when the run is not its own any more."""

    async def execute(self, work: Work) -> None:
        """Run the pipeline to its end.

        Args:
            work: The claimed run.

        Raises:
            PipelineError: It failed.
        """
        ...


class Template(StrEnum):
    """The lab's pipelines."""

    COST_BILLING = "cost_billing"
    SECURITY_AUDIT = "security_audit"
    COST_ANALYSIS = "cost_analysis"
    COMPLIANCE_CHECK = "compliance_check"
    USAGE_TRACKING = "usage_tracking"
    FAILS = "fails"
    """Fails: the first ``failures`` attempts, all by default, with ``error_class``."""
    HANGS = "hangs"
    """Never ends by itself."""
    CRASHES = "crashes"
    """Takes its process along."""


def crash_process() -> None:
    """End this process as ``kill -9`` does."""
    os.kill(os.getpid(), signal.SIGKILL)


def abandon_run() -> None:
    """What a crash is where the process is not the run's alone."""
    raise RunAbandonedError


class TemplateExecutor:
    """Runs the lab's templates.

    All of them take how long they run first: ``duration_ms`` of real time; by the service's clock, so that a test
    ends them by moving it, ``duration_seconds``, or ``until`` a moment, which no retry waits for again.

    Args:
        crash: What the template ``crashes`` does.
        now: Reads the service's clock.
    """

    def __init__(self, crash: Callable[[], None], now: Callable[[], Awaitable[datetime]]) -> None:
        self._crash = crash
        self._now = now

    async def execute(self, work: Work) -> None:
        """See ``Executor.execute``."""
        try:
            template = Template(work.template_name)
        except ValueError:
            message = f"there is no template {work.template_name!r}"
            raise PipelineError(ErrorClass.RESOURCE_NOT_FOUND, message) from None
        duration = min(timedelta(milliseconds=_number(work, "duration_ms", 0)), LONGEST_DURATION)
        if duration:
            await elapse(duration)
        duration = timedelta(seconds=_number(work, "duration_seconds", 0))
        ends = [work.claimed_at + duration] if duration else []
        if "until" in work.parameters:
            ends.append(_moment(work, "until"))
        if ends:
            await self._wait_until(max(ends))
        if template is Template.HANGS:
            await asyncio.Event().wait()
        elif template is Template.CRASHES:
            self._crash()
        elif template is Template.FAILS and work.retry_attempt < _number(work, "failures", work.retry_attempt + 1):
            raise PipelineError(_error_class(work), f"attempt {work.retry_attempt + 1} failed as it was asked to")

    async def _wait_until(self, end: datetime) -> None:
        while await self._now() < end:
            await elapse(CLOCK_INTERVAL)


def _number(work: Work, name: str, default: int) -> int:
    value = work.parameters.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 1_000_000_000:
        message = f"the parameter {name} is {str(value)[:80]!r}, expected a whole number from 0 to 1000000000"
        raise PipelineError(ErrorClass.INVALID_CONFIGURATION, message)
    return value


def _moment(work: Work, name: str) -> datetime:
    value = work.parameters[name]
    try:
        moment = datetime.fromisoformat(value)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (TypeError, ValueError):
        message = f"the parameter {name} is {str(value)[:80]!r}, expected a time such as 2026-03-02T08:30:00Z"
        raise PipelineError(ErrorClass.INVALID_CONFIGURATION, message) from None


def _error_class(work: Work) -> ErrorClass:
    value = work.parameters.get("error_class", ErrorClass.SERVICE_UNAVAILABLE)
    try:
        return ErrorClass(value)
    except ValueError:
        message = f"the parameter error_class is {str(value)[:80]!r}, expected one of {', '.join(ErrorClass)}"
        raise PipelineError(ErrorClass.INVALID_CONFIGURATION, message) from None


class ExecutionEvent(StrEnum):
    """What a line of the execution log says."""

    STARTED = "started"
    """The executor was called."""
    SUCCEEDED = "succeeded"
    """It ended well; the report is on its way: a crash from here to the next line makes the run start again."""
    REPORTED = "reported"
    """The database has the success: from here on the run must not start again."""


class ExecutionLog:
    """One line of JSON for each event, in a file that several workers append to.

    Args:
        path: The file; made when it is missing.
        worker: Who writes.
    """

    def __init__(self, path: Path, worker: str) -> None:
        self._worker = worker
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def __enter__(self) -> Self:
        """The open log."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def write(self, event: ExecutionEvent, run_id: str, claim_number: int, retry_attempt: int) -> None:
        """Append an event; a line is whole or not there, also when the process is killed.

        Args:
            event: What happened.
            run_id: The run.
            claim_number: Under which claim.
            retry_attempt: How often it had been retried.
        """
        line: dict[str, Any] = {
            "event": event,
            "run_id": run_id,
            "claim_number": claim_number,
            "retry_attempt": retry_attempt,
            "worker": self._worker,
            "monotonic_ns": time.monotonic_ns(),
            "at": datetime.now(UTC).isoformat(),
        }
        os.write(self._descriptor, json.dumps(line).encode() + b"\n")
