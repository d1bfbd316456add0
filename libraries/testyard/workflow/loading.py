"""Workflow files are read and validated as a whole before anything starts.

Example:
    >>> load_workflow(Path("suites/cluster/workflows/failsafety.json")).suites["basic"].workflow[0].step
    'init'
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from testyard.workflow.model import WorkflowFile
from testyard.workflow.problems import Problem, WorkflowInvalidError, below
from testyard.workflow.registry import CheckRegistry, StepRegistry
from testyard.workflow.validation import Validation

TOO_DEEP = "is nested too deeply"


class _Object(dict[str, Any]):
    """A JSON object that knows which of its keys were written twice."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        keys = [key for key, _ in pairs]
        self.repeated = sorted({key for key in keys if keys.count(key) > 1}) if len(self) < len(keys) else []


def load_workflow(
    path: Path | str,
    steps: StepRegistry | None = None,
    checks: CheckRegistry | None = None,
    *,
    provider: str | None = None,
    suite: str | None = None,
    parameters: Mapping[str, Any] | None = None,
) -> WorkflowFile:
    """Read a workflow file.

    Args:
        path: The JSON file.
        steps: The step types that it may name; without it, the built-in ones.
        checks: The checks that it may name; without it, the built-in ones.
        provider: For a bare ``{"workflow": [...]}``: where it runs.
        suite: For a bare workflow: the suite's name; without it, the file's.
        parameters: For a bare workflow: the suite's parameters, where the file gives none.

    Raises:
        WorkflowInvalidError: Lists all that is wrong with it, each with file and JSON path.
    """
    path = Path(path)
    try:
        document = _parsed(path.read_bytes().decode("utf-8-sig"))
    except OSError as problem:
        raise _refused(path, "", f"cannot be read: {problem.strerror}") from None
    except UnicodeDecodeError as problem:
        raise _refused(path, "", f"is not UTF-8 text: byte {problem.start} cannot be decoded") from None
    except json.JSONDecodeError as problem:
        place = f"line {problem.lineno}, column {problem.colno}"
        raise _refused(path, place, f"is not JSON: {problem.msg}") from None
    except _NotANumberError as problem:
        raise _refused(path, "", f"is not JSON: {problem} is no JSON number") from None
    except RecursionError:
        raise _refused(path, "", TOO_DEEP) from None
    return parse_workflow(
        document,
        steps,
        checks,
        path=path,
        provider=provider,
        suite=suite if suite is not None else path.stem,
        parameters=parameters,
    )


def parse_workflow(
    document: object,
    steps: StepRegistry | None = None,
    checks: CheckRegistry | None = None,
    *,
    path: Path | None = None,
    provider: str | None = None,
    suite: str = "workflow",
    parameters: Mapping[str, Any] | None = None,
) -> WorkflowFile:
    """Validate a document that has been read already; see :func:`load_workflow`.

    Example:
        >>> file = parse_workflow({"workflow": [{"step": "init"}]}, provider="aws")
        >>> file.suite().provider
        <ProviderName.AWS: 'aws'>
    """
    if steps is None:
        steps = default_steps()
    if checks is None:
        checks = default_checks()
    validation = Validation(steps, checks)
    try:
        repeated = list(_repeated(document, ""))
        suites = validation.suites(document, provider=provider, suite=suite, parameters=dict(parameters or {}))
    except RecursionError:
        raise _refused(path or Path("workflow"), "", TOO_DEEP) from None
    file = str(path) if path is not None else ""
    problems = [Problem(file, place, message) for place, message in (*repeated, *validation.problems)]
    if problems:
        raise WorkflowInvalidError(problems)
    return WorkflowFile(path, suites)


def default_steps() -> StepRegistry:
    """The built-in step types."""
    from testyard.workflow.builtin_steps import register_builtin_steps

    steps = StepRegistry()
    register_builtin_steps(steps)
    return steps


def default_checks() -> CheckRegistry:
    """The built-in checks."""
    from testyard.workflow.builtin_checks import register_builtin_checks

    checks = CheckRegistry()
    register_builtin_checks(checks)
    return checks


class _NotANumberError(Exception):
    """``NaN`` or ``Infinity``: Python's parser knows them, JSON does not."""


def _parsed(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise _NotANumberError(constant)

    return json.loads(text, object_pairs_hook=_Object, parse_constant=refuse)


def _repeated(value: object, path: str) -> Iterator[tuple[str, str]]:
    """Keys that were written twice in one object: the earlier value would be lost without a word."""
    if isinstance(value, _Object):
        yield from ((below(path, key), "is written twice in one object") for key in value.repeated)
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _repeated(item, below(path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _repeated(item, below(path, index))


def _refused(path: Path, place: str, message: str) -> WorkflowInvalidError:
    return WorkflowInvalidError([Problem(str(path), place, message)])
