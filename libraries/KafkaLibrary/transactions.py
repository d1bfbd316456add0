"""Keywords for transactions."""

from __future__ import annotations

from robot.api import logger
from robot.api.deco import keyword
from testyard.core.history import Happening

from KafkaLibrary.session import Session


class TransactionKeywords:
    """Keywords for transactions."""

    _session: Session

    @keyword(tags=["Setup"])
    def begin_kafka_transaction(self, transactional_id: str = "testyard", *, alias: str = "default") -> None:
        """Open a transaction: what is published until its end is seen all together, or never.

        At the test's end it is aborted.

        Args:
            transactional_id: The producer's id; whoever else has it can commit no more.
            alias: The connection.

        Raises:
            UserError: A transaction is open already, or the brokers do not let it.

        Example:
            | Begin Kafka Transaction | orders-writer |
            | Publish Events | orders | ${envelopes} |
            | Commit Kafka Transaction |
        """
        self._session.connections.get(alias).begin_transaction(transactional_id)

    @keyword(tags=["Setup"])
    def commit_kafka_transaction(self, *, alias: str = "default") -> list[Happening]:
        """Let what was published in the open transaction be seen.

        Args:
            alias: The connection.

        Returns:
            That each event was acknowledged, now; for the ledger, beside the attempts that publishing returned.

        Raises:
            UserError: No transaction is open, or the brokers refuse; then its events are indeterminate.

        Example:
            | ${happened} = | Commit Kafka Transaction |
        """
        happenings = self._session.connections.get(alias).commit_transaction()
        logger.info(f"Committed {len(happenings)} events.")
        return happenings

    @keyword(tags=["Setup"])
    def abort_kafka_transaction(self, *, alias: str = "default") -> list[Happening]:
        """Let what was published in the open transaction never be seen by those who read what is committed.

        Args:
            alias: The connection.

        Returns:
            That each event was refused; for the ledger, beside the attempts that publishing returned.

        Raises:
            UserError: No transaction is open, or the brokers refuse.

        Example:
            | Abort Kafka Transaction |
        """
        happenings = self._session.connections.get(alias).abort_transaction()
        logger.info(f"Aborted {len(happenings)} events.")
        return happenings
