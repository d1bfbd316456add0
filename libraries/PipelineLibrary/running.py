"""Keywords that move the queue and the clock, wait for runs, and check their histories."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

from robot.api import logger
from robot.api.deco import keyword
from testyard.core.errors import NotMetError, UserError
from testyard.core.tables import html_table
from testyard.pipelines.evidence import executions_in, transitions_in
from testyard.pipelines.history import COMPLETION_WINDOW, RunState, check_histories, repetitions

from PipelineLibrary.session import Session

RUN_COLUMNS = (
    "customer_id",
    "template_name",
    "state",
    "scheduled_time",
    "retry_attempt",
    "error_message",
    "run_id",
)


class RunKeywords:
    """The queue, the clock, and runs."""

    _session: Session

    # The queue and the clock.

    @keyword(tags=["Setup"])
    def trigger_the_scheduler_at_once(self, callers: int, *, limit: int | None = None) -> list[dict[str, Any]]:
        """Trigger the scheduler from several callers at the same time, as external schedulers may do.

        Args:
            callers: How many.
            limit: How many due pipelines each of them takes at most; all when not given.

        Returns:
            The answers.

        Example:
            | ${answers} = | Trigger The Scheduler At Once | 4 |
        """
        service = self._session.service
        with ThreadPoolExecutor(callers) as pool:
            return list(pool.map(lambda _: service.trigger(limit), range(callers)))

    @keyword(tags=["Setup"])
    def process_the_queue_at_once(self, callers: int) -> list[dict[str, Any]]:
        """Let several callers process the next item of the queue at the same time.

        Args:
            callers: How many.

        Returns:
            The answers to those who got an item; the others found none that may run.

        Example:
            | ${processed} = | Process The Queue At Once | 5 |
        """
        service = self._session.service
        with ThreadPoolExecutor(callers) as pool:
            answers = list(pool.map(lambda _: service.process(), range(callers)))
        return [answer for answer in answers if answer["processed"]]

    @keyword(tags=["Setup"])
    def process_queue_items(self, count: int) -> list[dict[str, Any]]:
        """Let the service process the next items of its queue, one call for each.

        Args:
            count: How many.

        Returns:
            The service's answers.

        Raises:
            NotMetError: The queue was empty before; tells how many were processed.

        Example:
            | ${processed} = | Process Queue Items | 5 |
        """
        answers = []
        for done in range(count):
            answer = self._session.service.process()
            if not answer["processed"]:
                message = (
                    f"{count} items should have been processed, but after {done} the queue had none to process."
                )
                raise NotMetError(message)
            answers.append(answer)
        return answers

    @keyword(tags=["Setup"])
    def process_all_that_is_due(self) -> list[dict[str, Any]]:
        """Let the service process its queue, one call for each item, until nothing in it may run.

        Returns:
            The service's answers, one for each item; what waits for a later retry is left.

        Raises:
            NotMetError: After 100 items there was still one.

        Example:
            | Process All That Is Due |
        """
        return self._session.service.process_all()

    @keyword(tags=["Setup", "Wait"])
    def work_off_the_queue(
        self, *, step: timedelta = timedelta(minutes=10), within: timedelta = timedelta(seconds=10)
    ) -> None:
        """Let the service process what waits, and move the clock, until nothing waits or runs.

        Args:
            step: How far the clock is moved for what waits for a retry, or takes its time.
            within: How long the runs may need to end, after each step.

        Raises:
            NotMetError: Something still waits or runs; tells how many runs are in each state.

        Example:
            | Work Off The Queue |
            | Work Off The Queue | step=1 hour | within=30s |
        """
        self._session.service.work_off_queue(step, within)

    @keyword(tags=["Setup"])
    def move_the_clock(self, *, to: datetime | None = None, by: timedelta | None = None) -> str:
        """Move the service's test clock forward.

        Args:
            to: The new time, UTC.
            by: How far from the clock's present time; instead of `to`.

        Returns:
            The new time.

        Raises:
            UserError: Neither or both are given.

        Example:
            | Move The Clock | to=2026-03-02 00:00 |
            | Move The Clock | by=1 minute |
        """
        if (to is None) == (by is None):
            message = "Say either 'to' or 'by': where the clock moves to, or how far."
            raise UserError(message)
        if to is not None:
            moment = to.replace(tzinfo=to.tzinfo or UTC)
            self._session.service.move_clock(moment)
        else:
            moment = self._session.service.advance_clock(by or timedelta())
        logger.info(f"The service's clock: {moment:%A %Y-%m-%d %H:%M:%S} UTC")
        return moment.isoformat()

    @keyword(tags=["Setup", "Evidence"])
    def follow_the_schedule(self, until: datetime) -> list[str]:
        """Move the test clock to each time at which a pipeline is due, trigger the scheduler, work off its queue.

        Args:
            until: The last time that may be due, UTC; the clock stays at the last one that was.

        Returns:
            The times.

        Raises:
            NotMetError: Nothing was due, or the service names a next time that is not later than its clock.

        Example:
            | Follow The Schedule | until=2026-03-08T08:00:00Z |
        """
        followed = self._session.service.follow_schedule(until.replace(tzinfo=until.tzinfo or UTC))
        rows = [(f"{moment:%Y-%m-%d %H:%M:%S}", runs) for moment, runs in followed]
        logger.info(html_table(f"Times: {len(rows)}", ("at (UTC)", "runs"), rows), html=True)
        return [moment.isoformat() for moment, _ in followed]

    # Runs.

    @keyword(tags=["Getter", "Evidence"])
    def runs_of(self, customer: str | None = None, *, state: RunState | None = None) -> list[dict[str, Any]]:
        """Draw a table of runs.

        Args:
            customer: Whose; everybody's when not given.
            state: Only those in this state.

        Returns:
            The runs as the service describes them, oldest first.

        Example:
            | ${runs} = | Runs Of | acme_corp | state=FAILED |
        """
        runs = self._session.service.runs(customer, state)
        rows = [tuple(run[column] for column in RUN_COLUMNS) for run in runs]
        logger.info(html_table(f"Runs: {len(rows)}", RUN_COLUMNS, rows, folded=True), html=True)
        return runs

    @keyword(tags=["Assertion", "Wait"])
    def runs_should_be(
        self, customer: str | None, state: RunState, count: int, *, within: timedelta = timedelta(seconds=10)
    ) -> list[dict[str, Any]]:
        """Wait until exactly so many runs are in a state.

        Args:
            customer: Whose; everybody's with `${None}`.
            state: The state.
            count: How many.
            within: Give up after this time.

        Returns:
            Those runs.

        Raises:
            NotMetError: Another number all the time; tells how many are in each state.

        Example:
            | Runs Should Be | acme_corp | COMPLETED | 3 | within=30s |
        """
        return self._session.service.wait_for_runs(customer, state, count, within)

    @keyword(tags=["Assertion", "Wait"])
    def run_should_become(
        self,
        run: str,
        state: RunState,
        *,
        retry_attempt: int | None = None,
        within: timedelta = timedelta(seconds=10),
    ) -> dict[str, Any]:
        """Wait until a run is in a state.

        Args:
            run: Its id.
            state: The state.
            retry_attempt: How often it was retried; not looked at when not given.
            within: Give up after this time.

        Returns:
            The run with its transitions.

        Raises:
            NotMetError: It is not; tells its state, its retry and its message.

        Example:
            | Run Should Become | ${run} | PENDING | retry_attempt=1 |
        """
        return self._session.service.wait_for_run(run, state, within, retry_attempt)

    @keyword(tags=["Assertion"])
    def run_should_have_gone_through(self, run: str, *states: RunState) -> None:
        """Check which states a run has gone through, in this order and no others.

        Args:
            run: Its id.
            states: The states, the first one it was created in.

        Raises:
            NotMetError: It has gone through others; names both.

        Example:
            | Run Should Have Gone Through | ${run} | SCHEDULED | PENDING | RUNNING | COMPLETED |
        """
        self._session.service.check_way(run, *states)

    @keyword(tags=["Assertion", "Wait"])
    def every_run_should_end(
        self, *, within: timedelta = timedelta(seconds=30), retries_fall_due: bool = False
    ) -> dict[str, int]:
        """Wait until no run is waiting or running any more.

        Args:
            within: Give up after this time.
            retries_fall_due: Whether the test clock is moved when nothing but retries waits.

        Returns:
            How many runs are in each state.

        Raises:
            NotMetError: Some are; tells how many are in each state.

        Example:
            | ${counts} = | Every Run Should End | within=1 minute |
        """
        counts = self._session.service.wait_until_ended(within, retries_fall_due=retries_fall_due)
        logger.info(f"Runs by state: {counts}")
        return counts

    # Histories.

    @keyword(tags=["Assertion", "Evidence"])
    def every_run_should_be_executed_exactly_once(
        self,
        transitions: Iterable[Mapping[str, Any]],
        executions: Iterable[Mapping[str, Any]] = (),
        *,
        drained: bool = True,
        completion_window: timedelta = COMPLETION_WINDOW,
    ) -> int:
        """Check the history of every run: nothing lost, nothing executed again after it had reported success.

        Args:
            transitions: The rows of the service's `run_transitions`.
            executions: What workers wrote down themselves; see `Executions Of Pipeline Workers`.
            drained: Whether every run must have ended; otherwise some may still wait or run.
            completion_window: How long a worker may need to store a success; what it loses then is counted.

        Returns:
            How many executions were repeated because a worker was lost before what it reported was stored.

        Raises:
            NotMetError: Names each violation and its run.

        Example:
            | Every Run Should Be Executed Exactly Once | ${transitions} |
        """
        changes, executed = transitions_in(transitions), executions_in(executions)
        if not changes:
            message = "There are no transitions to check: did any run?"
            raise UserError(message)
        violations = check_histories(
            changes, executed or None, drained=drained, completion_window=completion_window
        )
        if violations:
            rows = [(str(it.kind), it.run_id, it.explanation) for it in violations]
            logger.info(html_table(f"Violations: {len(rows)}", ("what", "run", "found"), rows), html=True)
            message = f"{len(violations)} violations of exactly once, the first: {violations[0].explanation}."
            raise NotMetError(message)
        repeated = repetitions(changes, executed, completion_window=completion_window)
        runs = len({change.run_id for change in changes})
        logger.info(
            f"{runs} runs, {len(changes)} changes of state, {len(executed)} executions; repeated: {repeated}"
        )
        return len(repeated)
