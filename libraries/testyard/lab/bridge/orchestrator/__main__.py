"""The command ``python -m testyard.lab.bridge.orchestrator``."""

from __future__ import annotations

import sys

from testyard.lab.bridge.orchestrator.app import create_app
from testyard.lab.bridge.process import run


def main() -> int:
    """Run the service; gives the exit status."""
    return run("testyard.lab.bridge.orchestrator", "Runs workflows and tells what they go through.", create_app)


if __name__ == "__main__":
    sys.exit(main())
