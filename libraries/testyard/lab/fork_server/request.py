"""What the fork server is asked: which module to run in a new process, and with what.

It travels over a stream of the two processes only, as it carries secrets: the number of bytes, then JSON. The
descriptors come with the first of those bytes (``SCM_RIGHTS``).
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Final, Self

_LENGTH: Final = struct.Struct("!I")
_MOST_DESCRIPTORS: Final = 64


@dataclass(frozen=True)
class Request:
    """One process to start.

    Attributes:
        module: Whose ``main`` is run, as ``python -m`` names it.
        arguments: Of its command line.
        environment: Added to the server's.
        numbers: Under which numbers it has the descriptors that it inherits beside its standard streams.
    """

    module: str
    arguments: tuple[str, ...]
    environment: dict[str, str] = field(repr=False)
    numbers: tuple[int, ...]

    def send(self, control: socket.socket, descriptors: Sequence[int]) -> None:
        """Ask for the process.

        Args:
            control: The stream to the server.
            descriptors: Where the process's id and its end are told, its standard input, output and error, and
                one for each of ``numbers``.

        Raises:
            ConnectionError: The server has ended.
        """
        body = json.dumps(asdict(self)).encode()
        socket.send_fds(control, [_LENGTH.pack(len(body))], descriptors)
        control.sendall(body)

    @classmethod
    def receive(cls, control: socket.socket) -> tuple[Self, list[int]] | None:
        """Take the next request and the descriptors that came with it; None when no more will come."""
        length, descriptors, _, _ = socket.recv_fds(control, _LENGTH.size, _MOST_DESCRIPTORS)
        if len(length) < _LENGTH.size:
            return None
        (size,) = _LENGTH.unpack(length)
        body = b""
        while len(body) < size:
            more = control.recv(size - len(body))
            if not more:
                return None
            body += more
        told = json.loads(body)
        return (
            cls(told["module"], tuple(told["arguments"]), told["environment"], tuple(told["numbers"])),
            descriptors,
        )
