"""Keywords that compare measured times with each other and with stored ones, and report them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from assertionengine import AssertionOperator, verify_assertion
from robot.api import logger
from robot.api.deco import keyword
from testyard.core.deadline import seconds
from testyard.core.errors import UserError
from testyard.core.percentiles import MEDIAN, P95, Percentile
from testyard.core.tables import html_table, markdown_table

from EventBusLibrary.workflows import times_of

COLUMNS = ("what", "samples", "p50", "p95", "documented", "of it")


@dataclass(frozen=True)
class Line:
    """One line of the report.

    Attributes:
        what: What was measured.
        times: The times, ascending.
        bound: The documented bound of the 95th percentile.
    """

    what: str
    times: Sequence[timedelta]
    bound: timedelta

    def cells(self) -> tuple[object, ...]:
        """The line as it is shown."""
        median, p95 = MEDIAN.value_in(self.times), P95.value_in(self.times)
        share = f"{p95 / self.bound:.0%}"
        return self.what, len(self.times), seconds(median), seconds(p95), seconds(self.bound), share


class ReportKeywords:
    """Keywords that compare measured times with each other and with stored ones, and report them."""

    def __init__(self) -> None:
        self._report: list[Line] = []

    @keyword(tags=["Getter", "Assertion"])
    def ratio_of_times(
        self,
        answers: Sequence[Mapping[str, Any]],
        percentile: Percentile,
        assertion_operator: AssertionOperator | None = None,
        assertion_expected: float | None = None,
    ) -> float:
        """How many times as long calls took as the bare requests between them, checked when an operator is given.

        Ratios of one run say the same on slow and on fast machines.

        Args:
            answers: The calls, made `beside` bare requests.
            percentile: Of both.
            assertion_operator: `<`, `<=`, `>`…
            assertion_expected: The bound.

        Raises:
            AssertionError: It is not so.
            UserError: There are too few samples, or no bare requests were made between them.

        Example:
            | ${stamps} = | Stamp Files | ${files} | beside=STAMPING |
            | Ratio Of Times | ${stamps} | p50 | <= | 6 |
        """
        times, bare = times_of(answers), times_of(answers, "bare")
        percentile.require(len(times), "the times")
        ratio = percentile.value_in(times) / percentile.value_in(bare)
        logger.info(f"{ratio:.2f} times as long at {percentile}, of {len(times)} samples")
        if assertion_operator is not None:
            prefix = f"The ratio at {percentile}"
            verify_assertion(ratio, assertion_operator, assertion_expected, prefix)
        return ratio

    @keyword(tags=["Evidence"])
    def report_times(
        self, what: str, answers: Sequence[Mapping[str, Any]], bound: timedelta, *, field: str = "took"
    ) -> None:
        """Add a line to the report of times.

        Args:
            what: What was measured.
            answers: From `Run Workflows`, `Stamp Files`…
            bound: What is documented for the 95th percentile.
            field: Where each answer has its time.

        Raises:
            UserError: There are fewer than 200 samples, or one has no such field.

        Example:
            | Report Times | workflow | ${workflows} | 400ms |
        """
        times = times_of(answers, field)
        P95.require(len(times), what)
        self._report.append(Line(what, times, bound))

    @keyword(tags=["Evidence"])
    def write_report_of_times(self, file: Path) -> str:
        """Write the lines of the report as a Markdown table, and draw them in the log.

        Args:
            file: Where to.

        Returns:
            The table.

        Raises:
            UserError: There are no lines, or the file cannot be written.

        Example:
            | Write Report Of Times | ${OUTPUT DIR}/event-bus-report.md |
        """
        if not self._report:
            message = "There is nothing to report: 'Report Times' first."
            raise UserError(message)
        lines = [line.cells() for line in self._report]
        self._report.clear()
        table = markdown_table(COLUMNS, lines)
        try:
            file.write_text(f"# Event bus\n\n{table}\n", encoding="utf-8")
        except OSError as problem:
            message = f"The report cannot be written: {problem}."
            raise UserError(message) from None
        logger.info(html_table("Times", COLUMNS, lines), html=True)
        return table
