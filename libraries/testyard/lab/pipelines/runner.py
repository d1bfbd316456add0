"""Runs claimed work: concurrently, with heartbeats, and with reports that are sent many at once.

Used by the worker process and by the API's ``/scheduler/process``.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from datetime import timedelta
from types import TracebackType
from typing import Final, Self

from testyard.lab.database import DATABASE_TROUBLE, Pool
from testyard.lab.pipelines.execution import (
    ExecutionEvent,
    ExecutionLog,
    Executor,
    PipelineError,
    RunAbandonedError,
)
from testyard.lab.pipelines.records import Failure, Outcome, Work
from testyard.lab.pipelines.retry import ErrorClass
from testyard.lab.pipelines.store import claims, outcomes
from testyard.lab.waiting import Backoff, elapse, happens

_LOGGER = logging.getLogger(__name__)

DEFAULT_STALE_AFTER: Final = timedelta(minutes=5)
DEFAULT_FLUSH_AFTER: Final = timedelta(milliseconds=50)
HEARTBEATS_PER_STALE_TIME: Final = 5


class Runner:
    """Executes runs that it claims, until it is left: then it sends what it has to report and cancels the rest.

    A run whose claim was lost (healed, deleted) is cancelled with the next heartbeat. A runner that could send no
    heartbeat for ``stale_after`` gives all its runs up, since another worker may have them; what nobody has taken
    it reports as lost. Reports are kept while the database is away; sent twice, they count once.

    Args:
        pool: The service's connections.
        executor: Runs the pipelines.
        name: The worker's name, as it stands in the runs.
        stale_after: The time without heartbeat after which runs are taken away; a fifth of it lies between two.
        flush_after: How long the first report waits for others; zero sends each at once. None waits when there is
            nothing else to do: nothing runs, and the last claim did not get all it asked for.
        log: Where starts and successes are written down.
        changed: Is set when there may be room for more work: after each end and each report.

    Example:
        >>> async with Runner(pool, TemplateExecutor(crash_process, PatientClock(pool)), "w1") as runner:
        ...     work = await runner.process_next()
    """

    def __init__(
        self,
        pool: Pool,
        executor: Executor,
        name: str,
        *,
        stale_after: timedelta = DEFAULT_STALE_AFTER,
        flush_after: timedelta = DEFAULT_FLUSH_AFTER,
        log: ExecutionLog | None = None,
        changed: asyncio.Event | None = None,
    ) -> None:
        self._changed = asyncio.Event() if changed is None else changed
        self._pool = pool
        self._executor = executor
        self._name = name
        self._stale_after = stale_after
        self._flush_after = flush_after
        self._log = log
        self._running: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._ended: dict[tuple[str, int], Outcome] = {}
        self._taken_away: dict[tuple[str, int], Failure | None] = {}
        self._unanswered: list[str] = []
        self._something_ended = asyncio.Event()
        self._queue_goes_on = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._group = asyncio.TaskGroup()
        self._loops: list[asyncio.Task[None]] = []

    @property
    def running(self) -> int:
        """How many runs are being executed."""
        return len(self._running)

    @property
    def unreported(self) -> int:
        """How many runs have ended and are not yet in the database."""
        return len(self._ended)

    async def __aenter__(self) -> Self:
        """Start the heartbeats and the reports."""
        await self._group.__aenter__()
        self._loops = [
            self._group.create_task(self._report_forever()),
            self._group.create_task(self._send_heartbeats_forever()),
        ]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Cancel what still runs, and report what has ended, once."""
        for task in [*self._loops, *self._running.values()]:
            task.cancel()
        # The group needs to know of its own abort; an error of the caller passes by it as it is.
        if isinstance(error, asyncio.CancelledError):
            await self._group.__aexit__(kind, error, traceback)
        else:
            await self._group.__aexit__(None, None, None)
        if self._ended:
            try:
                await self._report(list(self._ended.values()))
            except DATABASE_TROUBLE as trouble:
                _LOGGER.warning("%s: %d reports are lost: %s", self._name, len(self._ended), trouble)

    async def claim(self, count: int) -> int:
        """Take pending runs and start them.

        Args:
            count: How many at most.

        Returns:
            How many there were.

        Raises:
            DatabaseUnavailableError: The database is away. Runs it may have claimed nevertheless are started by
                the next call, or healed later.
        """
        claimed = await self._claim(count)
        self._queue_goes_on = len(claimed) == count
        if not self._queue_goes_on:
            # What waits for others to be reported with waits in vain; or its slots are what the queue waits for.
            self._something_ended.set()
        return len(claimed)

    async def process_next(self) -> Work | None:
        """Take the next pending run and start it.

        Returns:
            The run; None when there is none that may start.

        Raises:
            DatabaseUnavailableError: The database is away.
        """
        claimed = await self._claim(1)
        return claimed[0] if claimed else None

    async def _claim(self, count: int) -> list[Work]:
        taken = await self._take_up_unanswered()
        if len(taken) >= count:
            return taken
        claim_id = claims.new_claim_id()
        try:
            claimed = await claims.claim(self._pool, self._name, count - len(taken), claim_id)
        except DATABASE_TROUBLE:
            self._unanswered.append(claim_id)
            raise
        for work in claimed:
            self._start(work)
        return taken + claimed

    async def _take_up_unanswered(self) -> list[Work]:
        """Start what was claimed although nobody heard of it: the answer got lost, not the claim."""
        if not self._unanswered:
            return []
        asked, self._unanswered = self._unanswered, []
        try:
            taken = await claims.taken_by(self._pool, self._name, asked)
        except DATABASE_TROUBLE:
            self._unanswered += asked
            raise
        for work in taken:
            _LOGGER.warning("%s: takes up run %s, whose claim had no answer", self._name, work.run_id)
            self._start(work)
        return taken

    async def wait_until_idle(self, within: timedelta) -> bool:
        """Wait until no run is being executed and all are reported.

        Args:
            within: How long at most.

        Returns:
            Whether it is so.
        """
        return await happens(self._idle, within)

    def _start(self, work: Work) -> None:
        key = (work.run_id, work.claim_number)
        self._idle.clear()
        self._running[key] = self._group.create_task(self._run(key, work))

    async def _run(self, key: tuple[str, int], work: Work) -> None:
        outcome: Outcome | None = None
        try:
            self._write(ExecutionEvent.STARTED, work)
            outcome = await self._execute(work)
        except asyncio.CancelledError:
            # Only a run that was taken away ends here; the others pass the runner's own end on.
            if key not in self._taken_away:
                raise
            failure = self._taken_away[key]
            outcome = Outcome.of(work, failure) if failure else None
        except RunAbandonedError:
            _LOGGER.info("%s: abandoned run %s", self._name, work.run_id)
        finally:
            self._taken_away.pop(key, None)
            del self._running[key]
            if outcome is not None:
                self._ended[key] = outcome
            self._something_ended.set()
            self._note_change()

    async def _execute(self, work: Work) -> Outcome:
        try:
            await self._executor.execute(work)
        except PipelineError as error:
            return Outcome.of(work, Failure(error.error_class, error.message))
        except RunAbandonedError:
            raise
        except Exception as error:
            # An executor is somebody else's code: whatever it raises ends its run, not the worker.
            _LOGGER.warning("%s: run %s: %s: %s", self._name, work.run_id, type(error).__name__, error)
            return Outcome.of(work, Failure(ErrorClass.UNKNOWN, f"{type(error).__name__}: {error}"))
        self._write(ExecutionEvent.SUCCEEDED, work)
        return Outcome.of(work)

    def _note_change(self) -> None:
        self._changed.set()
        if not self._running and not self._ended:
            self._idle.set()

    def _write(self, event: ExecutionEvent, run: Work | Outcome) -> None:
        if self._log is not None:
            self._log.write(event, run.run_id, run.claim_number, run.retry_attempt)

    async def _report_forever(self) -> None:
        backoff = Backoff()
        while True:
            await self._something_ended.wait()
            await self._wait_for_more()
            self._something_ended.clear()
            if not self._ended:
                continue
            try:
                await self._report(list(self._ended.values()))
                backoff.reset()
            except DATABASE_TROUBLE as trouble:
                _LOGGER.warning("%s: %d reports wait: %s", self._name, len(self._ended), trouble)
                self._something_ended.set()
                await elapse(backoff.next())

    async def _wait_for_more(self) -> None:
        """Let the first report wait for others, as long as there can be others."""
        try:
            async with asyncio.timeout(self._flush_after.total_seconds()):
                while self._running or self._queue_goes_on:
                    self._something_ended.clear()
                    await self._something_ended.wait()
        except TimeoutError:
            return

    async def _report(self, reports: Sequence[Outcome]) -> None:
        ours = await outcomes.finish(self._pool, reports)
        for outcome in reports:
            del self._ended[outcome.run_id, outcome.claim_number]
            if outcome.run_id in ours and outcome.failure is None:
                self._write(ExecutionEvent.REPORTED, outcome)
        self._note_change()

    async def _send_heartbeats_forever(self) -> None:
        interval = self._stale_after / HEARTBEATS_PER_STALE_TIME
        last_sent = time.monotonic()
        while True:
            await elapse(interval)
            running, ended = list(self._running), [key for key in self._ended if key not in self._running]
            started = time.monotonic()
            try:
                ours = await claims.heartbeat(self._pool, running)
                for key in running:
                    if key[0] not in ours:
                        self._take_away(key, "it is not ours any more")
                await claims.heartbeat_of_ended(self._pool, ended)
                last_sent = started
            except DATABASE_TROUBLE as trouble:
                _LOGGER.warning("%s: no heartbeat: %s", self._name, trouble)
                if time.monotonic() - last_sent > self._stale_after.total_seconds():
                    for key in list(self._running):
                        self._take_away(key, "no heartbeat could be sent for too long", lost=True)

    def _take_away(self, key: tuple[str, int], reason: str, *, lost: bool = False) -> None:
        task = self._running.get(key)
        if task is not None:
            _LOGGER.warning("%s: gave up run %s: %s", self._name, key[0], reason)
            self._taken_away[key] = Failure(ErrorClass.WORKER_LOST, reason) if lost else None
            task.cancel()
