"""Steps of a parallel step run at the same time, all to their end, and are told in an orderly way."""

import threading

import pytest
from testyard.workflow.observer import Observer
from workflow_engine_support import World, statuses

INIT, DEPLOY = {"step": "init"}, {"step": "deploy"}
LONG = 20


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def parallel(*steps, **more):
    return {"step": "parallel", "steps": list(steps), **more}


def test_all_steps_are_under_way_at_the_same_time(world):
    """Eight steps wait for each other: one after the other, none would pass."""
    together = threading.Barrier(8)

    def meet(context, step):
        together.wait(LONG)

    world.steps.register("meet", "Wait for seven others", meet)
    result = world.run(parallel(*[{"step": "meet"}] * 8))
    assert result.success
    assert [str(step.status) for step in result.workflow_steps[0].steps] == ["completed"] * 8


def test_the_steps_inside_groups_and_checks_run_beside_others_too(world):
    together = threading.Barrier(2)

    def meet(context, step):
        together.wait(LONG)

    world.steps.register("meet", "Wait for another", meet)
    world.checks.register("met", "Wait for another", lambda context: together.wait(LONG) >= 0)
    look = {"step": "validate", "checks": ["met"]}
    assert world.run(parallel({"step": "group", "steps": [{"step": "meet"}]}, look)).success


def test_results_are_in_the_order_of_the_workflow_whoever_ends_first(world):
    ended = threading.Event()

    def wait(context, step):
        assert ended.wait(LONG)

    world.steps.register("slow", "Ends last", wait)
    world.steps.register("fast", "Ends first", lambda context, step: ended.set())
    result = world.run(parallel({"step": "slow"}, {"step": "fast"}))
    assert [step.step_type for step in result.workflow_steps[0].steps] == ["slow", "fast"]
    assert [step["step_type"] for step in world.written()["workflow_steps"][0]["steps"]] == ["slow", "fast"]


def test_all_steps_are_run_to_their_end_when_one_fails_and_all_failures_are_told(world):
    go_on = threading.Event()

    def fail(context, step):
        go_on.set()
        raise RuntimeError("it broke")

    def outlive(context, step):
        assert go_on.wait(LONG)
        world.acted.append("outlived")

    world.steps.register("fail", "Fail", fail)
    world.steps.register("outlive", "End after the failure", outlive)
    world.fail("stop_node n12")
    result = world.run(
        parallel({"step": "fail"}, {"step": "outlive"}, {"step": "stop_node", "target_node": "n12"}), INIT
    )
    assert statuses(result) == ["failed"]
    assert world.acted.count("outlived") == 1
    assert "init" not in world.acted
    assert result.workflow_steps[0].error == (
        "2 of 3 parallel steps failed: fail: RuntimeError: it broke; stop_node n12: RuntimeError: it broke"
    )


def test_a_step_that_may_fail_does_not_fail_the_others(world):
    world.fail("init")
    assert world.run(parallel({**INIT, "allow_failure": True}, DEPLOY)).success


def test_what_a_step_keeps_in_the_context_is_not_seen_by_its_neighbours(world):
    together = threading.Barrier(2)

    def keep(context, step):
        context["mine"] = step.target_node
        together.wait(LONG)
        return {"mine": context["mine"], "parameters": context["parameters"]}

    world.steps.override("keep", keep)
    nodes = ("n11", "n12")
    result = world.run(parallel(*({"step": "keep", "target_node": node} for node in nodes)))
    assert [step.result["mine"] for step in result.workflow_steps[0].steps] == ["n11", "n12"]


def test_what_aborts_a_branch_aborts_the_run_when_all_branches_have_ended(world):
    world.fail("init", SystemExit(3))
    with pytest.raises(SystemExit):
        world.run(parallel(INIT, DEPLOY), {"step": "destroy"})
    assert sorted(world.acted) == ["deploy", "init"]
    steps = world.written()["workflow_steps"][0]["steps"]
    assert [step["status"] for step in steps] == ["failed", "completed"]


def test_steps_inside_a_group_are_undone_when_it_fails_after_them(world):
    undone = [
        {"step": "stop_node", "target_node": node, "rollback": [{"step": "start_node"}]} for node in ("n11", "n12")
    ]
    world.fail("deploy")
    world.run({"step": "group", "steps": [parallel(*undone), DEPLOY]})
    assert sorted(world.acted[:2]) == ["stop_node n11", "stop_node n12"]
    assert sorted(world.acted[3:]) == ["start_node n11", "start_node n12"]


def test_an_observer_is_told_of_each_branch_at_once_and_from_the_run_s_own_thread(world):
    together = threading.Barrier(2)
    told, threads = [], set()

    def talk(context, step):
        together.wait(LONG)
        context.log(f"talking about {step.target_node}")
        together.wait(LONG)

    class Telling(Observer):
        depth = 0

        def around_step(self, step, result, proceed):
            threads.add(threading.current_thread())
            told.append(f"{'  ' * self.depth}{step.title}")
            self.depth += 1
            proceed()
            self.depth -= 1

        def before_step(self, step, result):
            told.append(f"{'  ' * self.depth}begins")

        def after_check(self, step, result):
            told.append(f"{'  ' * self.depth}{result.check} {result.passed}")

        def after_step(self, step, result):
            told.append(f"{'  ' * self.depth}ends {result.status}")

    world.steps.override("talk", talk)
    look = {"step": "validate", "checks": ["cluster_status"]}
    group = {"step": "group", "steps": [{"step": "talk", "target_node": "n11"}, look]}
    executor = world.executor(observer=Telling())
    executor.context.log = told.append
    result = executor.run(world.parse(parallel(group, {"step": "talk", "target_node": "n12"})).suite())
    assert result.success
    assert threads == {threading.current_thread()}
    n12 = ["  talk n12", "    begins", "talking about n12", "    ends completed"]
    n11 = [
        *("  group", "    begins", "    talk n11", "      begins", "talking about n11", "      ends completed"),
        *(
            "    validate",
            "      begins",
            "      cluster_status True",
            "      ends completed",
            "    ends completed",
        ),
    ]
    assert told in (
        ["parallel", "  begins", *n11, *n12, "  ends completed"],
        ["parallel", "  begins", *n12, *n11, "  ends completed"],
    )
    assert sorted(result.logs) == ["talking about n11", "talking about n12"]
