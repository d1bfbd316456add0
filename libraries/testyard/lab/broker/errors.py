"""What a client did wrong."""

from __future__ import annotations


class ProtocolError(Exception):
    """Answered with an ERROR frame, after which the connection is closed (STOMP 1.2, "ERROR").

    Args:
        summary: A few words for the ``message`` header.
        detail: The same for a person, for the body.
    """

    def __init__(self, summary: str, detail: str) -> None:
        super().__init__(f"{summary}: {detail}")
        self.summary = summary
        self.detail = detail
