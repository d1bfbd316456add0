"""When a cron expression is due in an IANA zone, also across changes of the clock.

croniter reads the fields; the search is here, because croniter's own follows neither rule below at a change of the
clock. What croniter accepts beyond cron is refused (seconds, years, ``#``, ``W``, ``?``, random ``R``, ranges that
wrap around): it means something else, or nothing, in other crons.

The rules are those of Vixie cron (cron(8), "daylight saving time"; crontab(5)):

* A job of which neither the minute nor the hour field starts with ``*`` is a *fixed-time* job. It runs once for
  each local time it names: the first time in a fold, and at the first instant after a gap that swallows it.
* Every other job is a *wildcard* job. It runs at every elapsed minute whose local time matches: in both passes of
  a fold, and not at all for a time in a gap.
* Day of month and day of week are alternatives, unless one of them starts with ``*``: then both must match.

Zones come from the system's database through ``zoneinfo``.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from calendar import monthrange
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

from croniter import CroniterError, croniter

from testyard.core.errors import UserError

MAXIMUM_LENGTH: Final = 100
_LAST_YEAR: Final = 9990
_MINUTE: Final = timedelta(minutes=1)
# No clock is ever set back further than this (2 hours is the most a zone does).
_LARGEST_FOLD: Final = timedelta(hours=3)

_ALIASES: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_LONGEST_MONTHS: Final = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_ITEM: Final = re.compile(
    r"(?:\*|(?P<low>\d{1,2}|[a-z]{3})(?:-(?P<high>\d{1,2}|[a-z]{3}))?)(?:/0*[1-9]\d{0,2})?", re.ASCII
)


class CronError(UserError):
    """A cron expression or a zone that cannot be used; one line says what was got and what is expected."""


@dataclass(frozen=True, slots=True)
class _Field:
    """One of the five fields, for messages and names."""

    name: str
    low: int
    high: int
    values: str
    names: tuple[str, ...] = ()

    @property
    def expected(self) -> str:
        """What may be written here, in words."""
        return f"{self.values}, written as *, a, a-b, */n, a-b/n or a list of these"

    def number(self, text: str) -> int | None:
        """What a number or a name stands for; None if it is neither or out of range."""
        if text in self.names:
            return self.names.index(text) + self.low
        return int(text) if text.isdigit() and self.low <= int(text) <= self.high else None


_FIELDS: Final = (
    _Field("minute", 0, 59, "0 to 59"),
    _Field("hour", 0, 23, "0 to 23"),
    _Field("day of month", 1, 31, "1 to 31 or L (the last day)"),
    _Field("month", 1, 12, "1 to 12 or JAN to DEC", _MONTHS),
    _Field("day of week", 0, 7, "0 to 7 (0 and 7 are Sunday) or SUN to SAT", _WEEKDAYS),
)
_DAY_OF_MONTH: Final = _FIELDS[2]
_DAY_OF_WEEK: Final = _FIELDS[4]


@dataclass(frozen=True, slots=True)
class Schedule:
    """A checked cron expression in a zone.

    Example:
        >>> nightly = Schedule.parse("0 2 * * *", "America/New_York")
        >>> nightly.next_time(datetime(2026, 1, 1, 8, tzinfo=UTC)).isoformat()
        '2026-01-02T07:00:00+00:00'
    """

    zone: ZoneInfo
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    last_day: bool
    months: frozenset[int]
    weekdays: frozenset[int]
    either_day: bool
    fixed_time: bool

    @classmethod
    def parse(cls, expression: str, zone: str) -> Schedule:
        """Check an expression and a zone.

        Args:
            expression: Five fields, or an alias such as ``@daily``; at most 100 characters.
            zone: An IANA name, such as ``Europe/Berlin``.

        Returns:
            What can tell when it is due.

        Raises:
            CronError: The expression or the zone cannot be used, or the expression is never due.
        """
        fields = _split(expression)
        for field, text in zip(_FIELDS, fields, strict=True):
            _check_field(field, text)
        try:
            expanded, _ = croniter.expand(" ".join(fields))
        except CroniterError as error:
            raise CronError(f"cron expression {expression!r}: {error}") from None
        minutes, hours, days, months, weekdays = (
            list(range(field.low, field.high + 1))
            if values == ["*"]
            else [number for number in values if isinstance(number, int)]
            for field, values in zip(_FIELDS, expanded, strict=True)
        )
        schedule = cls(
            zone=_zone(zone),
            minutes=tuple(minutes),
            hours=tuple(hours),
            days=frozenset(days),
            last_day="l" in expanded[2],
            months=frozenset(months),
            weekdays=frozenset(weekdays),
            either_day=not fields[2].startswith("*") and not fields[4].startswith("*"),
            fixed_time=not fields[0].startswith("*") and not fields[1].startswith("*"),
        )
        if not schedule._is_ever_due():
            raise CronError(
                f"cron expression {expression!r} is never due: no month in {fields[3]!r} has a day {fields[2]!r}"
            )
        return schedule

    def next_time(self, after: datetime) -> datetime:
        """When it is due next.

        Args:
            after: An instant, in any zone.

        Returns:
            The first instant it is due that is later than ``after``, in UTC.

        Raises:
            CronError: Not before the year 9991.
            ValueError: ``after`` has no zone.
        """
        if after.utcoffset() is None:
            raise ValueError(f"the time {after.isoformat()} has no zone")
        start = after.astimezone(UTC)
        return self._next_fixed(start) if self.fixed_time else self._next_wildcard(start)

    def next_times(self, after: datetime, count: int) -> list[datetime]:
        """When it is due the next times.

        Args:
            after: An instant, in any zone.
            count: How many.

        Returns:
            Instants in UTC, ascending.

        Raises:
            CronError: Fewer before the year 9991.
            ValueError: ``after`` has no zone.
        """
        times: list[datetime] = []
        for _ in range(count):
            after = self.next_time(after)
            times.append(after)
        return times

    def _next_fixed(self, after: datetime) -> datetime:
        """A local time is due when the clock first reaches or passes it: one instant, in folds and gaps too."""
        local = self._next_local(self._local(after))
        while (due := self._first_reached(local)) <= after:
            local = self._next_local(local)
        return due

    def _next_wildcard(self, after: datetime) -> datetime:
        """Every instant whose local time matches is due."""
        shown = self._local(after)
        local = self._next_local(shown)
        horizon = after + _LARGEST_FOLD
        changes = self._offset(after) != self._offset(horizon)
        even_until = self._change_between(after, horizon) if changes else horizon
        # Until then the clock runs evenly, in the second pass of a fold too.
        due = after + (local - shown)
        if due < even_until:
            return due
        if changes:
            # The search starts again where the clock was set, in a fold from earlier local times.
            return even_until if self._matches(self._local(even_until)) else self._next_wildcard(even_until)
        while self._local(due := self._instant(local)) != local:
            local = self._next_local(local)
        return due

    def _local(self, instant: datetime) -> datetime:
        """What the zone's clock shows."""
        return instant.astimezone(self.zone).replace(tzinfo=None, fold=0)

    def _offset(self, instant: datetime) -> timedelta | None:
        """By how much the zone's clock is ahead of UTC."""
        return instant.astimezone(self.zone).utcoffset()

    def _instant(self, local: datetime, *, fold: int = 0) -> datetime:
        """When the zone's clock shows a local time; of a time in a gap, some instant near the gap."""
        return local.replace(tzinfo=self.zone, fold=fold).astimezone(UTC)

    def _first_reached(self, local: datetime) -> datetime:
        """The first instant at which the zone's clock shows this time or, in a gap, a later one."""
        instant = self._instant(local)
        if self._local(instant) == local:
            return instant
        # In a gap, fold=1 counts with the offset after it and so gives an instant before it (PEP 495).
        return self._change_between(self._instant(local, fold=1), instant)

    def _change_between(self, low: datetime, high: datetime) -> datetime:
        """The first instant with the offset of ``high``; ``low`` has another one."""
        new = self._offset(high)
        # Clocks change at whole seconds.
        low = low.replace(microsecond=0)
        seconds = range(int((high - low).total_seconds()) + 1)
        return low + timedelta(
            seconds=bisect_left(
                seconds, True, key=lambda passed: self._offset(low + timedelta(seconds=passed)) == new
            )
        )

    def _next_local(self, local: datetime) -> datetime:
        """The first matching local time, whole minutes, later than a local time."""
        start = local.replace(second=0, microsecond=0) + _MINUTE
        if self._day_matches(start.date()):
            for hour in self.hours[bisect_left(self.hours, start.hour) :]:
                position = bisect_left(self.minutes, start.minute) if hour == start.hour else 0
                if position < len(self.minutes):
                    return start.replace(hour=hour, minute=self.minutes[position])
        return datetime.combine(self._next_day(start.date()), time(self.hours[0], self.minutes[0]))

    def _next_day(self, day: date) -> date:
        """The first matching day after a day."""
        day += timedelta(days=1)
        while day.year <= _LAST_YEAR:
            if day.month not in self.months:
                day = (day.replace(day=28) + timedelta(days=4)).replace(day=1)
            elif self._day_matches(day):
                return day
            else:
                day += timedelta(days=1)
        raise CronError(f"the cron expression is not due again before the year {_LAST_YEAR + 1}")

    def _matches(self, local: datetime) -> bool:
        """Whether a local time is one of those named."""
        return (
            local.minute in self.minutes
            and local.hour in self.hours
            and local.second == 0
            and self._day_matches(local.date())
        )

    def _day_matches(self, day: date) -> bool:
        """Whether a day is one of those named: in the month, and by day of month, day of week, or both."""
        if day.month not in self.months:
            return False
        by_number = day.day in self.days or (self.last_day and day.day == monthrange(day.year, day.month)[1])
        by_weekday = day.isoweekday() % 7 in self.weekdays
        return by_number or by_weekday if self.either_day else by_number and by_weekday

    def _is_ever_due(self) -> bool:
        """Whether any day matches. Every date that exists, 29 February too, comes on every day of the week."""
        shortest = min(self.days, default=0 if self.last_day else 32)
        return (
            self.either_day
            or self.last_day
            or any(shortest <= _LONGEST_MONTHS[month - 1] for month in self.months)
        )


