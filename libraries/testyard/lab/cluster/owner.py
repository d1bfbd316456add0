"""Whose end ends the datacentre."""

from __future__ import annotations

import asyncio
import os

from testyard.lab.children import is_alive

# Where the operating system has no pidfd_open (Linux 5.3), its process table is asked this often.
POLL_SECONDS = 0.2
STANDARD_INPUT = 0


class Owner:
    """Somebody who may end, in whatever way.

    Args:
        process: A process id; None is whoever holds the other end of standard input.
    """

    def __init__(self, process: int | None) -> None:
        self._process = process
        self._gone = asyncio.Event()

    async def ended(self) -> None:
        """Wait until the owner has ended."""
        if self._process is None:
            await self._wait_for_the_end_of(STANDARD_INPUT)
            return
        try:
            descriptor = os.pidfd_open(self._process)
        except ProcessLookupError:
            return
        except (AttributeError, OSError):
            await self._poll(self._process)
            return
        try:
            await self._wait_until_readable(descriptor)
        finally:
            os.close(descriptor)

    async def _wait_for_the_end_of(self, stream: int) -> None:
        while True:
            await self._wait_until_readable(stream)
            if not os.read(stream, 4096):
                return

    async def _wait_until_readable(self, descriptor: int) -> None:
        loop = asyncio.get_running_loop()
        self._gone.clear()
        loop.add_reader(descriptor, self._gone.set)
        try:
            await self._gone.wait()
        finally:
            loop.remove_reader(descriptor)

    async def _poll(self, process: int) -> None:
        while is_alive(process):
            try:
                await asyncio.wait_for(self._gone.wait(), POLL_SECONDS)
            except TimeoutError:
                continue
