"""The pipeline service's database filled for benchmarks, and queues emptied by worker processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import psycopg
from pipelines_support import private_database
from psycopg import sql
from testyard.core.deadline import Deadline, wait_until
from testyard.lab.servers.postgresql import PostgresqlServer

PEER = Path(__file__).with_name("queue_peers.py")
PATIENCE = timedelta(seconds=60)
LOOK_EVERY = timedelta(milliseconds=20)
CUSTOMERS = 20
ROOMY = 1_000_000

_CUSTOMERS = """
    INSERT INTO customers
    SELECT 'customer-' || number, 'A company', 'qa@example.com', 'ENTERPRISE', 'ACTIVE', now(), now()
    FROM generate_series(0, %(customers)s - 1) AS number"""

_QUOTAS = """
    INSERT INTO subscription_quotas (customer_id, usage_date, daily_limit, monthly_limit, concurrent_limit)
    SELECT customer_id, (%(now)s AT TIME ZONE 'UTC')::date, %(roomy)s, %(roomy)s, %(roomy)s FROM customers"""

_CONFIGURATIONS = """
    INSERT INTO pipeline_configurations (config_id, customer_id, provider, domain, template_name, schedule,
        next_run_time, created_at, updated_at)
    SELECT gen_random_uuid()::text, 'customer-' || number %% %(customers)s, 'GCP', 'COST', 'cost_billing',
        format('%%s %%s * * *', number %% 60, number / 60 %% 24), %(due)s, now(), now()
    FROM generate_series(1, %(count)s) AS number"""

# As the service itself leaves runs that wait or have ended, without what that takes: a million of them is a few
# seconds. Their reservations are the caller's.
_RUNS = """
    INSERT INTO scheduled_pipeline_runs (run_id, config_id, customer_id, provider, domain, template_name, priority,
        scheduled_time, trigger_type, state, reservation_date, claim_number, ended_at, created_at, updated_at)
    SELECT format('%%s-%%s', lower(%(state)s), lpad(number::text, 8, '0')), config_id, customer_id, provider,
        domain, template_name, 5, now(), 'scheduler', %(state)s, (SELECT max(usage_date) FROM subscription_quotas),
        CASE WHEN %(state)s = 'COMPLETED' THEN 1 ELSE 0 END, CASE WHEN %(state)s = 'COMPLETED' THEN now() END,
        now(), now()
    FROM generate_series(1, %(count)s) AS number
    JOIN (SELECT *, row_number() OVER () - 1 AS place FROM pipeline_configurations) AS configuration
        ON configuration.place = number %% (SELECT count(*) FROM pipeline_configurations)
    ORDER BY number"""

_COUNT_RUNS = {
    "PENDING": """
    UPDATE subscription_quotas AS quota
    SET reserved_today = reserved_today + runs, reserved_month = reserved_month + runs
    FROM (SELECT customer_id, count(*) AS runs FROM scheduled_pipeline_runs WHERE state = 'PENDING'
        GROUP BY customer_id) AS counted
    WHERE counted.customer_id = quota.customer_id""",
    "COMPLETED": """
    UPDATE subscription_quotas AS quota
    SET pipelines_run_today = pipelines_run_today + runs, pipelines_run_month = pipelines_run_month + runs
    FROM (SELECT customer_id, count(*) AS runs FROM scheduled_pipeline_runs WHERE state = 'COMPLETED'
        GROUP BY customer_id) AS counted
    WHERE counted.customer_id = quota.customer_id""",
}

_INDEXES = """
    SELECT indexdef FROM pg_indexes WHERE tablename = 'scheduled_pipeline_runs'
        AND NOT EXISTS (SELECT FROM pg_constraint WHERE conname = indexname)"""

_DROP_INDEXES = """
    SELECT 'DROP INDEX ' || indexname FROM pg_indexes WHERE tablename = 'scheduled_pipeline_runs'
        AND NOT EXISTS (SELECT FROM pg_constraint WHERE conname = indexname)"""

_WHO_WAITS = """
    SELECT count(DISTINCT application_name) FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE NOT granted AND relation = %s::regclass"""


def add_customers(url: str, now: datetime, customers: int = CUSTOMERS) -> None:
    """Customers whose limits nobody reaches.

    Args:
        url: The migrated database.
        now: The service's time.
        customers: How many.
    """
    with psycopg.connect(url) as connection:
        connection.execute(_CUSTOMERS, {"customers": customers})
        connection.execute(_QUOTAS, {"now": now, "roomy": 2 * ROOMY})


def add_configurations(url: str, count: int, due: datetime, customers: int = CUSTOMERS) -> None:
    """Active pipelines that are due at one time, with all 1440 daily schedules in turn.

    Args:
        url: The database, with its customers.
        count: How many.
        due: Their next run time.
        customers: How many customers share them.
    """
    with psycopg.connect(url) as connection:
        connection.execute(_CONFIGURATIONS, {"count": count, "customers": customers, "due": due})


def add_runs(url: str, state: str, count: int) -> None:
    """Runs of the pipelines in turn, counted in the quotas, without history.

    Args:
        url: The database, with its pipelines.
        state: PENDING or COMPLETED.
        count: How many.
    """
    with psycopg.connect(url) as connection:
        indexes = [row[0] for row in connection.execute(_INDEXES)]
        for (statement,) in connection.execute(_DROP_INDEXES).fetchall():
            connection.execute(statement)
        connection.execute("SET LOCAL session_replication_role = replica")
        connection.execute(_RUNS, {"state": state, "count": count})
        for statement in indexes:
            connection.execute(statement)
        connection.execute(_COUNT_RUNS[state])


def settle(url: str) -> None:
    """Collect statistics, and write down what is only in memory, so that it disturbs nobody who measures."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM (ANALYZE)")
        connection.execute("CHECKPOINT")


