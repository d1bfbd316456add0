"""A statement and the values that are bound to it; values are never written into the text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from testyard.core.errors import UserError
from testyard.core.redact import refuse_placeholder

# psycopg's placeholders: %s or %(name)s, also in their binary and text forms; %% is a percent sign.
PLACEHOLDER = re.compile(r"%%|%(?:\((?P<name>[^)]+)\))?[sbt]")

Parameters = Mapping[str, Any] | Sequence[Any] | None


@dataclass(frozen=True)
class Statement:
    """One statement.

    Args:
        text: SQL with ``%s`` or ``%(name)s`` where a value goes; with parameters, ``%%`` is a percent sign.
        parameters: The values, by name or by position; None sends the text as it is.
    """

    text: str
    parameters: Parameters = None

    def check(self) -> None:
        """Compare placeholders and parameters before anything is sent.

        Raises:
            UserError: A parameter is missing, or one is not used: a misspelt name would be ignored silently.
        """
        for value in self._values():
            if isinstance(value, str):
                refuse_placeholder(value)
        names = [found["name"] for found in PLACEHOLDER.finditer(self.text) if found[0] != "%%"]
        by_name = [name for name in names if name]
        if self.parameters is None:
            if by_name:
                raise UserError(self._needs(by_name, "none"))
        elif isinstance(self.parameters, Mapping):
            self._check_names(by_name, self.parameters)
        elif by_name:
            raise UserError(self._needs(by_name, "values without a name"))
        elif len(names) != len(self.parameters):
            message = f"The statement has {len(names)} placeholders, but {len(self.parameters)} values are given."
            raise UserError(message)

    def marked(self, position: int) -> str:
        """The line of the text that holds a position of the sent statement, with a mark below it.

        Args:
            position: In what the server got, counted from 1: there placeholders are ``$1``, ``$2``…
        """
        index = min(self._source_index(position - 1), len(self.text))
        before = self.text[:index]
        start = before.rfind("\n") + 1
        line = self.text[start:].split("\n", 1)[0]
        where = f"line {before.count(chr(10)) + 1}, column {index - start + 1}"
        return f"{line}\n{' ' * (index - start)}^ {where}"

    def _values(self) -> Sequence[Any]:
        if isinstance(self.parameters, Mapping):
            return list(self.parameters.values())
        return self.parameters or ()

    def _check_names(self, needed: list[str], given: Mapping[str, Any]) -> None:
        if missing := [name for name in needed if name not in given]:
            raise UserError(self._needs(missing, ", ".join(given) or "none"))
        if unused := [name for name in given if name not in needed]:
            message = (
                f"The statement does not use the given {_named('parameter', unused)}; "
                f"it uses: {', '.join(dict.fromkeys(needed)) or 'none'}."
            )
            raise UserError(message)

    @staticmethod
    def _needs(missing: list[str], given: str) -> str:
        return f"The statement needs the {_named('parameter', missing)}, which is not given; given: {given}."

    def _source_index(self, sent_index: int) -> int:
        """Where in the text the character is that the server found at an index of what it got."""
        if self.parameters is None:
            return sent_index
        numbers: dict[str, int] = {}
        count = longer = 0
        for found in PLACEHOLDER.finditer(self.text):
            if found[0] == "%%":
                sent = "%"
            else:
                count += 1
                sent = f"${numbers.setdefault(found['name'] or str(count), len(numbers) + 1)}"
            if found.start() - longer >= sent_index:
                break
            longer += len(found[0]) - len(sent)
        return sent_index + longer


def _named(noun: str, names: list[str]) -> str:
    unique = dict.fromkeys(names)
    return f"{noun}{'s' if len(unique) > 1 else ''} {', '.join(unique)}"
