"""Runs the agent's own console command so that it ends with the process that started it.

``python -m testyard.waldur.daemon_launcher -m MODE -c FILE`` does what ``waldur_site_agent -m MODE -c FILE`` does.
Standard input is one end of a pipe: when it closes, because whoever started this has ended in whatever way, this
ends at once. The agent is as it is, but for its liveness file, which goes nowhere, and the time its client's
models are loaded.
"""

from __future__ import annotations

import os
import sys
import threading
from importlib.metadata import entry_points

from testyard.waldur.liveness import liveness_file
from testyard.waldur.models_on_demand import load_models_on_demand

COMMAND = "waldur_site_agent"
ORPHANED = 70


def end_with_parent(descriptor: int) -> None:
    """End this process, without grace, as soon as the pipe's other end is closed."""
    while os.read(descriptor, 4096):
        pass
    os._exit(ORPHANED)


def main() -> object:
    """Run the console command with this process's arguments; gives what it returns."""
    watch = threading.Thread(target=end_with_parent, args=(sys.stdin.fileno(),), name="parent watch", daemon=True)
    watch.start()
    load_models_on_demand()
    (command,) = entry_points(group="console_scripts", name=COMMAND)
    sys.argv[0] = COMMAND
    run = command.load()
    with liveness_file(os.devnull):
        return run()


if __name__ == "__main__":
    sys.exit(main())  # type: ignore[arg-type] # as the installed script does
