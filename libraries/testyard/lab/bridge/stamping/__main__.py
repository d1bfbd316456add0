"""The command ``python -m testyard.lab.bridge.stamping``: the metadata stamping service."""

from __future__ import annotations

import sys

from testyard.lab.bridge.process import run
from testyard.lab.bridge.stamping.app import create_app


def main() -> int:
    """Run the service; gives the exit status: 2 when it cannot start."""
    return run("testyard.lab.bridge.stamping", "The metadata stamping service.", create_app)


if __name__ == "__main__":
    sys.exit(main())
