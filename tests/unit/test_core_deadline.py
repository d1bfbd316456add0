"""Waits end as soon as they can, give up in time, and say what they waited for."""

import threading
import time
from datetime import timedelta

import pytest
from testyard.core.deadline import POLL_INTERVAL, Deadline, never_within, seconds, wait_until
from testyard.core.errors import NotMetError


class Clock:
    """The monotonic clock, which jumps forward instead of letting anybody sleep."""

    def __init__(self) -> None:
        self._real = time.monotonic
        self.jumps: list[float] = []

    def monotonic(self) -> float:
        return self._real() + sum(self.jumps)

    def sleep(self, duration: float) -> None:
        self.jumps.append(duration)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("testyard.core.deadline.time", clock)
    return clock


# ---- Deadline


def test_a_new_deadline_has_its_whole_time_left(clock):
    deadline = Deadline(timedelta(minutes=1))
    assert not deadline.expired
    assert timedelta(seconds=59) < deadline.remaining <= timedelta(minutes=1)
    assert deadline.elapsed < timedelta(seconds=1)


def test_a_deadline_expires_when_its_time_has_passed(clock):
    deadline = Deadline(timedelta(seconds=2))
    clock.sleep(1.5)
    assert not deadline.expired
    assert timedelta() < deadline.remaining <= timedelta(seconds=0.5)
    clock.sleep(0.5)
    assert deadline.expired
    assert deadline.remaining == timedelta()


@pytest.mark.parametrize("within", [timedelta(), timedelta(seconds=-1)])
def test_no_time_at_all_is_expired_at_once_and_never_negative(within):
    deadline = Deadline(within)
    assert deadline.expired
    assert deadline.remaining == timedelta()


def test_a_pause_is_never_longer_than_what_remains(clock):
    deadline = Deadline(timedelta(seconds=1))
    deadline.pause(timedelta(seconds=0.7))
    deadline.pause(timedelta(seconds=0.7))
    deadline.pause(timedelta(seconds=0.7))
    first, second, third = clock.jumps
    assert first == 0.7
    assert 0.2 < second <= 0.3
    assert third == 0


def test_a_pause_is_short_unless_told_otherwise(clock):
    Deadline(timedelta(minutes=1)).pause()
    assert clock.jumps == [POLL_INTERVAL.total_seconds()]
    # Robot Framework's own timeouts interrupt between two pauses only.
    assert timedelta(milliseconds=100) >= POLL_INTERVAL


# ---- durations for people


@pytest.mark.parametrize(
    ("duration", "text"),
    [
        (timedelta(), "0 s"),
        (timedelta(milliseconds=20), "0.02 s"),
        (timedelta(seconds=1.5), "1.5 s"),
        (timedelta(seconds=30), "30 s"),
        (timedelta(seconds=119.96), "120 s"),
        (timedelta(minutes=30), "1800 s"),
        (timedelta(hours=2), "7200 s"),
    ],
)
def test_durations_are_written_for_people(duration, text):
    assert seconds(duration) == text


# ---- wait_until


def test_a_wait_returns_the_first_accepted_value_without_a_pause(clock):
    assert wait_until(lambda: "light", "light".__eq__, Deadline(timedelta(seconds=5)), "light") == "light"
    assert clock.jumps == []


def test_a_wait_probes_until_the_value_is_accepted(clock):
    values = iter(["dark"] * 6 + ["light", "never read"])
    wait_until(lambda: next(values), "light".__eq__, Deadline(timedelta(seconds=5)), "light")
    assert clock.jumps == [0.005, 0.01, 0.02, 0.04, 0.05, 0.05]
    assert next(values) == "never read"


def test_a_wait_pauses_for_the_given_interval(clock):
    values = iter([1, 2, 3, 4])
    interval = timedelta(milliseconds=8)
    wait_until(lambda: next(values), (4).__eq__, Deadline(timedelta(seconds=5)), "4", interval=interval)
    assert clock.jumps == [0.005, 0.008, 0.008]


