"""The pipeline service's database for tests: migrated, with a test clock, and words to fill it."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from psycopg.types.json import Jsonb
from testyard.lab.database import Connection, Pool, fetch, in_transaction
from testyard.lab.pipelines.database import open_pool
from testyard.lab.pipelines.migrate import migrate
from testyard.lab.pipelines.plans import Limits
from testyard.lab.pipelines.records import Failure, Outcome, Run, Triggered, Work
from testyard.lab.pipelines.retry import ErrorClass
from testyard.lab.pipelines.store import admission, claims, clock, outcomes, quotas
from testyard.lab.servers.postgresql import PostgresqlServer

NOON = datetime(2030, 1, 15, 12, tzinfo=UTC)
PATIENCE = timedelta(seconds=20)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def new_template(server: PostgresqlServer) -> str:
    """Make a migrated database to copy."""
    name = f"template_{secrets.token_hex(4)}"
    asyncio.run(migrate(server.create_database(name)))
    return name


@contextmanager
def private_database(server: PostgresqlServer, template: str | None = None) -> Iterator[str]:
    """The URL of a database of its own, which is dropped afterwards."""
    name = f"test_{secrets.token_hex(4)}"
    yield server.create_database(name, template=template)
    server.drop_database(name)


def empty(url: str) -> None:
    """Take everything out of a database but its tables, and whoever is still connected to it."""
    with psycopg.connect(url) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        # Cascades to all but these two.
        connection.execute("DELETE FROM customers")
        connection.execute("DELETE FROM run_transitions")
        connection.execute("DELETE FROM test_clock")


@dataclass
class World:
    """A service's database in a test.

    Args:
        url: Where it is.
        pool: Connections that honour the test clock, which shows noon of 2030-01-15.
    """

    url: str = field(repr=False)
    pool: Pool

    async def rows(self, statement: str, **parameters: Any) -> list[dict[str, Any]]:
        """What a statement returns."""
        return await fetch(self.pool, statement, parameters)

    async def execute(self, statement: str, **parameters: Any) -> None:
        """Run a statement."""

        async def work(connection: Connection) -> None:
            await connection.execute(statement, parameters)

        await in_transaction(self.pool, work)

    async def customer(
        self, customer_id: str = "acme", *, daily: int = 100, monthly: int = 3000, concurrent: int = 100
    ) -> str:
        """Add a customer with limits of its own."""

        async def work(connection: Connection) -> None:
            await connection.execute(
                "INSERT INTO customers (customer_id, company_name, admin_email, subscription_plan, created_at,"
                " updated_at) VALUES (%(id)s, %(id)s, 'qa@example.com', 'SCALE', service_now(), service_now())",
                {"id": customer_id},
            )
            await quotas.open_first_day(connection, customer_id, Limits(daily, monthly, concurrent))

        await in_transaction(self.pool, work)
        return customer_id

    async def configuration(
        self,
        name: str,
        customer_id: str = "acme",
        *,
        due: datetime = NOON,
        priority: int = 5,
        schedule: str = "0 * * * *",
    ) -> str:
        """Add a pipeline that is due at a time."""
        await self.execute(
            "INSERT INTO pipeline_configurations (config_id, customer_id, provider, domain, template_name,"
            " schedule, priority, next_run_time, created_at, updated_at)"
            " VALUES (%(name)s, %(customer_id)s, 'GCP', 'COST', 'cost_billing',"
            " %(schedule)s, %(priority)s, %(due)s, service_now(), service_now())",
            name=name,
            customer_id=customer_id,
            schedule=schedule,
            priority=priority,
            due=due,
        )
        return name

    async def channel(self, channel: str, target: str, customer_id: str = "acme") -> None:
        """Have failures told."""
        await self.execute(
            "INSERT INTO notification_channels VALUES (%(customer_id)s, %(channel)s, %(target)s)",
            customer_id=customer_id,
            channel=channel,
            target=target,
        )

    async def run(
        self,
        customer_id: str = "acme",
        *,
        template: str = "cost_billing",
        priority: int = 5,
        parameters: dict[str, Any] | None = None,
    ) -> Run:
        """Ask for a run directly."""
        run, _ = await admission.run_now(
            self.pool, customer_id, "GCP", "COST", template, parameters=parameters or {}, priority=priority
        )
        return run

    async def pending(self, customer_id: str, count: int) -> None:
        """Many pending runs at once, within no quota."""
        await self.execute(
            "INSERT INTO scheduled_pipeline_runs (run_id, customer_id, provider, domain, template_name,"
            " parameters, priority, scheduled_time, trigger_type, state, created_at, updated_at)"
            " SELECT %(customer_id)s || '-' || number, %(customer_id)s, 'GCP', 'COST', 'cost_billing',"
            " %(nothing)s, 5, service_now(), 'api', 'SCHEDULED', service_now(), service_now()"
            " FROM generate_series(1, %(count)s::integer) AS number ORDER BY number",
            customer_id=customer_id,
            count=count,
            nothing=Jsonb({}),
        )
        await admission.admit(self.pool)

    async def schedule(self, limit: int | None = None) -> Triggered:
        """Trigger."""
        return await admission.schedule_due(self.pool, limit)

    async def claim(self, count: int = 1, worker: str = "w1") -> list[Work]:
        """Claim runs."""
        return await claims.claim(self.pool, worker, count, claims.new_claim_id())

    async def claim_one(self, worker: str = "w1") -> Work:
        """Claim the run there is."""
        (work,) = await self.claim(1, worker)
        return work

    async def succeed(self, *works: Work) -> set[str]:
        """Report success."""
        return await outcomes.finish(self.pool, [Outcome.of(work) for work in works])

    async def fail(self, *works: Work, error_class: ErrorClass = ErrorClass.TIMEOUT) -> set[str]:
        """Report failure."""
        failure = Failure(error_class, "it failed")
        return await outcomes.finish(self.pool, [Outcome.of(work, failure) for work in works])

    async def state(self, run: Run | Work) -> str:
        """The state of a run."""
        rows = await self.rows("SELECT state FROM scheduled_pipeline_runs WHERE run_id = %(id)s", id=run.run_id)
        state: str = rows[0]["state"]
        return state

    async def states(self) -> dict[str, int]:
        """How many runs are in each state."""
        rows = await self.rows("SELECT state, count(*) AS runs FROM scheduled_pipeline_runs GROUP BY state")
        return {row["state"]: row["runs"] for row in rows}

    async def move_clock(self, moment: datetime) -> None:
        """Set the test clock."""
        await clock.move(self.pool, moment)

    async def silence(self, run: Run | Work, silent_for: timedelta = HOUR) -> None:
        """Make a run's last heartbeat old."""
        await self.execute(
            "UPDATE scheduled_pipeline_runs SET heartbeat_at = clock_timestamp() - %(age)s WHERE run_id = %(id)s",
            age=silent_for,
            id=run.run_id,
        )

    async def quota(self, customer_id: str = "acme") -> dict[str, Any]:
        """The newest day's counters, without limits."""
        rows = await self.rows(
            "SELECT usage_date, pipelines_run_today AS today, pipelines_run_month AS month, concurrent_running AS"
            " running, reserved_today, reserved_month FROM subscription_quotas"
            " WHERE customer_id = %(id)s AND is_current",
            id=customer_id,
        )
        return rows[0]


@asynccontextmanager
async def open_world(url: str, size: int = 12) -> AsyncIterator[World]:
    """Connect to a migrated database and set its clock."""
    async with open_pool(url, test_clock=True, size=size, application_name="test") as pool:
        await clock.move(pool, NOON)
        yield World(url, pool)
        assert await quotas.explain_drift(pool) == []
