"""The step types and the checks that workflows may name; users register theirs in the same way (document 003).

A registry starts with what the engine itself does: ``validate``, ``parallel``, ``group``, ``chaos`` and
``custom_command``. The steps and checks of a cluster are added by ``builtin_steps`` and ``builtin_checks``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, cast

from pydantic import BaseModel, Field, create_model

from testyard.core.errors import UserError
from testyard.workflow.commands import CUSTOM_COMMAND_RETRY, custom_command, plan_custom_command
from testyard.workflow.context import Context
from testyard.workflow.model import (
    AnyFields,
    ChaosFields,
    CustomCommandFields,
    GroupFields,
    NoFields,
    ParallelFields,
    Retry,
    Step,
    ValidateFields,
)
from testyard.workflow.problems import nearest

__all__ = ["CheckRegistry", "Measurement", "RegisteredCheck", "Retry", "StepRegistry", "StepType"]


@dataclass(frozen=True)
class Measurement:
    """A check's verdict and what it was drawn from.

    Attributes:
        passed: The verdict.
        measured: What was seen, for people; it is the error's text when the check fails.
    """

    passed: bool
    measured: str


CheckFunction = Callable[..., bool | Measurement]
StepFunction = Callable[[Context, Step], Mapping[str, Any] | None]
PlanFunction = Callable[[Context, Step], str | Sequence[str]]


@dataclass(frozen=True)
class RegisteredCheck:
    """One check.

    Attributes:
        arguments: Names of what may follow in ``name:one:two``; a trailing ``?`` means optional.
        values: The values that an argument may take, by its name.
    """

    name: str
    description: str
    function: CheckFunction
    allow_failure: bool = False
    retry: Retry | None = None
    arguments: tuple[str, ...] = ()
    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def grammar(self) -> str:
        """How the check is written, such as ``node_status:<node>[:<state>]``."""
        return self.name + "".join(
            f"[:<{name[:-1]}>]" if name.endswith("?") else f":<{name}>" for name in self.arguments
        )


@dataclass(frozen=True)
class StepType:
    """One step type.

    Attributes:
        function: What a step of this type does; None where the engine itself does it.
        fields: The type's own keys.
        plan: Says for a dry run which calls the step would make, and makes none.
    """

    name: str
    description: str
    function: StepFunction | None
    allow_failure: bool = False
    retry: Retry | None = None
    fields: type[BaseModel] = NoFields
    plan: PlanFunction | None = None

    @cached_property
    def model(self) -> type[Step]:
        """The common keys and the type's own ones, as one model; made when it is first asked for."""
        name: Any = Literal[self.name]
        model = create_model(
            "".join(word.capitalize() for word in self.name.split("_")) + "Step",
            __base__=(Step, self.fields),
            __doc__=self.description,
            step=(name, Field(description=self.description)),
        )
        return cast(type[Step], model)


# What the engine itself does.
ENGINE_TYPES = (
    StepType("validate", "Run checks", None, fields=ValidateFields),
    StepType("parallel", "Run steps at the same time", None, fields=ParallelFields),
    StepType("group", "Run steps; undo those begun when one fails", None, fields=GroupFields),
    StepType("chaos", "Run faults that a seed picks, each undone", None, fields=ChaosFields),
    StepType(
        "custom_command",
        "Run a program in the deployment's directory",
        custom_command,
        retry=CUSTOM_COMMAND_RETRY,
        fields=CustomCommandFields,
        plan=plan_custom_command,
    ),
)


