"""Percentiles by nearest rank, and how many samples one needs before it means something."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Final, TypeVar

from testyard.core.errors import UserError

Value = TypeVar("Value")

SAMPLES_BEYOND: Final = 10
"""A percentile needs at least so many samples on its shorter side: with fewer, one outlier moves it."""
HUNDRED: Final = Decimal(100)
WORDS: Final = {"median": "50", "max": "100"}


@dataclass(frozen=True, order=True)
class Percentile:
    """A percentile: p50, p95, p99.9, max.

    It is always one of the samples (nearest rank): the smallest one that at least so many per cent of the samples
    do not exceed. At least ten samples must lie on its shorter side: p50 needs 20, p95 needs 200, p99 needs 1000.
    The longest of all (``max``, p100) needs one.

    Args:
        percent: Above 0, at most 100.

    Raises:
        ValueError: It is not.

    Example:
        >>> Percentile.parse("p95").samples_needed
        200
        >>> Percentile.parse("p50").value_in([1, 2, 3])
        2
    """

    percent: Decimal

    def __post_init__(self) -> None:
        """Refuse what is no percentile."""
        if not (self.percent.is_finite() and 0 < self.percent <= HUNDRED):
            raise ValueError(f"A percentile is above 0 and at most 100, not {self.percent}.")

    @classmethod
    def parse(cls, text: str) -> Percentile:
        """Read ``p95``, ``p99.9``, ``95``, ``median`` or ``max``.

        Raises:
            ValueError: It is none of them.
        """
        number = text.strip().lower()
        number = WORDS.get(number, number.removeprefix("p"))
        try:
            percent = Decimal(number)
        except InvalidOperation:
            raise ValueError(f"A percentile is written as p95, p99.9, median or max, not {text!r}.") from None
        return cls(percent.normalize())

    @property
    def samples_needed(self) -> int:
        """The least number of samples that it may be told of."""
        shorter_side = Fraction(min(self.percent, HUNDRED - self.percent)) / 100
        return math.ceil(SAMPLES_BEYOND / shorter_side) if shorter_side else 1

    def require(self, count: int, what: str) -> None:
        """Refuse to tell the percentile of too few samples.

        Args:
            count: How many there are.
            what: What they are, for the message.

        Raises:
            UserError: It needs more.
        """
        if count < self.samples_needed:
            why = f", so that {SAMPLES_BEYOND} lie beyond it" if self.percent < HUNDRED else ""
            message = f"{self} of {what} needs at least {self.samples_needed} samples{why}; there are {count}."
            raise UserError(message)

    def rank(self, count: int) -> int:
        """Which of so many ascending samples it is; 1 is the first."""
        return math.ceil(Fraction(self.percent) * count / 100)

    def value_in(self, ordered: Sequence[Value]) -> Value:
        """The sample at its rank, however few there are.

        Args:
            ordered: The samples, ascending; at least one.
        """
        return ordered[self.rank(len(ordered)) - 1]

    def __str__(self) -> str:
        return "max" if self.percent == HUNDRED else f"p{self.percent:f}"


MEDIAN: Final = Percentile(Decimal(50))
P95: Final = Percentile(Decimal(95))
P99: Final = Percentile(Decimal(99))
LONGEST: Final = Percentile(HUNDRED)
