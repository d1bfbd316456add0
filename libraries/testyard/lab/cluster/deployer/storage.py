"""Writes files that are there completely or not at all, with the rights that they need."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

OPEN_TO_ALL: Final = 0o644
PRIVATE: Final = 0o600


def write_durably(path: Path, text: str, mode: int = OPEN_TO_ALL) -> None:
    """Replace a file in one step, and return when it is on the disk.

    Args:
        path: The file.
        text: Its content.
        mode: Its permissions; a secret's file never has more, not even while it is written.
    """
    draft = path.with_name(f"{path.name}.{os.getpid()}.draft")
    try:
        with os.fdopen(
            os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, PRIVATE), "w", encoding="utf-8"
        ) as file:
            file.write(text)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
