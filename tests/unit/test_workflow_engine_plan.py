"""A dry run prints each step with its target and the calls it would make, and makes none."""

import pytest
from testyard.core.errors import UserError
from testyard.workflow.model import NodeFields
from testyard.workflow.plan import plan_suite
from workflow_engine_support import World


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def planned(world, *steps):
    suite = world.parse(*steps).suite()
    return [str(step) for step in plan_suite(suite, world.context(), world.steps, world.checks)]


def test_each_step_is_told_with_its_target_and_calls_and_nothing_is_done(world):
    def act(context, step):
        world.acted.append("power_off")

    def plan(context, step):
        node = step.own(NodeFields).target_node
        return [f"ec2.stop_instances({node})", f"wait until {node} is stopped"]

    world.steps.register("power_off", "Power off", act, fields=NodeFields, plan=plan)
    assert planned(
        world,
        {"step": "power_off", "target_node": "n12", "description": "Take n12 away"},
        {"step": "custom_command", "custom_command": ["./verify", "$provider"]},
        {"step": "crash_node", "target_node": "n11", "method": "destroy"},
    ) == [
        "1. power_off n12: Take n12 away\n     ec2.stop_instances(n12)\n     wait until n12 is stopped",
        f"2. custom_command\n     run ./verify libvirt in {world.directory}",
        "3. crash_node n11 destroy\n     call workflow_engine_support.World._act",
    ]
    assert world.acted == []


def test_checks_conditions_and_attempts_are_told(world):
    look = {
        "step": "validate",
        "id": "look",
        "checks": ["node_status:n12:stopped", "database_down"],
        "allow_failures": ["database_down"],
        "retry": {"max_attempts": 5, "delay_seconds": 30},
    }
    init = {"step": "init", "when": {"step": "look", "check": "database_down", "passed": False}}
    assert "\n".join(planned(world, look, init)).splitlines() == [
        "1. validate",
        "     check node_status:n12:stopped, 5 attempts, 30 s apart",
        "     check database_down, 5 attempts, 30 s apart, may fail",
        "2. init",
        "     only if step 'look': check database_down failed",
        "     call workflow_engine_support.World._act",
    ]


def test_steps_inside_steps_are_told_with_where_they_stand(world):
    stop = {"step": "stop_node", "target_node": "n12", "rollback": [{"step": "start_node"}]}
    crash = {"step": "crash_node", "rollback": [{"step": "start_node"}]}
    lines = planned(
        world,
        {"step": "group", "steps": [{"step": "parallel", "steps": [stop]}], "rollback": [{"step": "init"}]},
        {"step": "chaos", "seed": 3, "rounds": 4, "nodes": ["n11", "n13"], "candidates": [crash]},
    )
    assert [line.splitlines()[0] for line in lines] == [
        *("1. group", "1.1. parallel", "1.1.1. stop_node n12", "1.1.1.rollback.1. start_node n12"),
        "1.rollback.1. init",
        *("2. chaos", "2.candidates.1. crash_node n11 ssh", "2.candidates.1.rollback.1. start_node n11"),
        *("2.candidates.2. crash_node n13 ssh", "2.candidates.2.rollback.1. start_node n13"),
    ]
    assert "4 of these 2 candidates, picked by seed 3" in lines[5]


@pytest.mark.parametrize(
    ("problem", "told"),
    [
        (
            NotImplementedError("Provider 'x' does not support 'y'"),
            "refused: NotImplementedError: Provider 'x' does not",
        ),
        (UserError("No region is set."), "refused: No region is set."),
    ],
)
def test_what_would_be_refused_is_told(world, problem, told):
    def plan(context, step):
        raise problem

    world.steps.register("refused", "Refused", lambda context, step: None, plan=plan)
    assert planned(world, {"step": "refused"})[0].splitlines()[1].strip().startswith(told)
