"""How long a cluster of three nodes with a replicated database takes from nothing to its first query."""

import os
import secrets
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path

from testyard.lab.servers.postgresql import PostgresqlServer

ROUNDS = 5
NODES = 3
DEPLOY = timedelta(seconds=2)
TOKEN_VARIABLE = "TESTYARD_DATACENTRE_TOKEN"


@contextmanager
def datacentre() -> Iterator[Mapping[str, str]]:
    """A datacentre as a lab starts it; gives the environment of its deployers."""
    token = secrets.token_hex(16)
    environment = {**os.environ, TOKEN_VARIABLE: token}
    with subprocess.Popen(
        [sys.executable, "-m", "testyard.lab.cluster.datacentre", "--prepare-database"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield {**environment, "TESTYARD_DATACENTRE": process.stdout.readline().strip()}
        finally:
            process.stdin.close()
            process.wait()


def deployer(environment: Mapping[str, str], verb: str, directory: Path, *options: str) -> float:
    """Call the deployer; the seconds that it took."""
    command = [sys.executable, "-m", "testyard.lab.cluster", verb, "--deployment-dir", str(directory), *options]
    started = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    took = time.perf_counter() - started
    assert done.returncode == 0, done.stderr
    return took


def bare_servers() -> float:
    """The seconds that as many PostgreSQL servers of the lab take, made anew and started at the same time."""
    with ExitStack() as stack:
        servers = [PostgresqlServer(durable=True) for _ in range(NODES)]
        started = time.perf_counter()
        for server in servers:
            stack.callback(server.stop)
            server.begin()
        for server in servers:
            server.start()
        return time.perf_counter() - started


def test_deploy(tmp_path: Path, report: Callable[[str], None]) -> None:
    """The whole command, on a datacentre that has prepared what the first database needs."""
    deploys, bare = [], []
    with datacentre() as environment:
        for number in range(ROUNDS + 1):
            directory = tmp_path / str(number)
            options = ("--cloud-provider", "aws", "--cluster-size", str(NODES))
            deployer(environment, "init", directory, *options)
            deploys.append(deployer(environment, "deploy", directory))
            deployer(environment, "destroy", directory, "--auto-approve")
            bare.append(bare_servers())
    # The first one may have waited for the preparation.
    median = statistics.median(deploys[1:])
    servers = statistics.median(bare)
    report(
        f"deploy of {NODES} nodes with a database: {median:.2f} s (first {deploys[0]:.2f} s); "
        f"{NODES} bare PostgreSQL servers {servers:.2f} s, ratio {median / servers:.1f}"
    )
    assert median <= DEPLOY.total_seconds()
