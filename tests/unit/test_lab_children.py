"""What the lab's processes are started with."""

from __future__ import annotations

import socket
from contextlib import ExitStack

from testyard.lab.children import listening_socket

AT_ONCE = 300


def test_many_may_connect_before_the_first_is_taken() -> None:
    with listening_socket("127.0.0.1", 0) as listener, ExitStack() as stack:
        for _ in range(AT_ONCE):
            # One that finds no room is tried again by the system after a second.
            stack.enter_context(socket.create_connection(listener.getsockname(), timeout=0.9))


def test_what_is_taken_is_known_to_be_tcp() -> None:
    with listening_socket("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        taken, _ = listener.accept()
        with taken:
            assert taken.proto == socket.IPPROTO_TCP
