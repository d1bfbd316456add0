"""The files of a project, read once and found quickly.

Source: contract page "event-bus", 3.9.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, Final, NamedTuple

from testyard.core.errors import UserError

MEGABYTE: Final = 1_000_000
SKIPPED: Final = frozenset({".git", "__pycache__", "node_modules"})
"""Directories that are not part of what people have written."""


class TreeError(UserError):
    """A project cannot be read."""


class QueryType(Enum):
    """What a query is compared with."""

    AUTO = "auto"
    EXTENSION = "extension"
    NAME = "name"
    PATH = "path"


class Entry(NamedTuple):
    """One file or directory.

    Args:
        path: From the project's root, with slashes.
        name: Its last part.
        is_directory: Whether it is one.
        size: Bytes; 0 for a directory.
        extension: With its dot, in lower case; empty when it has none.
    """

    path: str
    name: str
    is_directory: bool
    size: int
    extension: str

    def answer(self) -> dict[str, Any]:
        """What the interface tells of it."""
        return {
            "path": self.path,
            "name": self.name,
            "type": "directory" if self.is_directory else "file",
            "size": self.size,
            "extension": self.extension,
        }


class Tree:
    """The files and directories of a project.

    Args:
        root: The project.
        entries: What is in it, in the order of its paths.
        generation_time_ms: How long reading took, in milliseconds.
    """

    def __init__(self, root: Path, entries: Iterable[Entry], generation_time_ms: float) -> None:
        self.root = root
        self.entries = list(entries)
        self.generation_time_ms = generation_time_ms
        self.total_files = sum(not each.is_directory for each in self.entries)
        self.total_directories = len(self.entries) - self.total_files
        self.total_size = sum(each.size for each in self.entries)
        self.extensions = Counter(each.extension for each in self.entries if each.extension)
        self._paths = [f"/{each.path.lower()}" for each in self.entries]
        self._by_extension: dict[str, list[Entry]] = {}
        self._by_name: dict[str, list[Entry]] = {}
        for each in self.entries:
            if each.extension:
                self._by_extension.setdefault(each.extension, []).append(each)
            self._by_name.setdefault(each.name.lower(), []).append(each)

    def find(self, query: str, query_type: QueryType) -> Sequence[Entry]:
        """What matches a query, whatever its case.

        Args:
            query: What is looked for.
            query_type: What it is compared with: an extension has to be that one, a name or a path has to contain
                it. ``AUTO`` takes what begins with a dot for an extension, and what has a slash in it for a path.
        """
        text = query.lower()
        if query_type is QueryType.AUTO:
            query_type = (
                QueryType.EXTENSION if text.startswith(".") else QueryType.PATH if "/" in text else QueryType.NAME
            )
        match query_type:
            case QueryType.EXTENSION:
                return self._by_extension.get(f".{text.removeprefix('.')}", [])
            case QueryType.NAME:
                # Names repeat themselves: there are fewer of them than files.
                names = [name for name in self._by_name if text in name]
                return [each for name in sorted(names, key=len) for each in self._by_name[name]]
            case _:
                return [each for each, path in zip(self.entries, self._paths, strict=True) if text in path]

    def stats(self) -> dict[str, Any]:
        """The project in numbers."""
        return {
            "project_root": str(self.root),
            "total_files": self.total_files,
            "total_directories": self.total_directories,
            "total_size_mb": round(self.total_size / MEGABYTE, 6),
            "generation_time_ms": self.generation_time_ms,
            "file_types": dict(self.extensions.most_common()),
        }


def read_tree(root: Path, largest: int) -> Tree:
    """Read a project. Links are files here: they are not followed.

    Args:
        root: Its directory.
        largest: How many files and directories it may have.

    Raises:
        TreeError: It is not a directory, cannot be read, or is too large.
    """
    began = time.perf_counter()
    if not root.is_dir():
        raise TreeError(f"{root} is not a directory on the machine of this service.")
    entries: list[Entry] = []
    directories = [(str(root), "")]
    while directories:
        directory, path = directories.pop()
        for entry in _read_directory(directory):
            if entry.is_dir(follow_symlinks=False):
                if entry.name in SKIPPED:
                    continue
                directories.append((entry.path, f"{path}{entry.name}/"))
                entries.append(Entry(f"{path}{entry.name}", entry.name, True, 0, ""))
            else:
                stem, _, last = entry.name.rpartition(".")
                extension = f".{last.lower()}" if stem and last else ""
                entries.append(Entry(f"{path}{entry.name}", entry.name, False, _size(entry), extension))
        if len(entries) > largest:
            raise TreeError(f"{root} has more than {largest} files and directories.")
    entries.sort(key=lambda each: each.path)
    return Tree(root, entries, (time.perf_counter() - began) * 1000)


def _read_directory(directory: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as found:
            return list(found)
    except FileNotFoundError:
        return []
    except OSError as problem:
        raise TreeError(f"{directory} cannot be read: {problem.strerror}.") from None


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_size
    except OSError:
        # It went away while the directory was read.
        return 0
