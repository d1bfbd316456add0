"""The pipeline service's HTTP interface as a process: start, end, and what it says when it cannot start."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess

import httpx
import pytest
from pipelines_api_support import ADMIN_KEY, AS_ADMIN, COMMAND, ENCRYPTION_KEY, SECRETS, api_on, running_service
from testyard.lab.pipelines import app
from testyard.lab.servers.postgresql import PostgresqlServer

UNREACHABLE = "postgresql://someone:secret-word@127.0.0.1:1/nothing"


def failing(*arguments: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """A start that has to fail."""
    return subprocess.run(
        [*COMMAND, *arguments], env=environment, capture_output=True, text=True, timeout=30, check=False
    )


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"PIPELINES_ADMIN_KEY": ""}, "PIPELINES_ADMIN_KEY is not set"),
        ({"PIPELINES_ADMIN_KEY": "secret-word"}, "PIPELINES_ADMIN_KEY has 11 characters; expected at least 16"),
        ({"PIPELINES_ENCRYPTION_KEY": ""}, "PIPELINES_ENCRYPTION_KEY is not set"),
        ({"PIPELINES_ENCRYPTION_KEY": "secret-word!"}, "PIPELINES_ENCRYPTION_KEY is not base64"),
        ({"PIPELINES_SMTP_URL": "smtp://a:secret-word@host"}, "PIPELINES_SMTP_URL is not usable"),
        ({"PIPELINES_SMTP_URL": "smtp://host:secret-word"}, "PIPELINES_SMTP_URL is not usable"),
        ({}, "127.0.0.1"),
    ],
)
def test_what_is_missing_is_told_in_one_line_without_the_value(change: dict[str, str], told: str) -> None:
    ended = failing("--database", UNREACHABLE, "--port", "0", environment={**SECRETS, **change})

    assert (ended.returncode, ended.stdout) == (2, "")
    assert len(ended.stderr.splitlines()) == 1
    assert told in ended.stderr
    assert "secret-word" not in ended.stderr


def test_a_database_that_is_no_url_is_not_quoted() -> None:
    ended = failing("--database", "secret-word", "--port", "0", environment=dict(SECRETS))

    expected = "testyard.lab.pipelines: --database is not the URL of a PostgreSQL database\n"
    assert (ended.returncode, ended.stderr) == (2, expected)


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = failing("--database", UNREACHABLE, "--port", port, environment=dict(SECRETS))

    assert ended.returncode == 2
    assert f"cannot listen on port {port} of 127.0.0.1" in ended.stderr


@pytest.mark.parametrize("stale_after", ["0", "-1", "nan", "inf", "soon"])
def test_an_impossible_time_is_refused(stale_after: str) -> None:
    ended = failing("--database", UNREACHABLE, "--stale-after", stale_after, environment=dict(SECRETS))

    assert ended.returncode == 2
    assert "--stale-after" in ended.stderr


def test_it_takes_requests_when_it_has_said_so_and_ends_with_standard_input(pipelines_url: str) -> None:
    with running_service(pipelines_url) as service:
        health = httpx.get(f"{service.address}/api/v1/health")
        clock = httpx.get(f"{service.address}/api/v1/test-clock", headers=AS_ADMIN)
        documentation = httpx.get(f"{service.address}/docs")

    assert (health.status_code, health.json()["clock"]) == (200, "database")
    assert clock.status_code == 404
    assert documentation.status_code == 200
    assert service.process.returncode == 0


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly_also_while_a_run_hangs(pipelines_url: str, end: signal.Signals) -> None:
    with running_service(pipelines_url) as service, httpx.Client(base_url=f"{service.address}/api/v1") as client:
        key = {"X-API-Key": service.onboard("acme")}
        client.post("/pipelines/run/acme/GCP/COST/hangs", headers=key).raise_for_status()
        started = client.post("/scheduler/process", headers=AS_ADMIN)

        service.process.send_signal(end)

        assert service.process.wait(20) == 0
    assert started.json()["status"] == "PROCESSING"


def test_an_inherited_socket_serves(pipelines_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        process = subprocess.Popen(
            [*COMMAND, "--database", pipelines_url, "--fd", str(listening.fileno()), "--end-with-stdin"],
            env=dict(SECRETS),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[listening.fileno()],
        )
    with process:
        assert process.stdout is not None
        said = process.stdout.readline().decode().strip()
        answer = httpx.get(f"{address}/api/v1/health")
        assert process.stdin is not None
        process.stdin.close()

    assert said == address
    assert answer.status_code == 200
    assert process.returncode == 0


def test_a_database_that_is_away_is_503_and_nothing_secret_is_said() -> None:
    with (
        PostgresqlServer(durable=False) as server,
        running_service(server.create_database("away"), stderr=subprocess.PIPE) as service,
    ):
        key = service.onboard("acme")
        server.stop()
        answer = httpx.get(f"{service.address}/api/v1/customers/acme", headers={"X-API-Key": key}, timeout=30)
        service.process.terminate()
        assert service.process.stderr is not None
        said = service.process.stderr.read()

    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert answer.json() == {"detail": "the database is away"}
    assert "connect" in said
    assert "Traceback" not in said
    for each in (key, ADMIN_KEY, ENCRYPTION_KEY):
        assert each not in said


async def never_ends_at_once(*_: object) -> None:
    """A task that loses its first cancellation, as one that waits for the database can."""
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        await asyncio.Event().wait()


@pytest.mark.anyio
async def test_a_cancellation_that_is_lost_does_not_keep_the_service_from_ending(
    pipelines_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "heal_forever", never_ends_at_once)

    async with asyncio.timeout(20):
        async with api_on(pipelines_url) as api:
            started = await api.call("GET", "/health")

    assert started.status_code == 200
