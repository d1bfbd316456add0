"""Keywords about traces: one workflow over all services that have a part in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from robot.api import logger
from robot.api.deco import keyword
from testyard.event_bus.files import make_files
from testyard.event_bus.traces import Caller, Trace, new_caller, only_trace

from EventBusLibrary.session import Session


class TraceKeywords:
    """Keywords about traces: one workflow over all services that have a part in it."""

    _session: Session

    @keyword(tags=["Setup"])
    def run_traced_workflow(self, *, intelligence: bool = False) -> Caller:
        """Run a workflow as the beginning of a trace, and wait until it has ended.

        Args:
            intelligence: Whether OnexTree is asked first.

        Returns:
            The trace's `trace_id`, and the `span_id` that the workflow's spans are below.

        Example:
            | ${caller} = | Run Traced Workflow |
        """
        caller = new_caller()
        (file,) = make_files(1, 1000, mark=self._session.next_mark())
        headers = {"traceparent": caller.traceparent}
        workflow = self._session.bus.run_workflow(file, headers=headers, intelligence=intelligence)
        logger.info(f"Workflow {workflow['workflow_id']}: {workflow['state']}, trace {caller.trace_id}")
        return caller

    @keyword(tags=["Assertion", "Wait", "Evidence"])
    def trace_should_go_through(
        self, caller: Caller, *services: str, within: timedelta = timedelta(seconds=5)
    ) -> Trace:
        """Wait until services have done their part of a trace, and check that nothing in it hangs loose.

        Args:
            caller: From `Run Traced Workflow`.
            services: Such as `orchestrator`, `metadata-stamping`, `reducer`, `database-adapter`.
            within: Give up after this time.

        Returns:
            The trace.

        Raises:
            NotMetError: A service has no part in it, a span has failed, or one's parent is not known; shows
                the tree.

        Example:
            | Trace Should Go Through | ${caller} | orchestrator | metadata-stamping | reducer |
        """
        trace = self._session.bus.wait_for_trace(caller, services, within)
        logger.info(trace.tree())
        trace.parents_should_be_known(caller)
        trace.nothing_should_have_failed()
        return trace

    @keyword(tags=["Assertion"])
    def spans_should_be_those_of(self, spans: Sequence[Mapping[str, Any]], trace: Trace) -> None:
        """Check that a collector was sent every span that the services had of a trace.

        Args:
            spans: What the collector has.
            trace: From `Trace Should Go Through`.

        Raises:
            NotMetError: They belong to several traces.
            AssertionError: Some are missing.

        Example:
            | Spans Should Be Those Of | ${spans} | ${trace} |
        """
        sent = {span.span_id for span in only_trace(spans).spans}
        missing = [span for span in trace.spans if span.span_id not in sent]
        if missing:
            message = f"The collector lacks {len(missing)} spans: {', '.join(span.name for span in missing)}."
            raise AssertionError(message)
