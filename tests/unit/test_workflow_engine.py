"""Steps run in order until one fails that may not, with the document's attempts and allowed failures."""

from types import SimpleNamespace

import pytest
from testyard.core.errors import NotMetError, UserError
from testyard.core.redact import secrets_in_use
from testyard.workflow.model import Retry
from testyard.workflow.registry import Measurement
from workflow_engine_support import World, statuses

INIT, DEPLOY, DESTROY = {"step": "init"}, {"step": "deploy"}, {"step": "destroy"}
SECRET = "correct-horse-battery-staple"


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


@pytest.fixture
def paused(monkeypatch):
    """How long the engine wanted to pause, in seconds; it does not."""
    seconds: list[float] = []

    def immediate(within):
        if within:
            seconds.append(within.total_seconds())
        return SimpleNamespace(expired=True)

    monkeypatch.setattr("testyard.workflow.execution.Deadline", immediate)
    return seconds


def look(*checks, **more):
    return {"step": "validate", "checks": list(checks), **more}


# ---- the order of things


def test_steps_run_one_after_the_other(world):
    result = world.run(INIT, DEPLOY, {"step": "stop_node", "target_node": "n12"}, look("cluster_status"), DESTROY)
    assert result.success
    assert result.error is None
    assert world.acted == ["init", "deploy", "stop_node n12", "check cluster_status", "destroy"]
    assert statuses(result) == ["completed"] * 5


def test_the_first_step_that_fails_ends_the_workflow(world):
    world.fail("deploy")
    result = world.run(INIT, DEPLOY, DESTROY)
    assert not result.success
    assert result.error == "1 workflow step(s) failed"
    assert statuses(result) == ["completed", "failed"]
    assert result.workflow_steps[1].error == "RuntimeError: it broke"
    assert world.acted == ["init", "deploy"]


def test_a_failed_step_with_a_retry_ends_the_workflow_too(world):
    world.fail("deploy", *[RuntimeError("it broke")] * 2)
    assert statuses(world.run({**DEPLOY, "retry": {"max_attempts": 2}}, DESTROY)) == ["failed"]


def test_the_workflow_goes_on_after_a_step_that_may_fail(world):
    world.fail("init")
    result = world.run({**INIT, "allow_failure": True}, DEPLOY)
    assert statuses(result) == ["failed", "completed"]
    assert (result.success, result.error) == (True, None)
    assert result.workflow_steps[0].error == "RuntimeError: it broke"


@pytest.mark.parametrize("problem", [UserError("Wrong key."), NotMetError("Not there.")])
def test_an_error_that_is_written_for_people_is_shown_as_it_is(world, problem):
    world.fail("init", problem)
    assert world.run(INIT).workflow_steps[0].error == str(problem)


def test_a_refusal_is_told_by_its_name_and_is_not_tried_again(world):
    world.fail("stop_node n12", *[NotImplementedError("Provider 'hetzner' does not support 'stop_node'")] * 3)
    result = world.run({"step": "stop_node", "target_node": "n12", "retry": {"max_attempts": 3}})
    step = result.workflow_steps[0]
    assert step.error == "NotImplementedError: Provider 'hetzner' does not support 'stop_node'"
    assert step.attempts == 1


@pytest.mark.parametrize("returned", [False, True, 0, "done", []])
def test_a_step_that_returns_no_mapping_has_not_passed(world, returned):
    world.steps.register("odd", "Returns something else", lambda context, step: returned)
    step = world.run({"step": "odd"}).workflow_steps[0]
    assert str(step.status) == "failed"
    assert f"'odd' returned {returned!r}" in step.error


def test_steps_and_checks_are_given_the_documented_context_and_the_results_so_far(world):
    seen = []

    def look_around(context, *_):
        seen.append((context["parameters"], context["deploy_dir"], context.provider, statuses_of(context)))
        return True

    def statuses_of(context):
        return [str(result.status) for result in context.results]

    world.checks.register("around", "Look around", look_around)
    world.steps.register("around", "Look around", lambda context, step: look_around(context) and None)
    world.run(INIT, {"step": "around"}, look("around"))
    here = ({"cluster_size": 3}, world.directory, "libvirt")
    assert seen == [(*here, ["completed", "running"]), (*here, ["completed", "completed", "running"])]


def test_a_context_without_a_cluster_says_so(world):
    world.steps.register("touch", "Use the cluster", lambda context, step: context.cluster)
    assert "made without one" in world.run({"step": "touch"}).workflow_steps[0].error


# ---- attempts


def test_a_step_is_tried_again_as_often_as_it_says(world, paused):
    world.fail("deploy", RuntimeError("one"), RuntimeError("two"))
    result = world.run({**DEPLOY, "retry": {"max_attempts": 5, "delay_seconds": 30}}, delay_scale=1.0)
    step = result.workflow_steps[0]
    assert (str(step.status), step.attempts, step.error) == ("completed", 3, None)
    assert world.acted == ["deploy"] * 3
    assert paused == [30, 30]


