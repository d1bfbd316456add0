"""The command ``python -m testyard.lab.cluster.deployer.measuring``: measures the nodes of one deployment.

It takes a line of JSON on standard input, ``{"directory", "database", "within"}``, and answers with the
measurement of each node by its name. The datacentre's fork server runs it for the deployer, as importing what
measures takes longer than to measure.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from testyard.lab.cluster.deployer.files import read_login, read_nodes
from testyard.lab.cluster.deployer.health import HostMeasurement
from testyard.lab.cluster.deployer.nodes import Nodes


def measure(directory: Path, *, database: bool, within: timedelta) -> dict[str, HostMeasurement]:
    """Look at every node of a deployment.

    Args:
        directory: The deployment's.
        database: Whether the nodes should have one.
        within: What one check of one node may take.

    Raises:
        UserError: The directory's files do not say where the nodes are, and how to reach them.
    """
    login = read_login(directory) if database else None
    return asyncio.run(Nodes(directory, read_nodes(directory), login, within).measure())


def main() -> int:
    """Answer one question; gives the exit status."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asked: Mapping[str, Any] = json.loads(sys.stdin.readline())
    hosts = measure(
        Path(asked["directory"]), database=asked["database"], within=timedelta(seconds=asked["within"])
    )
    json.dump({name: host._asdict() for name, host in hosts.items()}, sys.stdout)
    sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
