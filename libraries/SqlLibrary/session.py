"""What the library's keywords share."""

from __future__ import annotations

from datetime import timedelta

from testyard.core.settings import ScopedSetting
from testyard.sql.connections import Connections


class Session:
    """The connections of a run, and how long their statements may take.

    Args:
        timeout: How long, unless a suite or a test says otherwise.
    """

    def __init__(self, timeout: timedelta) -> None:
        self.connections = Connections()
        self.timeout = ScopedSetting(timeout)
