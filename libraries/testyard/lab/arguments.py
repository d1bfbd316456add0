"""What the commands of the lab's services have in common on their command line."""

from __future__ import annotations

import argparse
import os
import sys
from datetime import timedelta
from typing import Final

from testyard.lab.database import DEFAULT_TIMEOUT

_FROM_INPUT: Final = "-"

_LONGEST_SECONDS: Final = 10_000_000


def add_database(parser: argparse.ArgumentParser, variable: str) -> None:
    """Add what every process is told of the database; the environment and standard input hide it from ``ps``.

    Args:
        parser: The command's.
        variable: Names it in the environment.
    """
    parser.add_argument(
        "--database",
        type=_database_url,
        default=os.environ.get(variable),
        required=variable not in os.environ,
        metavar="URL",
        help="PostgreSQL, such as postgresql://host/name, or - for the first line of standard input; without it "
        f"{variable} says it",
    )
    parser.add_argument(
        "--database-timeout",
        type=seconds,
        default=str(DEFAULT_TIMEOUT.total_seconds()),
        metavar="SECONDS",
        help="how long a statement or a connection may take until the database counts as away",
    )


def _database_url(given: str) -> str:
    if given != _FROM_INPUT:
        return given
    line = sys.stdin.readline().strip()
    if not line:
        raise argparse.ArgumentTypeError("standard input has no line with the URL of a PostgreSQL database")
    return line


def positive(text: str) -> int:
    """Read an argument that is a whole number of at least one.

    Raises:
        ValueError: It is not; argparse then names the argument.
    """
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


def seconds(text: str) -> timedelta:
    """Read an argument that is a number of seconds above zero.

    Raises:
        ValueError: It is not; argparse then names the argument.
    """
    value = float(text)
    if not 0 < value < _LONGEST_SECONDS:
        raise ValueError(text)
    return timedelta(seconds=value)
