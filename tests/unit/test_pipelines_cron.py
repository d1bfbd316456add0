"""When a cron expression is due, held to a count of the elapsed minutes by hand."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

import pytest
from croniter import croniter
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from testyard.core.errors import UserError
from testyard.lab.pipelines.cron import CronError, Schedule, next_time, next_times, validate

MINUTE = timedelta(minutes=1)
ZONES = [
    "America/New_York",
    "Europe/Berlin",
    "Australia/Lord_Howe",
    "Asia/Kolkata",
    "Africa/Casablanca",
    "Africa/Cairo",
    "America/Havana",
    "UTC",
]
NAMES = {
    name: number
    for names, first in (
        ("jan feb mar apr may jun jul aug sep oct nov dec", 1),
        ("sun mon tue wed thu fri sat", 0),
    )
    for number, name in enumerate(names.split(), first)
}
BOUNDS = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 7)]
steady = settings(derandomize=True, deadline=None, max_examples=60)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def clock(instant: datetime, zone: str) -> datetime:
    """What a clock on the wall shows."""
    return instant.astimezone(ZoneInfo(zone)).replace(tzinfo=None, fold=0)


def clock_changes(zone: str, first_year: int, last_year: int) -> list[datetime]:
    """The instants, to the minute, at which the zone's clock is changed."""
    here = ZoneInfo(zone)
    changes = []
    hour = datetime(first_year, 1, 1, tzinfo=UTC)
    while hour.year <= last_year:
        following = hour + timedelta(hours=1)
        if hour.astimezone(here).utcoffset() != following.astimezone(here).utcoffset():
            minute = hour
            while minute.astimezone(here).utcoffset() == hour.astimezone(here).utcoffset():
                minute += MINUTE
            changes.append(minute)
        hour = following
    return changes


CHANGES = {zone: clock_changes(zone, 2026, 2027) for zone in ZONES}


def numbers(text: str, low: int, high: int) -> set[int]:
    """The numbers of one field, read without any help."""
    found: set[int] = set()
    for item in text.lower().split(","):
        bounds, _, step = item.partition("/")
        first, _, last = bounds.partition("-")
        if first == "*":
            start, stop = low, high
        else:
            start = NAMES[first] if first in NAMES else int(first)
            stop = (NAMES[last] if last in NAMES else int(last)) if last else high if step else start
        found |= set(range(start, stop + 1, int(step or 1)))
    return found


@cache
def reading(expression: str) -> tuple[list[set[int]], bool]:
    """The numbers of the five fields, and whether day of month and day of week are alternatives."""
    fields = expression.split()
    values = [numbers(text, *bounds) for text, bounds in zip(fields, BOUNDS, strict=True)]
    return values, fields[2][0] != "*" and fields[4][0] != "*"


def matches(expression: str, shown: datetime) -> bool:
    """Whether a local time is one that the expression names, by crontab(5)."""
    (minutes, hours, days, months, weekdays), alternatives = reading(expression)
    if shown.minute not in minutes or shown.hour not in hours or shown.month not in months:
        return False
    by_number = shown.day in days
    by_weekday = bool({shown.isoweekday(), shown.isoweekday() % 7} & weekdays)
    return by_number or by_weekday if alternatives else by_number and by_weekday


def due_by_hand(expression: str, zone: str, after: datetime, until: datetime) -> Iterator[datetime]:
    """Every elapsed minute is looked at; a fixed-time job also for the local times that were jumped over."""
    fields = expression.split()
    fixed = fields[0][0] != "*" and fields[1][0] != "*"
    now = (after - timedelta(hours=6)).replace(second=0, microsecond=0)
    highest = clock(now, zone)
    while now < until:
        now += MINUTE
        shown = clock(now, zone)
        if fixed:
            due = False
            while highest < shown:
                highest += MINUTE
                due = due or matches(expression, highest)
        else:
            due = matches(expression, shown)
        if due and now > after:
            yield now


