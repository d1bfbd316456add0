"""Drive the services of an event bus: workflows, stamping, OnexTree; their health and their circuit breakers."""

from __future__ import annotations

from robot.api.deco import library
from testyard import __version__
from testyard.core.listening import MaskingListener
from testyard.core.percentiles import Percentile

from EventBusLibrary.connecting import ServiceKeywords
from EventBusLibrary.knowing import KnowledgeKeywords
from EventBusLibrary.reporting import ReportKeywords
from EventBusLibrary.session import Session
from EventBusLibrary.stamping import StampingKeywords
from EventBusLibrary.tracing import TraceKeywords
from EventBusLibrary.workflows import WorkflowKeywords


@library(
    scope="GLOBAL",
    version=__version__,
    listener="SELF",
    doc_format="MARKDOWN",
    converters={Percentile: Percentile.parse},
)
class EventBusLibrary(
    ServiceKeywords,
    WorkflowKeywords,
    StampingKeywords,
    KnowledgeKeywords,
    TraceKeywords,
    ReportKeywords,
    MaskingListener,
):
    """Drive the services of an event bus: workflows, stamping, OnexTree; their health and their circuit breakers.

    The services are those of document 004, or any with their interfaces. What happens on the bus itself is
    KafkaLibrary's, what is stored is SqlLibrary's, and whether all of it fits together is LedgerLibrary's.

    Keywords that do something many times return one row for each time, with `took`, how long it took, and
    `began_ns`, when it began: `Percentile Of Times` checks the first, a ledger the second.
    """

    def __init__(self) -> None:
        """Connect to nothing yet."""
        MaskingListener.__init__(self)
        ReportKeywords.__init__(self)
        self._session = Session()

    def close(self) -> None:
        """Close whatever the run left open."""
        self._session.disconnect()
