"""How long the pipeline service's interface takes to answer."""

import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime

import httpx
from pipeline_load import add_configurations, add_customers, add_runs, settle
from pipelines_api_support import AS_ADMIN, running_service
from pipelines_support import private_database
from testyard.lab.servers.postgresql import PostgresqlServer

CALLS = 200
PIPELINES = 1000
ENDED = 2000
NEVER = datetime(2100, 1, 1, tzinfo=UTC)
STATUS = ("GET", "/scheduler/status")
TRIGGER = ("POST", "/scheduler/trigger")
PROCESS = ("POST", "/scheduler/process")


def test_answers(durable_server: PostgresqlServer, service_template: str, report: Callable[[str], None]) -> None:
    """One caller: the scheduler's numbers, a trigger with nothing due, and the next run of a filled queue."""
    times: dict[tuple[str, str], list[float]] = {call: [] for call in (STATUS, TRIGGER, PROCESS)}
    with private_database(durable_server, service_template) as url:
        add_customers(url, datetime.now(UTC))
        add_configurations(url, PIPELINES, NEVER)
        add_runs(url, "COMPLETED", ENDED)
        add_runs(url, "PENDING", CALLS)
        settle(url)
        with (
            running_service(url) as service,
            httpx.Client(base_url=f"{service.address}/api/v1", headers=dict(AS_ADMIN)) as client,
        ):
            for _ in range(CALLS):
                for (method, path), measured in times.items():
                    started = time.perf_counter()
                    answer = client.request(method, path)
                    measured.append(time.perf_counter() - started)
                    assert answer.status_code == 200, answer.text
            assert answer.json()["status"] == "PROCESSING", "the queue was filled for every call"
    for (method, path), measured in times.items():
        median, ninety_fifth = statistics.median(measured), statistics.quantiles(measured, n=20)[-1]
        report(f"{method} {path}: p50 {median * 1000:.1f} ms, p95 {ninety_fifth * 1000:.1f} ms")
