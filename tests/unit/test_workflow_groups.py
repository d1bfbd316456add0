"""Groups are undone, the last begun first, when a step fails and when the run is aborted."""

import pytest
from workflow_engine_support import World, alarm, statuses

INIT, DEPLOY = {"step": "init"}, {"step": "deploy"}


class TimeoutExceeded(BaseException):
    """As Robot Framework's: no ``Exception``, and raised by a signal in the main thread."""


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def stop(node, **more):
    return {"step": "stop_node", "target_node": node, "rollback": [{"step": "start_node"}], **more}


def group(*steps, **more):
    return {"step": "group", "steps": list(steps), **more}


def titles(results):
    return [" ".join(filter(None, (result.step_type, result.target_node))) for result in results]


def test_a_group_runs_its_steps_and_undoes_nothing_when_all_is_well(world):
    result = world.run(group(stop("n11"), stop("n12"), rollback=[DEPLOY]), INIT)
    assert result.success
    assert world.acted == ["stop_node n11", "stop_node n12", "init"]
    assert titles(result.workflow_steps[0].steps) == ["stop_node n11", "stop_node n12"]
    assert result.workflow_steps[0].rollback == []


def test_a_group_that_fails_is_undone_the_last_begun_first_and_its_own_rollback_last(world):
    world.fail("deploy")
    result = world.run(group(stop("n11"), stop("n12"), DEPLOY, stop("n13"), rollback=[{"step": "init"}]), INIT)
    assert world.acted == ["stop_node n11", "stop_node n12", "deploy", "start_node n12", "start_node n11", "init"]
    step = result.workflow_steps[0]
    assert statuses(result) == ["failed"]
    assert step.error == "step 3, deploy: RuntimeError: it broke"
    assert titles(step.steps) == ["stop_node n11", "stop_node n12", "deploy"]
    assert titles(step.rollback) == ["start_node n12", "start_node n11", "init"]
    assert [it["status"] for it in world.written()["workflow_steps"][0]["rollback"]] == ["completed"] * 3


def test_a_rollback_of_several_steps_is_run_as_it_is_written(world):
    world.fail("deploy")
    undo = [{"step": "start_node", "target_node": "n11"}, {"step": "start_node", "target_node": "n12"}]
    world.run(group({**INIT, "rollback": undo}, DEPLOY))
    assert world.acted == ["init", "deploy", "start_node n11", "start_node n12"]


def test_the_step_that_failed_is_undone_too_as_it_may_have_done_half(world):
    world.fail("stop_node n12")
    world.run(group(stop("n11"), stop("n12")))
    assert world.acted == ["stop_node n11", "stop_node n12", "start_node n12", "start_node n11"]


def test_a_step_that_was_refused_is_not_undone_as_it_did_nothing(world):
    world.fail("stop_node n12", NotImplementedError("Provider 'libvirt' does not support 'stop_node'"))
    world.run(group(stop("n11"), stop("n12")))
    assert world.acted == ["stop_node n11", "stop_node n12", "start_node n11"]


def test_a_skipped_step_is_not_undone(world):
    world.fail("deploy")
    skipped = stop("n11", when={"step": "first", "status": "skipped"})
    world.run({**INIT, "id": "first"}, group(skipped, DEPLOY))
    assert world.acted == ["init", "deploy"]


def test_a_step_that_may_fail_does_not_end_its_group(world):
    world.fail("deploy")
    result = world.run(group(stop("n11"), {**DEPLOY, "allow_failure": True}, INIT))
    assert result.success
    assert world.acted == ["stop_node n11", "deploy", "init"]


def test_a_group_that_may_fail_is_undone_and_the_workflow_goes_on(world):
    world.fail("deploy")
    result = world.run(group(stop("n11"), DEPLOY, allow_failure=True), INIT)
    assert result.success
    assert world.acted == ["stop_node n11", "deploy", "start_node n11", "init"]


