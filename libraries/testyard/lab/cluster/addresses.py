"""Where the parts of a cluster find each other."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Address:
    """A TCP address.

    Args:
        host: Address of the loopback interface.
        port: TCP port.
    """

    host: str
    port: int


@dataclass(frozen=True)
class PeerAddresses:
    """Where one member reaches another: the ends of the links between the two.

    Args:
        database: Of the other's PostgreSQL.
        agent: Of the other's database agent.
    """

    database: Address
    agent: Address
