"""Between suites the lab is kept, as empty as a new one; what does not live any more is replaced."""

import socket
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from unittest.mock import Mock

import pytest
import websocket
from testyard.core.deadline import Deadline, wait_until
from testyard.core.json_client import UnexpectedAnswerError
from testyard.lab.environment import Environment
from testyard.lab.supervisor import (
    BridgeService,
    EventBusKeeper,
    EventBusOptions,
    GivesWay,
    LabError,
    LabKeeper,
    Route,
    Supervisor,
    WaldurInstance,
    listen_on,
)
from testyard.lab.supervisor.event_bus import EventBusLab
from testyard.waldur.api import Waldur
from testyard.waldur.provisioning import Provisioner

WITHIN = timedelta(seconds=20)


@pytest.fixture
def keeper() -> Iterator[LabKeeper]:
    keeper = LabKeeper()
    yield keeper
    keeper.stop()


def hand_out(keeper: LabKeeper, port: int = 0) -> WaldurInstance:
    """Waldur A of the lab."""
    return keeper.hand_out(port=port, within=WITHIN).instances["A"]


def test_the_next_suite_gets_the_same_processes_with_nothing_in_them(keeper: LabKeeper) -> None:
    first = hand_out(keeper)
    ready = first.control.ready()
    with Waldur(first.url, first.staff_token) as staff:
        provisioner = Provisioner(staff, "first")
        token = provisioner.create_token(provisioner.create_user("somebody"))
        before = len(list(staff.all("users")))
    first.control.shell("set_federated_identity_sync", enabled=True)
    first.control.set_fault("no_stomp")
    keeper.take_back()

    second = hand_out(keeper)
    assert (second.process.pid, second.port) == (first.process.pid, first.port)
    assert second.control.ready()["boot_id"] != ready["boot_id"]
    assert second.control.active_faults() == {}
    assert second.control.journal() == []
    assert second.control.events() == []
    with Waldur(second.url, token) as somebody, pytest.raises(UnexpectedAnswerError, match="401"):
        somebody.get("users/me")
    with Waldur(second.url, second.staff_token) as staff:
        assert len(list(staff.all("users"))) == before - 1 == 1
        with pytest.raises(UnexpectedAnswerError, match=r"Identity Bridge is disabled"):
            Provisioner(staff, "second").push_identity("somebody", "isd:example")


def test_connections_of_the_suite_before_are_cut(keeper: LabKeeper) -> None:
    instance = hand_out(keeper)
    connection = websocket.create_connection(f"ws://{instance.host}:{instance.port}/rmqws-stomp", timeout=5)
    keeper.take_back()
    with pytest.raises((websocket.WebSocketException, ConnectionError)):
        connection.recv()
    connection.close()
    assert hand_out(keeper).control.stomp_connections() == []


def test_a_lab_that_died_is_replaced(keeper: LabKeeper) -> None:
    first = hand_out(keeper)
    first.process.kill()
    first.process.wait()
    keeper.take_back()
    assert hand_out(keeper).process.pid != first.process.pid


def test_a_lab_that_dies_while_it_waits_is_replaced(keeper: LabKeeper) -> None:
    first = hand_out(keeper)
    keeper.take_back()
    first.process.kill()
    first.process.wait()
    assert hand_out(keeper).process.pid != first.process.pid


def test_another_port_is_another_lab(keeper: LabKeeper) -> None:
    first = hand_out(keeper)
    keeper.take_back()
    listeners = listen_on(["127.0.0.1", "127.0.0.2"], 0)
    port = listeners[0].getsockname()[1]
    for listener in listeners:
        listener.close()
    second = hand_out(keeper, port)
    assert (second.port, first.process.poll() is None) == (port, False)


def test_the_end_of_the_run_ends_what_waits(keeper: LabKeeper) -> None:
    first = hand_out(keeper)
    keeper.take_back()
    keeper.stop()
    assert first.process.poll() is not None
    assert keeper.lab is None


def test_the_private_directory_goes_with_the_suite(keeper: LabKeeper) -> None:
    hand_out(keeper)
    directory = keeper.directory
    assert directory == keeper.directory
    assert directory.stat().st_mode & 0o777 == 0o700
    keeper.take_back()
    assert not directory.exists()
    with pytest.raises(LabError, match="The lab is not running"):
        _ = keeper.directory
    hand_out(keeper)
    assert list(keeper.directory.iterdir()) == []


