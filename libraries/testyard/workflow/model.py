"""What a workflow file may hold: the document's JSON format, typed (003, "Workflow Configuration Format").

A file holds ``{"test_suites": {name: suite}}``, or a bare ``{"workflow": [...]}`` as the document's examples
do. Beyond the document, and of this project:

* any step: ``id``, ``when`` (a condition on an earlier step), ``retry``, ``allow_failure`` (the run goes on
  when the step fails), ``rollback`` (inside a group: what undoes this step);
* steps ``destroy``, ``parallel``, ``group`` and ``chaos``;
* a suite's ``hooks``, told about each step and check.

A step type's own keys are a pydantic model given to ``StepRegistry.register(fields=...)``; the models of the
document's step types are here. What a step function gets is one object with the common keys and its own ones:
``step.own(NodeFields).target_node``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, Strict, field_validator, model_validator

from testyard.core.errors import UserError
from testyard.power.protocol import ProviderName
from testyard.workflow.problems import nearest

STRICT = ConfigDict(extra="forbid", frozen=True, strict=True)
# Names may be sentences of a report, but must be one word for ``when`` and for result files.
WORD = r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$"

Event = Literal["suite_started", "step_started", "check_finished", "step_finished", "suite_finished"]
Fields = TypeVar("Fields", bound=BaseModel)


@dataclass(frozen=True)
class NestedSteps:
    """Marks a field that holds steps; they are validated one by one, each by its own type's model.

    Attributes:
        concrete: False where a step may lack the ``target_node`` that its surroundings pick for it.
    """

    concrete: bool = True


class Retry(BaseModel):
    """How often to try, and how long to pause between two attempts (document 003: defaults 1 and 5 s)."""

    model_config = STRICT

    max_attempts: int = Field(default=1, ge=1, description="Attempts in all, the first one included.")
    delay_seconds: float = Field(default=5, ge=0, description="Pause between two attempts, in seconds.")


class When(BaseModel):
    """A condition on an earlier step: on how it ended, or on the verdict of one of its checks."""

    model_config = STRICT

    step: str = Field(description="The id of an earlier step.")
    status: Literal["completed", "failed", "skipped"] | None = Field(
        default=None, description="Run only if that step ended so."
    )
    check: str | None = Field(default=None, description="Or: run only after this verdict of that step's check.")
    passed: bool = Field(default=True, description="The check's verdict that is asked for.")

    @model_validator(mode="after")
    def _one_condition(self) -> When:
        if (self.status is None) == (self.check is None):
            message = "give either 'status', or 'check' with 'passed'"
            raise ValueError(message)
        if self.status is not None and "passed" in self.model_fields_set:
            message = "'passed' belongs to 'check', not to 'status'"
            raise ValueError(message)
        return self


class Step(BaseModel):
    """One step of a workflow: the keys that every type knows.

    The object that a step function gets is also an instance of its type's own model, see :meth:`own`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, arbitrary_types_allowed=True)

    step: str = Field(description="The step's type.")
    description: str = Field(default="", description="What the step does, for people.")
    id: str | None = Field(
        default=None,
        pattern=WORD,
        description="A name that a later step's 'when' can refer to; unique in the suite.",
    )
    when: When | None = Field(default=None, description="Skip the step unless an earlier step ended in this way.")
    retry: Retry | None = Field(
        default=None, description="Attempts; for 'validate' those of each check. Without it: the registered ones."
    )
    allow_failure: bool = Field(default=False, description="Go on with the workflow when this step fails.")
    rollback: Annotated[list[Step], NestedSteps(concrete=False)] = Field(
        default_factory=list,
        description="Only of a 'group', or inside 'group' and 'chaos': the steps that undo this one. Run when the "
        "group fails or is aborted (in 'chaos': always), the last step's first; without a 'target_node', on "
        "this one's.",
    )

    def own(self, model: type[Fields]) -> Fields:
        """This step as its type's own model, with that model's attributes typed.

        Raises:
            TypeError: The step's type was not registered with this model.
        """
        if not isinstance(self, model):
            message = f"A step of type {self.step!r} has no {model.__name__}: register the type with fields= it."
            raise TypeError(message)
        return self

    @property
    def title(self) -> str:
        """The step for one line of a log: its description, else its type and target."""
        target = getattr(self, "target_node", None)
        return self.description or (f"{self.step} {target}" if target else self.step)