def validate(expression: str, zone: str) -> None:
    """Check a cron expression and a zone.

    Args:
        expression: Five fields, or an alias such as ``@daily``; at most 100 characters.
        zone: An IANA name, such as ``Europe/Berlin``.

    Raises:
        CronError: The expression or the zone cannot be used, or the expression is never due.
    """
    _parsed(expression, zone)


def next_time(expression: str, zone: str, after: datetime) -> datetime:
    """When an expression is due next.

    Args:
        expression: Five fields, or an alias such as ``@daily``.
        zone: An IANA name, such as ``Europe/Berlin``.
        after: An instant, with a zone.

    Returns:
        The first instant it is due that is later than ``after``, in UTC.

    Raises:
        CronError: The expression or the zone cannot be used.
        ValueError: ``after`` has no zone.
    """
    return _parsed(expression, zone).next_time(after)


def next_times(expression: str, zone: str, after: datetime, count: int) -> list[datetime]:
    """When an expression is due the next times.

    Args:
        expression: Five fields, or an alias such as ``@daily``.
        zone: An IANA name, such as ``Europe/Berlin``.
        after: An instant, with a zone.
        count: How many.

    Returns:
        Instants in UTC, ascending, all later than ``after``.

    Raises:
        CronError: The expression or the zone cannot be used.
        ValueError: ``after`` has no zone.
    """
    return _parsed(expression, zone).next_times(after, count)


