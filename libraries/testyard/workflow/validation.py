"""What makes a workflow runnable: every step, check, node and reference is known before anything starts.

Collects all problems of a document, each with its JSON path, and builds the typed suites beside. What a step's own
model cannot say is looked at in the raw JSON, so that a step with one mistake still tells about its others.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from testyard.workflow.commands import unknown_variables
from testyard.workflow.model import (
    CustomCommandFields,
    NestedSteps,
    Parameters,
    Step,
    Suite,
    ValidateFields,
    When,
    node_names,
)
from testyard.workflow.problems import below, nearest, problems_of, shown
from testyard.workflow.registry import CheckRegistry, StepRegistry, StepType

FILE_KEYS = ("$schema", "description", "test_suites")
BARE_KEYS = ("$schema", "description", "provider", "test_type", "parameters", "requirements", "hooks", "workflow")
NO_PROVIDER = "is missing: a bare workflow has none, so it must be given with the file"
# Near enough that one was meant for the other, and not another parameter of the deployer.
TYPO = 0.85
# Stands for a step that has a problem, so that what holds it is not told to be empty as well.
BROKEN = Step.model_construct(step="")

Model = TypeVar("Model", bound=BaseModel)
# From a step outwards: the path of what holds it, and whether it may fail there without ending that.
Line = tuple[tuple[str, bool], ...]


@dataclass(frozen=True)
class _Known:
    """A step that a later one may refer to: its checks, each with whether it may fail."""

    checks: Mapping[str, bool]
    line: Line


@dataclass
class _Place:
    """Where a step stands.

    Attributes:
        owner: The path of what holds it.
        line: Of the step that holds it.
        known: The steps that have ended when it begins, by id.
        undone: It may have a ``rollback``.
        named: It may have an ``id``: it is run once at most, and in a known order.
        target: The node of the step that it undoes.
    """

    owner: str
    known: dict[str, _Known]
    line: Line = ()
    undone: bool = False
    named: bool = True
    target: str | None = None

    def survives(self, known: _Known) -> bool:
        """Whether a step here can be reached when the known one has failed."""
        owners = {self.owner, *(owner for owner, _ in self.line)}
        for owner, may_fail in known.line:
            if may_fail or not self.named:
                return True
            if owner in owners:
                return False
        return False


class Validation:
    """One look at one document.

    Attributes:
        problems: What was found, as JSON path and message.
    """

    def __init__(self, steps: StepRegistry, checks: CheckRegistry) -> None:
        self._steps = steps
        self._checks = checks
        self.problems: list[tuple[str, str]] = []
        self._nodes: list[str] = []
        self._ids: dict[str, str] = {}

    def suites(
        self, document: object, *, provider: str | None, suite: str, parameters: dict[str, Any]
    ) -> dict[str, Suite]:
        """The suites of a document; those without a problem.

        Args:
            document: What the file holds.
            provider: Of a bare workflow, where it names none.
            suite: The name of a bare workflow.
            parameters: Of a bare workflow, where it gives none.
        """
        if not isinstance(document, dict):
            self._report("", f"expected an object with 'test_suites', got {shown(document)}")
            return {}
        if "workflow" in document and "test_suites" not in document:
            self._unknown_keys(document, BARE_KEYS)
            raw = {"parameters": parameters, **{key: document[key] for key in BARE_KEYS[1:] if key in document}}
            if "provider" not in raw:
                raw["provider"] = provider if provider is not None else "libvirt"
                if provider is None:
                    self._report("provider", NO_PROVIDER)
            made = self._suite(suite, raw, "")
            return {} if made is None else {suite: made}
        self._unknown_keys(document, FILE_KEYS)
        suites = document.get("test_suites")
        if not isinstance(suites, dict) or not suites:
            got = (
                "is missing"
                if "test_suites" not in document
                else f"expected an object of suites, got {shown(suites)}"
            )
            self._report("test_suites", got)
            return {}
        found = {name: self._suite(name, raw, below("test_suites", name)) for name, raw in suites.items()}
        return {name: made for name, made in found.items() if made is not None}

    def _suite(self, name: str, raw: object, path: str) -> Suite | None:
        if not isinstance(raw, dict):
            self._report(path, f"expected an object, got {shown(raw)}")
            return None
        before = len(self.problems)
        if "name" in raw:
            self._report(below(path, "name"), "unknown key: a suite's name is its key in 'test_suites'")
        self._nodes = self._parameters(raw.get("parameters"), below(path, "parameters"))
        place = below(path, "workflow")
        self._ids = {}
        for identifier, where in _ids_in(raw.get("workflow"), place):
            self._ids.setdefault(identifier, where)
        values = {**raw, "name": name}
        if isinstance(raw.get("workflow"), list):
            values["workflow"] = self._list(raw["workflow"], place, _Place(place, {}))
        made = self._made(Suite, values, path)
        return made if len(self.problems) == before else None

    def _parameters(self, raw: object, path: str) -> list[str]:
        """Validate the parameters; the nodes' names where they say how many there are."""
        if not isinstance(raw, dict):
            return []
        made = self._made(Parameters, raw, path)
        known = Parameters.model_fields
        for key in raw:
            near = difflib.get_close_matches(key, known, n=1, cutoff=TYPO)
            if key not in known and near:
                self._report(below(path, key), f"unknown key {shown(key)}; did you mean {near[0]!r}?")
        return node_names(made.cluster_size) if made is not None and made.cluster_size else []

    def _list(self, raw: list[Any], path: str, place: _Place) -> list[Step]:
        """The steps of a list, one after the other."""
        return [self._step(item, below(path, index), place) or BROKEN for index, item in enumerate(raw)]

    def _step(self, raw: object, path: str, place: _Place) -> Step | None:
        entry = self._type_of(raw, path)
        if entry is None or not isinstance(raw, dict):
            return None
        if place.target is not None and "target_node" in entry.model.model_fields:
            raw = {"target_node": place.target, **raw}
        line: Line = ((place.owner, entry.allow_failure or raw.get("allow_failure") is True), *place.line)
        values = {**raw, **self._nested(raw, entry, path, replace(place, line=line))}
        self._references(raw, path, place, line, entry)
        self._names(raw, path, entry)
        return self._made(entry.model, values, path)

    def _type_of(self, raw: object, path: str) -> StepType | None:
        if not isinstance(raw, dict):
            self._report(path, f"expected an object, got {shown(raw)}")
            return None
        name = raw.get("step")
        if "step" not in raw:
            self._report(below(path, "step"), "is missing: the step's type")
        elif not isinstance(name, str):
            self._report(below(path, "step"), f"expected a text, got {shown(name)}")
        elif self._steps.find(name) is None:
            self._report(below(path, "step"), f"unknown step {shown(name)}{nearest(name, self._steps.names())}")
        else:
            return self._steps.find(name)
        return None

    # ---- steps inside steps

    def _nested(self, raw: dict[str, Any], entry: StepType, path: str, place: _Place) -> dict[str, list[Step]]:
        """The lists of steps that a step holds, each step validated where it will stand."""
        found = {}
        for name in nested_fields(entry.model):
            items, at = raw.get(name), below(path, name)
            if not isinstance(items, list):
                continue
            if name == "rollback":
                found[name] = self._rollback(raw, items, at, place, allowed=place.undone or entry.name == "group")
            elif entry.name == "parallel":
                found[name] = self._beside_each_other(items, at, replace(place, owner=at))
            elif entry.name == "chaos":
                inside = replace(place, owner=at, named=False, undone=False, known=dict(place.known))
                found[name] = (
                    self._candidates(raw, items, at, replace(inside, undone=True))
                    if name == "candidates"
                    else self._list(items, at, inside)
                )
            else:
                found[name] = self._list(items, at, replace(place, owner=at, undone=True))
        return found

    def _rollback(
        self, raw: dict[str, Any], items: list[Any], path: str, place: _Place, *, allowed: bool
    ) -> list[Step]:
        if not allowed:
            self._report(path, "only a group, or a step inside a group or of chaos' candidates, can be undone")
        target = raw.get("target_node", place.target)
        inside = replace(place, owner=path, named=False, undone=False, known=dict(place.known))
        return self._list(items, path, replace(inside, target=target if isinstance(target, str) else None))

    def _beside_each_other(self, items: list[Any], path: str, place: _Place) -> list[Step]:
        """Steps that run at the same time do not know of each other; those after them know them all."""
        made, before = [], dict(place.known)
        for index, item in enumerate(items):
            own = replace(place, known=dict(before))
            made.append(self._step(item, below(path, index), own) or BROKEN)
            place.known.update(own.known)
        return made

    def _candidates(self, raw: dict[str, Any], items: list[Any], path: str, place: _Place) -> list[Step]:
        """What chaos picks from: a candidate that names no node stands for one on each of the nodes."""
        nodes = raw.get("nodes")
        named = [node for node in nodes if isinstance(node, str)] if isinstance(nodes, list) else []
        made = []
        for index, item in enumerate(items):
            at = below(path, index)
            targets: Sequence[str | None] = named if isinstance(item, dict) and "target_node" not in item else ()
            made.append(self._step(item, at, replace(place, target=targets[0] if targets else None)) or BROKEN)
            before = len(self.problems)
            if made[-1] is not BROKEN and getattr(made[-1], "target_node", None) in targets:
                made += [self._step(item, at, replace(place, target=node)) or BROKEN for node in targets[1:]]
                del self.problems[before:]  # they were told for the first node
        return made

    # ---- names and references

    def _references(self, raw: dict[str, Any], path: str, place: _Place, line: Line, entry: StepType) -> None:
        """The step's condition on an earlier one, and its own name for later ones."""
        try:
            when = When.model_validate(raw["when"]) if "when" in raw else None
        except ValidationError:
            when = None  # told with the step's other keys
        if when is not None:
            self._when(when, below(path, "when"), place)
        identifier = raw.get("id")
        if not isinstance(identifier, str):
            return
        at = below(path, "id")
        if not place.named:
            self._report(at, "a step that undoes another one, or is part of chaos, cannot be referred to")
        elif self._ids.get(identifier) != path:
            self._report(at, f"{shown(identifier)} is the id of {self._ids.get(identifier)} already")
        else:
            allowed = raw.get("allow_failures")
            allowed = allowed if isinstance(allowed, list) else []
            checks = {text: text in allowed or self._may_fail(text) for text in _texts(raw.get("checks"))}
            place.known[identifier] = _Known(checks if issubclass(entry.fields, ValidateFields) else {}, line)

    def _when(self, when: When, path: str, place: _Place) -> None:
        known = place.known.get(when.step)
        if known is None:
            where = self._ids.get(when.step)
            hint = f"{where} has not ended when this one begins" if where else self._no_such_id(when.step)
            self._report(below(path, "step"), f"{shown(when.step)} is no earlier step: {hint}")
        elif when.check is not None:
            if when.check not in known.checks:
                its = ", ".join(known.checks) or "none"
                self._report(below(path, "check"), f"no check of step {shown(when.step)}, which has {its}")
            elif not when.passed and not known.checks[when.check] and not place.survives(known):
                self._never(below(path, "passed"), when.step)
        elif when.status == "failed" and not place.survives(known):
            self._never(below(path, "status"), when.step)

    def _never(self, path: str, identifier: str) -> None:
        self._report(
            path,
            f"can never be: the workflow ends when step {shown(identifier)} fails; allow it by "
            "'allow_failure', or the check by 'allow_failures'",
        )

    def _no_such_id(self, identifier: str) -> str:
        return f"unknown id{nearest(identifier, self._ids)}" if self._ids else "no step has an 'id'"

    def _names(self, raw: dict[str, Any], path: str, entry: StepType) -> None:
        """The nodes, checks and variables that a step names."""
        if "target_node" in entry.model.model_fields:
            self._node(raw.get("target_node"), below(path, "target_node"))
        if issubclass(entry.fields, ValidateFields):
            for name in ("checks", "allow_failures"):
                for index, text in enumerate(_texts(raw.get(name))):
                    self._check(text, below(path, name, index))
        if issubclass(entry.fields, CustomCommandFields):
            for index, text in enumerate(_texts(raw.get("custom_command"))):
                for variable in unknown_variables([text]):
                    known = "known are $deployment_dir and $provider, and no shell fills in others"
                    self._report(below(path, "custom_command", index), f"unknown variable ${variable}: {known}")
        if entry.name == "chaos":
            for index, node in enumerate(_texts(raw.get("nodes"))):
                self._node(node, below(path, "nodes", index))

    def _node(self, node: object, path: str) -> None:
        if isinstance(node, str) and self._nodes and node not in self._nodes:
            size = len(self._nodes)
            self._report(path, f"unknown node {shown(node)}: a cluster of {size} has {', '.join(self._nodes)}")

    def _check(self, text: str, path: str) -> None:
        name, *given = text.split(":")
        check = self._checks.find(name)
        if check is None:
            self._report(path, f"unknown check {shown(name)}{nearest(name, self._checks.names())}")
            return
        required = [argument for argument in check.arguments if not argument.endswith("?")]
        if not len(required) <= len(given) <= len(check.arguments) or not all(given):
            self._report(path, f"{shown(text)} is not written as {check.grammar}")
            return
        for argument, value in zip((argument.rstrip("?") for argument in check.arguments), given, strict=False):
            if argument == "node":
                self._node(value, path)
            if argument in check.values and value not in check.values[argument]:
                self._report(path, f"unknown {argument} {shown(value)}{nearest(value, check.values[argument])}")

    def _may_fail(self, text: str) -> bool:
        check = self._checks.find(text.split(":", maxsplit=1)[0])
        return check is not None and check.allow_failure

    # ---- building

    def _made(self, model: type[Model], values: dict[str, Any], path: str) -> Model | None:
        try:
            return model.model_validate(values)
        except ValidationError as error:
            for place, message in problems_of(error, model):
                self._report(below(path, *place), message)
            return None

    def _unknown_keys(self, document: dict[str, Any], known: Sequence[str]) -> None:
        for key in document:
            if key not in known:
                self._report(below("", key), f"unknown key {shown(key)}{nearest(key, known)}")

    def _report(self, path: str, message: str) -> None:
        self.problems.append((path, message))


def nested_fields(model: type[BaseModel]) -> dict[str, NestedSteps]:
    """The fields of a model that hold steps."""
    return {
        name: marker
        for name, info in model.model_fields.items()
        for marker in info.metadata
        if isinstance(marker, NestedSteps)
    }


def _texts(raw: object) -> list[str]:
    """The texts of a list; what else it holds is told by the step's model."""
    return [item for item in raw if isinstance(item, str)] if isinstance(raw, list) else []


def _ids_in(raw: object, path: str) -> Iterator[tuple[str, str]]:
    """The ids in a list of steps and in those that they hold, with the steps' paths."""
    for index, item in enumerate(raw if isinstance(raw, list) else ()):
        if isinstance(item, dict):
            at = below(path, index)
            if isinstance(item.get("id"), str):
                yield item["id"], at
            yield from _ids_in(item.get("steps"), below(at, "steps"))
