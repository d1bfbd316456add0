"""How many empty jobs per second workers take and complete, against two other queues on the same PostgreSQL.

The service counts quotas and slots, writes history and notes the end in the pipeline; the others do less per job.
All have the same number of worker processes, the same batch, and commits that wait for the disk. Jobs of the
service are runs of 1000 pipelines of 20 customers.
"""

import statistics
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from pipeline_load import Queue, add_configurations, add_customers, add_runs, own_command, peer_command
from queue_peers import fill_pgqueuer, fill_procrastinate
from testyard.lab.servers.postgresql import PostgresqlServer

LEAST_RATIO = 1.0
BATCH = 10
ROUNDS = 3
PIPELINES = 1000
NEVER = datetime(2100, 1, 1, tzinfo=UTC)


def fill_service(url: str, jobs: int) -> None:
    """Runs that wait for workers."""
    add_customers(url, datetime.now(UTC))
    add_configurations(url, PIPELINES, NEVER)
    add_runs(url, "PENDING", jobs)


OURS = Queue(
    "the service",
    "scheduled_pipeline_runs",
    fill_service,
    own_command,
    "SELECT NOT EXISTS (SELECT FROM scheduled_pipeline_runs WHERE state = 'PENDING')"
    " AND NOT EXISTS (SELECT FROM scheduled_pipeline_runs WHERE state = 'RUNNING')",
    2000,
)
PEERS = (
    Queue(
        "pgqueuer",
        "pgqueuer",
        fill_pgqueuer,
        peer_command("pgqueuer"),
        "SELECT NOT EXISTS (SELECT FROM pgqueuer)",
        2000,
    ),
    Queue(
        "procrastinate",
        "procrastinate_jobs",
        fill_procrastinate,
        peer_command("procrastinate"),
        "SELECT NOT EXISTS (SELECT FROM procrastinate_jobs WHERE status = 'todo')"
        " AND NOT EXISTS (SELECT FROM procrastinate_jobs WHERE status = 'doing')",
        400,
    ),
)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_claim_and_complete(
    durable_server: PostgresqlServer, service_template: str, workers: int, report: Callable[[str], None]
) -> None:
    """Rounds of all three, one after the other; the ratio is that to the round's faster peer."""
    own_rates: list[float] = []
    peer_rates: dict[str, list[float]] = {peer.name: [] for peer in PEERS}
    for _ in range(ROUNDS):
        own_rates.append(OURS.rate(durable_server, service_template, workers, BATCH))
        for peer in PEERS:
            peer_rates[peer.name].append(peer.rate(durable_server, None, workers, BATCH))
    ratios = [own / max(theirs) for own, *theirs in zip(own_rates, *peer_rates.values(), strict=True)]
    ratio = statistics.median(ratios)
    rates = {OURS.name: own_rates, **peer_rates}
    shown = ", ".join(f"{name} {statistics.median(measured):.0f}/s" for name, measured in rates.items())
    report(
        f"claim and complete, {workers} workers, batches of {BATCH}: {shown}; "
        f"ratio to the faster peer {ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    )
    assert ratio >= LEAST_RATIO