def test_a_step_that_never_passes_is_given_up_and_keeps_its_last_error(world, paused):
    world.fail("deploy", RuntimeError("one"), RuntimeError("two"), RuntimeError("three"))
    step = world.run(
        {**DEPLOY, "retry": {"max_attempts": 2, "delay_seconds": 30}}, delay_scale=1.0
    ).workflow_steps[0]
    assert (str(step.status), step.attempts, step.error) == ("failed", 2, "RuntimeError: two")
    assert paused == [30]


def test_a_step_is_tried_once_unless_someone_says_otherwise(world, paused):
    world.fail("deploy")
    assert world.run(DEPLOY, delay_scale=1.0).workflow_steps[0].attempts == 1
    assert paused == []


def test_a_step_type_s_own_attempts_count_where_the_step_says_nothing(world, paused):
    calls = []

    def act(context, step):
        calls.append(step)
        raise RuntimeError("no")

    world.steps.register("try", "Try", act, retry=Retry(max_attempts=3, delay_seconds=7))
    assert world.run({"step": "try"}, delay_scale=1.0).workflow_steps[0].attempts == 3
    assert paused == [7, 7]
    paused.clear()
    world.run({"step": "try", "retry": {"max_attempts": 2}}, delay_scale=1.0)
    assert paused == [7]


def test_an_environment_may_shorten_the_pauses_but_not_the_number_of_attempts(world, paused):
    world.fail("deploy", *[RuntimeError("no")] * 5)
    step = world.run(
        {**DEPLOY, "retry": {"max_attempts": 5, "delay_seconds": 30}}, delay_scale=0.01
    ).workflow_steps[0]
    assert step.attempts == 5
    assert paused == pytest.approx([0.3] * 4)


def test_a_pause_is_as_long_as_it_says(world):
    world.fail("deploy")
    result = world.run({**DEPLOY, "retry": {"max_attempts": 2, "delay_seconds": 0.12}}, delay_scale=1.0)
    assert 0.12 <= result.workflow_steps[0].duration < 5


# ---- checks


def test_each_check_s_verdict_is_kept(world):
    world.fail("database_down", Measurement(False, "n11 accepts connections"))
    result = world.run(
        look("cluster_status", "database_down", "all_nodes_running", allow_failures=["database_down"])
    )
    assert result.success
    assert [check.to_json() for check in result.workflow_steps[0].validation_results] == [
        check_json("cluster_status", measured="as it should be"),
        check_json(
            "database_down",
            passed=False,
            allow_failure=True,
            error="n11 accepts connections",
            measured="n11 accepts connections",
        ),
        check_json("all_nodes_running", measured="as it should be"),
    ]


def check_json(check, **more):
    document = {
        "check": check,
        "passed": True,
        "attempts": 1,
        "allow_failure": False,
        "error": None,
        "measured": None,
    }
    return {**document, **more}


def test_the_first_check_that_fails_and_may_not_ends_the_step(world):
    world.fail("database_running", False)
    result = world.run(look("cluster_status", "database_running", "all_nodes_running"), DESTROY)
    step = result.workflow_steps[0]
    assert step.error == "database_running: the check returned False"
    assert [check.passed for check in step.validation_results] == [True, False]
    assert world.acted == ["check cluster_status", "check database_running"]


def test_an_allowed_failure_allows_only_the_check_it_names(world):
    world.fail("cluster_status", False)
    world.fail("database_down", False)
    result = world.run(look("database_down", "cluster_status", allow_failures=["database_down"]))
    assert not result.success
    assert result.workflow_steps[0].error == "cluster_status: the check returned False"
    assert [check.allow_failure for check in result.workflow_steps[0].validation_results] == [True, False]


def test_an_allowed_failure_with_arguments_allows_only_those(world):
    world.fail("node_status:n12:running", False)
    result = world.run(look("node_status:n12", allow_failures=["node_status:n11"]))
    assert result.workflow_steps[0].error == "node_status:n12: the check returned False"


def test_a_check_may_be_registered_as_one_that_may_fail(world):
    world.checks.register("optional", "Optional", lambda context: False, True)
    assert world.run(look("optional")).success


def test_a_check_s_arguments_are_handed_on(world):
    assert world.run(look("node_status:n12:stopped", "node_status:n13")).success
    assert world.acted == ["check node_status:n12:stopped", "check node_status:n13:running"]


def test_a_check_is_tried_again_and_its_error_is_cleared_when_it_passes(world, paused):
    world.fail("cluster_status", RuntimeError("refused"), False)
    result = world.run(look("cluster_status", retry={"max_attempts": 5, "delay_seconds": 30}), delay_scale=1.0)
    check = result.workflow_steps[0].validation_results[0]
    assert (check.passed, check.attempts, check.error) == (True, 3, None)
    assert result.workflow_steps[0].error is None
    assert paused == [30, 30]


