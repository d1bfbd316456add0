"""Fixtures of the unit tests."""

import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from double_support import Double, Market, running_double
from pipelines_support import World, empty, new_template, open_world, private_database
from postgresql_support import private_schema
from testyard.lab.servers.postgresql import PostgresqlServer
from workflow_command_support import Desk


@pytest.fixture
def double(tmp_path: Path) -> Iterator[Double]:
    """A Waldur double in this process."""
    with running_double(tmp_path) as double:
        yield double


@pytest.fixture
def market(double: Double) -> Market:
    """A double with a provider, an active offering, and an organisation that may order it."""
    return Market(double)


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PostgresqlServer]:
    """A PostgreSQL for all tests; durable it need not be."""
    with PostgresqlServer(durable=False) as server:
        yield server


@pytest.fixture
def database_url(postgresql_server: PostgresqlServer) -> Iterator[str]:
    """A database with nothing in it yet."""
    with private_schema(postgresql_server) as url:
        yield url


@pytest.fixture(scope="session")
def pipelines_template(postgresql_server: PostgresqlServer) -> str:
    """The name of a database of the pipeline service, to copy."""
    return new_template(postgresql_server)


@pytest.fixture(scope="session")
def pipelines_shared_url(postgresql_server: PostgresqlServer, pipelines_template: str) -> Iterator[str]:
    """A database of the pipeline service that one test after the other uses."""
    with private_database(postgresql_server, pipelines_template) as url:
        yield url


@pytest.fixture
def pipelines_url(pipelines_shared_url: str) -> str:
    """A database of the pipeline service with nobody in it."""
    empty(pipelines_shared_url)
    return pipelines_shared_url


@pytest.fixture
def anyio_backend() -> str:
    """The loop of asynchronous tests."""
    return "asyncio"


@pytest.fixture
async def world(pipelines_url: str) -> AsyncIterator[World]:
    """The pipeline service's store; after the test its counters must be right."""
    async with open_world(pipelines_url) as world:
        yield world


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Desk]:
    """A directory with nothing in it."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield Desk(tmp_path, monkeypatch, capfd)
    for number, handler in before.items():
        signal.signal(number, handler)