def test_a_failed_wait_names_what_it_waited_for_the_last_value_and_how_long(clock):
    values = iter(range(1000))
    with pytest.raises(NotMetError) as caught:
        wait_until(lambda: next(values), (-1).__eq__, Deadline(timedelta(seconds=30)), "the leader's election")
    last = next(values) - 1
    assert str(caught.value) == f"Waited 30 s for the leader's election; the last value was {last}."


def test_a_failed_wait_shows_texts_so_that_blanks_can_be_seen(clock):
    with pytest.raises(NotMetError, match="the last value was ' '"):
        wait_until(lambda: " ", bool_is_false, Deadline(timedelta(seconds=1)), "a name")


def bool_is_false(value: object) -> bool:
    return not value


def test_a_wait_probes_once_more_when_the_time_is_up(clock):
    deadline = Deadline(timedelta(seconds=1))
    assert wait_until(lambda: deadline.expired, bool, deadline, "the last moment", interval=timedelta(seconds=0.4))


def test_a_wait_without_time_probes_exactly_once(clock):
    probes: list[int] = []
    with pytest.raises(NotMetError, match=r"Waited \S+ s for nothing"):
        wait_until(lambda: probes.append(1), bool, Deadline(timedelta()), "nothing")
    assert len(probes) == 1
    assert clock.jumps == []


@pytest.mark.parametrize("problem", [ValueError("broken probe"), KeyboardInterrupt()])
def test_what_a_probe_raises_ends_the_wait_at_once(clock, problem):
    def probe() -> None:
        raise problem

    with pytest.raises(type(problem)):
        wait_until(probe, bool, Deadline(timedelta(seconds=30)), "an answer")
    assert clock.jumps == []


def test_a_wait_sees_what_another_thread_does():
    first_probe, done = threading.Event(), threading.Event()

    def work() -> None:
        first_probe.wait()
        done.set()

    def probe() -> bool:
        first_probe.set()
        return done.is_set()

    worker = threading.Thread(target=work)
    worker.start()
    try:
        deadline = Deadline(timedelta(seconds=20))
        assert wait_until(probe, bool, deadline, "the worker", interval=timedelta(milliseconds=1))
        assert deadline.elapsed < timedelta(seconds=10)
    finally:
        first_probe.set()
        worker.join()


# ---- never_within


def test_a_value_that_stays_away_is_watched_for_the_whole_time(clock):
    seen: list[float] = []

    def probe() -> int:
        seen.append(sum(clock.jumps))
        return len(seen)

    last = never_within(probe, (0).__eq__, Deadline(timedelta(seconds=1)), "zero")
    assert last == len(seen) >= 20
    assert sum(clock.jumps) == pytest.approx(1, abs=0.5)


def test_a_rejected_value_fails_at_once_and_is_named_with_its_time(clock):
    values = iter(["calm", "calm", "storm", "never read"])
    with pytest.raises(NotMetError) as caught:
        never_within(
            lambda: next(values),
            "storm".__eq__,
            Deadline(timedelta(seconds=30)),
            "A storm",
            interval=timedelta(seconds=2),
        )
    assert str(caught.value) == "A storm must not happen, but did after 4 s: 'storm'."
    assert next(values) == "never read"


def test_a_value_rejected_at_the_last_moment_still_fails(clock):
    deadline = Deadline(timedelta(seconds=1))
    with pytest.raises(NotMetError, match="after 1 s"):
        never_within(lambda: deadline.expired, bool, deadline, "Expiry", interval=timedelta(seconds=0.4))


def test_watching_without_time_probes_exactly_once(clock):
    probes: list[int] = []
    never_within(lambda: probes.append(1), bool, Deadline(timedelta()), "anything")
    assert len(probes) == 1


def test_a_condition_not_met_fails_a_test_without_its_class_name():
    # Robot Framework writes "NotMetError: …" otherwise; an AssertionError is a failure, not an error.
    assert issubclass(NotMetError, AssertionError)
    assert NotMetError.ROBOT_SUPPRESS_NAME is True
