"""Workers that are killed at any moment lose no run, and none is executed again after its success (issue 4)."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row
from testyard.core.deadline import Deadline, wait_until
from testyard.lab.pipelines.store.quotas import EXPLAIN_DRIFT
from testyard.lab.supervisor.pipelines import PipelineLab
from testyard.pipelines.evidence import executions_in, transitions_in
from testyard.pipelines.history import check_histories, repetitions

SEED = 20260302
WORKERS = 4
CUSTOMERS = 20
PIPELINES = 100
PLENTY, TOO_FEW = 200, 60
CONCURRENT = 10
LONGEST_RUN = timedelta(milliseconds=150)
KILL_EVERY = timedelta(seconds=2)
FEWEST_KILLS = 3
WITHIN = timedelta(seconds=60)
# 50 ms in which a worker collects what to report, and a transaction on a busy machine.
STORED_WITHIN = timedelta(seconds=1)
# One trigger makes and admits all 2000 runs.
DATABASE_TIMEOUT = timedelta(seconds=5)
LOOK_EVERY = timedelta(milliseconds=200)
# Room for the delays of three retries each time, and far from midnight.
MORNING = datetime(2026, 3, 2, 6, tzinfo=UTC)
CLOCK_STEP = timedelta(minutes=1)

CUSTOMER = """
    INSERT INTO customers SELECT 'chaos_' || number, 'Chaos ' || number, 'qa@example.org', 'SCALE', 'ACTIVE',
        %(now)s, %(now)s FROM generate_series(1, %(customers)s) AS number"""
QUOTA = """
    INSERT INTO subscription_quotas (customer_id, usage_date, daily_limit, monthly_limit, concurrent_limit)
    SELECT 'chaos_' || number, %(now)s::date, CASE WHEN number %% 2 = 0 THEN %(plenty)s ELSE %(too_few)s END, 3000,
        %(concurrent)s FROM generate_series(1, %(customers)s) AS number"""
PIPELINE = """
    INSERT INTO pipeline_configurations (config_id, customer_id, provider, domain, template_name, schedule,
        default_parameters, next_run_time, created_at, updated_at)
    SELECT customer_id || '-' || number, customer_id, 'GCP', 'COST', 'cost_billing', '0 5 * * *',
        jsonb_build_object('duration_ms', (%(durations)s::integer[])[number]), %(now)s, %(now)s, %(now)s
    FROM customers, generate_series(1, %(pipelines)s) AS number"""
BY_STATE = "SELECT state, count(*) FROM scheduled_pipeline_runs GROUP BY state"
RUNNING_AT = "SELECT count(*) FROM scheduled_pipeline_runs WHERE state = 'RUNNING' AND worker_id = %s"
WAITS_FOR_RETRY = (
    "SELECT 1 FROM scheduled_pipeline_runs WHERE state = 'PENDING' AND not_before IS NOT NULL LIMIT 1"
)
COMPLETED = """
    SELECT customer_id, count(*) FROM scheduled_pipeline_runs WHERE state = 'COMPLETED' GROUP BY customer_id"""
USED = """
    SELECT customer_id, pipelines_run_today, pipelines_run_month, reserved_today, reserved_month,
        concurrent_running FROM subscription_quotas"""


@dataclass
class Chaos:
    """The lab, what it is asked, and what was done to it."""

    lab: PipelineLab
    database: psycopg.Connection[tuple[Any, ...]]
    random: random.Random = field(default_factory=lambda: random.Random(SEED))
    started: int = 0
    hits: list[int] = field(default_factory=list)

    def rows(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        """What the database says, past every fault."""
        return self.database.execute(statement, parameters).fetchall()

    def mappings(self, statement: str) -> list[dict[str, Any]]:
        """The same by column name."""
        with self.database.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(statement).fetchall()

    def start_workers(self, count: int) -> None:
        """Workers under names that were never used: a replaced one is gone for good."""
        names = [f"worker {self.started + number}" for number in range(1, count + 1)]
        self.started += count
        self.lab.start_workers(*names, options=("--batch", "4", "--capacity", "4"))

    def replace_a_worker(self) -> None:
        """Kill one, remember how many runs it had, and start another."""
        name = self.random.choice(sorted(self.lab.workers))
        self.lab.kill_worker(name)
        self.hits.append(self.rows(RUNNING_AT, name)[0][0])
        self.start_workers(1)

    def move_clock(self, to: datetime) -> None:
        """The service's clock."""
        self.lab.client.call("PUT", "/api/v1/test-clock", body={"now": to.isoformat()})

    def states(self) -> dict[str, int]:
        """How many runs are in each state."""
        return dict(self.rows(BY_STATE))


