"""Other queues on PostgreSQL, with the settings that serve the same batch: their jobs, and a worker process.

pgqueuer takes ``batch`` jobs in one statement, writes each taking and each end into its log, and reports ``batch``
ends in one statement, at most 0.1 s late. procrastinate takes one job in a statement, executes ``batch`` at the
same time, and reports each end on its own; its triggers write the events. Both use psycopg, as the service does.
"""

from __future__ import annotations

import asyncio
import sys

import psycopg
from pgqueuer import PgQueuer
from pgqueuer.adapters.drivers.psycopg import PsycopgDriver
from pgqueuer.queries import Queries
from procrastinate import App, PsycopgConnector

JOB = "empty"
# Its listener and its heartbeats.
OTHER_CONNECTIONS = 2


def fill_pgqueuer(url: str, jobs: int) -> None:
    """Install pgqueuer and queue empty jobs."""

    async def fill() -> None:
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            queries = Queries(PsycopgDriver(connection))
            await queries.install()
            await queries.enqueue([JOB] * jobs, [None] * jobs, [0] * jobs)

    asyncio.run(fill())


def fill_procrastinate(url: str, jobs: int) -> None:
    """Install procrastinate and queue empty jobs."""

    async def fill() -> None:
        app = _procrastinate(url, 1)
        async with app.open_async():
            await app.schema_manager.apply_schema_async()
            await app.configure_task(JOB).batch_defer_async(*({} for _ in range(jobs)))

    asyncio.run(fill())


def _procrastinate(url: str, batch: int) -> App:
    connector = PsycopgConnector(conninfo=url, min_size=1, max_size=batch + OTHER_CONNECTIONS)
    return App(connector=connector)


async def _work_pgqueuer(url: str, batch: int) -> None:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        queue = PgQueuer(PsycopgDriver(connection))

        @queue.entrypoint(JOB)
        async def empty(_: object) -> None:
            """Do nothing."""

        async with asyncio.TaskGroup() as group:
            group.create_task(queue.run(batch_size=batch))
            await _input_ends()
            queue.shutdown.set()
            queue.qm.shutdown.set()


async def _work_procrastinate(url: str, batch: int) -> None:
    app = _procrastinate(url, batch)

    @app.task(name=JOB)
    async def empty() -> None:
        """Do nothing."""

    async with app.open_async():
        worker = asyncio.create_task(app.run_worker_async(concurrency=batch, install_signal_handlers=False))
        await _input_ends()
        worker.cancel()
        await asyncio.wait([worker])


async def _input_ends() -> None:
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()


WORKERS = {"pgqueuer": _work_pgqueuer, "procrastinate": _work_procrastinate}

if __name__ == "__main__":
    asyncio.run(WORKERS[sys.argv[1]](sys.argv[2], int(sys.argv[3])))
