"""The subscription plans, as data: how many pipelines a customer may run.

Source: issue 4 (plans), contract page "pipelines", 1.3 (first table, older vintage).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

UNLIMITED: Final = 999_999
"""The limit of a plan that has none: a number no customer reaches, so that one statement serves every plan."""


class Plan(StrEnum):
    """What a customer has subscribed to."""

    STARTER = "STARTER"
    PROFESSIONAL = "PROFESSIONAL"
    SCALE = "SCALE"
    ENTERPRISE = "ENTERPRISE"


@dataclass(frozen=True, slots=True)
class Limits:
    """How many runs are allowed.

    Args:
        daily: Runs per day (UTC).
        monthly: Runs per calendar month (UTC).
        concurrent: Runs at the same time.

    Raises:
        ValueError: A limit is negative.
    """

    daily: int
    monthly: int
    concurrent: int

    def __post_init__(self) -> None:
        """Refuse a negative limit."""
        if min(self.daily, self.monthly, self.concurrent) < 0:
            raise ValueError(f"limits cannot be negative: {self}")


PLANS: Final[Mapping[Plan, Limits]] = MappingProxyType(
    {
        Plan.STARTER: Limits(daily=6, monthly=180, concurrent=1),
        Plan.PROFESSIONAL: Limits(daily=25, monthly=750, concurrent=3),
        Plan.SCALE: Limits(daily=100, monthly=3000, concurrent=10),
        Plan.ENTERPRISE: Limits(daily=UNLIMITED, monthly=UNLIMITED, concurrent=UNLIMITED),
    }
)
