"""How long the deployer waits: the documented durations, unless the environment sets others."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Final, NamedTuple

from testyard.core.errors import UserError

PREFIX: Final = "TESTYARD_DEPLOYER_"
DURATION_FORM: Final = "a number and ms, s, m or h, such as 30s, 15m or 1h"
_UNITS: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
_LONGEST: Final = timedelta(days=7)


class Settings(NamedTuple):
    """The deployer's durations; ``TESTYARD_DEPLOYER_CHECK=2s`` sets ``check``.

    Attributes:
        lock_interval: Between two looks at a lock that another process holds or has left behind; there are five.
        check: What one check of one node may take.
        ready: How long ``start`` waits for ``database_ready``.
        stop: How long ``stop`` waits until no node answers.
        control: What one request to the datacentre may take.
    """

    lock_interval: timedelta = timedelta(seconds=1)
    check: timedelta = timedelta(seconds=10)
    ready: timedelta = timedelta(minutes=15)
    stop: timedelta = timedelta(seconds=600)
    control: timedelta = timedelta(seconds=60)


def read_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings of the environment.

    Raises:
        UserError: A value is no duration.
    """
    names = {name: PREFIX + name.upper() for name in Settings._fields}
    return Settings(
        **{
            name: duration(environment[variable], variable)
            for name, variable in names.items()
            if variable in environment
        }
    )


def duration(text: str, what: str) -> timedelta:
    """A duration such as ``30s``, ``15m`` or ``1h``.

    Args:
        text: What was given.
        what: What it is the value of, for the message.

    Raises:
        UserError: It is none, not longer than nothing, or longer than a week.
    """
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,6})?)(ms|s|m|h)", text)
    if not found:
        message = f"{what}: expected {DURATION_FORM}, got {text!r}"
        raise UserError(message)
    value = timedelta(seconds=float(found[1]) * _UNITS[found[2]])
    if not timedelta() < value <= _LONGEST:
        message = f"{what}: expected more than nothing and at most seven days, got {text!r}"
        raise UserError(message)
    return value
