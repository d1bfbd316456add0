"""One asyncio loop in a thread of its own, for clients that must live on between keywords.

Robot Framework runs its own loop only while a keyword runs: a client there would miss its heartbeats in between.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Generic, TypeVar

from testyard.core.errors import UserError

Result = TypeVar("Result")


class _Waited(Generic[Result]):
    """Work that can be cancelled from when it is handed over: an interrupt may arrive before that has returned."""

    def __init__(self, work: Coroutine[Any, Any, Result]) -> None:
        self._work = work
        self._lock = threading.Lock()
        self._task: asyncio.Task[Any] | None = None
        self._is_cancelled = False

    async def result(self) -> Result:
        """Do it, unless it has been cancelled by then."""
        with self._lock:
            if self._is_cancelled:
                raise asyncio.CancelledError
            self._task = asyncio.current_task()
        return await self._work

    def cancel(self) -> None:
        """Cancel it, in whichever thread it runs; no harm where it has ended."""
        with self._lock:
            self._is_cancelled, task = True, self._task
        if task is None:
            self._work.close()
            return
        with suppress(RuntimeError):  # the loop has ended
            task.get_loop().call_soon_threadsafe(task.cancel)


class LoopThread:
    """A loop that runs from its first use until it is stopped.

    Args:
        name: What the thread is called.

    Example:
        >>> loop = LoopThread("clients")
        >>> loop.run(client.start())
        >>> loop.stop()
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None

    @property
    def is_running(self) -> bool:
        """Whether it has been used and not stopped since."""
        return self._loop is not None

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Do something on the loop and wait for it; what interrupts the wait cancels it.

        Args:
            work: What to do.

        Returns:
            What it returns.
        """
        waited = _Waited(work)
        try:
            return self.spawn(waited.result()).result()
        except BaseException:
            waited.cancel()
            raise

    def spawn(self, work: Coroutine[Any, Any, Result]) -> Future[Result]:
        """Start something on the loop, and do not wait.

        Args:
            work: What to do.
        """
        if threading.current_thread() is self._thread:
            work.close()
            message = f"The loop of {self._name} cannot wait for itself."
            raise UserError(message)
        return asyncio.run_coroutine_threadsafe(work, self._running())

    def stop(self) -> None:
        """Cancel what runs on the loop and end it; safe to call again."""
        with self._lock:
            loop, thread, stopping = self._loop, self._thread, self._stopping
            self._loop = self._thread = self._stopping = None
        if loop is None or thread is None or stopping is None:
            return
        with suppress(RuntimeError):  # it has ended by itself
            loop.call_soon_threadsafe(stopping.set)
        thread.join()

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                started = threading.Event()
                # A daemon: a run that is ended without being closed does not hang.
                self._thread = threading.Thread(target=self._serve, args=(started,), name=self._name, daemon=True)
                self._thread.start()
                started.wait()
            assert self._loop is not None
            return self._loop

    def _serve(self, started: threading.Event) -> None:
        async def until_stopped() -> None:
            stopping = asyncio.Event()
            self._loop, self._stopping = asyncio.get_running_loop(), stopping
            started.set()
            await stopping.wait()

        # The runner cancels, at the end, whatever still runs.
        with asyncio.Runner() as runner:
            runner.run(until_stopped())