class NoFields(BaseModel):
    """A step type without keys of its own."""

    model_config = STRICT


class AnyFields(BaseModel):
    """A step type added in the document's way: what its keys are, nobody says; the document's own are typed."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    target_node: str | None = None
    method: str | None = None
    checks: list[str] = Field(default_factory=list)
    custom_command: list[str] = Field(default_factory=list)


class NodeFields(BaseModel):
    """``stop_node``, ``start_node``: one node."""

    model_config = STRICT

    target_node: str = Field(pattern=WORD, description="The node, such as n12.")


class RestartNodeFields(NodeFields):
    """``restart_node``: reboot over SSH, or power off and on by the provider's API."""

    method: Literal["ssh", "graceful"] = Field(
        default="ssh", description="ssh: 'sudo reboot'. graceful: stop, then start, by the provider's API."
    )


class CrashNodeFields(NodeFields):
    """``crash_node``: no orderly shutdown."""

    method: Literal["ssh", "destroy"] = Field(
        default="ssh", description="ssh: SysRq or 'poweroff -f'. destroy: hard power-off by the provider's API."
    )


class ValidateFields(BaseModel):
    """``validate``: checks, in order; the first one that fails and may not fail ends the step."""

    model_config = STRICT

    checks: list[str] = Field(min_length=1, description="Names of checks, such as node_status:n12:stopped.")
    allow_failures: list[str] = Field(
        default_factory=list, description="Checks that may fail without failing the step; each must be registered."
    )


class CustomCommandFields(BaseModel):
    """``custom_command``: a program of the user's, run in the deployment's directory, without a shell."""

    model_config = STRICT

    custom_command: list[str] = Field(
        min_length=1, description="Program and arguments; $deployment_dir and $provider are filled in."
    )
    timeout_seconds: float = Field(
        default=300, gt=0, description="The program is ended after this time, in seconds."
    )


class ParallelFields(BaseModel):
    """``parallel``: steps that run at the same time; all run to their end, and the step fails if one fails."""

    model_config = STRICT

    steps: Annotated[list[Step], NestedSteps()] = Field(
        min_length=1, description="The steps to run beside each other."
    )


class GroupFields(BaseModel):
    """``group``: steps in order, of which those that were begun are undone when one fails or the run is aborted.

    Each step's ``rollback`` is one unit: its steps are run as written, the units the last begun first. The
    group's own ``rollback`` is its first unit, and so is run last. A group that has completed inside another
    one hands its units to that one.
    """

    model_config = STRICT

    steps: Annotated[list[Step], NestedSteps()] = Field(min_length=1, description="The steps, run in order.")


class ChaosFields(BaseModel):
    """``chaos``: rounds of a fault picked by a seeded generator, each undone before the next one.

    One round: one of ``candidates`` (on one of ``nodes``, where it names no node itself), then ``during``, then
    the candidate's ``rollback`` (always, also on failure and abort), then ``after``. The seed and the picks are
    in the result: the same seed makes the same picks.
    """

    model_config = STRICT

    candidates: Annotated[list[Step], NestedSteps(concrete=False)] = Field(
        min_length=1, description="The faults to pick from; 'rollback' of each undoes it, on the same node."
    )
    nodes: list[str] = Field(
        default_factory=list, description="Nodes to pick from, for candidates that name none."
    )
    rounds: int = Field(default=1, ge=1, description="How many faults, one after the other.")
    seed: int | None = Field(default=None, description="Makes the picks repeatable; without it, one is drawn.")
    during: Annotated[list[Step], NestedSteps()] = Field(
        default_factory=list, description="Steps to run while the fault is on."
    )
    after: Annotated[list[Step], NestedSteps()] = Field(
        default_factory=list, description="Steps to run when the fault is undone."
    )


