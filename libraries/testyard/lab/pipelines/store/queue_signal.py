"""How workers hear that there may be something to claim."""

from __future__ import annotations

from typing import Final

RUNS_PENDING: Final = "runs_pending"
"""The channel of LISTEN and NOTIFY."""

NOTIFY_RUNS_PENDING: Final = f"NOTIFY {RUNS_PENDING}"
