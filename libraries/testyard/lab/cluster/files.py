"""A node's own directory of files: what was written and not synced is lost with the power."""

from __future__ import annotations

import os
import re
from pathlib import Path

FILE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}")


class NodeFiles:
    """The files that a node's shell reads and writes.

    A write is kept in this process's memory, as a kernel keeps it in its page cache, until ``sync``: whatever ends
    the process before, loses it. Only plain names are known, so that nothing outside the directory can be reached.

    Args:
        directory: The node's disk; made when it is missing.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._unsynced: dict[str, str] = {}

    def read(self, name: str) -> str:
        """The text of a file.

        Raises:
            PermissionError: The name is not a plain one.
            FileNotFoundError: There is no such file.
        """
        path = self._path(name)
        return self._unsynced[name] if name in self._unsynced else path.read_text(encoding="utf-8")

    def write(self, name: str, text: str) -> None:
        """Make the text the whole of a file.

        Raises:
            PermissionError: The name is not a plain one.
        """
        self._path(name)
        self._unsynced[name] = text

    def names(self) -> list[str]:
        """The names of the files, in order."""
        return sorted({*self._unsynced, *(path.name for path in self._directory.iterdir())})

    def sync(self) -> None:
        """Put on the disk what was written."""
        for name, text in self._unsynced.items():
            with self._path(name).open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        self._unsynced.clear()

    def _path(self, name: str) -> Path:
        path = self._directory / name
        if not FILE_NAME.fullmatch(name) or path.is_symlink():
            raise PermissionError(name)
        return path
