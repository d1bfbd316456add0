"""The network of a deployment: between any two peers a link, whose directions can be silent one by one.

Peers are the nodes and the database's manager. Each peer dials another's database and agent through proxies of its
own, so that a link is what the one has dialled and what the other has. What is sent in a silent direction is held
back, as TCP sends again what gets no answer, and arrives after the direction is healed; a connection cannot be
made while either direction is silent, as a handshake needs both. Clients from outside do not pass through links.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import permutations
from typing import TypeAlias

from anyio.from_thread import start_blocking_portal

from testyard.core.errors import UserError
from testyard.lab.cluster.addresses import Address, PeerAddresses
from testyard.lab.lifetime import Startable
from testyard.lab.servers.fault_proxy import Direction, FaultProxy

MANAGER = "manager"

Pair: TypeAlias = tuple[str, str]


@dataclass(frozen=True)
class LinkState:
    """One direction between two peers.

    Args:
        source: Who sends.
        target: Who receives.
        silent: Whether nothing arrives now.
        addresses: Where the sender dials the target; None when the target is the manager, whom nobody dials.
    """

    source: str
    target: str
    silent: bool
    addresses: PeerAddresses | None


class Links(Startable):
    """The proxies between all peers, on one thread.

    Args:
        nodes: Where each node's database and agent really are.
    """

    def __init__(self, nodes: Mapping[str, PeerAddresses]) -> None:
        self._nodes = dict(nodes)
        self._peers = (*self._nodes, MANAGER)
        self._proxies: dict[Pair, tuple[FaultProxy, FaultProxy]] = {}
        self._silent: set[Pair] = set()
        self._stack = ExitStack()

    def start(self) -> None:
        """Begin to pass on; nothing when it has."""
        if self._proxies:
            return
        with ExitStack() as stack:
            portal = stack.enter_context(start_blocking_portal(name="links of a deployment"))
            for source, target in permutations(self._peers, 2):
                if target == MANAGER:
                    continue
                real = self._nodes[target]
                self._proxies[source, target] = (
                    stack.enter_context(FaultProxy(real.database.host, real.database.port, shared=portal)),
                    stack.enter_context(FaultProxy(real.agent.host, real.agent.port, shared=portal)),
                )
            self._stack = stack.pop_all()

    def stop(self) -> None:
        """Cut every connection and give the ports back; safe to call again."""
        self._stack.close()
        self._proxies.clear()
        self._silent.clear()

    def from_peer(self, source: str) -> dict[str, PeerAddresses]:
        """Where one peer dials each of the nodes, itself not among them."""
        return {
            target: PeerAddresses(_address(database), _address(agent))
            for (dialler, target), (database, agent) in self._proxies.items()
            if dialler == source
        }

    def set_silent(self, source: str, target: str, *, silent: bool) -> None:
        """Let nothing arrive that one peer sends to another, or heal that; the way back stays as it is.

        Args:
            source: Who sends: a node or ``manager``.
            target: Who would receive.
            silent: Whether nothing arrives.

        Raises:
            UserError: One of them is no peer, or they are the same.
        """
        for peer in (source, target):
            if peer not in self._peers:
                message = f"There is no peer {peer!r}; there are {', '.join(self._peers)}."
                raise UserError(message)
        if source == target:
            message = f"{source} has no link to itself."
            raise UserError(message)
        (self._silent.add if silent else self._silent.discard)((source, target))
        dialled = [(proxy, Direction.TO_TARGET) for proxy in self._proxies.get((source, target), ())]
        taken = [(proxy, Direction.TO_CLIENT) for proxy in self._proxies.get((target, source), ())]
        for proxy, direction in dialled + taken:
            (proxy.silence if silent else proxy.speak)(direction)

    def states(self) -> list[LinkState]:
        """Every direction of every link."""
        addresses = {source: self.from_peer(source) for source in self._peers}
        return [
            LinkState(source, target, (source, target) in self._silent, addresses[source].get(target))
            for source, target in permutations(self._peers, 2)
        ]


def _address(proxy: FaultProxy) -> Address:
    return Address(proxy.host, proxy.port)
