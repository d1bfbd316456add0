"""With the gate open the suites run against somebody's own Waldurs, and no lab is started."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from acceptance_support import ENDS_WITHIN, FEDERATION, RobotRun, Run, leaks_in, send
from own_waldurs import OwnFederation, provision
from testyard.core.deadline import Deadline, wait_until
from testyard.lab.supervisor import Supervisor, WaldurInstance
from testyard.waldur.api import Resource, Waldur
from testyard.waldur.states import ResourceState

POLLING = FEDERATION / "20_rest_polling.robot"
RUN_ID = re.compile(r"resources named '(ty[0-9a-f]{6}) …'")


class OwnLab:
    """Two Waldurs that are not robot's to start, and runs against them.

    Args:
        source: Waldur A.
        target: Waldur B.
        directory: Where runs and configurations go.
        stack: Ends what is still running.
    """

    def __init__(self, source: WaldurInstance, target: WaldurInstance, directory: Path, stack: ExitStack) -> None:
        self.sides = (source, target)
        self._directory = directory
        self._stack = stack
        self.federations: dict[str, OwnFederation] = {}

    def environment(
        self, name: str, change: Callable[[dict[str, Any]], object] = lambda _: None
    ) -> dict[str, str]:
        """Provision a federation of this name; gives the plan's variables, with a changed configuration."""
        federation = provision(*self.sides, name)
        self.federations[name] = federation
        change(federation.content["offerings"][0])
        return federation.environment(self._directory / f"{name}.yaml")

    def robot(self, name: str, suite: Path, environment: dict[str, str]) -> RobotRun:
        """Start a run."""
        return self._stack.enter_context(RobotRun(self._directory / name, suite, environment=environment))

    def cleanup(self, name: str, run: str) -> Run:
        """Start ``testyard cleanup`` of a run in the federation of this name."""
        environment = self.federations[name].environment(self._directory / f"{name}.yaml")
        command = Run(self._directory / "cleanup", "testyard", "cleanup", "--run", run, environment=environment)
        return self._stack.enter_context(command)

    def resources(self, run: str) -> list[list[Resource]]:
        """The resources on A and on B whose names start with a run's id, as staff sees them."""
        found = []
        for side in self.sides:
            with Waldur(side.url, side.staff_token) as waldur:
                every = map(Resource.model_validate, waldur.all("marketplace-resources"))
                found.append([resource for resource in every if resource.name.startswith(f"{run} ")])
        return found


@pytest.fixture(scope="module")
def own_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnLab]:
    """Two Waldurs that this process, not robot, has started."""
    with Supervisor() as supervisor, ExitStack() as stack:
        source, target = supervisor.start_waldurs()
        yield OwnLab(source, target, tmp_path_factory.mktemp("own"), stack)


def lacks_components(offering: dict[str, Any]) -> None:
    """Name components that neither offering has."""
    component = offering["backend_components"].pop("node_hours")
    offering["backend_components"]["gpu_hours"] = component | {
        "target_components": {"gpu_credits": {"factor": 2.0}}
    }


@dataclass(frozen=True)
class Seen:
    """A finished run, and the command lines of every process it ever had."""

    run: RobotRun
    commands: frozenset[str]


@dataclass(frozen=True)
class CleanedUp:
    """A finished clean-up, and how many resources of the run were there before it."""

    command: Run
    run: str
    before: int


@pytest.fixture(scope="module")
def started(own_lab: OwnLab) -> dict[str, RobotRun]:
    """Three runs, each with its federation: of all suites, one to be killed, one with unknown components."""
    return {
        "whole": own_lab.robot("whole", FEDERATION, own_lab.environment("whole")),
        "killed": own_lab.robot("killed", POLLING, own_lab.environment("killed")),
        "unknown": own_lab.robot("unknown", FEDERATION, own_lab.environment("unknown", lacks_components)),
    }


@pytest.fixture(scope="module")
def cleaning_up(started: dict[str, RobotRun], own_lab: OwnLab) -> CleanedUp:
    """Kills a run whose order is under way, and starts the clean-up."""
    killed = started["killed"]
    killed.wait_for("START KEYWORD: WaldurLibrary.Let The Agent Work [")
    send(killed, signal.SIGKILL)
    killed.finish()
    run = run_id(killed)
    before = len(own_lab.resources(run)[0])
    return CleanedUp(own_lab.cleanup("killed", run), run, before)


