"""Files to stamp, made up so that each differs from every other one."""

from __future__ import annotations

import base64
import random
from dataclasses import dataclass

from testyard.core.errors import UserError

LARGEST: int = 1024 * 1024


@dataclass(frozen=True)
class TextFile:
    """One file.

    Attributes:
        path: Its name.
        content: Its content; ASCII, so that it has as many bytes as characters.
    """

    path: str
    content: str


def make_files(count: int, size: int, *, mark: str, seed: int = 0) -> list[TextFile]:
    """Make files of a size; the same mark and seed make the same files.

    Args:
        count: How many.
        size: Of each, in bytes.
        mark: In their names, to tell those of one run from others.
        seed: Of their contents.

    Raises:
        UserError: Fewer than one, or a size that is not from 1 to 1048576.
    """
    if count < 1:
        message = f"There must be at least one file, found count={count}."
        raise UserError(message)
    if not 1 <= size <= LARGEST:
        message = f"A file may have 1 to {LARGEST} bytes, found size={size}."
        raise UserError(message)
    source = random.Random(f"{mark}/{seed}")
    return [
        TextFile(f"{mark}/{number}.txt", base64.b64encode(source.randbytes(size)).decode()[:size])
        for number in range(count)
    ]
