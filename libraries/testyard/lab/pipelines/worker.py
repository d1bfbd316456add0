"""The command ``python -m testyard.lab.pipelines.worker``: claims pending runs and executes them."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

import psycopg

from testyard.lab.arguments import add_database, positive, seconds
from testyard.lab.database import DATABASE_TROUBLE
from testyard.lab.pipelines.database import open_pool, session_url
from testyard.lab.pipelines.execution import ExecutionLog, TemplateExecutor, crash_process
from testyard.lab.pipelines.maintenance import heal_forever
from testyard.lab.pipelines.runner import Runner
from testyard.lab.pipelines.settings import DATABASE_VARIABLE
from testyard.lab.pipelines.store.clock import PatientClock
from testyard.lab.pipelines.store.queue_signal import RUNS_PENDING
from testyard.lab.waiting import Backoff, call_when_input_ends, elapse, happens

_LOGGER = logging.getLogger(__name__)

READY: Final = "ready"
"""What is printed when runs can be claimed."""

POLL_INTERVAL: Final = timedelta(milliseconds=500)
"""How long a run that no notification announced waits at most: a retry that is due, a slot that was freed."""

LONGEST_END: Final = timedelta(seconds=1)
POOL_SIZE: Final = 4


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """What a worker is started with.

    Args:
        database_url: Where the database is.
        database_timeout: How long it may take until it counts as away.
        name: The worker's name, as it stands in the runs.
        batch: Runs that are claimed at once at most.
        capacity: Runs that are executed at once at most.
        test_clock: Whether the service's time is the test clock's.
        stale_after: The time without heartbeat after which a run is healed.
        flush_after: How long the first report waits for others.
        execution_log: Where starts and successes are written down.
    """

    database_url: str
    database_timeout: timedelta
    name: str
    batch: int
    capacity: int
    test_clock: bool
    stale_after: timedelta
    flush_after: timedelta
    execution_log: Path | None


class Worker:
    """One worker.

    Args:
        settings: What it is started with.
    """

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._stopping = asyncio.Event()
        self._wake = asyncio.Event()

    def stop(self) -> None:
        """Claim nothing more, and end when what runs has ended, or soon."""
        self._stopping.set()
        self._wake.set()

    async def work(self) -> None:
        """Claim and execute until it is stopped."""
        settings = self._settings
        async with AsyncExitStack() as stack:
            log = settings.execution_log
            pool = open_pool(
                settings.database_url,
                test_clock=settings.test_clock,
                size=POOL_SIZE,
                application_name=settings.name,
                timeout=settings.database_timeout,
            )
            runner = Runner(
                await stack.enter_async_context(pool),
                TemplateExecutor(crash_process, PatientClock(pool)),
                settings.name,
                stale_after=settings.stale_after,
                flush_after=settings.flush_after,
                log=None if log is None else stack.enter_context(ExecutionLog(log, settings.name)),
                changed=self._wake,
            )
            await stack.enter_async_context(runner)
            async with asyncio.TaskGroup() as group:
                claiming = group.create_task(self._claim_until_stopped(runner))
                others = [
                    group.create_task(self._listen_forever()),
                    group.create_task(heal_forever(pool, settings.stale_after)),
                ]
                await self._stopping.wait()
                # A claim that waits for a database that is away does not hold up the end.
                await asyncio.wait([claiming], timeout=LONGEST_END.total_seconds())
                for task in [claiming, *others]:
                    task.cancel()
            await runner.wait_until_idle(LONGEST_END)

    async def _claim_until_stopped(self, runner: Runner) -> None:
        backoff = Backoff()
        while not self._stopping.is_set():
            self._wake.clear()
            wanted = min(self._settings.batch, self._settings.capacity - runner.running)
            if wanted > 0:
                try:
                    claimed = await runner.claim(wanted)
                except DATABASE_TROUBLE as error:
                    _LOGGER.warning("%s: cannot claim: %s", self._settings.name, error)
                    await happens(self._stopping, backoff.next())
                    continue
                backoff.reset()
                if claimed == wanted:
                    continue
            await happens(self._wake, POLL_INTERVAL)

    async def _listen_forever(self) -> None:
        """Be woken by NOTIFY; the first time it listens, say that the worker is ready."""
        settings = self._settings
        url = session_url(
            settings.database_url,
            test_clock=settings.test_clock,
            application_name=f"{settings.name} listens",
            timeout=settings.database_timeout,
        )
        is_ready = False
        backoff = Backoff()
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
                    await connection.execute(f"LISTEN {RUNS_PENDING}")
                    backoff.reset()
                    if not is_ready:
                        sys.stdout.write(f"{READY}\n")
                        sys.stdout.flush()
                    is_ready = True
                    self._wake.set()
                    async for _ in connection.notifies():
                        self._wake.set()
            except psycopg.OperationalError as error:
                reason = str(error).strip().splitlines() or [type(error).__name__]
                _LOGGER.warning("%s: does not hear of new runs: %s", settings.name, reason[0])
            await elapse(backoff.next())


def _settings(arguments: Sequence[str] | None) -> WorkerSettings:
    parser = argparse.ArgumentParser(
        prog="python -m testyard.lab.pipelines.worker",
        description="A worker of the pipeline service. It ends when standard input ends, or with SIGTERM.",
    )
    add_database(parser, DATABASE_VARIABLE)
    parser.add_argument("--name", required=True, help="name of the worker, unlike any other's")
    parser.add_argument("--batch", type=positive, default=10, help="runs claimed at once at most")
    parser.add_argument("--capacity", type=positive, default=10, help="runs executed at once at most")
    parser.add_argument("--test-clock", action="store_true", help="the service's time is the test clock's")
    parser.add_argument(
        "--stale-after", type=seconds, default="300", help="seconds without heartbeat until healed"
    )
    parser.add_argument("--flush-ms", type=int, default=20, help="how long the first report waits for others")
    parser.add_argument("--execution-log", type=Path, help="file to append starts and successes to")
    given = parser.parse_args(arguments)
    return WorkerSettings(
        database_url=given.database,
        database_timeout=given.database_timeout,
        name=given.name,
        batch=given.batch,
        capacity=given.capacity,
        test_clock=given.test_clock,
        stale_after=given.stale_after,
        flush_after=timedelta(milliseconds=max(0, given.flush_ms)),
        execution_log=given.execution_log,
    )


async def _work_until_told(settings: WorkerSettings) -> None:
    worker = Worker(settings)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, worker.stop)
    call_when_input_ends(worker.stop)
    await worker.work()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the worker; gives the exit status."""
    settings = _settings(arguments)
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(message)s")
    status = 0
    try:
        asyncio.run(_work_until_told(settings))
    except* (psycopg.Error, OSError) as problems:
        for problem in problems.exceptions:
            reason = str(problem).strip().splitlines() or [type(problem).__name__]
            _LOGGER.error("%s: %s", settings.name, reason[0])
        status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
