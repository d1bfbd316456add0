"""The command ``python -m testyard.lab.bridge.discovery``: the discovery service."""

from __future__ import annotations

import sys

from testyard.lab.bridge.discovery.app import create_app
from testyard.lab.bridge.process import run


def main() -> int:
    """Run the service; gives the exit status: 2 when it cannot start."""
    return run("testyard.lab.bridge.discovery", "The discovery service.", create_app)


if __name__ == "__main__":
    sys.exit(main())