@pytest.fixture(scope="module")
def finished(started: dict[str, RobotRun], cleaning_up: CleanedUp) -> dict[str, Seen]:
    """The runs at their end."""
    commands: dict[str, set[str]] = {name: set() for name in started}

    def have_ended() -> bool:
        for name, run in started.items():
            commands[name].update(run.commands())
        return all(run.process.poll() is not None for run in (*started.values(), cleaning_up.command))

    wait_until(have_ended, bool, Deadline(ENDS_WITHIN), "the runs to end")
    return {name: Seen(run, frozenset(commands[name])) for name, run in started.items()}


@pytest.fixture(scope="module")
def whole(finished: dict[str, Seen]) -> Seen:
    """The run of all suites."""
    return finished["whole"]


def run_id(run: RobotRun) -> str:
    """The id that a run has printed."""
    found = RUN_ID.search(run.stdout)
    assert found, f"no run id in:\n{run.stdout}"
    return found[1]


def test_what_needs_the_lab_is_skipped_and_the_rest_passes(whole: Seen) -> None:
    tests = whole.run.tests().values()
    needy = {test.name: test.message for test in tests if any(tag.startswith("needs:") for tag in test.tags)}
    skipped = {test.name: test.message for test in tests if test.status == "SKIP"}

    assert {test.name: test.message for test in tests if test.status == "FAIL"} == {}
    assert skipped == needy
    assert len(tests) - len(skipped) >= 14
    assert len(skipped) >= 15
    for reason in skipped.values():
        assert re.fullmatch(
            r"Not on your own systems: it (breaks a system|creates .+), which only the embedded lab allows\. "
            r"The embedded lab includes it\.",
            reason.replace(" on purpose", ""),
        )


def test_robot_starts_no_lab(whole: Seen) -> None:
    assert any("-m robot" in command for command in whole.commands)
    assert [command for command in whole.commands if "testyard.lab" in command] == []
    assert whole.run.leftovers() == []


def test_what_will_be_done_is_printed_before_it_is_done(whole: Seen, own_lab: OwnLab) -> None:
    before, plan, _ = whole.run.stdout.partition(f"resources named '{run_id(whole.run)} …'")
    first = whole.run.stdout[len(before) :].partition("\n")[0]

    assert plan
    assert not re.search(r"\| (PASS|FAIL|SKIP) \|", before), "a test ran before the plan was printed"
    for part in (own_lab.federations["whole"].project, *(side.url for side in own_lab.sides)):
        assert part in first
    assert f"testyard cleanup --run {run_id(whole.run)}" in first


def test_every_name_carries_the_run_id_and_nothing_is_left_alive(whole: Seen, own_lab: OwnLab) -> None:
    project = own_lab.federations["whole"].project
    with Waldur(own_lab.sides[0].url, own_lab.sides[0].staff_token) as waldur:
        ordered = {it["name"] for it in waldur.all("marketplace-resources", project_uuid=project)}
    on_a, on_b = own_lab.resources(run_id(whole.run))

    assert len(on_a) == len(on_b) == 3
    assert ordered == {resource.name for resource in on_a}
    assert {resource.state for resource in (*on_a, *on_b)} == {ResourceState.TERMINATED}


def test_no_token_of_the_configuration_is_shown(whole: Seen, own_lab: OwnLab) -> None:
    assert leaks_in(whole.run.written(), own_lab.federations["whole"].tokens) == []


@pytest.mark.usefixtures("finished")
def test_cleanup_ends_what_a_killed_run_left(cleaning_up: CleanedUp, own_lab: OwnLab) -> None:
    command = cleaning_up.command
    on_a, on_b = own_lab.resources(cleaning_up.run)

    assert cleaning_up.before == 1
    assert (command.process.returncode, command.stderr) == (0, "")
    assert len(on_a) == 1
    assert {resource.state for resource in (*on_a, *on_b)} == {ResourceState.TERMINATED}
    assert command.leftovers() == []
    assert leaks_in({"stdout": command.stdout}, own_lab.federations["killed"].tokens) == []


def test_components_that_the_offerings_lack_end_the_run_by_name(
    finished: dict[str, Seen], own_lab: OwnLab
) -> None:
    run = finished["unknown"].run
    message = run.result().suite.suites[0].message

    assert "Waldur A: component gpu_hours: expected billed by limit, found no such component" in message
    assert "Waldur B: component gpu_credits = gpu_hours x 2: expected billed by limit, found no such" in message
    assert "Traceback" not in run.stdout + run.stderr
    assert {test.status for test in run.tests().values()} == {"FAIL"}
    assert run.debug.count("START SETUP") == 1, "another suite was set up"
    assert own_lab.resources(run_id(run)) == [[], []]
    assert leaks_in(run.written(), own_lab.federations["unknown"].tokens) == []
