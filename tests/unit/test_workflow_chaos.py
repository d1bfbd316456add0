"""Chaos picks faults by a seed that is in the result, and undoes each before the next."""

import pytest
from workflow_engine_support import World, statuses

CRASH = {"step": "crash_node", "rollback": [{"step": "start_node"}]}
DURING = {"step": "validate", "checks": ["database_running"]}
AFTER = {"step": "validate", "checks": ["all_nodes_running"]}


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def chaos(**more):
    return {"step": "chaos", "nodes": ["n11", "n12", "n13"], "candidates": [CRASH], **more}


def nodes(result):
    return [pick["target_node"] for pick in result.workflow_steps[0].result["picks"]]


def test_a_round_is_the_fault_what_is_checked_meanwhile_the_undoing_and_what_is_checked_then(world):
    result = world.run(chaos(nodes=["n12"], rounds=2, seed=1, during=[DURING], after=[AFTER]))
    assert result.success
    assert (
        world.acted
        == [
            "crash_node n12",
            "check database_running",
            "start_node n12",
            "check all_nodes_running",
        ]
        * 2
    )
    step = result.workflow_steps[0]
    assert step.result == {
        "seed": 1,
        "picks": [{"round": it, "step": "crash_node", "target_node": "n12", "method": "ssh"} for it in (1, 2)],
    }
    assert [it.step_type for it in step.steps] == ["crash_node", "validate", "start_node", "validate"] * 2


def test_the_same_seed_makes_the_same_picks_and_another_one_others(world):
    first, again, other = (nodes(world.run(chaos(rounds=12, seed=seed))) for seed in (7, 7, 8))
    assert first == again
    assert first != other
    assert set(first) == {"n11", "n12", "n13"}


def test_a_seed_that_is_drawn_is_in_the_result_and_replays_the_run(world):
    drawn = world.run(chaos(rounds=12))
    seed = drawn.workflow_steps[0].result["seed"]
    assert nodes(world.run(chaos(rounds=12, seed=seed))) == nodes(drawn)
    assert f"chaos: seed {seed}, 12 rounds" in drawn.logs


def test_two_runs_without_a_seed_differ(world):
    assert len({tuple(nodes(world.run(chaos(rounds=20)))) for _ in range(3)}) > 1


def test_the_seed_and_the_pick_are_on_disk_while_the_fault_is_on(world):
    seen = []
    world.steps.register(
        "look", "Look", lambda context, step: seen.append(world.written()["workflow_steps"][0]["result"])
    )
    world.run(chaos(nodes=["n13"], seed=5, during=[{"step": "look"}]))
    assert seen[0]["seed"] == 5
    assert seen[0]["picks"][0]["target_node"] == "n13"


def test_a_fault_is_undone_when_what_is_checked_meanwhile_fails(world):
    world.fail("database_running", False)
    result = world.run(chaos(nodes=["n12"], rounds=3, seed=1, during=[DURING], after=[AFTER]))
    assert world.acted == ["crash_node n12", "check database_running", "start_node n12"]
    assert statuses(result) == ["failed"]
    assert result.workflow_steps[0].error == (
        "round 1 of 3 (seed 1, crash_node n12): step 2, validate: database_running: the check returned False"
    )


def test_a_fault_that_fails_half_way_is_undone(world):
    world.fail("crash_node n12")
    assert not world.run(chaos(nodes=["n12"])).success
    assert world.acted == ["crash_node n12", "start_node n12"]


def test_a_fault_that_cannot_be_undone_fails_the_step(world):
    world.fail("start_node n12")
    result = world.run(chaos(nodes=["n12"], rounds=2, seed=1, after=[AFTER]))
    assert not result.success
    assert "step 2, start_node n12: RuntimeError: it broke" in result.workflow_steps[0].error
    assert world.acted == ["crash_node n12", "start_node n12"]


def test_what_is_checked_afterwards_may_fail_the_step(world):
    world.fail("all_nodes_running", False)
    result = world.run(chaos(nodes=["n12"], rounds=2, seed=1, after=[AFTER]))
    assert world.acted == ["crash_node n12", "start_node n12", "check all_nodes_running"]
    assert "step 3, validate: all_nodes_running" in result.workflow_steps[0].error


@pytest.mark.parametrize("where", ["crash_node n12", "database_running"])
def test_a_fault_is_undone_when_the_run_is_aborted(world, where):
    world.fail(where, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        world.run(chaos(nodes=["n12"], during=[DURING]))
    assert world.acted[-1] == "start_node n12"
    step = world.written()["workflow_steps"][0]
    assert (step["status"], step["error"]) == ("failed", "Aborted: KeyboardInterrupt")
    assert step["result"]["picks"][0]["target_node"] == "n12"


def test_a_candidate_that_is_a_group_is_undone_the_last_begun_first(world):
    both = {
        "step": "group",
        "steps": [
            {"step": "stop_node", "target_node": node, "rollback": [{"step": "start_node"}]}
            for node in ("n11", "n12")
        ],
    }
    assert world.run(chaos(nodes=[], candidates=[both])).success
    assert world.acted == ["stop_node n11", "stop_node n12", "start_node n12", "start_node n11"]


def test_chaos_in_a_group_is_undone_by_itself_and_the_group_by_the_group(world):
    world.fail("deploy")
    stop = {"step": "stop_node", "target_node": "n13", "rollback": [{"step": "start_node"}]}
    world.run({"step": "group", "steps": [stop, chaos(nodes=["n12"]), {"step": "deploy"}]})
    assert world.acted == ["stop_node n13", "crash_node n12", "start_node n12", "deploy", "start_node n13"]