class HookOptions(BaseModel):
    """Something that is told about each step and check: a web address (JSON by POST) or a file (lines of JSON)."""

    model_config = STRICT

    webhook: str | None = Field(
        default=None, pattern=r"^https?://.", description="The address; it is never logged in full."
    )
    file: str | None = Field(
        default=None, min_length=1, description="The file, relative to the directory of the results."
    )
    events: list[Event] = Field(default_factory=list, description="Only these events; without it, all.")

    @model_validator(mode="after")
    def _one_kind(self) -> HookOptions:
        if (self.webhook is None) == (self.file is None):
            message = "give either 'webhook' or 'file'"
            raise ValueError(message)
        return self

    @field_validator("webhook")
    @classmethod
    def _address(cls, webhook: str | None) -> str | None:
        try:
            parts = urlsplit(webhook or "http://localhost")
            usable = bool(parts.hostname) and parts.port != 0
        except ValueError:
            usable = False
        if not usable:
            message = "is no address: a host, or a port from 1 to 65535, is missing"
            raise ValueError(message)
        return webhook


class Parameters(BaseModel):
    """A suite's ``parameters``: handed to the deployer's ``init`` as options; those the engine knows are typed."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    cluster_size: int | None = Field(default=None, ge=1, description="How many nodes: n11, n12 and so on.")
    power_api: Literal["document", "extended"] | None = Field(
        default=None,
        description="document: the documented limits of a provider. extended: what its API can do today.",
    )


class Requirements(BaseModel):
    """What a suite needs of where it runs."""

    model_config = STRICT

    libvirt_available: bool | None = Field(default=None, description="libvirt answers.")
    kvm_available: bool | None = Field(default=None, description="The machine has hardware virtualisation.")
    min_memory_gb: float | None = Field(default=None, ge=0, description="Memory, in GB.")
    min_cpus: int | None = Field(default=None, ge=1, description="Processor cores.")
    min_disk_gb: float | None = Field(default=None, ge=0, description="Free disk space, in GB.")


class Suite(BaseModel):
    """One suite: a workflow and where it runs.

    Attributes:
        name: Its key in the file; for a bare workflow, the file's name or the one given.
        parameters: As written, for the deployer.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, arbitrary_types_allowed=True)

    name: str
    provider: Annotated[ProviderName, Strict(strict=False)]
    test_type: Literal["workflow"] = "workflow"
    description: str = ""
    parameters: dict[str, Any] = Field(default_factory=dict)
    requirements: Requirements = Requirements()
    hooks: list[HookOptions] = Field(default_factory=list)
    workflow: Annotated[list[Step], NestedSteps()] = Field(min_length=1)


@dataclass(frozen=True)
class WorkflowFile:
    """What a file holds, validated.

    Attributes:
        path: The file, as it was named; None for a document that was given as it is.
        suites: By name, in the order of the file.
    """

    path: Path | None
    suites: dict[str, Suite]

    def suite(self, name: str | None = None) -> Suite:
        """The suite of this name; without a name, the only one.

        Raises:
            UserError: There is none of this name, or several and no name was given.
        """
        if name is None and len(self.suites) == 1:
            return next(iter(self.suites.values()))
        if name is None:
            message = f"{self.path} holds {len(self.suites)} suites, name one: {', '.join(self.suites)}."
            raise UserError(message)
        if name not in self.suites:
            message = f"{self.path} has no suite {name!r}{nearest(name, self.suites)}."
            raise UserError(message)
        return self.suites[name]


def node_names(cluster_size: int) -> list[str]:
    """The nodes of a cluster: n11, n12 and so on."""
    return [f"n{11 + index}" for index in range(cluster_size)]
