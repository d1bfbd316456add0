"""The command ``python -m testyard.lab.bridge.onextree``: the OnexTree service."""

from __future__ import annotations

import sys

from testyard.lab.bridge.onextree.app import create_app
from testyard.lab.bridge.process import run_without_secrets


def main() -> int:
    """Run the service; gives the exit status: 2 when it cannot start."""
    return run_without_secrets("testyard.lab.bridge.onextree", "The OnexTree service.", create_app)


if __name__ == "__main__":
    sys.exit(main())
