"""What a suite may want of the event bus of the lab."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class GivesWay(Enum):
    """What of an event bus leaves the processors to whatever else runs on this machine."""

    NOTHING = "nothing"
    STORING = "storing"
    """The reducer and the adapter: who waits for an answer is not slowed down by what is stored afterwards."""
    EVERYTHING = "everything"
    """The services and PostgreSQL: so does a load that others should not suffer from."""


@dataclass(frozen=True)
class EventBusOptions:
    """How one event bus differs from another one.

    Attributes:
        with_consul: Whether services find each other by Consul.
        with_traces: Whether the services keep traces, and send them to the lab's collector.
        partitions: Of each topic.
        breakable: Whether the services reach PostgreSQL through a proxy.
        gives_way: What of it leaves the processors to whatever else runs on this machine.
        overrides: Settings of the services that differ from those of the lab, section by section.
    """

    with_consul: bool = False
    with_traces: bool = False
    partitions: int = 3
    breakable: bool = False
    gives_way: GivesWay = GivesWay.NOTHING
    overrides: Mapping[str, Any] = field(default_factory=dict)
