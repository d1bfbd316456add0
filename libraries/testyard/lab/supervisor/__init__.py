"""Starts what a suite asks for, waits until it is ready, stops it, and leaves nothing behind."""

from testyard.lab.bridge.topics import Route
from testyard.lab.children import LabError, listening_socket
from testyard.lab.supervisor.bridge_service import BridgeService
from testyard.lab.supervisor.event_bus_options import EventBusOptions, GivesWay
from testyard.lab.supervisor.keeper import ClusterKeeper, EventBusKeeper, LabKeeper, PipelineKeeper
from testyard.lab.supervisor.waldurs import Supervisor, WaldurInstance, listen_on

__all__ = [
    "BridgeService",
    "ClusterKeeper",
    "EventBusKeeper",
    "EventBusOptions",
    "GivesWay",
    "LabError",
    "LabKeeper",
    "PipelineKeeper",
    "Route",
    "Supervisor",
    "WaldurInstance",
    "listen_on",
    "listening_socket",
]
