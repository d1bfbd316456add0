"""``python -m testyard.lab.cluster.operator DIRECTORY NODE...``: the person who starts machines by hand.

Where a provider's machines are started at its own interface, tests of the lab let this command do it: it powers
the named nodes of a deployment on, and ends when they answer.
"""

from __future__ import annotations

import argparse
import sys
from datetime import timedelta
from pathlib import Path

from testyard.core.errors import UserError
from testyard.lab.cluster.deployer.datacentre_process import remembered
from testyard.lab.cluster.deployer.state_file import read_state

PATIENCE = timedelta(seconds=60)


def main(arguments: list[str] | None = None) -> int:
    """Power nodes on; gives the exit status.

    Args:
        arguments: Instead of the process's own.
    """
    parser = argparse.ArgumentParser(prog="python -m testyard.lab.cluster.operator")
    parser.add_argument("directory", type=Path, help="the deployment's directory")
    parser.add_argument("nodes", nargs="+", metavar="NODE", help="a node's name")
    options = parser.parse_args(arguments)
    try:
        datacentre = remembered(options.directory)
        if datacentre is None:
            message = f"{options.directory} names no datacentre: nothing is deployed there"
            raise UserError(message)
        deployment = read_state(options.directory).deployment_id
        paths = [f"/deployments/{deployment}/nodes/{node}/boot" for node in options.nodes]
        datacentre.control(PATIENCE).call_all("POST", paths)
    except UserError as problem:
        sys.stderr.write(f"operator: {problem}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
