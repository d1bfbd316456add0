"""The plans, as the issue and the contract page give them."""

import dataclasses

import pytest
from testyard.lab.pipelines.plans import PLANS, UNLIMITED, Limits, Plan


@pytest.mark.parametrize(
    ("plan", "limits"),
    [
        ("STARTER", (6, 180, 1)),
        ("PROFESSIONAL", (25, 750, 3)),
        ("SCALE", (100, 3000, 10)),
        ("ENTERPRISE", (999_999, 999_999, 999_999)),
    ],
)
def test_each_plan_has_its_limits_per_day_per_month_and_at_once(plan: str, limits: tuple[int, int, int]):
    assert dataclasses.astuple(PLANS[Plan(plan)]) == limits


def test_every_plan_has_limits_and_they_cannot_be_changed():
    assert set(PLANS) == set(Plan)
    assert UNLIMITED == 999_999
    with pytest.raises(TypeError):
        PLANS[Plan.STARTER] = Limits(1, 1, 1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        PLANS[Plan.STARTER].daily = 7


@pytest.mark.parametrize("limits", [(-1, 0, 0), (0, -1, 0), (0, 0, -1)])
def test_a_negative_limit_is_refused(limits: tuple[int, int, int]):
    with pytest.raises(ValueError, match="cannot be negative"):
        Limits(*limits)
    assert Limits(0, 0, 0).daily == 0
