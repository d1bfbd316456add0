"""The command ``python -m testyard.lab.cluster.janitor DIRECTORY``: removes the datacentre's files after its end.

A datacentre that is killed removes nothing, and of a machine that is switched off no process is left to do it.
Standard input is a pipe from the datacentre: when it ends, the directory is removed, as soon as the dying nodes
let go of it.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from datetime import timedelta
from pathlib import Path

from testyard.core.deadline import Deadline

WITHIN = timedelta(seconds=20)
PAUSE = timedelta(milliseconds=50)


def main() -> int:
    """Wait for the end, then tidy up; gives the exit status."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    directory = Path(sys.argv[1])
    while os.read(0, 4096):
        pass
    deadline = Deadline(WITHIN)
    while directory.exists() and not deadline.expired:
        shutil.rmtree(directory, ignore_errors=True)
        if directory.exists():
            deadline.pause(PAUSE)
    return int(directory.exists())


if __name__ == "__main__":
    sys.exit(main())
