"""Rows become happenings, and a row that cannot says which it is and why."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest
from testyard.core.errors import UserError
from testyard.core.history import Happening, Kind
from testyard.ledger.moments import clock_time, milliseconds, moment_ns
from testyard.ledger.records import Fields, read_records

ID = UUID("7f0d4c0e-6f0a-4a52-8f0e-3f2f0a1b2c3d")
NOON = datetime(2026, 1, 31, 12, 0, 0, 250, tzinfo=UTC)
NOON_NS = 1_769_860_800_000_250_000
STORED = Fields(Kind.STORED, "event_id", "created_at")


@pytest.fixture
def far_east(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine whose own zone is not UTC."""
    with monkeypatch.context() as context:
        context.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        yield
    time.tzset()


def read(*rows: object, fields: Fields | None = STORED) -> list[Happening]:
    return list(read_records(rows, fields))


@pytest.mark.usefixtures("far_east")
@pytest.mark.parametrize(
    "at",
    [
        NOON,
        NOON.replace(tzinfo=None),
        NOON.astimezone(timezone(timedelta(hours=5))),
        "2026-01-31T12:00:00.000250Z",
        "2026-01-31 12:00:00.000250",
        "2026-01-31T14:00:00.000250+02:00",
        NOON_NS,
        f" {NOON_NS} ",
    ],
)
def test_a_moment_is_understood_however_it_is_written(at: object):
    assert moment_ns(at) == NOON_NS
    assert read({"event_id": ID, "created_at": at}) == [Happening(Kind.STORED, str(ID), NOON_NS)]


@pytest.mark.parametrize(
    ("at", "said"),
    [
        ("yesterday", "'yesterday' is no moment: expected a date and time in ISO 8601"),
        (None, r"None \(NoneType\) is no moment"),
        (1.5, r"1.5 \(float\) is no moment"),
        (True, r"True \(bool\) is no moment"),
        (NOON_NS // 10**9, "1769860800 is no moment: a whole number counts nanoseconds"),
        (str(NOON_NS // 10**6), "1769860800000 is no moment"),
        (2**63, "9223372036854775808 is no moment"),
    ],
)
def test_what_is_no_moment_is_told_with_its_row_and_field(at: object, said: str):
    with pytest.raises(UserError, match=f"^Row 2, field 'created_at': {said}"):
        read({"event_id": ID, "created_at": NOON}, {"event_id": ID, "created_at": at})


def test_every_field_is_read():
    fields = Fields(Kind.RECEIVED, "id", "at", "key", "offset", "orders/2")
    rows = [
        {"id": 7, "at": NOON, "key": ID, "offset": 17, "more": "x"},
        {"id": "8", "at": NOON, "key": None, "offset": "18"},
        {"id": "9", "at": NOON, "key": "k", "offset": None},
    ]
    assert read(*rows, fields=fields) == [
        Happening(Kind.RECEIVED, "7", NOON_NS, str(ID), "orders/2", 17),
        Happening(Kind.RECEIVED, "8", NOON_NS, None, "orders/2", 18),
        Happening(Kind.RECEIVED, "9", NOON_NS, "k", "orders/2", None),
    ]


def test_a_field_may_be_inside_another_one_and_its_own_name_goes_first():
    fields = Fields(Kind.RECEIVED, "body.order.id", "at.ns")
    row = {"body": {"order": {"id": "e"}}, "at": {"ns": 1}, "at.ns": NOON_NS}
    assert read(row, fields=fields) == [Happening(Kind.RECEIVED, "e", NOON_NS)]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            Fields(Kind.STORED, "id", "at"),
            "Row 1 has no field 'id'; its fields: event, at, key, offset: {'event': 'e'",
        ),
        (Fields(Kind.STORED, "event", "when"), "Row 1 has no field 'when'"),
        (Fields(Kind.STORED, "event", "at", "keys"), "Row 1 has no field 'keys'"),
        (Fields(Kind.STORED, "event", "at", "key", "position"), "Row 1 has no field 'position'"),
        (Fields(Kind.STORED, "event.id", "at"), "Row 1 has no field 'event.id'"),
        (Fields(Kind.STORED, "key", "at"), "Row 1 names no event: its field 'key' is None"),
        (Fields(Kind.STORED, "event", "at", None, "offset"), "Row 1, field 'offset': 'far' is no position"),
    ],
)
def test_what_a_row_lacks_is_told(fields: Fields, said: str):
    with pytest.raises(UserError) as problem:
        read({"event": "e", "at": NOON, "key": None, "offset": "far"}, fields=fields)
    assert str(problem.value).startswith(said)


def test_a_long_row_is_cut_short():
    with pytest.raises(UserError) as problem:
        read({"payload": "x" * 1000})
    assert str(problem.value).endswith("xxx….")
    assert len(str(problem.value)) < 400


def test_what_is_no_row_is_told():
    with pytest.raises(UserError, match=r"^Row 1 is \('e', 1\) \(tuple\)"):
        read(("e", 1))


def test_happenings_are_taken_as_they_are_and_need_no_names():
    happening = Happening(Kind.STORED, "e", 1)
    assert read(happening, fields=None) == [happening]
    assert read(fields=None) == read() == []
    with pytest.raises(UserError, match="they need no kind and no fields"):
        read(happening)
    with pytest.raises(UserError, match="Name the fields of the rows"):
        read({"event_id": ID}, fields=None)


def test_people_are_told_moments_and_durations_as_they_write_them():
    assert clock_time(NOON_NS) == "12:00:00.000250"
    assert [milliseconds(ns) for ns in (250_000, 12_500_000, 1_200_000_000, 0)] == [
        "0.25 ms",
        "12.5 ms",
        "1200 ms",
        "0 ms",
    ]
