"""A service of the bridge as a process: how it starts, how it ends, and what it says when it cannot start."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from publisher_support import BUS, PATIENCE, TOPIC, arrived
from testyard.core.deadline import Deadline, wait_until
from testyard.lab.bridge.settings import Settings
from testyard.lab.servers.kafka_mock import MockKafka

SERVICE = """
import sys
from contextlib import asynccontextmanager
from fastapi import FastAPI
from testyard.lab.bridge.events import StateTransition
from testyard.lab.bridge.node import open_node, operations, tracing_of
from testyard.lab.bridge.process import run
from testyard.lab.bridge.topics import Route

def create_app(settings, secrets):
    @asynccontextmanager
    async def lifespan(app):
        async with open_node(tracing_of("tiny", settings), settings, secrets) as node:
            app.state.node = node
            yield

    app = FastAPI(lifespan=lifespan)
    app.include_router(operations)

    @app.post("/publish/{number}")
    async def publish(number: int):
        data = {"entity_type": "workflow", "to_state": "PENDING", "transition_event": "new"}
        event = StateTransition(entity_id=str(number), **data)
        await app.state.node.publisher.publish(Route.STATE_TRANSITION, event, partition_key=str(number % 2))

    return app

sys.exit(run("tiny.service", "Does nothing in particular.", create_app))
"""
COMMAND = [sys.executable, "-c", SERVICE]
UNREACHABLE = "postgresql://someone:a-secret-word@127.0.0.1:1/nothing"


def environment(url: str | None, **more: str) -> dict[str, str]:
    given = {"BRIDGE_DATABASE_URL": url} if url else {}
    names = ("PATH", "PYTHONPATH", "HOME", "LANG")
    return {name: os.environ[name] for name in names if name in os.environ} | given | more


def ended(*arguments: str, url: str | None = None) -> subprocess.CompletedProcess[str]:
    """A start that ends at once."""
    return subprocess.run(
        [*COMMAND, *arguments], env=environment(url), capture_output=True, text=True, timeout=60, check=False
    )


def assert_it_says_in_one_line(result: subprocess.CompletedProcess[str], told: str) -> None:
    assert (result.returncode, result.stdout) == (2, "")
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert result.stderr.startswith("tiny.service: ")
    assert told in result.stderr
    assert "a-secret-word" not in result.stderr


@contextmanager
def running(url: str, settings: Path, *arguments: str, **variables: str) -> Iterator[tuple[Any, httpx.Client]]:
    """The service, once it takes requests."""
    command = [*COMMAND, "--settings", str(settings), *arguments]
    with subprocess.Popen(
        command,
        env=environment(url, **variables),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            assert re.fullmatch(r"http://127\.0\.0\.1:\d+", address), process.stderr and process.stderr.read()
            with httpx.Client(base_url=address, timeout=PATIENCE.total_seconds(), trust_env=False) as client:
                yield process, client
        finally:
            process.kill()


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    path = tmp_path / "settings.json"
    path.write_text(Settings(outbox_directory=tmp_path / "outbox", bus=BUS).model_dump_json())
    return path


# ---- what it says


def test_help_tells_every_argument_and_variable():
    result = ended("--help")
    assert (result.returncode, result.stderr) == (0, "")
    told = " ".join(result.stdout.split())
    assert "usage: python -m tiny.service" in told
    assert "Does nothing in particular." in told
    for name in (
        "--settings FILE",
        "--host",
        "--port",
        "--fd",
        "--end-with-stdin",
        "BRIDGE_DATABASE_URL",
        "BRIDGE_SIGNING_KEY",
        "KAFKA_BOOTSTRAP_SERVERS",
    ):
        assert name in told


def test_without_a_database_it_says_which_variable_is_missing():
    assert_it_says_in_one_line(ended(), "BRIDGE_DATABASE_URL is not set")


@pytest.mark.parametrize("url", [UNREACHABLE, "postgresql://[a-secret-word", "a-secret-word"])
def test_a_database_that_is_away_or_none_is_told_without_the_password(url, settings):
    told = "127.0.0.1" if url == UNREACHABLE else "BRIDGE_DATABASE_URL is not the URL of a PostgreSQL database"
    assert_it_says_in_one_line(ended("--settings", str(settings), url=url), told)


def test_settings_that_are_wrong_are_told(tmp_path):
    path = tmp_path / "settings.json"
    path.write_text('{"bus": {"breaker": {"failures": 0}}}')
    assert_it_says_in_one_line(
        ended("--settings", str(path), url=UNREACHABLE), "bus.breaker.failures: Input should"
    )
    path.unlink()
    assert_it_says_in_one_line(ended("--settings", str(path), url=UNREACHABLE), "The settings cannot be read")


def test_a_database_of_a_newer_service_is_told(database_url, settings):
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "CREATE TABLE schema_migrations (version integer, name text, checksum text,"
            " applied_at timestamptz DEFAULT clock_timestamp())"
        )
        connection.execute("INSERT INTO schema_migrations SELECT n, 'later', '' FROM generate_series(1, 999) n")
    assert_it_says_in_one_line(ended("--settings", str(settings), url=database_url), "version 999 (later)")


def test_a_port_that_is_taken_is_named(settings):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = ended("--settings", str(settings), "--port", port, url=UNREACHABLE)
    assert_it_says_in_one_line(result, f"cannot listen on port {port} of 127.0.0.1")


@pytest.mark.parametrize("arguments", [["--port", "many"], ["--sttings", "x"], ["--fd", "x"]])
def test_an_argument_that_is_wrong_is_told_with_the_usage(arguments):
    result = ended(*arguments)
    assert result.returncode == 2
    assert "usage: python -m tiny.service" in result.stderr
    assert arguments[0] in result.stderr
    assert "Traceback" not in result.stderr


# ---- how it runs and ends


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_prints_its_address_answers_and_ends_when_it_is_told_to(database_url, settings, number):
    with running(database_url, settings) as (process, client):
        health = client.get("/health").json()
        assert (health["service"], health["outbox"]) == ("tiny", 0)
        assert set(health["breakers"]) == {"database", "event-bus"}
        process.send_signal(number)
        assert process.wait(PATIENCE.total_seconds()) == 0
        assert process.stderr.read() == ""


def test_it_ends_when_its_parent_does(database_url, settings):
    with running(database_url, settings, "--end-with-stdin") as (process, _):
        process.stdin.close()
        assert process.wait(PATIENCE.total_seconds()) == 0


def test_it_takes_an_inherited_socket(database_url, settings):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        command = [*COMMAND, "--settings", str(settings), "--fd", str(listening.fileno())]
        with subprocess.Popen(
            command,
            env=environment(database_url),
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=[listening.fileno()],
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == f"http://127.0.0.1:{listening.getsockname()[1]}\n"
            process.terminate()
            assert process.wait(PATIENCE.total_seconds()) == 0


def test_what_is_secret_is_in_no_answer(database_url, settings):
    with running(database_url, settings, BRIDGE_SIGNING_KEY="a-key-that-nobody-sees") as (_, client):
        password = psycopg.conninfo.conninfo_to_dict(database_url)["password"]
        for path in ("/health", "/breakers", "/configuration", "/openapi.json"):
            answer = client.get(path)
            assert answer.status_code == 200
            assert "a-key-that-nobody-sees" not in answer.text
            assert str(password) not in answer.text


def test_a_breaker_is_told_and_reset_by_an_operator(database_url, settings):
    with running(database_url, settings) as (_, client):
        assert client.get("/breakers").json()["event-bus"]["configuration"]["successes"] == 3
        assert client.post("/breakers/event-bus/reset").json()["state"] == "closed"
        assert client.post("/breakers/nothing/reset").status_code == 404


@pytest.mark.anyio
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
async def test_what_waits_when_the_process_is_ended_the_next_one_publishes_once(database_url, settings, how):
    with MockKafka() as kafka:
        kafka.create_topic(TOPIC)
        servers = {"KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers}
        kafka.down()
        with running(database_url, settings, **servers) as (process, client):
            for number in range(20):
                assert client.post(f"/publish/{number}").status_code == 200
            health = client.get("/health").json()
            assert (health["status"], health["outbox"]) == ("degraded", 20)
            process.send_signal(how)
            assert process.wait(PATIENCE.total_seconds()) == (0 if how is signal.SIGTERM else -signal.SIGKILL)
        kafka.up()
        with running(database_url, settings, **servers) as (_, client):
            wait_until(
                lambda: client.get("/health").json()["outbox"],
                lambda waiting: waiting == 0,
                Deadline(PATIENCE),
                "nothing to wait in the outbox",
            )
        read = await arrived(kafka)
    assert len(read.records) == 20
    for remainder in range(2):
        records = [json.loads(it.value)["payload"] for it in read.records if it.key == str(remainder)]
        of_key = [it["entity_id"] for it in records]
        assert of_key == [str(number) for number in range(20) if number % 2 == remainder]
