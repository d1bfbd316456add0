"""The parts that every handler works with."""

from dataclasses import dataclass

from testyard.lab.waldur.events import Events
from testyard.lab.waldur.faults import Faults
from testyard.lab.waldur.permissions import Permissions
from testyard.lab.waldur.queues import Queues
from testyard.lab.waldur.store import Store


@dataclass(frozen=True, slots=True)
class World:
    """One Waldur instance: its data, the rights on it, its events and queues, and the faults."""

    store: Store
    permissions: Permissions
    events: Events
    queues: Queues
    faults: Faults