def field(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    span = st.tuples(number, number).filter(lambda pair: pair[0] < pair[1])
    item = st.one_of(
        number.map(str),
        span.map(lambda pair: f"{pair[0]}-{pair[1]}"),
        st.tuples(span, st.integers(1, 20)).map(lambda both: f"{both[0][0]}-{both[0][1]}/{both[1]}"),
        st.tuples(number, st.integers(1, 20)).map(lambda both: f"{both[0]}/{both[1]}"),
    )
    wildcard = st.one_of(st.just("*"), st.integers(1, 20).map(lambda step: f"*/{step}"))
    return st.one_of(wildcard, item, st.lists(item, min_size=2, max_size=3).map(",".join))


def expressions(hours: st.SearchStrategy[str], day: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.tuples(field(0, 59), hours, day).map(" ".join)


every_day = st.just("* * *")
any_day = st.one_of(every_day, st.tuples(field(1, 31), field(1, 12), field(0, 6)).map(" ".join))
night_hours = st.one_of(field(0, 23), st.sampled_from(["0", "1", "2", "3", "0-3", "1,2,3", "*", "*/2"]))
around_a_change = st.sampled_from([zone for zone in ZONES if CHANGES[zone]]).flatmap(
    lambda zone: st.tuples(
        st.just(zone),
        st.sampled_from(CHANGES[zone]),
        st.timedeltas(timedelta(hours=-5), timedelta(hours=4)),
    )
)
instants = st.integers(0, 730 * 86_400).map(lambda passed: utc("2026-01-01T00:00") + timedelta(seconds=passed))


def test_the_zones_really_change_their_clocks():
    assert {zone: len(changes) for zone, changes in CHANGES.items()} == {
        "America/New_York": 4,
        "Europe/Berlin": 4,
        "Australia/Lord_Howe": 4,
        "Asia/Kolkata": 0,
        "Africa/Casablanca": 4,
        "Africa/Cairo": 4,
        "America/Havana": 4,
        "UTC": 0,
    }


@settings(steady, max_examples=250)
@given(expressions(night_hours, every_day), around_a_change)
def test_around_a_change_of_the_clock_it_agrees_with_the_count_by_hand(
    expression: str, when: tuple[str, datetime, timedelta]
):
    zone, change, distance = when
    after = change + distance
    until = after + timedelta(hours=9)
    expected = list(due_by_hand(expression, zone, after, until))
    found = next_times(expression, zone, after, len(expected) + 1)
    assert found[:-1] == expected
    assert found[-1] > until - MINUTE


@steady
@given(expressions(field(0, 23), any_day), st.sampled_from(ZONES), instants)
def test_anywhere_else_it_agrees_with_the_count_by_hand(expression: str, zone: str, after: datetime):
    try:
        validate(expression, zone)
    except CronError:
        assume(False)
    until = after + timedelta(days=3)
    expected = list(due_by_hand(expression, zone, after, until))
    found = next_times(expression, zone, after, len(expected) + 1)
    assert found[:-1] == expected
    assert found[-1] > until - MINUTE


@settings(steady, max_examples=200)
@given(expressions(field(0, 23), any_day), instants)
def test_without_changes_of_the_clock_it_agrees_with_croniter(expression: str, after: datetime):
    fields = expression.split()
    # crontab(5) and croniter disagree on whether "*/2" restricts a day.
    assume(not any(text.startswith("*/") for text in (fields[2], fields[4])))
    try:
        validate(expression, "UTC")
    except CronError:
        assume(False)
    theirs = croniter(expression, after, ret_type=datetime)
    assert next_times(expression, "UTC", after, 5) == [theirs.get_next() for _ in range(5)]


@settings(steady, max_examples=150)
@given(expressions(field(0, 23), any_day), st.sampled_from(ZONES), instants)
def test_times_ascend_and_show_what_was_asked_or_are_the_first_instant_after_a_gap(
    expression: str, zone: str, after: datetime
):
    try:
        found = next_times(expression, zone, after, 20)
    except CronError:
        assume(False)
    assert all(earlier < later for earlier, later in zip([after, *found], found, strict=False))
    for due in found:
        assert due.tzinfo is UTC
        shown, minute_before = clock(due, zone), clock(due - MINUTE, zone)
        first_after_gap = shown - minute_before > MINUTE
        assert matches(expression, shown) or first_after_gap
        if first_after_gap and not matches(expression, shown):
            jumped = [minute_before + MINUTE * count for count in range(1, (shown - minute_before) // MINUTE)]
            assert any(matches(expression, local) for local in jumped)


@settings(steady, max_examples=25)
@given(st.integers(0, 59), st.integers(0, 23), st.sampled_from(ZONES))
def test_a_fixed_daily_job_is_due_exactly_once_on_every_local_day_of_two_years(minute: int, hour: int, zone: str):
    days = 730
    after = datetime(2026, 1, 1, tzinfo=ZoneInfo(zone)) - MINUTE
    found = next_times(f"{minute} {hour} * * *", zone, after, days)
    assert [clock(due, zone).date() for due in found] == [
        date(2026, 1, 1) + timedelta(days=day) for day in range(days)
    ]


@pytest.mark.parametrize("time", ["0 0", "30 0", "30 1", "0 2", "15 2", "30 2", "0 3"])
@pytest.mark.parametrize("zone", ZONES)
def test_a_fixed_job_of_the_night_is_due_exactly_once_on_every_local_day(time: str, zone: str):
    found = next_times(f"{time} * * *", zone, datetime(2026, 1, 1, tzinfo=ZoneInfo(zone)) - MINUTE, 730)
    assert len({clock(due, zone).date() for due in found}) == 730
    assert clock(found[-1], zone).date() == date(2027, 12, 31)


@pytest.mark.parametrize(
    ("expression", "zone", "after", "expected"),
    [
        # 2 in the morning in New York is 07:00Z in winter and 06:00Z in summer.
        ("0 2 * * *", "America/New_York", "2026-01-10T00:00", ["01-10T07:00", "01-11T07:00"]),
        ("0 2 * * *", "America/New_York", "2026-07-10T00:00", ["07-10T06:00", "07-11T06:00"]),
        # 8 March 2026: 02:00-03:00 does not exist in New York; the first instant after is 07:00Z.
        ("30 2 * * *", "America/New_York", "2026-03-07T00:00", ["03-07T07:30", "03-08T07:00", "03-09T06:30"]),
        ("0,30 2 * * *", "America/New_York", "2026-03-08T00:00", ["03-08T07:00", "03-09T06:00"]),
        ("30 2,3 * * *", "America/New_York", "2026-03-08T00:00", ["03-08T07:00", "03-08T07:30", "03-09T06:30"]),
        ("30 1 * * *", "America/New_York", "2026-03-07T12:00", ["03-08T06:30", "03-09T05:30"]),
        ("30 * * * *", "America/New_York", "2026-03-08T06:00", ["03-08T06:30", "03-08T07:30", "03-08T08:30"]),
        ("*/30 2 * * *", "America/New_York", "2026-03-08T00:00", ["03-09T06:00", "03-09T06:30"]),
        ("0 */2 * * *", "America/New_York", "2026-03-08T05:00", ["03-08T08:00", "03-08T10:00"]),
        # 1 November 2026: 01:00-02:00 comes twice in New York, from 05:00Z and from 06:00Z.
        ("30 1 * * *", "America/New_York", "2026-10-31T12:00", ["11-01T05:30", "11-02T06:30"]),
        ("30 1 * * *", "America/New_York", "2026-11-01T05:45", ["11-02T06:30"]),
        ("0,30 1 * * *", "America/New_York", "2026-11-01T06:00", ["11-02T06:00", "11-02T06:30"]),
        ("30 * * * *", "America/New_York", "2026-11-01T04:30", ["11-01T05:30", "11-01T06:30", "11-01T07:30"]),
        ("0 * * * *", "America/New_York", "2026-11-01T05:00", ["11-01T06:00", "11-01T07:00"]),
        # Half an hour in Lord Howe: back at 15:00Z on 4 April 2026, forward at 15:30Z on 3 October.
        ("45 1 * * *", "Australia/Lord_Howe", "2026-04-04T12:00", ["04-04T14:45", "04-05T15:15"]),
        ("45 * * * *", "Australia/Lord_Howe", "2026-04-04T14:00", ["04-04T14:45", "04-04T15:15", "04-04T16:15"]),
        ("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T00:00", ["10-03T15:30", "10-04T15:15"]),
        # Cairo's gap begins at midnight.
        ("0 0 * * *", "Africa/Cairo", "2026-04-23T12:00", ["04-23T22:00", "04-24T21:00"]),
        # Monrovia once put its clock forward by 44 minutes and 30 seconds, at 00:44:30Z: no minute begins then.
        ("* * * * *", "Africa/Monrovia", "1972-01-07T00:44", ["01-07T00:45"]),
        # Leap day, ends of months, and the calendar around them.
        ("0 0 29 2 *", "UTC", "2026-01-01T00:00", ["2028-02-29T00:00", "2032-02-29T00:00"]),
        ("0 0 29 2 *", "UTC", "2096-03-01T00:00", ["2104-02-29T00:00"]),
        ("0 0 1 3 *", "UTC", "2026-01-01T00:00", ["03-01T00:00", "2027-03-01T00:00"]),
        ("0 0 31 * *", "UTC", "2026-01-31T00:00", ["03-31T00:00", "05-31T00:00"]),
        ("0 0 L * *", "UTC", "2028-01-31T00:00", ["2028-02-29T00:00", "2028-03-31T00:00"]),
        ("0 0 15,L * *", "UTC", "2026-02-01T00:00", ["02-15T00:00", "02-28T00:00"]),
        ("59 23 31 12 *", "UTC", "2026-12-31T23:59", ["2027-12-31T23:59"]),
        # Day of month or day of week; both, if one of them starts with a star.
        ("0 0 13 * 5", "UTC", "2026-02-10T00:00", ["02-13T00:00", "02-20T00:00"]),
        ("0 0 1 * MON", "UTC", "2026-08-24T00:00", ["08-31T00:00", "09-01T00:00", "09-07T00:00"]),
        ("0 0 * * 5", "UTC", "2026-02-10T00:00", ["02-13T00:00", "02-20T00:00"]),
        ("0 0 */2 * MON", "UTC", "2026-02-01T00:00", ["02-09T00:00", "02-23T00:00"]),
        ("0 0 29 2 */7", "UTC", "2026-01-01T00:00", ["2032-02-29T00:00", "2060-02-29T00:00"]),
        ("0 0 * * 7", "UTC", "2026-02-02T00:00", ["02-08T00:00"]),
        (
            "0 0 * * FRI-SUN",
            "UTC",
            "2026-02-02T00:00",
            ["02-06T00:00", "02-07T00:00", "02-08T00:00", "02-13T00:00"],
        ),
        # Aliases, blanks, and instants inside a minute.
        ("@daily", "Asia/Kolkata", "2026-01-01T00:00", ["01-01T18:30"]),
        ("@HOURLY", "Asia/Kolkata", "2026-01-01T00:00", ["01-01T00:30"]),
        ("@weekly", "UTC", "2026-01-01T00:00", ["01-04T00:00"]),
        ("@monthly", "UTC", "2026-01-01T00:00", ["02-01T00:00"]),
        ("@yearly", "UTC", "2026-01-01T00:00", ["2027-01-01T00:00"]),
        ("@annually", "UTC", "2026-01-01T00:00", ["2027-01-01T00:00"]),
        ("@midnight", "UTC", "2026-01-01T00:00", ["01-02T00:00"]),
        (" 5\t4  * * * ", "UTC", "2026-01-01T04:04:59.999999", ["01-01T04:05"]),
        ("* * * * *", "UTC", "2026-01-01T04:04:00.000001", ["01-01T04:05"]),
    ],
)
def test_known_times(expression: str, zone: str, after: str, expected: list[str]):
    year = after[:5]
    wanted = [utc(text if len(text) > 11 else year + text) for text in expected]
    assert next_times(expression, zone, utc(after), len(wanted)) == wanted
    assert next_time(expression, zone, utc(after)) == wanted[0]


def test_any_zone_goes_in_and_utc_comes_out():
    after = datetime(2026, 1, 1, tzinfo=ZoneInfo("Asia/Kolkata"))
    due = next_time("0 2 * * *", "America/New_York", after)
    assert due == utc("2026-01-01T07:00")
    assert due.tzinfo is UTC


def test_a_time_without_a_zone_is_refused():
    with pytest.raises(ValueError, match="has no zone"):
        next_time("* * * * *", "UTC", datetime.fromisoformat("2026-01-01T00:00"))


def test_a_time_at_the_end_of_the_calendar_is_refused():
    with pytest.raises(CronError, match="not due again before the year 9991"):
        next_time("0 0 1 1 *", "UTC", utc("9990-06-01T00:00"))


def test_no_times_asked_gives_none():
    assert Schedule.parse("* * * * *", "UTC").next_times(utc("2026-01-01T00:00"), 0) == []


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("", "cron expression: got 0 fields in '', expected five: minute, hour, day of month, month, day of week"),
        ("* * * *", "got 4 fields in '* * * *', expected five"),
        ("0 * * * * *", "got 6 fields"),
        ("0 0 * * * 0 2030", "got 7 fields"),
        ("*" * 101, "got 101 characters, expected at most 100"),
        ("*" * 10_000, "got 10000 characters, expected at most 100"),
        ("@reboot", "got '@reboot', expected five fields or one of @yearly"),
        ("60 * * * *", "cron field minute: got '60', expected 0 to 59, written as *, a, a-b"),
        ("0-60 * * * *", "cron field minute: got '0-60', expected 0 to 59"),
        ("-1 * * * *", "cron field minute: got '-1'"),
        ("*/0 * * * *", "cron field minute: got '*/0'"),
        ("1,,2 * * * *", "cron field minute: got '1,,2'"),
        ("30-10 * * * *", "cron field minute: got '30-10', expected ranges a-b with a less than b"),
        ("5-5 * * * *", "cron field minute: got '5-5', expected ranges a-b with a less than b"),
        ("r * * * *", "cron field minute: got 'r'"),
        ("h * * * *", "cron field minute: got 'h'"),
        ("l * * * *", "cron field minute: got 'l'"),
        ("mon * * * *", "cron field minute: got 'mon'"),
        ("0 24 * * *", "cron field hour: got '24', expected 0 to 23"),
        ("0 0 0 * *", "cron field day of month: got '0', expected 1 to 31 or L"),
        ("0 0 32 * *", "cron field day of month: got '32'"),
        ("0 0 15W * *", "cron field day of month: got '15w'"),
        ("0 0 ? * *", "cron field day of month: got '?'"),
        ("0 0 * 13 *", "cron field month: got '13', expected 1 to 12 or JAN to DEC"),
        ("0 0 * 0 *", "cron field month: got '0'"),
        ("0 0 * mon *", "cron field month: got 'mon'"),
        ("0 0 * nov-feb *", "cron field month: got 'nov-feb', expected ranges"),
        ("0 0 * * 8", "cron field day of week: got '8', expected 0 to 7"),
        ("0 0 * * 2#3", "cron field day of week: got '2#3'"),
        ("0 0 * * l5", "cron field day of week: got 'l5'"),
        ("0 0 * * sun-sun", "cron field day of week: got 'sun-sun', expected ranges"),
        ("0 0 * * jan", "cron field day of week: got 'jan'"),
        ("0 0 30 2 *", "'0 0 30 2 *' is never due: no month in '2' has a day '30'"),
        ("0 0 31 feb,4,6,9,11 *", "is never due"),
        ("0 0 30-31 2 *", "is never due"),
        ("0 0 31 */30 */2", None),
        ("0 0 30 2 1", None),
        ("0 0 1\u00a01 *", "got 4 fields"),
        ("\u0663 * * * *", "cron field minute: got '\u0663'"),
        ("0 0 * * *\n", "cron field day of week: got '*\\n'"),
        ("0 0 * * *'; DROP TABLE runs; --", "got 9 fields"),
    ],
)
def test_an_expression_that_cannot_be_used_is_one_line_that_says_why(expression: str, message: str | None):
    if message is None:
        validate(expression, "UTC")
        return
    with pytest.raises(CronError) as caught:
        validate(expression, "UTC")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, UserError)


@settings(steady, max_examples=500)
@given(st.one_of(st.text(max_size=30), st.text("0123456789*/-,lLwWhHr?# ", max_size=20)))
def test_no_text_is_anything_but_valid_or_a_cron_error_of_one_line(text: str):
    try:
        due = next_time(text, "UTC", utc("2026-01-01T00:00"))
    except CronError as error:
        lines = str(error).splitlines()
    else:
        lines = [due.isoformat()] if due > utc("2026-01-01T00:00") else []
    assert len(lines) == 1


@pytest.mark.parametrize(
    "zone",
    [
        "Mars/Olympus",
        "europe/berlin",
        "America",
        "",
        " ",
        "../etc/passwd",
        "/etc/passwd",
        "a\0b",
        "\u00e9",
        "right/UTC",
        "localtime",
        "posixrules",
        "tzdata.zi",
        "\ud800",
        "Europe/Berlin\n",
    ],
)
def test_an_unknown_zone_is_named_and_never_taken_for_utc(zone: str):
    with pytest.raises(CronError) as caught:
        validate("* * * * *", zone)
    assert str(caught.value) == f"zone: got {zone!r}, expected an IANA name such as 'Europe/Berlin'"


def test_a_huge_zone_is_refused_without_being_repeated():
    with pytest.raises(CronError, match=r"^zone: got 10000 characters, expected an IANA name"):
        validate("* * * * *", "x" * 10_000)