def test_a_lab_that_refuses_to_be_emptied_is_stopped(keeper: LabKeeper, monkeypatch: pytest.MonkeyPatch) -> None:
    def renew(_self: Supervisor) -> None:
        message = "answered 500"
        raise UnexpectedAnswerError(message, 500, "")

    first = hand_out(keeper)
    monkeypatch.setattr(Supervisor, "renew", renew)
    keeper.take_back()
    assert first.process.poll() is not None


def test_a_lab_that_is_interrupted_while_it_is_made_ready_is_stopped_with_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keeper = EventBusKeeper(Environment.EMBEDDED)
    try:
        first = keeper.hand_out(EventBusOptions(), within=WITHIN)
        keeper.take_back()
        monkeypatch.setattr(first, "_start_services", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            keeper.hand_out(EventBusOptions(), within=WITHIN)
    finally:
        keeper.stop()
    assert not first.can_become(EventBusOptions())


def test_an_event_bus_is_emptied_for_the_suite_that_takes_it() -> None:
    keeper = EventBusKeeper(Environment.EMBEDDED)
    try:
        first = keeper.hand_out(EventBusOptions(), within=WITHIN)
        before = first.environment
        first.kill(BridgeService.ONEXTREE)
        keeper.take_back()
        assert keeper.lab is None
        assert keeper.hand_out(EventBusOptions(), within=WITHIN) is first
        assert first.environment != before
        assert first.client_of(BridgeService.ONEXTREE).call("GET", "/health")["status"] == "healthy"
    finally:
        keeper.stop()


def test_an_event_bus_becomes_what_the_next_suite_wants() -> None:
    keeper = EventBusKeeper(Environment.EMBEDDED)
    everything = EventBusOptions(
        with_consul=True, with_traces=True, partitions=2, breakable=True, overrides={"adapter": {"gather": 0.5}}
    )
    try:
        lab = keeper.hand_out(everything, within=WITHIN)
        for wanted in (EventBusOptions(partitions=1), everything):
            keeper.take_back()
            assert keeper.hand_out(wanted, within=WITHIN) is lab
            check(lab, wanted)
    finally:
        keeper.stop()


def test_an_event_bus_that_has_given_way_is_for_nobody_else() -> None:
    keeper = EventBusKeeper(Environment.EMBEDDED)
    gives_way = EventBusOptions(gives_way=GivesWay.EVERYTHING)
    try:
        first = keeper.hand_out(EventBusOptions(), within=WITHIN)
        for wanted in (gives_way, gives_way):
            keeper.take_back()
            assert keeper.hand_out(wanted, within=WITHIN) is first
        keeper.take_back()
        assert keeper.hand_out(EventBusOptions(), within=WITHIN) is not first
        with pytest.raises(LabError, match="not running"):
            first.pid_of(BridgeService.ONEXTREE)
    finally:
        keeper.stop()


def check(lab: EventBusLab, wanted: EventBusOptions) -> None:
    """Look at everything that can be wanted of an event bus, where it shows."""
    settings = lab.settings
    assert (settings["discovery"]["consul"] is not None) == wanted.with_consul
    assert bool(settings["tracing"]) == wanted.with_traces
    assert answers(lab.consul.port) == wanted.with_consul
    assert answers(lab.collector.port) == wanted.with_traces
    assert settings["adapter"]["gather"] == wanted.overrides.get("adapter", {}).get("gather", 0.04)
    wait_until(
        lambda: partitions_read(lab), lambda it: it == wanted.partitions, Deadline(WITHIN), "its partitions"
    )
    if wanted.breakable:
        assert lab.proxy.connections > 0
    else:
        with pytest.raises(LabError, match="breakable=True"):
            _ = lab.proxy


def partitions_read(lab: EventBusLab) -> int:
    """How many partitions of one topic the adapter reads."""
    topic = lab.topic_of(Route.STATE_TRANSITION)
    partitions = lab.client_of(BridgeService.ADAPTER).call("GET", "/metrics")["partitions"]
    return len([name for name in partitions if name.startswith(topic)])


def answers(port: int) -> bool:
    """Whether anything takes connections on a port."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
