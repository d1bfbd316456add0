"""Fails when a process or temporary directory of testyard is still there."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import psutil


def main() -> int:
    """List what is left; returns the exit status."""
    # PostgreSQL's directory is elsewhere when the account it runs under cannot reach the temporary directory.
    places = {Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp")}
    left = [str(path) for place in places for path in place.glob("testyard-*")]
    for process in psutil.process_iter(["cmdline", "status"]):
        command = " ".join(process.info["cmdline"] or [])
        ours = "testyard.lab." in command or command.startswith("postgres: testyard") or "/testyard-" in command
        if ours and process.info["status"] != psutil.STATUS_ZOMBIE:
            left.append(f"process {process.pid}: {command}")
    for item in left:
        print(f"left behind: {item}", file=sys.stderr)
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
