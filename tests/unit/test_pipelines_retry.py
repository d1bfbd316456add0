"""Which failures are tried again, and after how long."""

import math
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from testyard.lab.pipelines.retry import MAXIMUM_RETRIES, ErrorClass, may_retry, retry_delay

ALMOST_ONE = math.nextafter(1.0, 0.0)
PASSING = ["RATE_LIMIT_EXCEEDED", "TRANSIENT_NETWORK", "SERVICE_UNAVAILABLE", "TIMEOUT", "WORKER_LOST", "UNKNOWN"]
LASTING = ["AUTHENTICATION_FAILED", "AUTHORIZATION_FAILED", "INVALID_CONFIGURATION", "RESOURCE_NOT_FOUND"]


@pytest.mark.parametrize("name", PASSING)
def test_an_error_that_can_pass_is_retried_three_times(name: str):
    assert [may_retry(ErrorClass(name), made) for made in range(6)] == [True, True, True, False, False, False]
    assert MAXIMUM_RETRIES == 3


@pytest.mark.parametrize("name", LASTING)
def test_an_error_that_time_does_not_cure_is_never_retried(name: str):
    assert [may_retry(ErrorClass(name), made) for made in range(4)] == [False] * 4


def test_every_error_class_is_in_one_of_the_two_groups():
    assert sorted(ErrorClass) == sorted(PASSING + LASTING)


def test_a_negative_number_of_retries_is_refused():
    with pytest.raises(ValueError, match="retries made is -1"):
        may_retry(ErrorClass.TIMEOUT, -1)


@pytest.mark.parametrize(
    ("attempt", "minutes"),
    [(1, 1), (2, 2), (3, 4), (4, 8), (5, 16), (6, 32), (7, 60), (8, 60), (12, 60), (10**9, 60)],
)
def test_the_delay_doubles_to_an_hour_and_jitter_takes_at_most_half_of_it(attempt: int, minutes: int):
    delay = timedelta(minutes=minutes)
    assert retry_delay(attempt, 0.0) == delay / 2
    assert retry_delay(attempt, 0.5) == delay * 3 / 4
    assert delay - timedelta(microseconds=1) <= retry_delay(attempt, ALMOST_ONE) <= delay


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True))
def test_a_larger_fraction_never_gives_a_shorter_delay_and_none_is_over_an_hour(
    attempt: int, one: float, other: float
):
    shorter, longer = (retry_delay(attempt, fraction) for fraction in sorted((one, other)))
    assert timedelta(seconds=30) <= shorter <= longer <= timedelta(hours=1)


@pytest.mark.parametrize(("attempt", "fraction"), [(0, 0.5), (-1, 0.5), (1, -0.01), (1, 1.0), (1, math.nan)])
def test_an_attempt_below_one_and_a_fraction_outside_its_range_are_refused(attempt: int, fraction: float):
    with pytest.raises(ValueError, match="expected"):
        retry_delay(attempt, fraction)
