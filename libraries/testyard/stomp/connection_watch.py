"""What becomes of the connections that a STOMP client makes one after the other, told by the client itself."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import stomp

# stomp.py tells its listeners in the order of their names: before "waldur-listener", which connects again at once.
LISTENER_NAME = "testyard-connection-watch"


class ConnectionWatch(stomp.ConnectionListener):  # type: ignore[misc] # stomp.py has no type hints
    """Counts a client's lost connections, and knows whether something of an earlier one is left.

    Both are gone in milliseconds, so that looking now and then would miss them.

    Args:
        connection: The stomp.py connection; watched from now on.
        is_connected: Whether it is connected; asked whenever the client tells that it has lost a connection.
    """

    def __init__(self, connection: Any, is_connected: Callable[[], bool]) -> None:
        self._transport = connection.transport
        self._is_connected = is_connected
        self._changing = threading.Lock()
        self._losses = 0
        self._receivers: list[threading.Thread] = []
        connection.set_listener(LISTENER_NAME, self)
        self._note_receiver()

    @property
    def losses(self) -> int:
        """How many connections have been lost since the watch began."""
        with self._changing:
            return self._losses

    @property
    def has_leftovers(self) -> bool:
        """Whether the receiver of an earlier connection still runs.

        stomp.py (8.2) leaves it behind when heart-beats were missing. Once the server closes that connection, the
        receiver closes the present one, or swallows what has just arrived over it.
        """
        with self._changing:
            return any(it.is_alive() and it is not self._transport.receiver_thread for it in self._receivers)

    def on_connecting(self, _host_and_port: Any) -> None:
        """Another connection is being made; its receiver runs already."""
        self._note_receiver()

    def on_disconnected(self) -> None:
        """A connection is gone."""
        if not self._is_connected():
            with self._changing:
                self._losses += 1

    def _note_receiver(self) -> None:
        with self._changing:
            self._receivers = [it for it in self._receivers if it.is_alive()]
            if self._transport.receiver_thread is not None:
                self._receivers.append(self._transport.receiver_thread)
