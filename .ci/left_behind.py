"""Fails when a process or temporary directory of testyard is still there."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import psutil


def main() -> int:
    """List what is left; returns the exit status."""
    left = [str(path) for path in Path(tempfile.gettempdir()).glob("testyard-*")]
    for process in psutil.process_iter(["cmdline", "status"]):
        command = " ".join(process.info["cmdline"] or [])
        if "testyard.lab." in command and process.info["status"] != psutil.STATUS_ZOMBIE:
            left.append(f"process {process.pid}: {command}")
    for item in left:
        print(f"left behind: {item}", file=sys.stderr)
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
