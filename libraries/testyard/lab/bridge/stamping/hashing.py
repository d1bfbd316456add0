"""BLAKE3 of contents: small ones at once, large ones in threads, so that the loop goes on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import BinaryIO, Final, NamedTuple, Self, TypeVar

from blake3 import blake3

Content = TypeVar("Content", bytes, BinaryIO)

LARGE: Final = 1024 * 1024
"""Bytes from which on a content is hashed in a thread: below, that would take longer than the hash itself."""
PIECE: Final = 1024 * 1024
"""Bytes of a file that are read at a time."""


class Hashed(NamedTuple):
    """A hash, and how long it took.

    Args:
        digest: 64 hexadecimal digits.
        nanoseconds: How long hashing took, without any wait for a thread.
        size: Bytes.
    """

    digest: str
    nanoseconds: int
    size: int

    @property
    def milliseconds(self) -> float:
        """How long hashing took."""
        return self.nanoseconds / 1e6


def hash_bytes(content: bytes) -> Hashed:
    """Hash what is in memory."""
    began = time.perf_counter_ns()
    digest = blake3(content).hexdigest()
    return Hashed(digest, time.perf_counter_ns() - began, len(content))


def hash_file(file: BinaryIO) -> Hashed:
    """Hash a file from its beginning; reading it counts."""
    began = time.perf_counter_ns()
    hasher = blake3()
    size = 0
    file.seek(0)
    while piece := file.read(PIECE):
        hasher.update(piece)
        size += len(piece)
    return Hashed(hasher.hexdigest(), time.perf_counter_ns() - began, size)


class Hasher:
    """Hashes beside the loop what is large.

    Args:
        threads: How many large contents are hashed at a time.
    """

    def __init__(self, threads: int) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="hash")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._threads.shutdown()

    async def of_bytes(self, content: bytes) -> Hashed:
        """Hash what is in memory."""
        return hash_bytes(content) if len(content) < LARGE else await self._in_thread(hash_bytes, content)

    async def of_file(self, file: BinaryIO, size: int) -> Hashed:
        """Hash a file.

        Args:
            file: From its beginning, wherever it stands now.
            size: Bytes.
        """
        if size >= LARGE:
            return await self._in_thread(hash_file, file)
        file.seek(0)
        return hash_bytes(file.read())

    async def _in_thread(self, work: Callable[[Content], Hashed], content: Content) -> Hashed:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, content)
