"""What the lab's small servers in this process have in common: one asyncio loop in one thread."""

from __future__ import annotations

import socket
from abc import abstractmethod
from contextlib import AbstractAsyncContextManager, ExitStack

from anyio.from_thread import BlockingPortal, start_blocking_portal

from testyard.core.errors import UserError
from testyard.lab.children import listening_socket
from testyard.lab.lifetime import Startable

LOOPBACK = "127.0.0.1"


class NotRunningError(UserError):
    """A server of the lab was asked for something that it can only do between ``start`` and ``stop``."""


class LoopThread(Startable):
    """A server on a loop of its own; ``with`` starts and stops it.

    Args:
        name: What people call it; also the name of its thread.
        shared: A running loop in another thread to serve on, instead of one of its own.
    """

    def __init__(self, name: str, *, shared: BlockingPortal | None = None) -> None:
        self._name = name
        self._shared = shared
        self._stack = ExitStack()
        self._running: BlockingPortal | None = None

    @abstractmethod
    def _serving(self) -> AbstractAsyncContextManager[None]:
        """Serve on the running loop while the context lasts; leave nothing behind."""

    def start(self) -> None:
        """Serve; returns when clients can connect.

        Raises:
            OSError: There is no free port, or a name cannot be resolved; nothing is left running.
        """
        if self._running is not None:
            return
        with ExitStack() as stack:
            portal = self._shared or stack.enter_context(start_blocking_portal(name=self._name))
            stack.enter_context(portal.wrap_async_context_manager(self._serving()))
            self._running = portal
            self._stack = stack.pop_all()

    def stop(self) -> None:
        """End every connection, and the loop and the thread that are its own; safe to call again."""
        self._running = None
        self._stack.close()

    @property
    def _portal(self) -> BlockingPortal:
        if self._running is None:
            message = f"The {self._name} is not running: start it first."
            raise NotRunningError(message)
        return self._running


def loopback_listener(port: int = 0) -> socket.socket:
    """A listening socket on the loopback interface; what it accepts sends without delay.

    Args:
        port: The TCP port; 0 takes a free one.
    """
    listener = listening_socket(LOOPBACK, port)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener
