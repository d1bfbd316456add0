"""What a member must not forget, whatever happens to its node."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from testyard.lab.cluster.database.lineage import ORIGIN, Lineage

FILE = "member.json"


class Memory(BaseModel):
    """A member's own knowledge, beside its database.

    Args:
        term: The highest term that it knows; it does nothing for a lower one.
        lineage: The promotions that its WAL has, or is to have, something of.
        incomplete: Whether its data were being replaced, so that they are good for nothing until that is repeated.
    """

    model_config = ConfigDict(frozen=True)

    term: int = 0
    lineage: Lineage = ORIGIN
    incomplete: bool = False


def recall(directory: Path) -> Memory:
    """What the member in a directory knows; of a new one, that there was no promotion yet."""
    path = directory / FILE
    return Memory.model_validate_json(path.read_bytes()) if path.exists() else Memory()


def remember(directory: Path, memory: Memory) -> None:
    """Put it on the disk; it is there when this returns."""
    draft = directory / f"{FILE}.draft"
    with draft.open("w", encoding="utf-8") as file:
        file.write(memory.model_dump_json())
        file.flush()
        os.fsync(file.fileno())
    draft.rename(directory / FILE)
    parent = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)
