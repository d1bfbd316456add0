"""Keywords that run workflows, publish events, and measure how long that takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from assertionengine import AssertionOperator, verify_assertion
from robot.api import logger
from robot.api.deco import keyword
from testyard.core.deadline import seconds
from testyard.core.errors import UserError
from testyard.core.history import Happening
from testyard.core.percentiles import LONGEST, MEDIAN, P95, Percentile
from testyard.core.tables import html_table
from testyard.event_bus.files import TextFile, make_files
from testyard.event_bus.measuring import Timed, row_of, timed, timed_each
from testyard.event_bus.publishing import SteadyPublishing

from EventBusLibrary.connecting import Service, bare_request_of
from EventBusLibrary.session import Session

SIZE_OF_A_FILE = 64 * 1024
Row = dict[str, Any]


class WorkflowKeywords:
    """Keywords that run workflows, publish events, and measure how long that takes."""

    _session: Session

    @keyword(tags=["Setup"])
    def make_files(self, count: int, *, size: int = SIZE_OF_A_FILE, seed: int = 0) -> list[TextFile]:
        """Make files of random text; those of one run, size and seed are always the same.

        Args:
            count: How many.
            size: Of each, in bytes.
            seed: Of their contents.

        Example:
            | ${files} = | Make Files | 200 | size=65536 |
        """
        return make_files(count, size, mark=f"{self._session.mark}-{size}-{seed}", seed=seed)

    @keyword(tags=["Setup"])
    def run_workflow(
        self,
        file: TextFile | None = None,
        *,
        namespace: str = "omninode.services.metadata",
        intelligence: bool = False,
        content: str | None = None,
        file_path: str | None = None,
    ) -> Row:
        """Have a file stamped by a workflow, and wait until the workflow has ended.

        Args:
            file: From `Make Files`; one of 64 KiB when not given.
            namespace: Whose file it is.
            intelligence: Whether OnexTree is asked first.
            content: Instead of a file: its content.
            file_path: Instead of a file: its path.

        Returns:
            What the orchestrator answers, with `began_ns` and `took`.

        Example:
            | ${workflow} = | Run Workflow | intelligence=True |
        """
        if file is None:
            (file,) = make_files(1, SIZE_OF_A_FILE, mark=f"{self._session.mark}-one")
        if content is not None or file_path is not None:
            file = TextFile(
                file.path if file_path is None else file_path, file.content if content is None else content
            )
        run = timed(
            lambda it: self._session.bus.run_workflow(it, namespace=namespace, intelligence=intelligence), file
        )
        answer = row_of(run)
        logger.info(f"Workflow {answer['workflow_id']}: {answer['state']} after {seconds(run.took)}")
        return answer

    @keyword(tags=["Setup", "Evidence"])
    def run_workflows(
        self,
        files: Sequence[TextFile],
        *,
        namespace: str = "omninode.services.metadata",
        intelligence: bool = False,
        concurrent: int = 1,
        beside: Service | None = None,
    ) -> list[Row]:
        """Run a workflow for each file, and wait until all have ended.

        Args:
            files: From `Make Files`.
            namespace: Whose files they are.
            intelligence: Whether OnexTree is asked first.
            concurrent: How many are under way at a time.
            beside: A service to which a bare request is made right before each, for comparison.

        Returns:
            What the orchestrator answers to each, with `began_ns` and `took`, and what the bare request took as
            `bare`.

        Example:
            | ${workflows} = | Run Workflows | ${files} | concurrent=4 |
        """
        runs = timed_each(
            lambda it: self._session.bus.run_workflow(it, namespace=namespace, intelligence=intelligence),
            files,
            concurrent=concurrent,
            bare=bare_request_of(self._session.bus, beside),
        )
        _draw(f"Workflows: {len(runs)}", runs)
        return [row_of(run) for run in runs]

    @keyword(tags=["Setup"])
    def submit_workflows(
        self,
        files: Sequence[TextFile],
        *,
        namespace: str = "omninode.services.metadata",
        intelligence: bool = False,
    ) -> list[Row]:
        """Have the orchestrator take workflows on, as many at once as it takes, without waiting for their end.

        Args:
            files: From `Make Files`.
            namespace: Whose files they are.
            intelligence: Whether OnexTree is asked first.

        Returns:
            The `workflow_id` and `correlation_id` of each.

        Example:
            | ${workflows} = | Submit Workflows | ${files} |
        """
        return self._session.bus.submit_workflows(files, namespace=namespace, intelligence=intelligence)

    @keyword(tags=["Assertion", "Wait"])
    def workflows_should_end(self, count: int, *, within: timedelta = timedelta(seconds=30)) -> Row:
        """Wait until no workflow is in flight, and so many have ended since the orchestrator was started.

        Args:
            count: How many.
            within: Give up after this time.

        Returns:
            How many were accepted, completed, failed, resumed, and how many were in flight at most.

        Raises:
            NotMetError: They have not, in time.

        Example:
            | ${counts} = | Workflows Should End | 200 |
        """
        counts = self._session.bus.wait_for_the_end(count, within)
        logger.info(f"Workflows: {counts}")
        return counts

    @keyword(tags=["Getter"])
    def workflow(self, workflow_id: str) -> Row:
        """How a workflow is.

        Args:
            workflow_id: As the orchestrator answered.

        Example:
            | ${workflow} = | Workflow | ${id} |
        """
        return self._session.bus.workflow(workflow_id)

    @keyword(tags=["Setup"])
    def publish_by_the_orchestrator(self, count: int, *, key: str | None = None, concurrent: int = 1) -> list[Row]:
        """Let the orchestrator publish state transitions on the bus, one after the other.

        Args:
            count: How many.
            key: What their order is kept by; each its own when not given.
            concurrent: How many are under way at a time; of one key they still go one after the other.

        Returns:
            For each its `event_id`, `key`, whether it was `sent` or is `waiting` (`delivery`), and how long the
            orchestrator took for it (`took_ms`).

        Example:
            | ${published} = | Publish By The Orchestrator | 100 |
        """
        mark = self._session.next_mark()
        events = [_probe(f"{mark}-{number}", key) for number in range(count)]
        bus = self._session.bus
        if concurrent == 1:
            published = bus.publish(events)
        else:
            each = timed_each(lambda event: bus.publish([event]), events, concurrent=concurrent)
            published = [it.answer[0] for it in each]
        waiting = sum(it["delivery"] == "waiting" for it in published)
        logger.info(f"Published {count} events, of which {waiting} wait")
        return published

    @keyword(tags=["Setup"])
    def keep_publishing_by_the_orchestrator(
        self, per_second: float, *, key: str | None = None
    ) -> SteadyPublishing:
        """Let the orchestrator publish state transitions at a steady rate, until it is stopped.

        Args:
            per_second: How many.
            key: What their order is kept by; each its own when not given.

        Returns:
            What to stop.

        Example:
            | ${load} = | Keep Publishing By The Orchestrator | 20 |
        """
        mark = self._session.next_mark()
        bus = self._session.bus
        return SteadyPublishing(lambda number: bus.publish([_probe(f"{mark}-{number}", key)]), per_second)

    @keyword(tags=["Setup"])
    def stop_publishing_by_the_orchestrator(self, publishing: SteadyPublishing) -> list[Happening]:
        """End `Keep Publishing By The Orchestrator`.

        Args:
            publishing: What that returned.

        Returns:
            What happened to each event, for the ledger: attempted, and acknowledged when the bus or the outbox
            had it.

        Raises:
            UserError: One was refused.

        Example:
            | ${happened} = | Stop Publishing By The Orchestrator | ${load} |
            | Add To Ledger | ${happened} |
        """
        happened = publishing.stop()
        logger.info(f"Published {len(happened) // 2} events")
        return happened

    @keyword(tags=["Getter", "Evidence"])
    def circuit_breaker_openings(self, service: Service, name: str, count: int) -> list[Row]:
        """Let a circuit breaker open again and again, and measure how long that takes.

        Whom it protects must be away so that workflows fail there at once, as after `Kill Service`.

        Args:
            service: Whose breaker.
            name: What it protects from.
            count: How often.

        Returns:
            For each opening how long it took, as `took`.

        Raises:
            NotMetError: It did not open after its number of failures.

        Example:
            | ${openings} = | Circuit Breaker Openings | ORCHESTRATOR | stamping | 200 |
        """
        (file,) = make_files(1, 100, mark=self._session.next_mark())
        times = self._session.bus.opening_times(service.value, name, file, count)
        return [{"took": each} for each in times]

    @keyword(tags=["Getter"])
    def values_of(self, answers: Sequence[Any], field: str) -> list[Any]:
        """One field of each of some answers, each value once, in their order.

        Args:
            answers: From `Run Workflows`, `Publish By The Orchestrator`, `Stamp Files`…, or happenings.
            field: Such as `workflow_id`, `event_id`, `file_hash`; of a happening `event`.

        Raises:
            UserError: One has no such field.

        Example:
            | ${ids} = | Values Of | ${published} | event_id |
        """
        return list(dict.fromkeys(_field(answer, field, number) for number, answer in enumerate(answers)))

    @keyword(tags=["Getter", "Assertion"])
    def percentile_of_times(
        self,
        answers: Sequence[Mapping[str, Any]],
        percentile: Percentile,
        assertion_operator: AssertionOperator | None = None,
        assertion_expected: timedelta | None = None,
        message: str | None = None,
        *,
        field: str = "took",
    ) -> timedelta:
        """How long most of some calls took, checked when an operator is given.

        Args:
            answers: From `Run Workflows`, `Stamp Files`, `Find Stamps`…
            percentile: `p50`, `p95`, `p99` or `max`; each needs enough samples, p95 at least 200.
            assertion_operator: `<`, `<=`, `>`…
            assertion_expected: The bound.
            message: Said instead when it fails.
            field: Where each answer has its time: a duration, or a number of milliseconds.

        Raises:
            AssertionError: It is not so.
            UserError: There are too few samples, or one has no such field.

        Example:
            | Percentile Of Times | ${workflows} | p95 | < | 400ms |
        """
        ordered = times_of(answers, field)
        percentile.require(len(ordered), "the times")
        value = percentile.value_in(ordered)
        told = ", ".join(f"{it} {seconds(it.value_in(ordered))}" for it in (MEDIAN, P95, LONGEST))
        logger.info(f"{percentile} of {len(ordered)} times: {seconds(value)} ({told})")
        if assertion_operator is not None:
            prefix = f"{percentile} of {len(ordered)} times"
            verify_assertion(value, assertion_operator, assertion_expected, prefix, message)
        return value

    @keyword(tags=["Getter", "Assertion"])
    def overhead_of_times(
        self,
        answers: Sequence[Mapping[str, Any]],
        others: Sequence[Mapping[str, Any]],
        percentile: Percentile,
        assertion_operator: AssertionOperator | None = None,
        assertion_expected: timedelta | None = None,
    ) -> timedelta:
        """How much longer some calls took than others, checked when an operator is given.

        Args:
            answers: The calls that do more.
            others: Those that do less.
            percentile: Of which the difference is taken.
            assertion_operator: `<`, `<=`, `>`…
            assertion_expected: The bound.

        Raises:
            AssertionError: It is not so.
            UserError: There are too few samples.

        Example:
            | Overhead Of Times | ${with} | ${without} | p50 | < | 120ms |
        """
        more = self.percentile_of_times(answers, percentile)
        less = self.percentile_of_times(others, percentile)
        if assertion_operator is not None:
            prefix = f"The overhead at {percentile}"
            verify_assertion(more - less, assertion_operator, assertion_expected, prefix)
        return more - less


def _probe(name: str, key: str | None) -> Row:
    """An event that concerns no workflow."""
    return {
        "route": "STATE_TRANSITION",
        "partition_key": key or name,
        "payload": {
            "entity_id": name,
            "entity_type": "probe",
            "to_state": "PROCESSING",
            "transition_event": "probed",
        },
    }


def times_of(answers: Sequence[Mapping[str, Any]], field: str = "took") -> list[timedelta]:
    """The times of some answers, ascending.

    Raises:
        UserError: One has no such field.
    """
    return sorted(_duration(answer, field, number) for number, answer in enumerate(answers))


def _duration(answer: Mapping[str, Any], field: str, number: int) -> timedelta:
    value = _field(answer, field, number)
    return value if isinstance(value, timedelta) else timedelta(milliseconds=float(value))


def _field(answer: Any, field: str, number: int) -> Any:
    if isinstance(answer, Happening):
        answer = {name: getattr(answer, name) for name in Happening.__slots__}
    if field not in answer:
        message = f"The answer number {number} has no field {field!r}, only {', '.join(answer)}."
        raise UserError(message)
    return answer[field]


def _draw(title: str, runs: Sequence[Timed[Row]]) -> None:
    rows = [
        (it.answer.get("workflow_id", it.answer.get("stamp_id")), it.answer.get("state", ""), seconds(it.took))
        for it in runs
    ]
    logger.info(html_table(title, ("id", "state", "took"), rows, folded=True), html=True)
