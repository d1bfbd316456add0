"""The power engine does every row in the same order, and believes nothing that it has not seen."""

from collections.abc import Callable
from pathlib import Path

import pytest
from power_support import CONTROLLER, DEPLOYMENT, NODES, Look, World
from testyard.core.errors import NotMetError, UserError
from testyard.power.engine import PowerControl
from testyard.power.planning import Instruction
from testyard.power.problems import (
    DeploymentError,
    ProtectedMachineError,
    UnknownNodeError,
    UnsupportedOperationError,
    WrongStateError,
)
from testyard.power.protocol import Instance, PowerState, ProviderName
from testyard.power.results import Outcome
from testyard.power.shell import Reach, SshAnswer
from testyard.power.transitions import CrashMethod, Operation, PowerApi, RestartMethod, Support, transition

TAKES_DOWN: list[tuple[Callable[[PowerControl], object], str]] = [
    (lambda power: power.stop_node("n12"), "api stop n12"),
    (lambda power: power.crash_node("n12", CrashMethod.DESTROY), "api crash n12"),
    (lambda power: power.crash_node("n12"), "ssh crash n12"),
    (lambda power: power.restart_node("n12"), "ssh reboot n12"),
    (lambda power: power.restart_node("n12", RestartMethod.GRACEFUL), "api stop n12"),
]


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Three machines at AWS."""
    return World(tmp_path)


@pytest.fixture
def manual(tmp_path: Path) -> World:
    """Three machines at Hetzner, whose API cannot be asked."""
    return World(tmp_path, ProviderName.HETZNER, asks_api=False)


# ---- what each operation does


def test_a_stop_ends_when_the_node_is_off(world: World) -> None:
    result = world.control().stop_node("n12")
    assert result.outcome is Outcome.STOPPED
    assert world.machines["n12"].now == Look(PowerState.STOPPED, None)
    assert [seen.state for seen in result.states] == [PowerState.RUNNING, PowerState.STOPPING, PowerState.STOPPED]
    assert (result.boot_id_before, result.boot_id_after) == ("n12-boot-1", None)
    assert result.proof == "Node n12 (i-n12) is off: SSH dead (refused), API says stopped."


def test_a_start_ends_when_the_node_answers_from_a_new_boot(world: World) -> None:
    power = world.control()
    power.stop_node("n12")
    result = power.start_node("n12")
    assert (result.outcome, result.boot_id_after) == (Outcome.STARTED, "n12-boot-2")
    assert [seen.state for seen in result.states] == [
        PowerState.STOPPED,
        PowerState.STARTING,
        PowerState.UNKNOWN,
        PowerState.RUNNING,
    ]


def test_a_reboot_is_proven_by_the_boot_id(world: World) -> None:
    result = world.control().restart_node("n12")
    assert (result.boot_id_before, result.boot_id_after) == ("n12-boot-1", "n12-boot-2")
    assert "boot id n12-boot-2, before it was n12-boot-1" in result.proof


def test_a_graceful_restart_stops_then_starts(world: World) -> None:
    result = world.control().restart_node("n12", RestartMethod.GRACEFUL)
    assert world.done == ["register n12", "api stop n12", "api start n12"]
    assert result.outcome is Outcome.CAME_BACK
    assert result.boot_id_after == "n12-boot-2"
    assert result.command == "ec2.stop_instances, then ec2.start_instances"


def test_a_graceful_restart_pauses_while_the_node_is_off(world: World) -> None:
    result = world.control(graceful_pause=0.05).restart_node("n12", RestartMethod.GRACEFUL)
    assert result.duration.total_seconds() >= 0.05
    off = [event for event in world.events[: world.events.index("api start n12")] if event == "look n12 dead"]
    assert len(off) > 2


def test_a_crash_tells_coming_back_from_staying_down(world: World) -> None:
    power = world.control()
    came_back = power.crash_node("n11")
    world.machines["n12"].answers_sysrq = False
    stayed_down = power.crash_node("n12")
    assert (came_back.outcome, came_back.boot_id_after) == (Outcome.CAME_BACK, "n11-boot-2")
    assert (stayed_down.outcome, stayed_down.boot_id_after) == (Outcome.STAYED_DOWN, None)
    assert stayed_down.proof.startswith("Crashed and stayed down.")


def test_without_an_api_staying_down_takes_as_long_as_a_boot_may(manual: World) -> None:
    manual.machines["n12"].answers_sysrq = False
    result = manual.control(boot=0.1).crash_node("n12")
    assert result.outcome is Outcome.STAYED_DOWN
    assert result.duration.total_seconds() >= 0.1


def test_a_crash_has_the_documented_keys(world: World) -> None:
    result = world.control().crash_node("n12").as_json()
    assert (result["method"], result["node"], result["crash_type"]) == ("ssh", "n12", "hard_shutdown")
    assert "sysrq-trigger" in result["command"]
    restart = world.control().restart_node("n12").as_json()
    assert (restart["method"], restart["command"]) == ("ssh", "sudo reboot")
    assert "crash_type" not in restart


def test_a_cluster_stops_and_starts_all_its_nodes(world: World) -> None:
    power = world.control()
    stopped = power.stop_cluster()
    assert [(it.node, it.outcome) for it in stopped] == [(node, Outcome.STOPPED) for node in NODES]
    started = power.start_cluster()
    assert [(it.node, it.boot_id_after) for it in started] == [(node, f"{node}-boot-2") for node in NODES]
    assert world.told == []


def test_a_node_that_is_there_already_is_left_alone(world: World) -> None:
    world.switch_off("n12")
    results = world.control().stop_cluster()
    assert [it.outcome for it in results] == [Outcome.STOPPED, Outcome.UNCHANGED, Outcome.STOPPED]
    assert "api stop n12" not in world.events


def test_manual_is_a_shutdown_in_the_guest_and_an_operator(manual: World) -> None:
    power = manual.control()
    power.stop_cluster()
    assert sorted(manual.done) == sorted(
        f"{what} {node}" for what in ("register", "ssh shutdown") for node in NODES
    )
    power.start_cluster()
    (instruction,) = manual.told
    assert instruction.nodes == NODES
    assert str(instruction) == (
        f"Power on the machines of {DEPLOYMENT} at the interface of hetzner. n11: hcloud server poweron i-n11; "
        "n12: hcloud server poweron i-n12; n13: hcloud server poweron i-n13"
    )


def test_an_operator_that_does_nothing_is_waited_for_in_vain(manual: World) -> None:
    manual.switch_off(*NODES)
    with pytest.raises(NotMetError, match="node n11 to begin to start"):
        manual.control(operator=lambda _: None).start_cluster()


def test_extended_stops_a_node_where_the_document_says_no(tmp_path: Path) -> None:
    world = World(tmp_path, ProviderName.HETZNER, parameters={"power_api": "extended"})
    assert world.control().stop_node("n12").command == "servers.shutdown"


# ---- the table's no


@pytest.mark.parametrize("provider", ProviderName)
@pytest.mark.parametrize("operation", [it for it in Operation if not it.of_cluster])
def test_each_cell_is_done_or_refused(tmp_path: Path, provider: ProviderName, operation: Operation) -> None:
    world = World(tmp_path, provider)
    if operation is Operation.START_NODE:
        world.switch_off("n12")
    if transition(provider, operation).support is Support.NO:
        with pytest.raises(
            NotImplementedError, match=f"provider '{provider}' does not support '{operation.step}'"
        ):
            world.control().do(operation, "n12")
        assert world.events == []
    else:
        assert world.control().do(operation, "n12").provider is provider


def test_what_is_refused_is_no_traceback_for_people(world: World) -> None:
    power = world.control(power_api=PowerApi.DOCUMENT)
    assert issubclass(UnsupportedOperationError, UserError)
    with pytest.raises(UnknownNodeError, match="n11, n12, n13"):
        power.stop_node("n99")


# ---- the order of events


@pytest.mark.parametrize(("operation", "act"), TAKES_DOWN)
def test_the_order_is_look_register_act_look(
    world: World, operation: Callable[[PowerControl], object], act: str
) -> None:
    operation(world.control())
    assert world.events[:3] == ["look n12 answers", "register n12", act]
    assert world.events[3].startswith("look n12")


@pytest.mark.parametrize(("operation", "act"), TAKES_DOWN)
def test_nothing_is_done_when_the_undo_cannot_be_registered(
    world: World, operation: Callable[[PowerControl], object], act: str
) -> None:
    world.journal.path = world.directory / "gone" / "undo.jsonl"
    with pytest.raises(UserError, match="its undo cannot be registered"):
        operation(world.control())
    assert act not in world.events


@pytest.mark.parametrize(("operation", "act"), TAKES_DOWN)
def test_the_controller_is_never_taken_down(
    world: World, operation: Callable[[PowerControl], object], act: str
) -> None:
    world.machines["n12"].now = Look(PowerState.RUNNING, CONTROLLER)
    with pytest.raises(ProtectedMachineError, match="is that of the machine that the tests run on"):
        operation(world.control())
    assert world.done == []


def test_a_cluster_with_the_controller_in_it_is_left_alone_altogether(manual: World) -> None:
    manual.machines["n13"].now = Look(PowerState.RUNNING, CONTROLLER)
    with pytest.raises(ProtectedMachineError, match="n13"):
        manual.control().stop_cluster()
    assert manual.done == []


def test_the_controller_is_this_machine_by_default(tmp_path: Path) -> None:
    world = World(tmp_path)
    own = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    world.machines["n12"].now = Look(PowerState.RUNNING, own)
    with pytest.raises(ProtectedMachineError, match=own):
        world.control(controller=None).restart_node("n12")
    assert world.done == []


def test_a_hung_node_can_be_stopped_by_the_api_as_its_tag_is_the_deployments(world: World) -> None:
    world.machines["n12"].now = Look(PowerState.RUNNING, None)
    assert world.control().crash_node("n12", CrashMethod.DESTROY).outcome is Outcome.STOPPED


def test_a_node_without_a_boot_id_is_not_crashed_over_ssh(world: World) -> None:
    world.machines["n12"].now = Look(PowerState.RUNNING, None)
    with pytest.raises(WrongStateError, match=r"crash_node ssh starts from running, but node n12 .* is unknown"):
        world.control().crash_node("n12")
    assert world.done == []


def test_an_answer_without_a_boot_id_is_no_proof_of_being_another_machine(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Look, "ssh", SshAnswer(Reach.ANSWERS))
    with pytest.raises(ProtectedMachineError, match="its boot id cannot be read"):
        world.control().crash_node("n12")
    assert world.done == []


# ---- start states


def test_a_node_that_is_off_is_not_stopped(world: World) -> None:
    world.switch_off("n12")
    with pytest.raises(WrongStateError, match=r"stop_node starts from running, but node n12 \(i-n12\) is stopped"):
        world.control().stop_node("n12")
    assert world.done == []


def test_a_node_that_runs_is_not_started(world: World) -> None:
    with pytest.raises(WrongStateError, match=r"start_node starts from stopped, but .* is running"):
        world.control().start_node("n12")
    assert world.done == []


def test_a_cluster_that_is_off_is_not_stopped(world: World) -> None:
    world.switch_off(*NODES)
    with pytest.raises(WrongStateError, match="every node of the deployment is stopped already"):
        world.control().stop_cluster()


def test_one_node_on_its_way_keeps_the_cluster_from_being_touched(world: World) -> None:
    world.machines["n13"].now = Look(PowerState.STARTING, None)
    with pytest.raises(WrongStateError, match="n13"):
        world.control().stop_cluster()
    assert world.done == []


# ---- what never happened is never reported


def test_a_stop_that_never_begins_is_not_met(world: World) -> None:
    world.machines["n12"].ignores = True
    with pytest.raises(NotMetError, match=r"node n12 \(i-n12\) to begin to stop"):
        world.control().stop_node("n12")


def test_a_stop_that_never_ends_is_not_met(world: World) -> None:
    power = world.control()
    world.machines["n12"].go_off = lambda hard=False: world.machines["n12"].script(Look(PowerState.STOPPING, None))
    with pytest.raises(NotMetError, match=r"node n12 \(i-n12\) to be off; the last value was .* says stopping"):
        power.stop_node("n12")


def test_a_stop_is_not_believed_while_ssh_answers(world: World) -> None:
    power = world.control()
    world.machines["n12"].go_off = lambda hard=False: world.machines["n12"].script(
        Look(PowerState.STOPPED, "n12-boot-1")
    )
    with pytest.raises(NotMetError, match="SSH answers, boot id n12-boot-1, API says stopped"):
        power.stop_node("n12")


def test_all_nodes_that_did_not_stop_are_named_and_the_others_are_stopped(world: World) -> None:
    world.machines["n11"].ignores = world.machines["n13"].ignores = True
    with pytest.raises(
        NotMetError, match=r"node n11 \(i-n11\) to begin to stop.*node n13 \(i-n13\) to begin to stop"
    ):
        world.control().stop_cluster()
    assert world.machines["n12"].now == Look(PowerState.STOPPED, None)


def test_what_was_not_met_counts_more_than_what_was_refused(world: World) -> None:
    world.machines["n13"].ignores = True
    stop = world.provider.stop

    def refuses_the_first(instance: Instance) -> None:
        if instance.node == "n11":
            raise UserError("AWS did not do it for n11.")
        stop(instance)

    world.provider.stop = refuses_the_first
    with pytest.raises(NotMetError, match=r"AWS did not do it for n11\..*n13"):
        world.control().stop_cluster()


def test_a_reboot_without_a_new_boot_id_is_not_met(world: World) -> None:
    machine = world.machines["n12"]
    machine.new_boot = lambda: "n12-boot-1"
    with pytest.raises(NotMetError, match=r"node n12 .* to answer with a new boot id; .* boot id n12-boot-1"):
        world.control().restart_node("n12")


def test_a_reboot_that_is_ignored_says_what_the_command_said(world: World) -> None:
    world.machines["n12"].ignores = True
    with pytest.raises(NotMetError, match="to begin to reboot") as raised:
        world.control().restart_node("n12")
    assert "The command 'sudo reboot': exit status 1: sudo: a password is required." in str(raised.value)


def test_a_crash_without_a_new_boot_id_is_not_met(world: World) -> None:
    world.machines["n12"].new_boot = lambda: "n12-boot-1"
    with pytest.raises(NotMetError, match="to come back with a new boot id, or to stay down"):
        world.control().crash_node("n12")


def test_a_crash_that_does_nothing_is_not_met(world: World) -> None:
    world.machines["n12"].ignores = True
    with pytest.raises(NotMetError, match=r"node n12 \(i-n12\) to crash"):
        world.control().crash_node("n12")


def test_a_start_from_the_boot_before_is_not_met(world: World) -> None:
    power = world.control()
    power.stop_node("n12")
    world.machines["n12"].new_boot = lambda: "n12-boot-1"
    with pytest.raises(NotMetError, match="to be on"):
        power.start_node("n12")


# ---- a provider that mixes its machines up


def test_a_provider_that_hits_another_node_is_found_out(world: World) -> None:
    world.provider.hits["n12"] = world.machines["n13"]
    with pytest.raises(NotMetError, match=r"node n12 \(i-n12\) to begin to stop"):
        world.control().stop_node("n12")


def test_an_instance_that_is_not_the_inventorys_is_not_touched(world: World) -> None:
    world.provider.listed = [Instance("i-another", node, "eu-1", ProviderName.AWS) for node in NODES]
    with pytest.raises(DeploymentError, match=r"Node n12 is i-n12 in the inventory, but .* is i-another"):
        world.control().stop_node("n12")
    assert world.done == []


def test_a_node_without_an_instance_is_not_touched(world: World) -> None:
    del world.provider.listed[1]
    with pytest.raises(
        DeploymentError, match=r"no instance with the deployment's tag for node n12; it has i?n11, n13"
    ):
        world.control().stop_node("n12")


def test_what_the_api_refuses_is_said(world: World) -> None:
    world.provider.refuses = UserError("AWS refuses the credentials in AWS_SESSION_TOKEN: expired.")
    with pytest.raises(UserError, match="AWS_SESSION_TOKEN"):
        world.control().stop_node("n12")


# ---- seeing


def test_an_api_that_cannot_be_asked_leaves_ssh_to_decide(manual: World) -> None:
    power = manual.control()
    assert power.api_unavailable == "HCLOUD_TOKEN is not set"
    manual.switch_off("n12")
    readings = power.readings()
    assert {node: it.state for node, it in readings.items()} == {
        "n11": PowerState.RUNNING,
        "n12": PowerState.STOPPED,
        "n13": PowerState.RUNNING,
    }
    assert str(readings["n12"]) == "SSH dead (refused), API not asked"


def test_sides_that_disagree_are_no_state(world: World) -> None:
    world.machines["n11"].now = Look(PowerState.RUNNING, None)
    world.machines["n12"].now = Look(PowerState.STOPPED, "n12-boot-1")
    readings = world.control().readings(["n11", "n12"])
    assert {it.state for it in readings.values()} == {PowerState.UNKNOWN}
    assert not any(it.is_on or it.is_off for it in readings.values())


def test_an_operation_that_needs_the_api_says_what_it_lacks(tmp_path: Path) -> None:
    world = World(tmp_path, ProviderName.HETZNER, asks_api=False, parameters={"power_api": "extended"})
    with pytest.raises(UserError, match="HCLOUD_TOKEN"):
        world.control().stop_node("n12")


def test_a_plan_makes_no_call(world: World) -> None:
    power = world.control()
    (call,) = power.plan(Operation.STOP_NODE, "n12")
    assert str(call).startswith("stop_node on n12 (i-n12): ec2.stop_instances; within 0.2 s: ")
    assert [it.target for it in power.plan(Operation.STOP_CLUSTER)] == [f"{node} (i-{node})" for node in NODES]
    assert [it.call for it in power.plan(Operation.RESTART_SSH, "n11")] == ["sudo reboot"]
    assert world.events == []


def test_the_operators_instruction_names_what_to_start() -> None:
    instruction = Instruction(ProviderName.LIBVIRT, "basic-1", ())
    assert instruction.nodes == ()
