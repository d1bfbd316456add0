"""What a run of workflows may take how long, and which deployer it drives.

The defaults are the documented durations. An environment that is faster (the embedded lab) names a JSON file in
``TESTYARD_WORKFLOW_SETTINGS``; whatever differs from the defaults is printed when a run starts.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from testyard.core.deadline import seconds
from testyard.core.errors import UserError

SETTINGS_VARIABLE = "TESTYARD_WORKFLOW_SETTINGS"
COMMANDS = frozenset({"deployer", "operator"})
PYTHON = "python"
EMBEDDED_DEPLOYER = (sys.executable, "-m", "testyard.lab.cluster")


class Deadlines(BaseModel):
    """How long the parts of a workflow may take, in seconds; the defaults are the documents' (contract 2.1, 2.2).

    Attributes:
        init: The deployer's ``init``.
        deploy: The deployer's ``deploy``.
        status: The deployer's ``status``, and its ``health`` without waiting.
        stop: The deployer's ``stop``.
        start: The deployer's ``start``.
        ready: Waiting for ``database_ready`` after a start.
        destroy: The deployer's ``destroy``.
        ssh_connect: Connecting to a node's SSH server.
        ssh_command: One command on a node.
        admin_ui: One request to a node's admin UI.
        database_connect: Connecting to a node's database.
        database_answer: One short statement, or one probing commit.
        election: How long the survivors of a fault may take until one of them is the primary.
        integrity: Computing the seeded table's checksum.
        grace: What a command that is interrupted may take to end by itself.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    init: timedelta = timedelta(seconds=300)
    deploy: timedelta = timedelta(seconds=3600)
    status: timedelta = timedelta(seconds=60)
    stop: timedelta = timedelta(seconds=600)
    start: timedelta = timedelta(seconds=600)
    ready: timedelta = timedelta(minutes=15)
    destroy: timedelta = timedelta(seconds=1200)
    ssh_connect: timedelta = timedelta(seconds=10)
    ssh_command: timedelta = timedelta(seconds=30)
    admin_ui: timedelta = timedelta(seconds=10)
    database_connect: timedelta = timedelta(seconds=5)
    database_answer: timedelta = timedelta(seconds=5)
    election: timedelta = timedelta(seconds=30)
    integrity: timedelta = timedelta(seconds=120)
    grace: timedelta = timedelta(seconds=10)


class Limits(BaseModel):
    """How much may be deployed (contract 2.4, resource plan).

    Attributes:
        nodes_per_test: Nodes of one workflow's cluster.
        instances: Nodes of all workflows that run at the same time.
        parallel: Workflows that run at the same time.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    nodes_per_test: int = Field(default=8, ge=1)
    instances: int = Field(default=32, ge=1)
    parallel: int = Field(default=6, ge=1)


class WorkflowSettings(BaseModel):
    """How workflows are run here.

    Attributes:
        deployer: The command of the deployer; verbs and options are appended.
        operator: Who powers on what must be started by hand: a command to which the deployment's directory and the
            nodes' names are appended. Empty: a person is told, and waited for.
        deadlines: What may take how long.
        power_deadlines: Power control's deadlines by name, in seconds, where they are not its own defaults.
        delay_scale: Factor on the delays of every ``retry``; the attempts stay as documented.
        integrity_rows: Rows of the seeded table that ``data_integrity`` looks after.
        limits: How much may be deployed.
        check_requirements: Whether a suite whose ``requirements`` this machine does not meet is skipped; without a
            value, unless the deployer is the embedded lab, which needs none of them.
        slow_after: A workflow that takes longer is told as slow (contract 2.4).

    Example:
        >>> WorkflowSettings().deadlines.deploy
        datetime.timedelta(seconds=3600)
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    deployer: tuple[str, ...] = Field(default=EMBEDDED_DEPLOYER, min_length=1)
    operator: tuple[str, ...] = ()
    deadlines: Deadlines = Deadlines()
    power_deadlines: Mapping[str, float] = {}
    delay_scale: float = Field(default=1.0, ge=0)
    integrity_rows: int = Field(default=1000, ge=1)
    limits: Limits = Limits()
    check_requirements: bool | None = None
    slow_after: timedelta = timedelta(seconds=900)

    @property
    def requirements_count(self) -> bool:
        """Whether a suite's ``requirements`` are looked at."""
        if self.check_requirements is not None:
            return self.check_requirements
        return self.deployer != EMBEDDED_DEPLOYER

    def differences(self) -> Iterator[str]:
        """One line for each setting that is not the default, such as ``delay_scale: 0.02 (default 1.0)``."""
        defaults = dict(_flat(WorkflowSettings()))
        for name, value in _flat(self):
            if value != defaults.get(name):
                default = f" (default {_text(defaults[name])})" if name in defaults else ""
                yield f"{name}: {_text(value)}{default}"


def load_settings(environment: Mapping[str, str] = os.environ) -> WorkflowSettings:
    """The settings of the file that ``TESTYARD_WORKFLOW_SETTINGS`` names; the defaults when it names none.

    Raises:
        UserError: The file cannot be read, or a setting is unknown or of the wrong type: all are named at once.
    """
    name = environment.get(SETTINGS_VARIABLE)
    if not name:
        return WorkflowSettings()
    try:
        content = json.loads(Path(name).read_text(encoding="utf-8"))
    except OSError as problem:
        message = f"The workflow settings cannot be read ({SETTINGS_VARIABLE}={name}): {problem.strerror}."
        raise UserError(message) from None
    except json.JSONDecodeError as problem:
        message = f"The workflow settings {name} are not JSON: {problem}."
        raise UserError(message) from None
    return chosen_settings(content, name)


def chosen_settings(given: object, where: str = "") -> WorkflowSettings:
    """The defaults with what was chosen instead.

    A command that begins with ``python`` is run by this process's interpreter, which has what it needs.

    Args:
        given: A mapping, as in a settings file.
        where: The file, for messages.

    Raises:
        UserError: A setting is unknown or of the wrong type: all are named at once.
    """
    chosen = given
    if isinstance(given, Mapping):
        chosen = {
            name: [sys.executable, *value[1:]] if name in COMMANDS and list(value[:1]) == [PYTHON] else value
            for name, value in given.items()
        }
    try:
        return WorkflowSettings.model_validate(chosen)
    except ValidationError as problem:
        told = "; ".join(f"{'.'.join(map(str, it['loc'])) or 'the file'}: {it['msg']}" for it in problem.errors())
        message = f"The workflow settings {where} are not valid: {told}.".replace("  ", " ")
        raise UserError(message) from None


def _flat(settings: BaseModel, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, BaseModel):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, Mapping):
            yield from ((f"{prefix}{name}.{key}", item) for key, item in value.items())
        else:
            yield f"{prefix}{name}", value


def _text(value: object) -> str:
    match value:
        case timedelta():
            return seconds(value)
        case tuple():
            return " ".join(map(str, value)) or "none"
        case _:
            return str(value)
