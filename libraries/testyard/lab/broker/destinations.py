"""The destinations of SEND and SUBSCRIBE frames, named as RabbitMQ names them."""

from __future__ import annotations

from dataclasses import dataclass

from testyard.lab.broker.errors import ProtocolError

CREATING_PREFIX = "/queue/"
EXISTING_PREFIX = "/amq/queue/"


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a SEND goes or a SUBSCRIBE reads from.

    Args:
        queue: The queue's name.
        create: Whether using the destination creates the queue.
    """

    queue: str
    create: bool


def parse_destination(text: str) -> Destination:
    """Read a ``destination`` header: ``/queue/NAME`` creates the queue, ``/amq/queue/NAME`` needs it to exist.

    A slash within the name is written ``%2F``. Topics, exchanges and temporary queues are not offered.

    Raises:
        ProtocolError: It is neither.
    """
    for prefix in (CREATING_PREFIX, EXISTING_PREFIX):
        if text.startswith(prefix):
            name = text.removeprefix(prefix)
            if not name or "/" in name:
                raise ProtocolError("Invalid destination", f"'/{name}' is not a valid queue destination\n")
            return Destination(name.replace("%2F", "/"), create=prefix == CREATING_PREFIX)
    detail = (
        f"'{text}' is not a valid destination.\n"
        f"Valid destination types are: {CREATING_PREFIX}NAME, {EXISTING_PREFIX}NAME.\n"
    )
    raise ProtocolError("Unknown destination", detail)


def destination_of(queue: str) -> str:
    """The ``destination`` header of messages from a queue; always ``/queue/NAME``, as RabbitMQ sends it."""
    return CREATING_PREFIX + queue.replace("/", "%2F")