@lru_cache(maxsize=4096)
def _parsed(expression: str, zone: str) -> Schedule:
    """A schedule; reading an expression costs several times what finding the next time does."""
    return Schedule.parse(expression, zone)


def _split(expression: str) -> list[str]:
    """The five fields of an expression, in lower case."""
    if len(expression) > MAXIMUM_LENGTH:
        raise CronError(f"cron expression: got {len(expression)} characters, expected at most {MAXIMUM_LENGTH}")
    text = expression.strip(" \t").lower()
    if text.startswith("@"):
        if text not in _ALIASES:
            raise CronError(
                f"cron expression: got {expression!r}, expected five fields or one of {', '.join(_ALIASES)}"
            )
        text = _ALIASES[text]
    fields = re.findall(r"[^ \t]+", text)
    if len(fields) != len(_FIELDS):
        names = ", ".join(field.name for field in _FIELDS)
        raise CronError(f"cron expression: got {len(fields)} fields in {expression!r}, expected five: {names}")
    return fields


def _check_field(field: _Field, text: str) -> None:
    """Refuse what is not cron in one field."""
    for item in text.split(","):
        if item == "l" and field is _DAY_OF_MONTH:
            continue
        match = _ITEM.fullmatch(item)
        if match is None:
            raise CronError(f"cron field {field.name}: got {text!r}, expected {field.expected}")
        bounds = [field.number(bound) for bound in match.group("low", "high") if bound is not None]
        if None in bounds:
            raise CronError(f"cron field {field.name}: got {text!r}, expected {field.expected}")
        if len(bounds) == 2 and not _ascends(field, match["low"], match["high"]):
            raise CronError(f"cron field {field.name}: got {text!r}, expected ranges a-b with a less than b")


def _ascends(field: _Field, low: str, high: str) -> bool:
    """Whether a range goes upwards; Sunday at its end is day 7."""
    first, last = field.number(low), field.number(high)
    if field is _DAY_OF_WEEK and high == "sun" and low != "sun":
        last = 7
    return first is not None and last is not None and first < last


def _zone(name: str) -> ZoneInfo:
    """The zone of a name."""
    # The database also holds copies of the zones under other rules, and the server's own zone.
    if not name.startswith(("posix/", "right/")) and name not in {"localtime", "posixrules", "Factory"}:
        try:
            return ZoneInfo(name)
        except (LookupError, ValueError, OSError):
            pass
    shown = repr(name) if len(name) <= MAXIMUM_LENGTH else f"{len(name)} characters"
    raise CronError(f"zone: got {shown}, expected an IANA name such as 'Europe/Berlin'")
