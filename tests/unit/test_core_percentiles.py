"""Percentiles: one of the samples, and only of enough of them."""

import statistics
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from testyard.core.errors import UserError
from testyard.core.percentiles import LONGEST, MEDIAN, P95, P99, Percentile

percents = st.decimals("0.1", "100", places=1)
samples = st.lists(st.integers(), min_size=1, max_size=300).map(sorted)


@pytest.mark.parametrize(
    ("text", "percent", "shown"),
    [
        ("p95", "95", "p95"),
        ("P99.9", "99.9", "p99.9"),
        (" 95 ", "95", "p95"),
        ("p50.0", "50", "p50"),
        ("median", "50", "p50"),
        ("Max", "100", "max"),
        ("p100", "100", "max"),
        ("p10", "10", "p10"),
    ],
)
def test_it_is_read_as_people_write_it(text: str, percent: str, shown: str):
    percentile = Percentile.parse(text)
    assert (percentile.percent, str(percentile)) == (Decimal(percent), shown)


@pytest.mark.parametrize("text", ["", "p", "ninety", "p95%", "pp95", "p0", "p101", "-5", "nan", "inf"])
def test_anything_else_is_none(text: str):
    with pytest.raises(ValueError, match="percentile"):
        Percentile.parse(text)


@pytest.mark.parametrize(
    ("text", "needed"),
    [("p50", 20), ("p90", 100), ("p95", 200), ("p99", 1000), ("p99.9", 10_000), ("p5", 200), ("max", 1)],
)
def test_ten_samples_must_lie_on_its_shorter_side(text: str, needed: int):
    percentile = Percentile.parse(text)
    percentile.require(needed, "the delay")
    with pytest.raises(
        UserError, match=f"{percentile} of the delay needs at least {needed} samples.*there are {needed - 1}"
    ):
        percentile.require(needed - 1, "the delay")


@settings(deadline=None, derandomize=True)
@given(percents, samples)
def test_it_is_the_smallest_sample_that_enough_do_not_exceed(percent: Decimal, ordered: list[int]):
    value = Percentile(percent).value_in(ordered)
    assert sum(sample <= value for sample in ordered) * 100 >= percent * len(ordered)
    assert sum(sample < value for sample in ordered) * 100 < percent * len(ordered)


@settings(deadline=None, derandomize=True)
@given(samples)
def test_the_median_and_the_longest_are_what_others_call_so(ordered: list[int]):
    assert MEDIAN.value_in(ordered) == statistics.median_low(ordered)
    assert LONGEST.value_in(ordered) == max(ordered)


def test_the_rank_is_exact():
    assert [P95.rank(count) for count in (1, 19, 20, 21, 200)] == [1, 19, 19, 20, 190]
    assert P99.rank(1000) == 990
    assert Percentile.parse("p99.9").rank(10_000) == 9990
