"""One Waldur instance: its parts put together, without sockets."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from starlette.routing import Router

from testyard.lab.broker import Broker
from testyard.lab.broker.websocket import websocket_routes
from testyard.lab.waldur.app import STOMP_PATH, PublicApplication
from testyard.lab.waldur.control import ControlApplication, Gate
from testyard.lab.waldur.events import Events
from testyard.lab.waldur.faults import Faults
from testyard.lab.waldur.journal import Journal
from testyard.lab.waldur.permissions import Permissions
from testyard.lab.waldur.queues import Queues
from testyard.lab.waldur.rest.table import ENDPOINTS
from testyard.lab.waldur.rest.users import log_in
from testyard.lab.waldur.store import Store
from testyard.lab.waldur.users import add_staff
from testyard.lab.waldur.world import World

SERVER_HEART_BEAT = timedelta(milliseconds=100)


@dataclass(frozen=True, slots=True)
class Handshake:
    """The secrets, from the first line of standard input, never from arguments or environment."""

    staff_token: str = field(repr=False)
    control_token: str = field(repr=False)


class Instance:
    """The data, the broker, the journals and the two applications of one Waldur.

    Args:
        name: E.g. ``A``.
        directory: Where the journals go; it exists.
        handshake: The secrets.
    """

    def __init__(self, name: str, directory: Path, handshake: Handshake) -> None:
        self._name = name
        self._control_token = handshake.control_token
        self.requests = Journal(directory / "requests.jsonl")
        self.events = Journal(directory / "events.jsonl")
        # Small, so that the interval a client asks for is the one agreed, as with RabbitMQ.
        self.broker = Broker(server_heart_beat=SERVER_HEART_BEAT)
        store, faults = Store(), Faults()
        permissions = Permissions(store)
        self.world = World(
            store=store,
            permissions=permissions,
            events=Events(store, permissions, faults, self.events, self.broker),
            queues=Queues(store, faults, self.broker),
            faults=faults,
        )
        self.staff = add_staff(store, handshake.staff_token)
        stomp = Router(routes=websocket_routes(self.broker, STOMP_PATH))
        self.public = PublicApplication(self.world, ENDPOINTS, log_in, self.requests, stomp)

    def control(self, gate: Gate, renew: Callable[[], None]) -> ControlApplication:
        """The control API; ``gate`` opens and closes the public side, ``renew`` replaces the instance."""
        return ControlApplication(
            self.world,
            name=self._name,
            token=self._control_token,
            staff_identifier=self.staff.uuid,
            requests=self.requests,
            events=self.events,
            broker=self.broker,
            gate=gate,
            renew=renew,
        )

    def close(self) -> None:
        """Close the journals."""
        self.requests.close()
        self.events.close()
