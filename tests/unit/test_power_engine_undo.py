"""What the power engine has taken down it brings back: last first, also when it was interrupted."""

from collections.abc import Collection
from concurrent.futures import Future, wait
from datetime import timedelta
from pathlib import Path

import pytest
from power_support import DEPLOYMENT, NODES, SHORT, Look, World
from testyard.core.deadline import Deadline, wait_until
from testyard.core.errors import NotMetError, UserError
from testyard.power.engine import PowerControl
from testyard.power.protocol import Instance, PowerState, ProviderName
from testyard.power.transitions import CrashMethod


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Three machines at AWS."""
    return World(tmp_path)


@pytest.fixture
def manual(tmp_path: Path) -> World:
    """Three machines at Hetzner, whose API cannot be asked."""
    return World(tmp_path, ProviderName.HETZNER, asks_api=False)


def test_faults_are_undone_last_first(world: World) -> None:
    power = world.control()
    power.stop_node("n12")
    power.crash_node("n11", CrashMethod.DESTROY)
    outcomes = power.undo_all()
    assert [it.name for it in outcomes] == [
        f"n11 of {DEPLOYMENT} after crash_node destroy",
        f"n12 of {DEPLOYMENT} after stop_node",
    ]
    assert all(it.ended for it in outcomes)
    assert world.done[-2:] == ["api start n11", "api start n12"]
    assert world.journal.pending() == []


def test_a_with_statement_undoes_what_is_on(world: World) -> None:
    def interrupted(power: PowerControl) -> None:
        with power:
            power.stop_node("n12")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted(world.control())
    assert world.done == ["register n12", "api stop n12", "api start n12", "close"]


def test_what_is_started_again_needs_no_undo(world: World) -> None:
    power = world.control()
    power.stop_cluster()
    assert len(world.journal.pending()) == 3
    power.start_node("n12")
    assert {entry.node for entry in world.journal.pending()} == {"n11", "n13"}
    power.start_cluster()
    assert world.journal.pending() == []
    assert power.undo_all() == []


def test_a_fault_whose_end_was_not_seen_is_still_to_be_undone(world: World) -> None:
    world.machines["n12"].ignores = True
    power = world.control()
    with pytest.raises(NotMetError):
        power.stop_node("n12")
    assert [entry.node for entry in world.journal.pending()] == ["n12"]


def test_an_undo_waits_for_what_has_not_acted_yet(world: World) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    power = world.control()
    machine = world.machines["n12"]
    world.provider.stop = interrupted
    with pytest.raises(KeyboardInterrupt):
        power.stop_node("n12")
    # The provider took the call, and takes its time.
    machine.script(
        Look(PowerState.RUNNING, "n12-boot-1"), Look(PowerState.STOPPING, None), Look(PowerState.STOPPED, None)
    )
    (outcome,) = power.undo_all()
    assert outcome.ended
    assert world.done[-1] == "api start n12"


def test_an_undo_at_a_manual_provider_is_the_operators(manual: World) -> None:
    power = manual.control()
    power.stop_cluster()
    registered = [(entry.node,) for entry in manual.journal.pending()]
    assert all(it.ended for it in power.undo_all())
    assert [instruction.nodes for instruction in manual.told] == registered[::-1]


def test_an_undo_that_only_an_operator_can_do_says_how(manual: World) -> None:
    power = manual.control()
    power.stop_cluster()
    alone = PowerControl(power.deployment, deadlines=power.deadlines, environment={}, shell=manual.shell)
    outcomes = alone.undo_all()
    assert [it.ended for it in outcomes] == [False] * 3
    assert all("hcloud server poweron i-n1" in it.outcome for it in outcomes)
    assert len(manual.journal.pending()) == 3


def test_a_with_statement_fails_when_something_is_left(manual: World) -> None:
    control = manual.control()
    power = PowerControl(control.deployment, deadlines=SHORT, environment={}, shell=manual.shell)
    with pytest.raises(UserError, match=rf"Not undone: n1. of {DEPLOYMENT} after stop_cluster: It is down"), power:
        power.stop_cluster()


def test_a_deployment_that_is_destroyed_has_nothing_to_undo(world: World) -> None:
    power = world.control()
    power.stop_node("n12")
    state = world.directory / ".exasol.json"
    state.write_text(state.read_text().replace("database_ready", "destroyed"), encoding="utf-8")
    (outcome,) = power.undo_all()
    assert (outcome.outcome, outcome.ended) == ("the deployment has been destroyed", True)


def test_a_deployment_that_is_gone_has_nothing_to_undo(world: World) -> None:
    power = world.control()
    power.stop_node("n12")
    (world.directory / ".exasol.json").unlink()
    (outcome,) = power.undo_all()
    assert (outcome.outcome, outcome.ended) == ("the deployment is gone", True)


def test_an_interrupted_cluster_stop_gives_up_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C comes to the main thread only: the others must not wait their ten minutes out."""

    def stop(instance: Instance) -> None:
        world.events.append(f"api stop {instance.node}")

    world.provider.stop = stop
    power = world.control(stop=20)
    waits: list[object] = []

    def interrupted_wait(futures: Collection[Future[object]]) -> None:
        waits.append(futures)
        if len(waits) == 1:
            wait(futures)
            return
        both = Deadline(timedelta(seconds=10))
        wait_until(
            lambda: sum(it.startswith("api stop") for it in world.events), lambda it: it == 3, both, "stops"
        )
        raise KeyboardInterrupt

    monkeypatch.setattr("testyard.power.together.wait", interrupted_wait)
    begun = Deadline(timedelta(seconds=10))
    with pytest.raises(KeyboardInterrupt):
        power.stop_cluster()
    assert not begun.expired
    assert {entry.node for entry in world.journal.pending()} == set(NODES)
