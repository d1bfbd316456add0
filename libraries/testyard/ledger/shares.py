"""Shares, as people write them: 0.1%."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True, order=True)
class Share:
    """A part of a whole.

    Args:
        value: From 0 to 1.

    Example:
        >>> Share.parse("0.1%").value
        Fraction(1, 1000)
    """

    value: Fraction

    @classmethod
    def parse(cls, text: str) -> Share:
        """Read a percentage, such as ``0.1%``.

        Raises:
            ValueError: It is none, or not from 0% to 100%.
        """
        number, sign, rest = text.partition("%")
        try:
            share = cls(Fraction(number.strip()) / 100)
        except (ValueError, ZeroDivisionError):
            sign = ""
        if not sign or rest.strip() or not 0 <= share.value <= 1:
            raise ValueError(f"A share is a percentage from 0% to 100%, such as 0.1%, not {text!r}.")
        return share

    def __str__(self) -> str:
        return f"{float(self.value * 100):.4g}%"
