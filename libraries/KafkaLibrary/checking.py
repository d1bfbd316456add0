"""Getters that check what they read, and wait until it is right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from assertionengine import AssertionOperator, verify_assertion
from testyard.core.deadline import Deadline, seconds
from testyard.core.errors import NotMetError, UserError
from testyard.kafka.problems import NoAnswerError

# Their expected value is an expression.
EXPRESSIONS = frozenset({AssertionOperator["validate"], AssertionOperator["then"]})
AT_ONCE = timedelta()


@dataclass(frozen=True)
class Check:
    """What a value must be.

    Attributes:
        operator: How it is compared; None: it is not.
        expected: What with.
        message: Said instead when it is not right.
        retry_for: How long it may take to become right.
    """

    operator: AssertionOperator | None
    expected: Any
    message: str | None
    retry_for: timedelta

    def __post_init__(self) -> None:
        if self.operator is None and self.expected is not None:
            problem = "An expected value needs an operator before it, such as ==."
            raise UserError(problem)

    def verify(self, value: Any, what: str) -> Any:
        """Compare a value.

        Args:
            value: The value.
            what: What it is called.

        Returns:
            The value, or what the operator makes of it.

        Raises:
            AssertionError: It is not right.
            UserError: What is expected cannot be compared with it.
        """
        expected = self.expected
        compared = self.operator is not None and self.operator not in EXPRESSIONS
        if compared and (value is None or isinstance(value, int)):
            expected = _number(expected, what)
        try:
            return verify_assertion(value, self.operator, expected, what, self.message)
        except TypeError:
            operator = self.operator.value if self.operator else ""
            message = f"{what} is {value!r}, which cannot be compared with {expected!r} by {operator}."
            raise NotMetError(message) from None

    def until_right(self, read: Callable[[], Any], what: str) -> Any:
        """Read a value until it is right.

        Args:
            read: Reads it.
            what: What it is called.

        Returns:
            The value, or what the operator makes of it.

        Raises:
            NotMetError: It is not right (in time).
            UserError: It cannot be read, or what is expected cannot be compared with it.
        """
        deadline, tries = Deadline(self.retry_for), 0
        while True:
            tries += 1
            try:
                return self.verify(read(), what)
            except (AssertionError, NoAnswerError) as failure:
                if deadline.expired:
                    tried = f" (tried {tries} times in {seconds(deadline.elapsed)})" if tries > 1 else ""
                    kind = NotMetError if isinstance(failure, AssertionError) else NoAnswerError
                    raise kind(f"{failure}{tried}") from None
            deadline.pause()


def _number(expected: Any, what: str) -> int | None:
    """A whole number as a test writes it; ``none`` where there is none."""
    if expected is None or str(expected).lower() == "none":
        return None
    try:
        return int(expected)
    except (TypeError, ValueError):
        message = f"{what} is a whole number, or none: it cannot be compared with {expected!r}."
        raise UserError(message) from None
