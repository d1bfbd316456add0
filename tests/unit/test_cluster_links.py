"""Links between peers: each direction falls silent alone, on every connection of the pair, whoever dialled it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from testyard.core.errors import UserError
from testyard.lab.cluster.addresses import Address, PeerAddresses
from testyard.lab.cluster.links import MANAGER, Links

SOON = 5.0
QUIET = 0.15
NODES = ("n11", "n12", "n13")


class Network:
    """Nodes that a test plays itself, and the links between them."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._listening = {
            (node, service): stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            for node in NODES
            for service in ("database", "agent")
        }
        for each in self._listening.values():
            each.settimeout(SOON)
        real = {
            node: PeerAddresses(self._address(node, "database"), self._address(node, "agent")) for node in NODES
        }
        self.links = stack.enter_context(Links(real))

    def _address(self, node: str, service: str) -> Address:
        return Address(*self._listening[node, service].getsockname())

    def dial(self, source: str, target: str, service: str = "agent") -> socket.socket:
        addresses = self.links.from_peer(source)[target]
        address = addresses.agent if service == "agent" else addresses.database
        return self._stack.enter_context(socket.create_connection((address.host, address.port), SOON))

    def answer(self, target: str, service: str = "agent") -> socket.socket:
        connection, _ = self._listening[target, service].accept()
        connection.settimeout(SOON)
        return self._stack.enter_context(connection)

    def connect(self, source: str, target: str, service: str = "agent") -> tuple[socket.socket, socket.socket]:
        """A connection: the source's end and the target's."""
        return self.dial(source, target, service), self.answer(target, service)

    def hears_of_a_connection(self, target: str) -> bool:
        listening = self._listening[target, "agent"]
        listening.settimeout(QUIET)
        try:
            listening.accept()[0].close()
        except TimeoutError:
            return False
        finally:
            listening.settimeout(SOON)
        return True


@pytest.fixture
def network() -> Iterator[Network]:
    with ExitStack() as stack:
        yield Network(stack)


def passes(sender: socket.socket, receiver: socket.socket) -> bool:
    """Whether a byte that one sends arrives soon; one that does not, stays on its way."""
    sender.sendall(b".")
    receiver.settimeout(QUIET)
    try:
        return receiver.recv(1) == b"."
    except TimeoutError:
        return False
    finally:
        receiver.settimeout(SOON)


def silent_pairs(network: Network) -> set[tuple[str, str]]:
    return {(state.source, state.target) for state in network.links.states() if state.silent}


@pytest.mark.parametrize("service", ["database", "agent"])
def test_every_peer_reaches_every_node_by_a_way_of_its_own(network: Network, service: str) -> None:
    for target in NODES:
        sources = [peer for peer in (*NODES, MANAGER) if peer != target]
        for source in sources:
            here, there = network.connect(source, target, service)
            assert passes(here, there)
            assert passes(there, here)
        ports = {getattr(network.links.from_peer(source)[target], service).port for source in sources}
        assert len(ports) == len(sources)


def test_nobody_dials_itself_and_nobody_dials_the_manager(network: Network) -> None:
    assert set(network.links.from_peer("n11")) == {"n12", "n13"}
    assert set(network.links.from_peer(MANAGER)) == set(NODES)


@pytest.mark.parametrize("service", ["database", "agent"])
def test_one_direction_is_silent_on_connections_of_both_sides(network: Network, service: str) -> None:
    dialled_here, dialled_there = network.connect("n11", "n12", service)
    taken_there, taken_here = network.connect("n12", "n11", service)
    network.links.set_silent("n11", "n12", silent=True)
    assert silent_pairs(network) == {("n11", "n12")}
    assert not passes(dialled_here, dialled_there)
    assert not passes(taken_here, taken_there)
    assert passes(dialled_there, dialled_here)
    assert passes(taken_there, taken_here)
    network.links.set_silent("n11", "n12", silent=False)
    assert silent_pairs(network) == set()
    # What was held back arrives first.
    assert dialled_there.recv(1) == b"."
    assert taken_there.recv(1) == b"."
    assert passes(dialled_here, dialled_there)
    assert passes(taken_here, taken_there)


def test_other_links_are_not_silent(network: Network) -> None:
    network.links.set_silent("n11", "n12", silent=True)
    for source, target in (("n11", "n13"), ("n13", "n12"), ("n12", "n13"), (MANAGER, "n11"), (MANAGER, "n12")):
        here, there = network.connect(source, target)
        assert passes(here, there)
        assert passes(there, here)


@pytest.mark.parametrize(("source", "target"), [("n11", "n12"), ("n12", "n11")])
def test_no_connection_is_made_while_either_direction_is_silent(
    network: Network, source: str, target: str
) -> None:
    network.links.set_silent(source, target, silent=True)
    here = network.dial("n11", "n12")
    assert not network.hears_of_a_connection("n12")
    network.links.set_silent(source, target, silent=False)
    assert passes(here, network.answer("n12"))


def test_the_manager_can_be_cut_off_in_each_direction(network: Network) -> None:
    here, there = network.connect(MANAGER, "n11")
    network.links.set_silent("n11", MANAGER, silent=True)
    assert passes(here, there)
    assert not passes(there, here)
    network.links.set_silent(MANAGER, "n11", silent=True)
    assert silent_pairs(network) == {("n11", MANAGER), (MANAGER, "n11")}
    network.links.set_silent("n11", MANAGER, silent=False)
    assert here.recv(1) == b"."
    assert not passes(here, there)


def test_healing_one_direction_leaves_the_other_silent(network: Network) -> None:
    here, there = network.connect("n11", "n12")
    network.links.set_silent("n11", "n12", silent=True)
    network.links.set_silent("n12", "n11", silent=True)
    network.links.set_silent("n11", "n12", silent=False)
    assert passes(here, there)
    assert not passes(there, here)
    network.links.set_silent("n11", "n12", silent=False)
    assert silent_pairs(network) == {("n12", "n11")}


@pytest.mark.parametrize(
    ("source", "target", "reason"),
    [
        ("n11", "n14", "There is no peer 'n14'; there are n11, n12, n13, manager"),
        ("n10", "n11", "There is no peer 'n10'"),
        ("n11", "n11", "n11 has no link to itself"),
    ],
)
def test_links_that_there_are_not_are_refused(network: Network, source: str, target: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        network.links.set_silent(source, target, silent=True)
    assert silent_pairs(network) == set()


def test_every_direction_is_told(network: Network) -> None:
    states = {(state.source, state.target): state for state in network.links.states()}
    assert len(states) == 12
    assert states["n11", "n12"].addresses == network.links.from_peer("n11")["n12"]
    assert states["n11", MANAGER].addresses is None


def test_links_leave_nothing_behind(network: Network) -> None:
    here, there = network.connect("n11", "n12")
    address = network.links.from_peer("n11")["n12"].agent
    network.links.stop()
    network.links.stop()
    for side in (here, there):
        with pytest.raises(ConnectionResetError):
            side.recv(1)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((address.host, address.port), SOON)
    assert not [thread for thread in threading.enumerate() if "links" in thread.name]
