"""What the library's keywords share."""

from __future__ import annotations

import secrets
from itertools import count

from testyard.core.errors import UserError
from testyard.event_bus.services import EventBus


class Session:
    """The event bus that a run is connected to.

    Attributes:
        mark: In the names of everything that this run makes.
    """

    def __init__(self) -> None:
        self.mark = secrets.token_hex(3)
        self._marks = count(1)
        self._bus: EventBus | None = None

    @property
    def bus(self) -> EventBus:
        """Calls the services.

        Raises:
            UserError: Nobody has connected.
        """
        if self._bus is None:
            message = "There is no connection to an event bus: 'Connect To Event Bus' first."
            raise UserError(message)
        return self._bus

    def next_mark(self) -> str:
        """A mark that nothing else of this run has."""
        return f"{self.mark}-{next(self._marks)}"

    def connect(self, bus: EventBus) -> None:
        """Use another event bus from now on."""
        self.disconnect()
        self._bus = bus

    def disconnect(self) -> None:
        """Close the connections; there may be none."""
        bus, self._bus = self._bus, None
        if bus is not None:
            bus.close()
