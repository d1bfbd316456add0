"""Processes that leave the processors to whatever else runs on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

BEHIND_OTHERS: Final = 12
"""How nice they are: beside a busy process one gets a fifteenth as much as it does."""


def give_way(processes: Iterable[int]) -> None:
    """Let other processes go before some.

    Args:
        processes: Their ids; whoever has ended meanwhile is passed over.

    Example:
        >>> give_way([os.getpid()])
    """
    for process in processes:
        with suppress(ProcessLookupError):
            os.setpriority(os.PRIO_PROCESS, process, BEHIND_OTHERS)
        # Where the kernel shares the processors out among sessions, only this says how much a session gets.
        with suppress(OSError):
            Path(f"/proc/{process}/autogroup").write_text(str(BEHIND_OTHERS))
