"""A process of the lab that runs one service of the event bus."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from contextlib import suppress

from testyard.core.json_client import JsonClient
from testyard.lab.children import ChildProcess, wait_for_the_end
from testyard.lab.supervisor.bridge_service import BridgeService

LOOPBACK = "127.0.0.1"


class ServiceProcess:
    """One service's process, which may end and be started again on the same port.

    Attributes:
        port: Where it answers.
        client: Calls it.
        process: The child; None while it is not running.

    Args:
        service: What it runs.
        port: Where it answers.
        process: The child, when it runs already.
    """

    def __init__(self, service: BridgeService, port: int, process: ChildProcess | None = None) -> None:
        self.port = port
        self.client = JsonClient(
            f"http://{LOOPBACK}:{port}", headers={}, secret="", name=f"The {service.value} of the lab"
        )
        self.process = process

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal; nothing when it does not run."""
        if self.process is not None and self.process.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.process.pid, number)


def end_together(services: Sequence[ServiceProcess]) -> None:
    """End some processes at the same time, also those that stand still.

    Args:
        services: Which; one that does not run is passed over.
    """
    for it in services:
        it.signal(signal.SIGCONT)
        if it.process is not None and it.process.stdin:
            it.process.stdin.close()
    for it in services:
        if it.process is not None:
            wait_for_the_end(it.process)
        it.client.close()
