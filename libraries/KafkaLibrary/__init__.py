"""Publish events to Kafka, collect them, wait for them, and look at offsets and consumer groups."""

from __future__ import annotations

from typing import Any

from robot.api import logger
from robot.api.deco import library
from testyard import __version__
from testyard.core.errors import UserError
from testyard.core.listening import MaskingListener

from KafkaLibrary.collecting import CollectKeywords
from KafkaLibrary.composing import EnvelopeKeywords
from KafkaLibrary.connecting import ConnectionKeywords
from KafkaLibrary.groups import GroupKeywords
from KafkaLibrary.publishing import PublishKeywords
from KafkaLibrary.session import Session
from KafkaLibrary.steering import SteeringKeywords
from KafkaLibrary.topics import TopicKeywords
from KafkaLibrary.transactions import TransactionKeywords


@library(scope="GLOBAL", version=__version__, listener="SELF", doc_format="MARKDOWN")
class KafkaLibrary(
    ConnectionKeywords,
    TopicKeywords,
    EnvelopeKeywords,
    PublishKeywords,
    CollectKeywords,
    SteeringKeywords,
    GroupKeywords,
    TransactionKeywords,
    MaskingListener,
):
    """Publish events to Kafka, collect them, wait for them, and look at offsets and consumer groups.

    Every connection has an *alias*, `default` when none is given. Its clients live on a thread of their own, so
    that they keep their place in their groups between keywords.

    A *collector* reads topics in the background from the moment at which `Collect Events` returns: start it before
    the step whose events it should see, then wait with `Kafka Event Should Arrive`. It notices when retention has
    dropped an event before it was read, and every keyword that looks at it fails then: what is missing was not
    lost by the system under test.

    What is published and collected is also a *history* for the ledger: each attempt, what came of it
    (acknowledged, refused, or indeterminate: it may have been written), and each receipt, by the event's id, which
    is a header or a field of its value.

    Topics must exist: a misspelt name is an error, also where the brokers would create it.
    """

    def __init__(self, *, event_id: str = "event_id") -> None:
        """Say where events have their ids.

        Args:
            event_id: A header; or, in an event without such a header, a field of its value.
        """
        MaskingListener.__init__(self)
        self._session = Session(event_id)

    # What Robot Framework calls as it runs.

    def end_test(self, data: Any, result: Any) -> None:
        """Abort the transactions that the test left open."""
        for alias, connection in self._session.connections.open_transactions().items():
            problem = ""
            try:
                connection.abort_transaction()
            except UserError as error:
                problem = f" ({error})"
            logger.warn(
                f"Test '{result.name}' left a transaction open on the Kafka connection '{alias}'; "
                f"it was aborted{problem}."
            )
        super().end_test(data, result)

    def close(self) -> None:
        """Close whatever the run left open."""
        self._session.connections.close_all()
