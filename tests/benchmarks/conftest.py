"""How benchmarks report what they measured: one line each, after the tests."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import cache

import pytest
from pipelines_support import new_template
from robot_runs import LifecycleRun, run_lifecycles
from testyard.lab.servers.postgresql import PostgresqlServer

FIGURES = pytest.StashKey[list[str]]()
LAST = "last"


def pytest_configure(config: pytest.Config) -> None:
    """Prepare the place for the figures."""
    config.stash[FIGURES] = []
    config.addinivalue_line("markers", f"{LAST}: runs after the other benchmarks")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the benchmarks that are marked so run last."""
    items.sort(key=lambda item: item.get_closest_marker(LAST) is not None)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the figures."""
    if config.stash[FIGURES]:
        terminalreporter.section(f"figures, on {os.cpu_count()} cores")
        for line in config.stash[FIGURES]:
            terminalreporter.write_line(line)


@pytest.fixture
def report(pytestconfig: pytest.Config) -> Callable[[str], None]:
    """Say what was measured, in one line; the machine's load at the time is added."""

    def say(line: str) -> None:
        pytestconfig.stash[FIGURES].append(f"{line} [load {os.getloadavg()[0]:.1f}]")

    return say


@pytest.fixture(scope="session")
def lifecycle_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], LifecycleRun]:
    """Many lifecycles by keywords, after a preparation; each run serves all benchmarks that ask for it."""

    @cache
    def run(preparation: str) -> LifecycleRun:
        return run_lifecycles(preparation, tmp_path_factory.mktemp("lifecycles"))

    return run


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The service's own event loop."""
    return "asyncio"


@pytest.fixture(scope="session")
def durable_server() -> Iterator[PostgresqlServer]:
    """A PostgreSQL of the lab whose commits wait for the disk."""
    with PostgresqlServer(durable=True) as server:
        yield server


@pytest.fixture(scope="session")
def service_template(durable_server: PostgresqlServer) -> str:
    """A database of the pipeline service to copy."""
    return new_template(durable_server)
