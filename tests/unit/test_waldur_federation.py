"""Driving the agent: until the order has ended, or for so many cycles, and never failing because of its state."""

from collections.abc import Callable
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from testyard.core.deadline import Deadline
from testyard.core.json_client import UnexpectedAnswerError
from testyard.waldur.api import Order, Waldur
from testyard.waldur.approval import ApprovingProvider
from testyard.waldur.federation import Federation
from testyard.waldur.states import OrderState

ORDER = "d629d5e45567425da9cdbdc1af67b32c"
ON_B = "0e7b6dc1a9a14d4c8e0c1f0d2b3a4c5d"
DELAY = timedelta(seconds=3)


class World:
    """An agent whose cycles move one order on A along given states, and everybody around it."""

    def __init__(self, *states: str, backend_id: str = "") -> None:
        self.states = [OrderState(state) for state in states]
        self.backend_id = backend_id
        self.cycles = 0
        self.events: list[str] = []
        self.closed: list[str] = []

    def federation(self) -> Federation:
        return Federation(
            SimpleNamespace(waldur_offering_uuid="offering"),
            "project",
            SimpleNamespace(
                order=self.order, place_order=self.place_order, close=lambda: self.closed.append("source")
            ),
            SimpleNamespace(close=lambda: self.closed.append("target")),
            SimpleNamespace(complete=lambda order: self.events.append(f"complete {order}")),
            SimpleNamespace(run_cycle=self.run_cycle, close=lambda: self.closed.append("agent")),
        )

    def order(self, uuid: str) -> Order:
        assert uuid == ORDER
        state = self.states[min(self.cycles, len(self.states) - 1)]
        return Order(uuid=uuid, state=state, type="Create", backend_id=self.backend_id if self.cycles else "")

    def place_order(self, *arguments: Any) -> tuple[Any, ...]:
        return arguments

    def run_cycle(self) -> list[str]:
        self.cycles += 1
        self.events.append(f"cycle {self.cycles}")
        return [f"call of cycle {self.cycles}"]


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[timedelta]:
    """The pauses that were asked for; nobody really waits."""
    pauses: list[timedelta] = []
    monkeypatch.setattr(Deadline, "pause", lambda _, interval: pauses.append(interval))
    return pauses


@pytest.fixture
def work(pauses: list[timedelta]) -> Callable[..., OrderState]:
    def work(world: World, cycles: int = 5, **options: Any) -> OrderState:
        return world.federation().work_until_ended(ORDER, cycles=cycles, delay=DELAY, **options)

    return work


@pytest.mark.parametrize("end", ["done", "erred", "canceled", "rejected"])
def test_work_stops_when_the_order_has_ended_however(work, pauses, end):
    world = World("pending-consumer", "executing", end, "pending-consumer")
    assert work(world) is OrderState(end)
    assert world.cycles == 2
    assert pauses == [DELAY]


def test_an_order_that_does_not_end_stops_after_so_many_cycles_without_failing(work):
    world = World("pending-provider")
    assert work(world, cycles=3) is OrderState.PENDING_PROVIDER
    assert world.cycles == 3


def test_no_cycles_tell_the_present_state(work):
    world = World("executing")
    assert work(world, cycles=0) is OrderState.EXECUTING
    assert world.events == []


def test_a_pause_follows_each_cycle_but_the_last(work, pauses):
    work(World("executing"), cycles=3)
    assert pauses == [DELAY, DELAY]


def test_b_completes_what_the_agent_has_ordered_there_between_two_cycles(work):
    world = World("pending-provider", "executing", "done", backend_id=ON_B)
    work(world)
    assert world.events == ["cycle 1", f"complete {ON_B}", "cycle 2"]


def test_nothing_is_completed_before_the_agent_has_ordered(work):
    world = World("pending-provider", "executing", "done")
    work(world)
    assert world.events == ["cycle 1", "cycle 2"]


def test_b_completes_nothing_when_told_not_to(work):
    world = World("executing", backend_id=ON_B)
    work(world, cycles=2, approve=False)
    assert world.events == ["cycle 1", "cycle 2"]


def test_each_cycle_is_told_with_its_calls_and_the_state_after_it(work):
    told: list[tuple[Any, ...]] = []
    work(World("pending-provider", "executing", "done"), after_cycle=lambda *story: told.append(story))
    assert told == [
        (1, ["call of cycle 1"], OrderState.EXECUTING),
        (2, ["call of cycle 2"], OrderState.DONE),
    ]


def test_what_the_agent_raises_is_not_hidden(work):
    world = World("executing")
    federation = world.federation()
    federation.agent.run_cycle = lambda: 1 / 0
    with pytest.raises(ZeroDivisionError):
        federation.work_until_ended(ORDER, cycles=3, delay=DELAY)


def test_an_order_on_a_is_for_the_federated_offering_and_project():
    assert World("done").federation().order({"cpu": 1}, "name") == ("offering", "project", {"cpu": 1}, "name")


def test_the_end_closes_everybodys_connections(monkeypatch):
    closed: list[str] = []

    class Transport(httpx.MockTransport):
        def close(self) -> None:
            closed.append("transport")

    real = httpx.Client
    monkeypatch.setattr(
        httpx, "Client", lambda **options: real(transport=Transport(lambda _: httpx.Response(200)), **options)
    )
    source, target, provider = (
        Waldur("http://waldur.example", f"token-of-{who}") for who in ("a", "b", "provider")
    )
    agent = SimpleNamespace(close=lambda: closed.append("agent"))
    Federation(SimpleNamespace(), "", source, target, ApprovingProvider(provider), agent).close()
    assert sorted(closed) == ["agent", "transport", "transport", "transport"]


# ---- B's provider


@pytest.mark.parametrize(
    ("state", "actions"),
    [
        ("pending-provider", ["approve_by_provider", "set_state_done"]),
        ("executing", ["set_state_done"]),
        ("pending-consumer", []),
        ("done", []),
        ("erred", []),
        ("rejected", []),
    ],
)
def test_the_provider_does_what_an_order_still_needs(state, actions):
    done: list[str] = []

    def post(path: str) -> None:
        if path.endswith("/approve_by_provider") and state != "pending-provider":
            raise UnexpectedAnswerError("Valid states for operation: pending-provider.", 409, "")
        done.append(path)

    waldur = SimpleNamespace(
        order=lambda uuid: Order(uuid=uuid, state=OrderState(state), type="Create"), post=post
    )
    ApprovingProvider(waldur).complete(ON_B)
    assert done == [f"marketplace-orders/{ON_B}/{action}" for action in actions]


def test_a_provider_who_may_not_approve_says_so():
    def post(_path: str) -> None:
        raise UnexpectedAnswerError("Waldur B answered 403", 403, "You do not have permission.")

    with pytest.raises(UnexpectedAnswerError, match="403"):
        ApprovingProvider(SimpleNamespace(post=post)).complete(ON_B)
