"""Comparing rows with the expected ones, and explaining every difference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from testyard.core.errors import UserError
from testyard.core.tables import html_table
from testyard.sql.values import same, shown

Row = Mapping[str, Any]

MOST_ROWS = 50
MOST_IN_MESSAGE = 5
MARK = "\N{BALLOT X}"


class Verdict(Enum):
    """What became of a row."""

    SAME = "as expected"
    DIFFERENT = "different"
    MISSING = "missing"
    UNEXPECTED = "unexpected"


@dataclass(frozen=True)
class Pair:
    """An expected row and the actual one beside it; at most one of them is None.

    Attributes:
        expected: The row that the test expects.
        actual: The row that the database returned.
        different: The columns in which they differ.
    """

    expected: Row | None
    actual: Row | None
    different: tuple[str, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """What became of the row."""
        if self.actual is None:
            return Verdict.MISSING
        if self.expected is None:
            return Verdict.UNEXPECTED
        return Verdict.DIFFERENT if self.different else Verdict.SAME

    def cell(self, column: str) -> str:
        """The cell of a column, with both values when they differ."""
        if self.actual is not None and self.expected is not None:
            got = shown(self.actual.get(column))
            if column in self.different:
                return f"{MARK} {got}, expected {shown(self.expected.get(column))}"
            return got
        return shown((self.actual or self.expected or {}).get(column))

    def __str__(self) -> str:
        row = self.expected if self.actual is None else self.actual
        assert row is not None
        if self.verdict is Verdict.DIFFERENT:
            assert self.expected is not None
            wrong = (
                f"{name} is {shown(row[name])}, expected {shown(self.expected[name])}" for name in self.different
            )
            known = [f"{name} {shown(row[name])}" for name in self.expected if name not in self.different]
            return f"{', '.join(known[:3]) or 'a row'}: {'; '.join(wrong)}"
        return f"{self.verdict.value}: {', '.join(f'{name} {shown(value)}' for name, value in row.items())}"


@dataclass(frozen=True)
class RowComparison:
    """Every row, with its verdict.

    Attributes:
        columns: The compared columns.
        pairs: The rows.
    """

    columns: tuple[str, ...]
    pairs: tuple[Pair, ...]

    @property
    def differences(self) -> tuple[Pair, ...]:
        """The rows that are not as expected."""
        return tuple(pair for pair in self.pairs if pair.verdict is not Verdict.SAME)

    @property
    def message(self) -> str:
        """The differences in a few lines; empty when there are none."""
        differences = self.differences
        if not differences:
            return ""
        lines = [f"{len(differences)} of {len(self.pairs)} rows are not as expected:"]
        lines += [f"- {pair}" for pair in differences[:MOST_IN_MESSAGE]]
        more = len(differences) - MOST_IN_MESSAGE
        return "\n".join([*lines, f"- and {more} more"] if more > 0 else lines)

    def html(self) -> str:
        """A table of the rows, those that are not as expected first; cells are escaped, differing ones marked."""
        ordered = sorted(self.pairs, key=lambda pair: pair.verdict is Verdict.SAME)
        rows = [[pair.verdict.value, *map(pair.cell, self.columns)] for pair in ordered[:MOST_ROWS]]
        title = f"{len(self.differences)} of {len(self.pairs)} rows are not as expected"
        return html_table(title + _first_of(self.pairs), ("row", *self.columns), rows)


def compare(
    expected: Sequence[Row], actual: Sequence[Row], *, keys: Sequence[str] = (), ordered: bool = False
) -> RowComparison:
    """Compare rows in the columns that the expected ones name.

    Args:
        expected: The rows that must be there, and no others. Texts count as what they say: see ``comparable``.
        actual: The rows that are there.
        keys: Columns that tell which rows belong together.
        ordered: Whether the order counts too. Without keys and order, equal rows belong together, and of the
            others those with the most equal cells.

    Raises:
        UserError: An expected column or a key is not among the actual ones, or keys and order are both given.

    Example:
        >>> compare([{"id": "1", "state": "DONE"}], [{"id": 1, "state": "FAILED"}], keys=["id"]).message
        '1 of 1 rows are not as expected:\\n- id 1: state is FAILED, expected DONE'
    """
    if keys and ordered:
        message = "Rows are compared by keys or in order, not both."
        raise UserError(message)
    columns = tuple(dict.fromkeys(name for row in expected for name in row)) or tuple(actual[0] if actual else ())
    _check_columns(columns, keys, expected, actual)
    left = list(actual)
    pairs: list[Pair] = []
    if ordered:
        pairs += [_pair(wanted, left.pop(0) if left else None) for wanted in expected]
    else:
        belongs = keys or columns
        unpaired = []
        for wanted in expected:
            found = next((row for row in left if all(same(row[key], wanted[key]) for key in belongs)), None)
            if found is None:
                unpaired.append(wanted)
            else:
                _take(left, found)
                pairs.append(_pair(wanted, found))
        pairs += [_pair(wanted, None if keys else _most_alike(wanted, left)) for wanted in unpaired]
    return RowComparison(columns, (*pairs, *(Pair(None, row) for row in left)))


def rows_table(title: str, rows: Sequence[Row]) -> str:
    """A folded table of the first rows for a log.

    Args:
        title: Shown above it.
        rows: The rows; the first one tells the columns.
    """
    columns = list(rows[0]) if rows else []
    cells = [[shown(row[name]) for name in columns] for row in rows[:MOST_ROWS]]
    return html_table(title + _first_of(rows), columns, cells, folded=True)


def _first_of(rows: Sequence[object]) -> str:
    return f"; the first {MOST_ROWS}:" if len(rows) > MOST_ROWS else ""


def _check_columns(
    columns: Sequence[str], keys: Sequence[str], expected: Sequence[Row], actual: Sequence[Row]
) -> None:
    there = list(actual[0]) if actual else columns
    if absent := [name for name in (*columns, *keys) if name not in there]:
        message = f"The rows have no column {', '.join(dict.fromkeys(absent))}; their columns: {', '.join(there)}."
        raise UserError(message)
    for row in expected:
        if incomplete := [name for name in (*columns, *keys) if name not in row]:
            message = f"The expected row {dict(row)} says nothing about {', '.join(dict.fromkeys(incomplete))}."
            raise UserError(message)


def _pair(expected: Row, actual: Row | None) -> Pair:
    if actual is None:
        return Pair(expected, None)
    return Pair(expected, actual, tuple(name for name in expected if not same(actual[name], expected[name])))


def _most_alike(expected: Row, candidates: list[Row]) -> Row | None:
    """Take the row that has the most cells in common with the expected one, if it has any."""

    def alike(row: Row) -> int:
        return sum(same(row[name], value) for name, value in expected.items())

    best = max(candidates, key=alike, default=None)
    if best is None or not alike(best):
        return None
    _take(candidates, best)
    return best


def _take(rows: list[Row], taken: Row) -> None:
    """Remove this very row, not one that is equal."""
    del rows[next(index for index, row in enumerate(rows) if row is taken)]
