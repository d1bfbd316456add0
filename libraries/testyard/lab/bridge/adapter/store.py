"""How a batch of events is stored: all of it or nothing, and again when the database is away.

One batch is one transaction. A batch that the database refuses for what one of its rows says is halved until only
that row is left out, which is dead-lettered. Everything else that the database may answer, or not answer, is tried
again: ``retries`` times after a pause that is one and a half times as long each time, then after the longest of
them, until the circuit breaker is open; when that lets a probe through, it goes on. Nothing is given up.

Contract page "event-bus", 3.5, says both that failed records go to the dead-letter topic and that their offsets
are not committed. Here a record is dead-lettered when trying again cannot help, and its offset is committed after
that; when trying again may help, it is neither dead-lettered nor committed.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Final

import psycopg
from psycopg import errors

from testyard.lab.bridge.adapter.figures import ErrorType, Figures
from testyard.lab.bridge.adapter.reading import Event
from testyard.lab.bridge.adapter.statements import ADOPT, COPY, INCOMING, LOG, PLACES, STEPS
from testyard.lab.bridge.breaker import CircuitBreaker, CircuitOpenError
from testyard.lab.bridge.outage import Outage
from testyard.lab.bridge.settings import ConsumerSettings
from testyard.lab.database import Connection, DatabaseUnavailableError, Pool, fetch, in_transaction
from testyard.lab.waiting import happens

GROWTH: Final = 1.5
"""How much longer each pause is than the one before (contract page "event-bus", 3.5)."""
SHORTEST_PAUSE: Final = timedelta(milliseconds=10)

# What is wrong with a row, now and later: its values, a constraint, or that it is too large for an index.
_OF_A_ROW: Final = (
    psycopg.DataError,
    psycopg.IntegrityError,
    errors.ProgramLimitExceeded,
    errors.StatementTooComplex,
)


class _RowRefusedError(Exception):
    """The database refuses a batch for what one of its rows says."""


@dataclass(frozen=True, slots=True)
class Refused:
    """An event that the database can never take.

    Attributes:
        event: The event.
        reason: What the database said.
        retries: How often its batch was tried again before.
    """

    event: Event
    reason: str
    retries: int


@dataclass(frozen=True, slots=True)
class _Written:
    """What a transaction has done.

    Attributes:
        fresh: How many events were new, by topic.
        steps_wait: Whether there were steps whose workflow is not there yet.
    """

    fresh: Counter[str]
    steps_wait: bool


@dataclass(slots=True)
class _Progress:
    """How far the storing of one batch has come.

    Attributes:
        retries: How often something was tried again.
        refused: What the database can never take.
    """

    retries: int = 0
    refused: list[Refused] = field(default_factory=list)


class Store:
    """The adapter's tables.

    Args:
        pool: Their connections.
        breaker: When nobody waits any more for the database.
        settings: How often and after how long something is tried again.
        figures: Counts what was done.

    Attributes:
        adoptable: Set after a transaction when steps wait for their workflow, which may be there by now.
    """

    def __init__(self, pool: Pool, breaker: CircuitBreaker, settings: ConsumerSettings, figures: Figures) -> None:
        self.adoptable = asyncio.Event()
        self._steps_wait = True
        self._pool = pool
        self._breaker = breaker
        self._settings = settings
        self._figures = figures
        self._storing = Outage("the database (storing events)")
        self._adopting = Outage("the database (adopting steps)")
        self._breaker_changed = asyncio.Event()
        breaker.when_it_changes(lambda _: self._breaker_changed.set())

    @property
    def trouble(self) -> str | None:
        """Why the database does not do what it was last asked; None when it does."""
        return self._storing.reason or self._adopting.reason

    async def store(self, events: Sequence[Event]) -> list[Refused]:
        """Store some events; returns when each of them is there, or can never be.

        Args:
            events: In their order.

        Returns:
            Those that can never be.
        """
        progress = _Progress()
        if events:
            await self._store(events, progress)
        return progress.refused

    async def _store(self, events: Sequence[Event], progress: _Progress) -> None:
        try:
            await self._until_it_is_there(events, progress)
        except _RowRefusedError as problem:
            if len(events) == 1:
                self._figures.went_wrong(ErrorType.DATABASE_OPERATION_FAILED)
                progress.refused.append(Refused(events[0], str(problem), progress.retries))
                return
            middle = len(events) // 2
            await self._store(events[:middle], progress)
            await self._store(events[middle:], progress)

    async def _until_it_is_there(self, events: Sequence[Event], progress: _Progress) -> None:
        failures = 0
        while True:
            try:
                with self._breaker.call(_RowRefusedError):
                    fresh = await self._attempt(events)
            except CircuitOpenError as problem:
                self._went_wrong(self._storing, ErrorType.CIRCUIT_BREAKER_OPEN, problem)
                self._breaker_changed.clear()
                await happens(self._breaker_changed, max(problem.retry_after, SHORTEST_PAUSE))
            except (DatabaseUnavailableError, psycopg.Error) as problem:
                self._went_wrong(self._storing, _type_of(problem), problem)
                self._breaker_changed.clear()
                await happens(self._breaker_changed, self._pause_after(failures))
                failures += 1
            else:
                self._storing.is_over()
                self._figures.stored(events, fresh)
                if self._steps_wait:
                    self.adoptable.set()
                return
            progress.retries += 1

    async def _attempt(self, events: Sequence[Event]) -> Counter[str]:
        """Store some events, or nothing; how many of them were new, by topic."""
        try:
            written = await in_transaction(self._pool, partial(_write, events))
        except (DatabaseUnavailableError, psycopg.Error) as problem:
            if reason := _reason_in_a_row(problem):
                raise _RowRefusedError(reason) from problem
            raise
        self._steps_wait = self._steps_wait or written.steps_wait
        return written.fresh

    def _pause_after(self, failures: int) -> timedelta:
        settings = self._settings
        pause: timedelta = settings.retry_backoff * GROWTH ** min(failures, settings.retries)
        return min(pause, settings.retry_longest)

    def _went_wrong(self, outage: Outage, error: ErrorType, problem: Exception) -> None:
        self._figures.went_wrong(error)
        outage.goes_on(str(problem).partition("\n")[0])

    async def adopt(self) -> bool:
        """Bring the steps whose workflow is there by now to it; whether the database could be asked."""
        self.adoptable.clear()
        # A transaction may be committed while the question is asked.
        self._steps_wait, still_wait = False, True
        try:
            with self._breaker.call(psycopg.IntegrityError):
                [row] = await fetch(self._pool, ADOPT)
        except CircuitOpenError:
            return False
        except psycopg.IntegrityError:
            # The workflow was removed meanwhile.
            return True
        except (DatabaseUnavailableError, psycopg.Error) as problem:
            self._went_wrong(self._adopting, _type_of(problem), problem)
            return False
        else:
            self._adopting.is_over()
            self._figures.adopted(row["adopted"])
            still_wait = row["adopted"] < row["waited"]
            return True
        finally:
            self._steps_wait = self._steps_wait or still_wait


async def _write(events: Sequence[Event], connection: Connection) -> _Written:
    """Write a batch."""
    await connection.execute(INCOMING)
    async with connection.cursor() as cursor, cursor.copy(COPY) as copy:
        await copy.write(b"".join([event.row for event in events]))
    places = {PLACES[route]: None for route in {event.route for event in events} if route in PLACES}
    async with connection.pipeline():
        log = await connection.execute(LOG)
        placed = {statement: await connection.execute(statement) for statement in places}
    return _Written(
        Counter({row["topic"]: row["stored"] for row in await log.fetchall()}),
        steps_wait=STEPS in placed and placed[STEPS].rowcount > 0,
    )


def _reason_in_a_row(problem: Exception) -> str | None:
    """What is wrong with one of the rows; None when it is not for a row."""
    cause = problem.__cause__ if isinstance(problem, DatabaseUnavailableError) else problem
    if not isinstance(cause, _OF_A_ROW):
        return None
    return cause.diag.message_primary or str(cause)


def _type_of(problem: Exception) -> ErrorType:
    if not isinstance(problem, DatabaseUnavailableError):
        return ErrorType.DATABASE_OPERATION_FAILED
    # What lost against another transaction again and again has no cause.
    return ErrorType.TRANSACTION_ROLLBACK if problem.__cause__ is None else ErrorType.DATABASE_CONNECTION_FAILED