def test_each_check_has_its_own_attempts(world, paused):
    world.fail("cluster_status", False)
    world.fail("all_nodes_running", False, False)
    result = world.run(look("cluster_status", "all_nodes_running", retry={"max_attempts": 3, "delay_seconds": 1}))
    assert [check.attempts for check in result.workflow_steps[0].validation_results] == [2, 3]
    assert result.workflow_steps[0].attempts == 1


def test_a_check_s_registered_attempts_count_where_the_step_says_nothing(world, paused):
    world.checks.register("slow", "Slow", lambda context: False, False, Retry(max_attempts=4, delay_seconds=2))
    assert world.run(look("slow"), delay_scale=1.0).workflow_steps[0].validation_results[0].attempts == 4
    assert paused == [2, 2, 2]
    assert world.run(look("slow", retry={"max_attempts": 2})).workflow_steps[0].validation_results[0].attempts == 2


def test_a_check_that_raises_fails_an_attempt(world):
    world.fail("cluster_status", KeyError("status"))
    check = world.run(look("cluster_status")).workflow_steps[0].validation_results[0]
    assert (check.passed, check.error) == (False, "KeyError: 'status'")


@pytest.mark.parametrize("returned", [None, 1, "yes", [], Measurement(1, "one")])
def test_a_check_that_returns_no_verdict_has_not_passed(world, returned):
    world.fail("cluster_status", returned)
    result = world.run(look("cluster_status"))
    assert not result.success
    assert "returned" in result.workflow_steps[0].validation_results[0].error


# ---- conditions


def test_a_step_whose_condition_does_not_hold_is_skipped_and_says_why(world):
    world.fail("database_down", False)
    first = look("database_down", "cluster_status", id="look", allow_failures=["database_down"])
    result = world.run(
        first,
        {**INIT, "when": {"step": "look", "check": "database_down"}},
        {**DEPLOY, "when": {"step": "look", "check": "database_down", "passed": False}},
        {**DESTROY, "when": {"step": "look", "status": "skipped"}},
    )
    assert result.success
    assert statuses(result) == ["completed", "skipped", "completed", "skipped"]
    assert result.workflow_steps[1].result == {"skipped": "'database_down' of step 'look' has not passed"}
    assert result.workflow_steps[3].result == {"skipped": "step 'look' is completed, not skipped"}
    assert world.acted[2:] == ["deploy"]


@pytest.mark.parametrize(("fails", "acted"), [(True, ["init", "destroy"]), (False, ["init", "deploy"])])
def test_a_condition_asks_how_a_step_has_ended(world, fails, acted):
    if fails:
        world.fail("init")
    world.run(
        {**INIT, "id": "first", "allow_failure": True},
        {**DEPLOY, "when": {"step": "first", "status": "completed"}},
        {**DESTROY, "when": {"step": "first", "status": "failed"}},
    )
    assert world.acted == acted


def test_a_check_that_was_not_reached_has_neither_passed_nor_failed(world):
    world.fail("cluster_status", False)
    first = look("cluster_status", "database_down", id="look", allow_failure=True)
    conditions = [{"step": "look", "check": "database_down", "passed": passed} for passed in (True, False)]
    result = world.run(first, *({**INIT, "when": when} for when in conditions))
    assert statuses(result) == ["failed", "skipped", "skipped"]


def test_a_step_in_a_skipped_group_counts_as_skipped(world):
    result = world.run(
        look("cluster_status", id="look"),
        {"step": "group", "when": {"step": "look", "status": "skipped"}, "steps": [{**INIT, "id": "inner"}]},
        {**DEPLOY, "when": {"step": "inner", "status": "skipped"}},
    )
    assert statuses(result) == ["completed", "skipped", "completed"]


# ---- secrets


def test_a_secret_reaches_no_result_and_no_log(world):
    secrets_in_use.add(SECRET)
    said = []
    world.steps.register("leak", "Leak", leak)
    world.checks.register("leak", "Leak", lambda context: Measurement(False, f"found {SECRET}"))
    executor = world.executor()
    executor.context.log = said.append
    result = executor.run(
        world.parse(
            {"step": "leak"}, look("leak", allow_failures=["leak"]), look("leak"), parameters={"password": SECRET}
        ).suite()
    )
    assert result.workflow_steps[0].result == {"token": "***", "nested": ["***"]}
    assert said == result.logs == ["using ***"]
    assert result.workflow_steps[1].validation_results[0].measured == "found ***"
    text = (world.directory / "result.json").read_text()
    assert SECRET not in text
    assert '"password": "***"' in text


def test_a_secret_is_not_in_the_result_of_a_run_that_goes_on_either(world):
    secrets_in_use.add(SECRET)
    seen = []
    read = (world.directory / "result.json").read_text
    world.steps.register("look", "Look", lambda context, step: seen.append(read()))
    world.executor().run(world.parse({"step": "look"}, parameters={"password": SECRET}).suite())
    assert '"password": "***"' in seen[0]


def leak(context, step):
    context.log(f"using {SECRET}")
    return {"token": SECRET, "nested": [SECRET]}
