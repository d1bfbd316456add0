"""Which event is meant: by its topic, key, headers, and what JSONPath finds in its value (RFC 9535)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from jsonpath import JSONPathEnvironment
from jsonpath.exceptions import JSONPathError

from testyard.core.errors import UserError
from testyard.kafka.event import Event

OPENING, CLOSING, QUOTES = "[(", "])", "'\""


@dataclass(frozen=True)
class FieldCriterion:
    """What a JSONPath must find in an event's value.

    Attributes:
        text: As the test wrote it.
        path: The path.
        expected: What one of the found values must be, as text or JSON; None: it must find something.
    """

    text: str
    path: str
    expected: str | None

    @classmethod
    def parse(cls, text: str) -> FieldCriterion:
        """Read ``$.payload.state=COMPLETED`` or ``$.payload.files[?@.size > 100]``.

        Raises:
            UserError: The path is no JSONPath.
        """
        path, expected = _split(text)
        criterion = cls(text, path, expected)
        if not path.startswith("$"):
            message = f"{text!r} is no JSONPath: it must begin with $, such as $.payload.state=COMPLETED."
            raise UserError(message)
        try:
            _ = criterion._compiled
        except JSONPathError as problem:
            said = str(problem).split("\n")[0].rstrip(".")
            message = f"{path!r} is no JSONPath (RFC 9535): {said}."
            raise UserError(message) from None
        return criterion

    @cached_property
    def _compiled(self) -> Any:
        return JSONPathEnvironment(strict=True).compile(self.path)

    def accepts(self, value: Any) -> bool:
        """Whether the path finds what is expected."""
        if not isinstance(value, dict | list):
            return False
        found = (match.obj for match in self._compiled.finditer(value))
        return any(self.expected is None or _same(it, self.expected) for it in found)


@dataclass(frozen=True)
class Selection:
    """Which events are meant: those for which everything that is given holds.

    Attributes:
        topic: Where they are.
        key: Their key.
        headers: Headers that they have, among others.
        fields: What is in their value.
    """

    topic: str | None = None
    key: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    fields: Sequence[FieldCriterion] = ()

    @classmethod
    def of(
        cls,
        topic: str | None,
        fields: Sequence[str],
        *,
        key: str | None = None,
        headers: Mapping[str, Any] | None = None,
    ) -> Selection:
        """Read what a test says.

        Raises:
            UserError: A path is no JSONPath.
        """
        wanted = {name: str(value) for name, value in (headers or {}).items()}
        return cls(topic, key, wanted, tuple(map(FieldCriterion.parse, fields)))

    def accepts(self, event: Event) -> bool:
        """Whether an event is one of them."""
        return (
            self.topic in {None, event.topic}
            and self.key in {None, event.key}
            and all(event.headers.get(name) == value for name, value in self.headers.items())
            and all(criterion.accepts(event.value) for criterion in self.fields)
        )

    def __str__(self) -> str:
        parts = [f"on {self.topic}"] if self.topic else []
        parts += [f"with key {self.key!r}"] if self.key is not None else []
        parts += [f"with header {name}={value}" for name, value in self.headers.items()]
        parts += [f"with {criterion.text}" for criterion in self.fields]
        return " ".join(parts) or "of any kind"


def _split(text: str) -> tuple[str, str | None]:
    """A path and what is expected, parted by the first equals sign that stands in no brackets and no quotes."""
    depth, quote = 0, ""
    for place, character in enumerate(text):
        if quote:
            quote = "" if character == quote else quote
        elif character in QUOTES:
            quote = character
        elif character in OPENING:
            depth += 1
        elif character in CLOSING:
            depth -= 1
        elif character == "=" and depth == 0:
            return text[:place].strip(), text[place + 1 :]
    return text.strip(), None


def _same(found: Any, expected: str) -> bool:
    if isinstance(found, str):
        return found == expected
    try:
        wanted = json.loads(expected)
    except ValueError:
        return False
    # In Python True is 1; in JSON it is not.
    return bool(found == wanted) and isinstance(found, bool) is isinstance(wanted, bool)
