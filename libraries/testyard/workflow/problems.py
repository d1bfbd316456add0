"""What is wrong with a workflow file, all of it at once, each with its file and JSON path."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from testyard.core.errors import UserError

PLAIN_WORD = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"
TYPE_NAMES = {
    "string_type": "a text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
}


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        file: The file, as it was named.
        path: Where in the document, such as ``test_suites.basic.workflow[3].target_node``; or line and column.
        message: What is wrong and what would be right.
    """

    file: str
    path: str
    message: str

    def __str__(self) -> str:
        return ": ".join(filter(None, (self.file, self.path, self.message)))


class WorkflowInvalidError(UserError):
    """A workflow file that cannot be run; nothing was started.

    Attributes:
        problems: All that is wrong, in the order of the file.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        count = f"{len(self.problems)} problems" if len(self.problems) != 1 else "1 problem"
        lines = "\n".join(f"  {problem}" for problem in self.problems)
        super().__init__(f"The workflow has {count}, nothing was started:\n{lines}")


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a message on an unknown name: the nearest known one, or all."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(names)}"


def below(path: str, *parts: str | int) -> str:
    """A path further down: ``below("workflow", 3, "retry")`` is ``workflow[3].retry``."""
    for part in parts:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part and all(letter in PLAIN_WORD for letter in part):
            path += f".{part}" if path else part
        else:
            path += f"[{shown(part)}]"
    return path


def shown(value: object) -> str:
    """A JSON value for a message, shortened."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else f"{text[:77]}..."


def problems_of(error: ValidationError, model: type[BaseModel]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """What pydantic found, in words for people: where and what.

    Args:
        error: What it raised.
        model: The model of the whole document, for the names of keys.
    """
    for detail in error.errors():
        place = detail["loc"]
        keys = _keys_at(model, place[:-1])
        yield place, _in_words(detail, keys)


def _in_words(detail: ErrorDetails, keys: list[str]) -> str:  # noqa: PLR0911 one line per kind is the plainest
    kind, value, context = detail["type"], detail["input"], detail.get("ctx", {})
    match kind:
        case "missing":
            return "is missing"
        case "extra_forbidden":
            return f"unknown key {shown(detail['loc'][-1])}{nearest(str(detail['loc'][-1]), keys)}"
        case "literal_error" | "enum":
            known = str(context["expected"])
            names = [name.strip("' ") for name in known.replace(" or ", ",").split(",")]
            hint = nearest(value, names) if isinstance(value, str) else f"; known: {', '.join(names)}"
            return f"unknown value {shown(value)}{hint}"
        case "too_short" | "string_too_short":
            return "must not be empty"
        case "string_pattern_mismatch":
            return f"{shown(value)} does not match {context['pattern']}"
        case "greater_than_equal":
            return f"must be at least {context['ge']:g}, got {shown(value)}"
        case "greater_than":
            return f"must be more than {context['gt']:g}, got {shown(value)}"
        case "value_error":
            return str(context["error"])
        case _ if kind in TYPE_NAMES:
            return f"expected {TYPE_NAMES[kind]}, got {shown(value)}"
        case _:
            return f"{detail['msg']}, got {shown(value)}"


def _keys_at(model: type[BaseModel], place: tuple[str | int, ...]) -> list[str]:
    """The keys that are known at a place: those of the nested model, else those of the model itself."""
    found: type[BaseModel] = model
    for part in place:
        nested = found.model_fields.get(str(part))
        inner = _model_in(nested.annotation) if nested else None
        found = inner or found
    return [field.alias or name for name, field in found.model_fields.items()]


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model that a field's type is, or holds, such as the one in ``list[Model] | None``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = (_model_in(argument) for argument in getattr(annotation, "__args__", ()))
    return next(filter(None, inner), None)
