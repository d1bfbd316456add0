"""The services of the event bus, as people and other services call them."""

from __future__ import annotations

from enum import Enum


class BridgeService(Enum):
    """The services, by the names of their processes."""

    ORCHESTRATOR = "orchestrator"
    REDUCER = "reducer"
    STAMPING = "stamping"
    ONEXTREE = "onextree"
    ADAPTER = "adapter"
    DISCOVERY = "discovery"

    @property
    def module(self) -> str:
        """What is started."""
        return f"testyard.lab.bridge.{self.value}"

    @property
    def registered_name(self) -> str:
        """How other services look for it."""
        return _REGISTERED_NAMES[self]


_REGISTERED_NAMES = {
    BridgeService.ORCHESTRATOR: "orchestrator-service",
    BridgeService.REDUCER: "reducer-service",
    BridgeService.STAMPING: "metadata-stamping-service",
    BridgeService.ONEXTREE: "onextree-service",
    BridgeService.ADAPTER: "database-adapter-service",
    BridgeService.DISCOVERY: "discovery-service",
}