@dataclass(frozen=True)
class Queue:
    """A queue that worker processes empty.

    Args:
        name: For reports.
        table: Where its jobs are.
        fill: Puts a number of jobs into an empty database.
        command: Starts a worker: from the database's URL, the worker's name and the batch.
        is_empty: SQL that says whether no job waits or is being executed.
        jobs: How many a measurement takes.
    """

    name: str
    table: str
    fill: Callable[[str, int], None]
    command: Callable[[str, str, int], Sequence[str]]
    is_empty: str
    jobs: int

    def rate(self, server: PostgresqlServer, template: str | None, workers: int, batch: int) -> float:
        """Jobs per second from the moment all workers may begin until the queue is empty.

        They begin at the same time, when their first look into the queue is let through.

        Args:
            server: The running server; each measurement has a database of its own.
            template: The database to copy; None is an empty one.
            workers: How many processes.
            batch: Jobs that a worker takes at once at most.
        """
        with ExitStack() as stack:
            url = stack.enter_context(private_database(server, template))
            self.fill(url, self.jobs)
            settle(url)
            gate = stack.enter_context(psycopg.connect(url))
            look = stack.enter_context(psycopg.connect(url, autocommit=True))
            gate.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(sql.Identifier(self.table)))
            for number in range(workers):
                name = f"worker {number}"
                stack.enter_context(_worker(self.command(url, name, batch), name))
            wait_until(
                lambda: look.execute(_WHO_WAITS, (self.table,)).fetchone(),
                lambda waiting: waiting == (workers,),
                Deadline(PATIENCE),
                f"{workers} workers of {self.name}",
            )
            started = time.perf_counter()
            gate.commit()
            wait_until(
                lambda: look.execute(self.is_empty).fetchone(),
                lambda answer: answer == (True,),
                Deadline(PATIENCE),
                f"an empty queue of {self.name}",
                interval=LOOK_EVERY,
            )
            return self.jobs / (time.perf_counter() - started)


@contextmanager
def _worker(command: Sequence[str], name: str) -> Iterator[None]:
    """A worker process, which ends with its standard input."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "PGAPPNAME": name},
    )
    with process:
        try:
            yield
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(PATIENCE.total_seconds())


def own_command(url: str, name: str, batch: int) -> Sequence[str]:
    """A worker of the service, which may hold reports back for 50 ms (issue 4)."""
    options = ["--database", url, "--name", name, "--batch", str(batch), "--capacity", str(batch)]
    return [sys.executable, "-m", "testyard.lab.pipelines.worker", *options, "--flush-ms", "50"]


def peer_command(peer: str) -> Callable[[str, str, int], Sequence[str]]:
    """How to start a worker of another queue."""
    return lambda url, _, batch: [sys.executable, str(PEER), peer, url, str(batch)]
