"""Whether runs that have ended make the next ones slower to claim."""

import statistics
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack

import pytest
from pipeline_load import add_configurations, add_customers, add_runs, settle
from pipelines_support import DAY, NOON, open_world, private_database
from testyard.lab.servers.postgresql import PostgresqlServer

MOST_GROWTH = 1.5
FEW = 1_000
MANY = 1_000_000
PIPELINES = 1000
WAITING = 2000
BATCH = 10
ROUNDS = 100

pytestmark = pytest.mark.anyio


async def test_claim_time_over_ended_runs(
    durable_server: PostgresqlServer, service_template: str, report: Callable[[str], None]
) -> None:
    """Claims over few and over many ended runs, in turn."""
    times: dict[int, list[float]] = {FEW: [], MANY: []}
    with ExitStack() as databases:
        urls = {}
        for ended in times:
            urls[ended] = url = databases.enter_context(private_database(durable_server, service_template))
            add_customers(url, NOON)
            add_configurations(url, PIPELINES, NOON + DAY)
            add_runs(url, "COMPLETED", ended)
            add_runs(url, "PENDING", WAITING)
            settle(url)
        async with AsyncExitStack() as stack:
            worlds = {ended: await stack.enter_async_context(open_world(url)) for ended, url in urls.items()}
            for _ in range(ROUNDS):
                for ended, world in worlds.items():
                    started = time.perf_counter()
                    claimed = await world.claim(BATCH)
                    times[ended].append(time.perf_counter() - started)
                    assert len(await world.succeed(*claimed)) == BATCH
    few, many = (statistics.median(times[ended]) for ended in (FEW, MANY))
    report(
        f"a claim of {BATCH} over {FEW} and over {MANY} ended runs: {few * 1000:.2f} and {many * 1000:.2f} ms, "
        f"ratio {many / few:.2f}"
    )
    assert many / few <= MOST_GROWTH
