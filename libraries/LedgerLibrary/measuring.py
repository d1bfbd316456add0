"""Keywords that measure a history and show it."""

from __future__ import annotations

from datetime import timedelta

from assertionengine import AssertionOperator, verify_assertion
from robot.api import logger
from robot.api.deco import keyword
from testyard.core.deadline import seconds
from testyard.core.errors import NotMetError, UserError
from testyard.core.history import Kind
from testyard.core.percentiles import Percentile
from testyard.ledger.delays import delays
from testyard.ledger.drawing import delay_chart
from testyard.ledger.faults import Phase
from testyard.ledger.moments import milliseconds, nanoseconds
from testyard.ledger.rates import throughput
from testyard.ledger.recovery import recoveries
from testyard.ledger.summary import counts, counts_table, summary

from LedgerLibrary.session import Session

COMPARISONS = tuple(AssertionOperator[name] for name in ("==", "!=", "<", "<=", ">", ">="))


class MeasuringKeywords:
    """Keywords that measure a history and show it."""

    _session: Session

    @keyword(tags=["Getter", "Assertion"])
    def delivery_delay(
        self,
        percentile: Percentile,
        assertion_operator: AssertionOperator | None = None,
        assertion_expected: timedelta | None = None,
        message: str | None = None,
        *,
        during: Phase = Phase.ALL,
        fault: str | None = None,
        start: Kind = Kind.ATTEMPTED,
        end: Kind = Kind.STORED,
        place: str | None = None,
        alias: str = "default",
    ) -> timedelta:
        """Measure a percentile of the time that events take, and check it when an operator is given.

        Each event is measured from its first start to its first end; it belongs to the phase in which it started.
        An acknowledged event that has not arrived counts as longer than any other.

        Args:
            percentile: `p50`, `p95`, `p99.9`, `median` or `max`; it needs enough samples, `p95` 200.
            assertion_operator: `==`, `!=`, `<`, `<=`, `>` or `>=`.
            assertion_expected: What it is compared with.
            message: Said instead when it fails; `{value}` and `{expected}` are milliseconds.
            during: Only events that started `before`, in (`fault`) or `after` a fault; `all` by default.
            fault: Only faults of this name make phases.
            start: What the time begins with, such as `attempted` or `acknowledged`.
            end: What it ends with, such as `stored` or `received`.
            place: Only ends in places that match this pattern, in which `*` stands for any text.
            alias: The ledger.

        Returns:
            The percentile, one of the measured times.

        Raises:
            AssertionError: It is not right, or so many acknowledged events are missing that it has no end.
            UserError: There are too few samples, no such fault, or moments of different clocks.

        Example:
            | Delivery Delay | p95 | <= | 100ms |
            | Delivery Delay | p99 | < | 400ms | during=fault | start=acknowledged |
            | ${longest} = | Delivery Delay | max | end=received |
        """
        _require_comparison(assertion_operator, assertion_expected)
        ledger = self._session.get(alias)
        measured = delays(ledger, start, end, place=place, during=during, fault=fault)
        try:
            value = measured.at(percentile)
            logger.info(
                f"{percentile} of the delay {measured.what} is {milliseconds(nanoseconds(value))}: "
                f"{measured.samples} samples, {measured.missing} of them never ended; {measured.unknown} events "
                "without an end were not acknowledged and do not count."
            )
            if assertion_expected is not None:
                verify_assertion(
                    value / timedelta(milliseconds=1),
                    assertion_operator,
                    assertion_expected / timedelta(milliseconds=1),
                    f"{percentile} of the delay {measured.what}, of {measured.samples} samples, in ms:",
                    message,
                )
        except AssertionError:
            logger.info(delay_chart(ledger, start, end, place=place), html=True)
            raise
        return value

    @keyword(tags=["Assertion"])
    def recovery_should_take_at_most(
        self,
        within: timedelta,
        *,
        fault: str | None = None,
        arrival: Kind = Kind.STORED,
        place: str | None = None,
        alias: str = "default",
    ) -> dict[str, timedelta]:
        """Check how long it took from the end of each fault until all was well again; logs its three parts.

        *Detect* ends with the first attempt after the fault's end, *reconnect* with the first acknowledgement or
        arrival after it, *drain* when the backlog is there: every event that was attempted before the fault's end,
        had not arrived by then, and was acknowledged or arrived later.

        Args:
            within: How long all three may take together.
            fault: Only faults of this name; all, when not given.
            arrival: What arriving means: `stored` or `received`.
            place: Only in places that match this pattern, in which `*` stands for any text.
            alias: The ledger.

        Returns:
            Of the fault that took longest: `total`, `detect`, `reconnect` and `drain`.

        Raises:
            NotMetError: It took longer, nothing happened any more, or an acknowledged event of the backlog is
                lost.
            UserError: There is no such fault, it lasts, or the ledger is not drained.

        Example:
            | Recovery Should Take At Most | 2s | fault=broker killed |
        """
        measured = recoveries(self._session.get(alias), arrival, place=place, fault=fault)
        for recovery in measured:
            logger.info(f"All was well {recovery}")
        slowest = max(measured, key=lambda recovery: recovery.total)
        if slowest.total > within:
            message = f"Recovery should take at most {seconds(within)}, but all was well only {slowest}"
            raise NotMetError(message)
        return {
            "total": slowest.total,
            "detect": slowest.detect,
            "reconnect": slowest.reconnect,
            "drain": slowest.drain,
        }

    @keyword(tags=["Getter", "Assertion"])
    def throughput(
        self,
        assertion_operator: AssertionOperator | None = None,
        assertion_expected: float | None = None,
        message: str | None = None,
        *,
        arrival: Kind = Kind.STORED,
        place: str | None = None,
        alias: str = "default",
    ) -> float:
        """Count events per second, from the first to the last arrival, and check it when an operator is given.

        Each event counts once. Those of the first moment do not count, as they arrived in the time before it.

        Args:
            assertion_operator: `==`, `!=`, `<`, `<=`, `>` or `>=`.
            assertion_expected: Events per second.
            message: Said instead when it fails; `{value}` and `{expected}` are filled in.
            arrival: What arriving means: `stored` or `received`.
            place: Only in places that match this pattern, in which `*` stands for any text.
            alias: The ledger.

        Raises:
            AssertionError: It is not right.
            UserError: The events arrived in less than two moments.

        Example:
            | Throughput | >= | 1000 |
        """
        _require_comparison(assertion_operator, assertion_expected)
        rate = throughput(self._session.get(alias), arrival, place)
        logger.info(f"Throughput: {rate:.1f} events {arrival.value} per second.")
        if assertion_expected is not None:
            what = f"Events {arrival.value} per second:"
            verify_assertion(rate, assertion_operator, assertion_expected, what, message)
        return rate

    @keyword(tags=["Getter"])
    def ledger_counts(
        self,
        *,
        arrival: Kind = Kind.STORED,
        place: str | None = None,
        within: timedelta | None = None,
        alias: str = "default",
    ) -> dict[str, int]:
        """How many events there are, and how many of each class.

        Args:
            arrival: What being there means: `stored` or `received`.
            place: Only in places that match this pattern, in which `*` stands for any text.
            within: How long an event may take without being late; `late` is only there with it.
            alias: The ledger.

        Returns:
            Numbers by name: `attempted`, `acknowledged`, `refused`, `stored` or `received`, `missing`
            (acknowledged, and not there), `duplicated`, `unexpected`, `recovered`, `indeterminate`, `reordered`,
            `late`; and `lost` if the ledger is drained.

        Example:
            | ${counts} = | Ledger Counts |
            | Should Be Equal As Integers | ${counts}[indeterminate] | 0 |
        """
        numbers = counts(self._session.get(alias), arrival, place=place, within=within)
        logger.info(counts_table(numbers), html=True)
        return numbers

    @keyword(tags=["Evidence"])
    def ledger_summary(
        self, *, arrival: Kind = Kind.STORED, place: str | None = None, alias: str = "default"
    ) -> None:
        """Draw what the ledger knows into the log: counts, delays with numbers of samples, faults, a timeline.

        Args:
            arrival: What being there means: `stored` or `received`.
            place: Only in places that match this pattern, in which `*` stands for any text.
            alias: The ledger.

        Example:
            | Ledger Summary |
        """
        logger.info(summary(self._session.get(alias), arrival, place=place), html=True)


def _require_comparison(operator: AssertionOperator | None, expected: object) -> None:
    """Refuse half an assertion, and operators that are for texts.

    Raises:
        UserError: It is one of these.
    """
    if (operator is None) != (expected is None):
        message = "An operator such as <= and an expected value belong together: give both, or none."
        raise UserError(message)
    if operator is not None and operator not in COMPARISONS:
        message = f"The operator {operator.value} is not for numbers: use ==, !=, <, <=, > or >=."
        raise UserError(message)