class CheckRegistry:
    """The checks by name.

    Example:
        >>> checks = CheckRegistry()
        >>> checks.register("disk_free", "There is space", lambda context: True)
        >>> checks.find("disk_free").description
        'There is space'
    """

    def __init__(self) -> None:
        self._checks: dict[str, RegisteredCheck] = {}

    def register(
        self,
        name: str,
        description: str,
        function: CheckFunction,
        allow_failure: bool = False,
        retry: Retry | None = None,
        *,
        arguments: tuple[str, ...] = (),
        values: Mapping[str, tuple[str, ...]] | None = None,
    ) -> None:
        """Add a check (document 003, "Adding Custom Validation Checks").

        Args:
            name: How workflows name it; no colon.
            description: What passes, for lists.
            function: ``function(context, *arguments)``; returns a bool or a :class:`Measurement`. Anything else
                that it returns is an error, not a pass.
            allow_failure: The check may fail in any step.
            retry: Attempts, where the step says nothing.
            arguments: Names of what may follow the name after colons, such as ``("node", "state?")``. One called
                ``node`` must be a node of the cluster.
            values: The values that an argument may take, such as ``{"state": ("running", "stopped")}``.

        Raises:
            UserError: The name is taken, or holds a colon.
        """
        if name in self._checks:
            message = f"A check named {name!r} is registered already: {self._checks[name].description}"
            raise UserError(message)
        if not name or ":" in name:
            message = (
                f"A check's name must not be empty or hold a colon, got {name!r}: arguments follow after colons."
            )
            raise UserError(message)
        self._checks[name] = RegisteredCheck(
            name, description, function, allow_failure, retry, arguments, dict(values or {})
        )

    def find(self, name: str) -> RegisteredCheck | None:
        """The check of this name, without arguments."""
        return self._checks.get(name)

    def split(self, text: str) -> tuple[RegisteredCheck, list[str]]:
        """A check as workflows write it, taken apart: ``node_status:n12:stopped``.

        Raises:
            UserError: No such check.
        """
        name, *arguments = text.split(":")
        check = self._checks.get(name)
        if check is None:
            message = f"unknown check {name!r}{nearest(name, self._checks)}"
            raise UserError(message)
        return check, arguments

    def names(self) -> list[str]:
        """The names, sorted."""
        return sorted(self._checks)

    def __iter__(self) -> Iterator[RegisteredCheck]:
        return iter(self._checks.values())


class StepRegistry:
    """The step types by name.

    Example:
        >>> steps = StepRegistry()
        >>> steps.register("greet", "Say hello", lambda context, step: {"said": "hello"})
        >>> steps.find("greet").description
        'Say hello'
    """

    def __init__(self) -> None:
        self._types = {entry.name: entry for entry in ENGINE_TYPES}

    def register(
        self,
        name: str,
        description: str,
        function: StepFunction,
        allow_failure: bool = False,
        retry: Retry | None = None,
        *,
        fields: type[BaseModel] | None = None,
        plan: PlanFunction | None = None,
    ) -> None:
        """Add a step type.

        Args:
            name: How workflows name it.
            description: What it does, for lists and for editors.
            function: ``function(context, step)``; returns what goes into the result's ``result``, a mapping or
                None. Raising is failing. ``step.own(Model)`` has the type's own keys.
            allow_failure: The workflow goes on when a step of this type fails.
            retry: Attempts, where the step says nothing.
            fields: The type's own JSON keys; any other key is refused. None: it has none.
            plan: ``plan(context, step)`` says in one or more lines what the step would call, for dry runs.

        Raises:
            UserError: The name is taken.
        """
        if name in self._types:
            message = f"A step type named {name!r} is registered already: {self._types[name].description}"
            raise UserError(message)
        self._types[name] = StepType(name, description, function, allow_failure, retry, fields or NoFields, plan)

    def override(self, name: str, function: StepFunction) -> None:
        """Let ``function`` do what steps of a type do, known or new; a new type may have any keys.

        This is the document's other way to add step types, see ``WorkflowExecutor``.
        """
        known = self._types.get(name)
        if known is None:
            known = StepType(name, function.__doc__ or name, function, fields=AnyFields)
        self._types[name] = replace(known, function=function, plan=None)

    def copy(self) -> StepRegistry:
        """A registry with the same types, that can be added to by itself."""
        copy = StepRegistry()
        copy._types = dict(self._types)
        return copy

    def find(self, name: str) -> StepType | None:
        """The step type of this name."""
        return self._types.get(name)

    def names(self) -> list[str]:
        """The names, sorted."""
        return sorted(self._types)

    def __iter__(self) -> Iterator[StepType]:
        return iter(self._types.values())
