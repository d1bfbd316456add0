"""The command ``python -m testyard.lab.bridge.adapter``."""

from __future__ import annotations

import sys

from testyard.lab.bridge.adapter.app import create_app
from testyard.lab.bridge.process import run


def main() -> int:
    """Run the service; gives the exit status."""
    return run("testyard.lab.bridge.adapter", "Stores every event exactly once.", create_app)


if __name__ == "__main__":
    sys.exit(main())
