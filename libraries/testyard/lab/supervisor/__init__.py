"""Starts what a suite asks for, waits until it is ready, stops it, and leaves nothing behind."""

from testyard.lab.children import LabError, listening_socket
from testyard.lab.supervisor.keeper import ClusterKeeper, LabKeeper, PipelineKeeper
from testyard.lab.supervisor.waldurs import Supervisor, WaldurInstance, listen_on

__all__ = [
    "ClusterKeeper",
    "LabError",
    "LabKeeper",
    "PipelineKeeper",
    "Supervisor",
    "WaldurInstance",
    "listen_on",
    "listening_socket",
]
