"""What the services' commands have in common: their command line, and how they run and end."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Final

from fastapi import FastAPI

from testyard.core.errors import UserError
from testyard.core.redact import mask_log_records
from testyard.lab.bridge.settings import (
    BOOTSTRAP_VARIABLE,
    DATABASE_VARIABLE,
    SIGNING_KEY_VARIABLE,
    Secrets,
    Settings,
    read_secrets,
    read_settings,
)
from testyard.lab.database import DatabaseUnavailableError
from testyard.lab.serving import listen, serve

TALKATIVE: Final = ("aiokafka", "psycopg.pool")
"""What tells of every attempt to reach what is away, many times a second."""

QUIET_AFTER: Final = timedelta(seconds=10)
"""So long nothing is to be told until an outage counts as over."""

COLLECTED_AFTER: Final = (50_000, 20, 20)
"""Almost everything that a request makes is freed by reference counting. With ten thousand workflows in flight,
looking for cycles as often as Python does on its own took a third of the orchestrator's computing."""


class OneLinePerOutage(logging.Filter):
    """Lets the first line through that a talkative library logs, and no other one until it has been quiet.

    The services tell in their own words what is away, and when it is back.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._told_at: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a line is logged."""
        library = next((it for it in TALKATIVE if f"{record.name}.".startswith(f"{it}.")), None)
        if library is None:
            return True
        now, before = self._clock(), self._told_at.get(library)
        self._told_at[library] = now
        return before is None or now - before >= QUIET_AFTER.total_seconds()


def run(program: str, description: str, create_app: Callable[[Settings, Secrets], FastAPI]) -> int:
    """Run one service until it is told to end.

    Args:
        program: The module, as ``python -m`` names it.
        description: What the service does, for people.
        create_app: Makes the application; its lifespan starts and ends all that it needs.

    Returns:
        The exit status: 2 when it cannot start.
    """
    secrets = (
        f"The environment holds its secrets: {DATABASE_VARIABLE}, and {SIGNING_KEY_VARIABLE} when envelopes are "
        "to be signed;"
    )
    return run_without_secrets(
        program, f"{description} {secrets}", lambda settings: create_app(settings, read_secrets())
    )


def run_without_secrets(program: str, description: str, create_app: Callable[[Settings], FastAPI]) -> int:
    """Run one service that has neither tables nor events; arguments and result as of ``run``."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {program}",
        description=f"{description} {BOOTSTRAP_VARIABLE} wins over the settings. When it takes requests it prints "
        "its address.",
    )
    parser.add_argument("--settings", type=Path, metavar="FILE", help="JSON; without it the defaults hold")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0: a free one")
    parser.add_argument("--fd", type=int, help="inherited listening socket, instead of host and port")
    parser.add_argument("--end-with-stdin", action="store_true", help="end when standard input ends")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format=f"{program}: %(message)s")
    for handler in logging.getLogger().handlers:
        handler.addFilter(OneLinePerOutage())
    mask_log_records()
    try:
        application = create_app(read_settings(arguments.settings))
        listening = listen(arguments.host, arguments.port, arguments.fd)
        # What is there now stays: looking through it again and again is a tenth of what a request costs.
        gc.freeze()
        gc.set_threshold(*COLLECTED_AFTER)
        # Not uvloop: its transports raise when something is written to them after they were closed, which
        # aiokafka does when a broker goes away.
        asyncio.run(serve(application, listening, end_with_stdin=arguments.end_with_stdin))
    except (UserError, DatabaseUnavailableError, OSError) as error:
        sys.stderr.write(f"{program}: {' '.join(str(error).split())}\n")
        return 2
    return 0