def test_a_rollback_step_that_fails_does_not_keep_the_others_from_being_run(world):
    world.fail("deploy")
    world.fail("start_node n12")
    result = world.run(group(stop("n11"), stop("n12"), DEPLOY))
    assert world.acted[-2:] == ["start_node n12", "start_node n11"]
    assert result.workflow_steps[0].error == (
        "step 3, deploy: RuntimeError: it broke (and the rollback failed: start_node n12: RuntimeError: it broke)"
    )


def test_a_group_inside_a_group_hands_on_what_is_to_be_undone(world):
    world.fail("deploy")
    world.run(group(stop("n11"), group(stop("n12"), rollback=[INIT]), stop("n13"), DEPLOY))
    assert world.acted == [
        *("stop_node n11", "stop_node n12", "stop_node n13", "deploy"),
        *("start_node n13", "start_node n12", "init", "start_node n11"),
    ]


def test_a_group_inside_a_group_that_fails_is_undone_once(world):
    world.fail("deploy")
    world.run(group(stop("n11"), group(stop("n12"), DEPLOY)))
    assert world.acted == ["stop_node n11", "stop_node n12", "deploy", "start_node n12", "start_node n11"]


def test_a_group_that_is_tried_again_is_undone_in_between(world):
    world.fail("deploy")
    result = world.run(group(stop("n11"), DEPLOY, retry={"max_attempts": 2}))
    assert result.success
    assert world.acted == ["stop_node n11", "deploy", "start_node n11", "stop_node n11", "deploy"]
    assert titles(result.workflow_steps[0].steps) == ["stop_node n11", "deploy"]
    assert (result.workflow_steps[0].attempts, result.workflow_steps[0].error) == (2, None)


@pytest.mark.parametrize("problem", [KeyboardInterrupt(), TimeoutExceeded("1 second"), SystemExit(1)])
def test_an_aborted_group_is_undone(world, problem):
    world.fail("deploy", problem)
    with pytest.raises(type(problem)):
        world.run(group(stop("n11"), group(stop("n12"), DEPLOY)), INIT)
    assert world.acted == ["stop_node n11", "stop_node n12", "deploy", "start_node n12", "start_node n11"]
    outer = world.written()["workflow_steps"][0]
    assert (outer["status"], outer["error"][:8]) == ("failed", "Aborted:")
    assert [step["status"] for step in outer["rollback"]] == ["completed"]
    assert [step["status"] for step in outer["steps"][1]["rollback"]] == ["completed"]


def test_an_interrupt_during_a_rollback_ends_that_step_only(world):
    world.fail("deploy")
    world.fail("start_node n12", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        world.run(group(stop("n11"), stop("n12"), DEPLOY))
    assert world.acted[-2:] == ["start_node n12", "start_node n11"]


@pytest.fixture
def timeout():
    """Raises :class:`TimeoutExceeded` in the main thread after a time, as Robot Framework does on Linux."""
    with alarm(TimeoutExceeded) as raise_after:
        yield raise_after


def test_a_timeout_in_a_pause_between_attempts_undoes_the_group(world, timeout):
    world.fail("deploy", *[RuntimeError("no")] * 5)
    slow = {**DEPLOY, "retry": {"max_attempts": 5, "delay_seconds": 60}}
    timeout(0.3)
    with pytest.raises(TimeoutExceeded):
        world.run(group(stop("n11"), slow), delay_scale=1.0)
    assert world.acted == ["stop_node n11", "deploy", "start_node n11"]


def test_a_timeout_during_steps_at_the_same_time_ends_them_and_undoes_the_group(world, timeout):
    ended = []

    def wait(context, step):
        ended.append(context.cancelled.wait(60))

    world.steps.register("wait", "Wait until the run is aborted", wait)
    timeout(0.3)
    with pytest.raises(TimeoutExceeded):
        world.run(
            group(stop("n11"), {"step": "parallel", "steps": [{"step": "wait"}, stop("n12"), {"step": "wait"}]})
        )
    assert ended == [True, True]
    assert world.acted == ["stop_node n11", "stop_node n12", "start_node n12", "start_node n11"]
