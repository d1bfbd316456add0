"""The command ``python -m testyard.lab.bridge.reducer``."""

from __future__ import annotations

import sys

from testyard.lab.bridge.process import run
from testyard.lab.bridge.reducer.app import create_app


def main() -> int:
    """Run the service; gives the exit status."""
    return run("testyard.lab.bridge.reducer", "Makes rows and totals of the events of workflows.", create_app)


if __name__ == "__main__":
    sys.exit(main())
