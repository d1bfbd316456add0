"""Keywords that judge a whole history."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from robot.api import logger
from robot.api.deco import keyword
from testyard.core.errors import NotMetError
from testyard.core.history import Kind
from testyard.ledger.deliveries import Deliveries
from testyard.ledger.judging import exactly_once, few_duplicated, nobody_late, nothing_lost, order_kept
from testyard.ledger.ledger import Ledger
from testyard.ledger.shares import Share
from testyard.ledger.summary import counts, counts_table

from LedgerLibrary.session import Session


class CheckingKeywords:
    """Keywords that judge a whole history."""

    _session: Session

    @keyword(tags=["Assertion"])
    def every_event_should_be_stored_exactly_once(
        self, *, place: str | None = None, alias: str = "default"
    ) -> None:
        """Check that every acknowledged event is stored once, and nothing is stored that should not be.

        An event whose attempt was not answered may be stored once or not at all. Fails if any is lost, duplicated
        or unexpected, and names the first five of each with the place where they were last seen.

        Args:
            place: Only what is stored in places that match this pattern, in which `*` stands for any text.
            alias: The ledger.

        Raises:
            NotMetError: Events are lost, duplicated or unexpected; or none was acknowledged.
            UserError: The ledger is not drained.

        Example:
            | Every Event Should Be Stored Exactly Once | place=event_logs |
        """
        self._exactly_once(Kind.STORED, place, alias)

    @keyword(tags=["Assertion"])
    def every_event_should_be_received_exactly_once(
        self, *, place: str | None = None, alias: str = "default"
    ) -> None:
        """Check that every acknowledged event was received once, and nothing was received that should not be.

        Args:
            place: Only what was received in places that match this pattern, in which `*` stands for any text.
            alias: The ledger.

        Raises:
            NotMetError: Events are lost, duplicated or unexpected; or none was acknowledged.
            UserError: The ledger is not drained.

        Example:
            | Every Event Should Be Received Exactly Once | place=orders/* |
        """
        self._exactly_once(Kind.RECEIVED, place, alias)

    def _exactly_once(self, arrival: Kind, place: str | None, alias: str) -> None:
        ledger = self._session.get(alias)
        with _counted(ledger, arrival, place):
            _tell(exactly_once(ledger, arrival, place))

    @keyword(tags=["Assertion"])
    def no_acknowledged_event_should_be_lost(
        self, *, arrival: Kind = Kind.STORED, place: str | None = None, alias: str = "default"
    ) -> None:
        """Check that every acknowledged event is there, once or more often.

        Args:
            arrival: What being there means: `stored` or `received`.
            place: Only in places that match this pattern, in which `*` stands for any text.
            alias: The ledger.

        Raises:
            NotMetError: Events are lost, or none was acknowledged; names the first five.
            UserError: The ledger is not drained.

        Example:
            | No Acknowledged Event Should Be Lost | arrival=received |
        """
        ledger = self._session.get(alias)
        with _counted(ledger, arrival, place):
            _tell(nothing_lost(ledger, arrival, place))

    @keyword(tags=["Assertion"])
    def duplicated_events_should_be_at_most(
        self, share: Share, *, arrival: Kind = Kind.STORED, place: str | None = None, alias: str = "default"
    ) -> None:
        """Check how many of the events that are there, are there more than once.

        Args:
            share: A percentage of the events that are there, such as `0.1%`.
            arrival: What being there means: `stored` or `received`.
            place: Only in places that match this pattern, in which `*` stands for any text.
            alias: The ledger.

        Raises:
            NotMetError: There are more, or nothing is there.
            UserError: The ledger is not drained.

        Example:
            | Duplicated Events Should Be At Most | 0.1% |
        """
        ledger = self._session.get(alias)
        with _counted(ledger, arrival, place):
            found = few_duplicated(ledger, share, arrival, place)
        logger.info(
            f"{len(found.duplicated)} of {found.arrived} events ({found.share_duplicated}) are duplicated."
        )

    @keyword(tags=["Assertion"])
    def events_with_one_key_should_keep_their_order(
        self, *, arrival: Kind = Kind.STORED, place: str | None = None, alias: str = "default"
    ) -> None:
        """Check that events with one key arrived, in each place, in the order of their first attempts.

        The order of arrival is that of the positions where they are known, else that of the moments; what arrived
        in one moment has no order. The first arrival counts: a later one is a duplicate.

        Args:
            arrival: What arriving means: `stored` or `received`.
            place: Only in places that match this pattern, in which `*` stands for any text.
            alias: The ledger.

        Raises:
            NotMetError: Events are reordered; names the first five, and what overtook them. Or no two events with
                one key arrived in one place.

        Example:
            | Events With One Key Should Keep Their Order | arrival=received | place=orders/* |
        """
        found = order_kept(self._session.get(alias), arrival, place)
        logger.info(f"{found.compared} arrivals came after one with the same key, all in their order.")

    @keyword(tags=["Assertion"])
    def no_event_should_be_later_than(
        self,
        within: timedelta,
        *,
        arrival: Kind = Kind.STORED,
        place: str | None = None,
        alias: str = "default",
    ) -> None:
        """Check that every acknowledged event arrived, and each that arrived came in time after its first attempt.

        Args:
            within: How long an event may take.
            arrival: What arriving means: `stored` or `received`.
            place: Only in places that match this pattern, in which `*` stands for any text.
            alias: The ledger.

        Raises:
            NotMetError: Events are late or lost; names the first five of each.
            UserError: The ledger is not drained, or knows no attempts.

        Example:
            | No Event Should Be Later Than | 2s |
        """
        ledger = self._session.get(alias)
        with _counted(ledger, arrival, place):
            _tell(nobody_late(ledger, within, arrival, place))


@contextmanager
def _counted(ledger: Ledger, arrival: Kind, place: str | None) -> Iterator[None]:
    """Shows all counts when a check fails."""
    try:
        yield
    except NotMetError:
        logger.info(counts_table(counts(ledger, arrival, place=place)), html=True)
        raise


def _tell(found: Deliveries) -> None:
    logger.info(
        f"{found.attempted} events attempted, {found.acknowledged} acknowledged, {found.arrived} "
        f"{found.arrival.value}; of no known outcome: {len(found.recovered)} {found.arrival.value}, "
        f"{len(found.indeterminate)} not."
    )
