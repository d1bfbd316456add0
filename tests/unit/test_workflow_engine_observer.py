"""An observer sees each step and check, and may hold the work itself, as a keyword does."""

import pytest
from testyard.core.errors import UserError
from testyard.workflow.observer import Observer, Recording
from workflow_engine_support import World

INIT = {"step": "init"}
LOOK = {"step": "validate", "checks": ["cluster_status"]}


class Telling(Observer):
    """Writes down what it is told, indented by what holds it."""

    def __init__(self):
        self.told = []
        self._depth = 0

    def tell(self, line):
        self.told.append("  " * self._depth + line)

    def _inside(self, line, proceed):
        self.tell(line)
        self._depth += 1
        proceed()
        self._depth -= 1

    def before_suite(self, suite, result):
        self.tell(f"suite {suite.name}")

    def after_suite(self, suite, result):
        self.tell(f"suite ended: {result.success}")

    def around_step(self, step, result, proceed):
        self._inside(f"[{step.title}", proceed)
        self.tell(f"{result.status}]")

    def before_step(self, step, result):
        self.tell(f"begins {result.status}")

    def after_step(self, step, result):
        self.tell(f"ends {result.status}: {result.error}")

    def around_check(self, step, result, proceed):
        self._inside(f"[{result.check}", proceed)
        self.tell(f"{result.passed}]")

    def before_check(self, step, result):
        self.tell("begins")

    def after_check(self, step, result):
        self.tell(f"ends {result.passed}: {result.error}")


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def test_steps_and_checks_are_told_nested(world):
    world.fail("cluster_status", False)
    observer = Telling()
    world.run({"step": "group", "description": "Together", "steps": [INIT, LOOK]}, observer=observer)
    assert observer.told == [
        "suite basic",
        "[Together",
        "  begins running",
        "  [init",
        "    begins running",
        "    ends completed: None",
        "  completed]",
        "  [validate",
        "    begins running",
        "    [cluster_status",
        "      begins",
        "      ends False: the check returned False",
        "    False]",
        "    ends failed: cluster_status: the check returned False",
        "  failed]",
        "  ends failed: step 2, validate: cluster_status: the check returned False",
        "failed]",
        "suite ended: False",
    ]


def test_a_recording_tells_another_observer_the_same(world):
    world.fail("cluster_status", False)
    observer, recording, again = Telling(), Recording(), Telling()
    steps = [{"step": "group", "steps": [INIT, LOOK]}]
    world.run(*steps, observer=observer)
    world.fail("cluster_status", False)
    world.run(*steps, observer=recording)
    recording.replay(again)
    without_suite = observer.told[1:-1]
    # When it is told, the results are those of the end.
    assert [line.replace("begins running", "begins") for line in without_suite] == [
        line.replace("begins completed", "begins").replace("begins failed", "begins") for line in again.told
    ]


def test_a_skipped_step_is_told_without_beginning(world):
    observer = Telling()
    world.run({**INIT, "id": "a"}, {**INIT, "when": {"step": "a", "status": "skipped"}}, observer=observer)
    assert observer.told[-3:] == ["[init", "skipped]", "suite ended: True"]


def test_what_an_observer_raises_aborts_the_run_and_undoes_the_group(world):
    class Broken(Observer):
        def after_step(self, step, result):
            if step.step == "init":
                raise RuntimeError("the log is full")

    stop = {"step": "stop_node", "target_node": "n12", "rollback": [{"step": "start_node"}]}
    with pytest.raises(RuntimeError, match="the log is full"):
        world.run({"step": "group", "steps": [stop, INIT]}, observer=Broken())
    assert world.acted == ["stop_node n12", "init", "start_node n12"]
    assert world.written()["error"] == "Aborted: RuntimeError: the log is full"


@pytest.mark.parametrize("what", ["around_step", "around_check"])
def test_an_observer_that_does_not_run_the_work_lets_nothing_pass(world, what):
    observer = type("Lazy", (Observer,), {what: lambda *_: None})()
    with pytest.raises(RuntimeError, match="The observer Lazy did not run the"):
        world.run(LOOK, observer=observer)
    assert world.written()["success"] is False
    assert world.acted == []


def test_a_result_that_can_no_longer_be_written_ends_the_run_and_undoes_the_group(world):
    def spoil(context, step):
        (world.directory / "result.json").unlink()
        (world.directory / "result.json").mkdir()

    world.steps.register("spoil", "Put a directory where the result is", spoil)
    stop = {"step": "stop_node", "target_node": "n12", "rollback": [{"step": "start_node"}]}
    with pytest.raises(UserError, match="cannot be written: Is a directory"):
        world.run({"step": "group", "allow_failure": True, "steps": [stop, {"step": "spoil"}]}, INIT)
    assert world.acted == ["stop_node n12", "start_node n12"]


def test_an_observer_that_fails_before_each_step_does_not_keep_a_group_from_being_undone(world):
    class Broken(Observer):
        def around_step(self, step, result, proceed):
            if world.acted:
                raise RuntimeError("the log is full")
            proceed()

    stops = [{"step": "stop_node", "target_node": n, "rollback": [{"step": "start_node"}]} for n in ("n11", "n12")]
    with pytest.raises(RuntimeError, match="the log is full"):
        world.run({"step": "group", "steps": stops}, observer=Broken())
    assert world.acted == ["stop_node n11", "start_node n12", "start_node n11"]
