"""How long it takes to evaluate 100 000 active pipelines."""

import time
from collections.abc import Callable
from datetime import timedelta

import pytest
from pipeline_load import add_configurations, add_customers, settle
from pipelines_support import NOON, open_world, private_database
from testyard.lab.servers.postgresql import PostgresqlServer

PIPELINES = 100_000
SCHEDULES = 24 * 60
CUSTOMERS = 100
ONE_IN = 100
ALL_DUE = timedelta(seconds=10)
FEW_DUE = timedelta(seconds=1)

pytestmark = pytest.mark.anyio


async def test_due_evaluation(
    durable_server: PostgresqlServer, service_template: str, report: Callable[[str], None]
) -> None:
    """All of them due, then one in a hundred."""
    with private_database(durable_server, service_template) as url:
        add_customers(url, NOON, CUSTOMERS)
        add_configurations(url, PIPELINES, NOON - timedelta(minutes=1), CUSTOMERS)
        settle(url)
        async with open_world(url) as world:
            rows = await world.rows("SELECT count(DISTINCT schedule) AS schedules FROM pipeline_configurations")
            assert rows == [{"schedules": SCHEDULES}]
            started = time.perf_counter()
            triggered = await world.schedule()
            all_due = timedelta(seconds=time.perf_counter() - started)
            assert (triggered.due_found, triggered.queued) == (PIPELINES, PIPELINES)
            await world.execute(
                "UPDATE pipeline_configurations SET next_run_time = %(noon)s WHERE config_id IN"
                " (SELECT config_id FROM pipeline_configurations ORDER BY config_id LIMIT %(count)s)",
                noon=NOON,
                count=PIPELINES // ONE_IN,
            )
            started = time.perf_counter()
            triggered = await world.schedule()
            few_due = timedelta(seconds=time.perf_counter() - started)
            assert (triggered.due_found, triggered.queued) == (PIPELINES // ONE_IN, PIPELINES // ONE_IN)
    report(
        f"{PIPELINES} active pipelines with {SCHEDULES} schedules: "
        f"{all_due.total_seconds():.1f} s when all are due, {few_due.total_seconds():.2f} s when 1 in {ONE_IN} is"
    )
    assert few_due <= FEW_DUE
    assert all_due <= ALL_DUE