@pytest.fixture
def chaos() -> Iterator[Chaos]:
    """A lab with 20 customers and 2000 due pipelines; half of the customers may not run all of theirs."""
    with (
        PipelineLab(database_timeout=DATABASE_TIMEOUT) as lab,
        psycopg.connect(lab.database_url, autocommit=True) as database,
    ):
        chaos = Chaos(lab, database)
        chaos.move_clock(MORNING)
        longest = LONGEST_RUN // timedelta(milliseconds=1)
        parameters = {
            "now": MORNING,
            "customers": CUSTOMERS,
            "pipelines": PIPELINES,
            "plenty": PLENTY,
            "too_few": TOO_FEW,
            "concurrent": CONCURRENT,
            "durations": [chaos.random.randint(1, longest) for _ in range(PIPELINES)],
        }
        for statement in (CUSTOMER, QUOTA, PIPELINE):
            database.execute(statement, parameters)
        yield chaos


def drive_to_the_end(chaos: Chaos) -> None:
    """Kill and replace a worker every two seconds, and let retries be due, until no run waits or runs."""
    next_kill = Deadline(KILL_EVERY)
    now = MORNING

    def look() -> dict[str, int]:
        nonlocal next_kill, now
        if next_kill.expired:
            next_kill = Deadline(KILL_EVERY)
            chaos.replace_a_worker()
        if chaos.rows(WAITS_FOR_RETRY):
            now += CLOCK_STEP
            chaos.move_clock(now)
        return chaos.states()

    wait_until(
        look,
        lambda states: not {"SCHEDULED", "PENDING", "RUNNING"} & states.keys(),
        Deadline(WITHIN),
        "every run to end",
        interval=LOOK_EVERY,
    )


@pytest.mark.slow
def test_killed_workers_lose_nothing(chaos: Chaos, record_property: Callable[[str, object], None]) -> None:
    """4 workers, 2000 due runs, kill -9 every 2 s: all end, none twice, quota exact for all 20 customers."""
    chaos.start_workers(WORKERS)
    answer = chaos.lab.client.call("POST", "/api/v1/scheduler/trigger")
    begun = Deadline(WITHIN)
    drive_to_the_end(chaos)
    took = begun.elapsed

    states = chaos.states()
    transitions = transitions_in(chaos.mappings("SELECT * FROM run_transitions ORDER BY sequence"))
    lines = [
        json.loads(line)
        for file in chaos.lab.executions()
        # A killed worker may have been writing its last line.
        for line in file.read_bytes().rpartition(b"\n")[0].splitlines()
    ]
    executions = executions_in(lines)
    repeated = repetitions(transitions, executions, completion_window=STORED_WITHIN)
    figures = (
        f"{took.total_seconds():.1f} s, runs {states}, {len(executions)} executions, runs that the kills hit: "
        f"{chaos.hits}, executed again because a kill took a success along: {len(repeated)}"
    )
    record_property("figures", figures)

    assert answer["triggered_count"] == CUSTOMERS * PIPELINES
    assert sum(1 for hit in chaos.hits if hit) >= FEWEST_KILLS, f"the kills hit too little: {figures}"
    assert sum(states.values()) == CUSTOMERS * PIPELINES, figures
    assert len({transition.run_id for transition in transitions}) == CUSTOMERS * PIPELINES
    violations = check_histories(transitions, executions, drained=True, completion_window=STORED_WITHIN)
    assert violations == []
    assert chaos.rows(EXPLAIN_DRIFT) == []

    assert states["SKIPPED"] == CUSTOMERS // 2 * (PIPELINES - TOO_FEW), figures
    completed = Counter(dict(chaos.rows(COMPLETED)))
    assert max(completed.values()) == PIPELINES
    used = {customer: counters for customer, *counters in chaos.rows(USED)}
    assert used == {f"chaos_{number}": 2 * [completed[f"chaos_{number}"]] + 3 * [0] for number in range(1, 21)}
    failed = states.get("FAILED", 0)
    assert sum(completed.values()) + failed == CUSTOMERS // 2 * (PIPELINES + TOO_FEW), figures
