"""Step types and checks are registered as the document says, each name once."""

import pytest
from pydantic import BaseModel, ConfigDict
from testyard.core.errors import UserError
from testyard.workflow.context import Context
from testyard.workflow.engine import WorkflowExecutor
from testyard.workflow.loading import default_checks, default_steps
from testyard.workflow.model import Retry, Step
from testyard.workflow.registry import CheckRegistry, StepRegistry
from workflow_engine_support import World


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


class GreetFields(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    name: str
    times: int = 1


def test_a_check_is_registered_with_the_document_s_arguments():
    checks = CheckRegistry()
    checks.register("mine", "Mine", lambda context: True, False, Retry(max_attempts=2))
    check, arguments = checks.split("mine")
    assert (check.description, check.allow_failure, check.retry.max_attempts) == ("Mine", False, 2)
    assert arguments == []


def test_the_defaults_of_a_retry_are_the_document_s():
    assert (Retry().max_attempts, Retry().delay_seconds) == (1, 5)


def test_a_check_s_arguments_follow_after_colons(world):
    check, arguments = world.checks.split("node_status:n12:stopped")
    assert (check.grammar, arguments) == ("node_status:<node>[:<state>]", ["n12", "stopped"])


@pytest.mark.parametrize("registry", [CheckRegistry(), StepRegistry()])
def test_a_name_is_registered_once(registry):
    registry.register("mine", "The first", lambda *_: True)
    with pytest.raises(UserError, match="named 'mine' is registered already: The first"):
        registry.register("mine", "The second", lambda *_: True)
    assert registry.find("mine").description == "The first"


@pytest.mark.parametrize("name", ["validate", "parallel", "group", "chaos", "custom_command"])
def test_the_engine_s_own_step_types_cannot_be_registered(name):
    with pytest.raises(UserError, match="registered already"):
        StepRegistry().register(name, "Mine", lambda context, step: None)


@pytest.mark.parametrize("name", ["", "a:b"])
def test_a_check_s_name_must_be_distinct_from_its_arguments(name):
    with pytest.raises(UserError, match="must not be empty or hold a colon"):
        CheckRegistry().register(name, "Mine", lambda context: True)


def test_an_unknown_check_is_not_found():
    with pytest.raises(UserError, match="unknown check 'nope'"):
        CheckRegistry().split("nope:n11")


def test_a_custom_step_has_its_own_typed_keys(world):
    def greet(context: Context, step: Step) -> dict[str, str]:
        fields = step.own(GreetFields)
        return {"said": " ".join(["hello", fields.name] * fields.times)}

    world.steps.register("greet", "Say hello", greet, fields=GreetFields)
    result = world.run({"step": "greet", "name": "you", "times": 2})
    assert result.workflow_steps[0].result == {"said": "hello you hello you"}
    assert world.problems({"step": "greet", "nam": "you"}) == [
        "workflow[0].name: is missing",
        "workflow[0].nam: unknown key \"nam\"; did you mean 'name'?",
    ]


def test_a_step_has_only_the_model_of_its_type(world):
    step = world.parse({"step": "init"}).suite().workflow[0]
    with pytest.raises(TypeError, match="type 'init' has no GreetFields"):
        step.own(GreetFields)


def test_a_copy_of_a_registry_is_added_to_by_itself(world):
    copy = world.steps.copy()
    copy.register("mine", "Mine", lambda context, step: None)
    assert (world.steps.find("mine"), copy.find("init")) == (None, world.steps.find("init"))


def test_the_built_in_steps_and_checks_are_those_of_the_document():
    assert set(default_steps().names()) == {
        *("init", "deploy", "validate", "stop_cluster", "start_cluster", "stop_node", "start_node"),
        *("restart_node", "crash_node", "custom_command", "destroy", "parallel", "group", "chaos"),
    }
    assert set(default_checks().names()) == {
        *("cluster_status", "cluster_status_stopped", "cluster_degraded", "cluster_critical", "all_nodes_running"),
        *("ssh_connectivity", "vms_powered_off", "node_status", "database_running", "database_degraded"),
        *("database_down", "admin_ui_accessible", "data_integrity"),
    }
    assert default_checks().find("node_status").grammar == "node_status:<node>[:<state>]"


# ---- the document's other way to add step types


def run_own(world: World, executor: WorkflowExecutor, step: dict[str, object]) -> object:
    world.steps = executor.steps
    suite = world.parse(step).suite()
    return executor.run(suite).workflow_steps[0].result


def test_a_function_assigned_to_an_executor_is_a_step_type(world):
    executor = world.executor()

    def _execute_my_custom_step(self, step):
        return {"executor": self is executor, "type": step.step, "anything": step.model_extra}

    executor._execute_my_custom_step = _execute_my_custom_step
    assert run_own(world, executor, {"step": "my_custom_step", "any": 3}) == {
        "executor": True,
        "type": "my_custom_step",
        "anything": {"any": 3},
    }


def test_a_function_that_takes_the_step_only_is_given_the_step_only(world):
    executor = world.executor()
    executor._execute_my_custom_step = lambda step: {"node": step.target_node}
    assert run_own(world, executor, {"step": "my_custom_step", "target_node": "n12"}) == {"node": "n12"}


def test_a_method_of_a_subclass_is_a_step_type_and_may_replace_a_known_one(world):
    class Mine(WorkflowExecutor):
        def _execute_init(self, step):
            return {"parameters": self.context["parameters"]}

    executor = Mine(world.context(), world.steps, world.checks)
    assert run_own(world, executor, {"step": "init"}) == {"parameters": {"cluster_size": 3}}
    assert world.acted == []


def test_an_executor_s_own_steps_are_unknown_to_others(world):
    executor = world.executor()
    executor._execute_mine = lambda step: None
    assert world.problems({"step": "mine"})[0].startswith('workflow[0].step: unknown step "mine"')
