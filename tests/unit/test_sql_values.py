"""What a test writes is compared as what the database returned."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from testyard.sql.values import comparable, same, shown

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3, "3"),
        (3, " 3 "),
        (3, "3.0"),
        (3, 3),
        (Decimal("0.1"), 0.1),
        (Decimal("0.10"), "0.1"),
        (0.5, "0.5"),
        (True, "true"),
        (False, "False"),
        (None, None),
        (None, "NULL"),
        (None, "None"),
        ("3", "3"),
        ("NULL", "NULL"),
        (NOON, "2026-11-21T12:00:00Z"),
        (NOON, "2026-11-21 12:00"),
        (NOON, "2026-11-21T13:00+01:00"),
        (NOON.replace(tzinfo=None), "2026-11-21 12:00"),
        (NOON, NOON.astimezone(timezone(timedelta(hours=2)))),
        (date(2026, 11, 21), "2026-11-21"),
        (time(12, 30), "12:30"),
        (UUID(int=7), "00000000000000000000000000000007"),
        ([1, 2], "[1, 2]"),
        ({"a": None}, '{"a": null}'),
    ],
)
def test_the_same(value: Any, expected: Any) -> None:
    assert same(value, expected)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3, "4"),
        (3, "three"),
        (3, "NULL"),
        (1, True),
        (1, "true"),
        (True, 1),
        (True, "1"),
        (None, ""),
        (None, "0"),
        ("", None),
        ("NULL", None),
        (0, None),
        (NOON, "2026-11-21T12:00+01:00"),
        (NOON, "noon"),
        (UUID(int=7), "7"),
        ({"a": 1}, "{a: 1}"),
        ("3", 3),
        (Decimal("0.1"), 0.2),
    ],
)
def test_not_the_same(value: Any, expected: Any) -> None:
    assert not same(value, expected)


def test_a_whole_number_stays_one() -> None:
    assert repr(comparable(3, "4")) == "4"
    assert repr(comparable(3, "1.5")) == "Decimal('1.5')"
    assert repr(comparable(3, "inf")) in {"'inf'", "Decimal('Infinity')"}


def test_null_is_shown_as_null() -> None:
    assert [shown(None), shown("None"), shown(3)] == ["NULL", "None", "3"]
