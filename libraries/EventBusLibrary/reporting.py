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
from testyard.event_bus.measuring import timed_each

from EventBusLibrary.connecting import Service
from EventBusLibrary.session import Session
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

    _session: Session

    def __init__(self) -> None:
        self._report: list[Line] = []

    @keyword(tags=["Getter"])
    def bare_requests(self, service: Service, count: int) -> list[dict[str, Any]]:
        """Make requests that a service answers without doing anything, for comparison.

        Args:
            service: Which one.
            count: How many.

        Returns:
            For each `began_ns` and `took`.

        Example:
            | ${bare} = | Bare Requests | STAMPING | 200 |
        """
        requests = timed_each(self._session.bus.health, [service.value] * count, concurrent=1)
        return [{"began_ns": it.began_ns, "took": it.took} for it in requests]

    @keyword(tags=["Getter", "Assertion"])
    def ratio_of_times(
        self,
        answers: Sequence[Mapping[str, Any]],
        others: Sequence[Mapping[str, Any]],
        percentile: Percentile,
        assertion_operator: AssertionOperator | None = None,
        assertion_expected: float | None = None,
    ) -> float:
        """How many times as long some calls took as others, checked when an operator is given.

        Ratios of one run say the same on slow and on fast machines.

        Args:
            answers: The calls that are judged.
            others: Those that they are compared with.
            percentile: Of both.
            assertion_operator: `<`, `<=`, `>`…
            assertion_expected: The bound.

        Raises:
            AssertionError: It is not so.
            UserError: There are too few samples.

        Example:
            | Ratio Of Times | ${stamps} | ${bare} | p50 | <= | 6 |
        """
        times, bare = times_of(answers), times_of(others)
        percentile.require(min(len(times), len(bare)), "the times")
        ratio = percentile.value_in(times) / percentile.value_in(bare)
        logger.info(f"{ratio:.2f} times as long at {percentile}, of {len(times)} and {len(bare)} samples")
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
