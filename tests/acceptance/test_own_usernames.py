"""Document 001 on somebody's own Waldurs: as their staff, with their Django shell, and cleaned up after a kill."""

from __future__ import annotations

import json
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from acceptance_support import ENDS_WITHIN, PROJECT, RobotRun, Run, leaks_in, send
from testyard.core.deadline import Deadline, wait_until
from testyard.lab.supervisor import Supervisor, WaldurInstance
from testyard.waldur.api import Waldur
from testyard.waldur.provisioning import PREPARED_COLLECTIONS

USERNAMES = PROJECT / "suites" / "usernames"
DOCUMENTED = [
    USERNAMES / f"{name}.robot" for name in ("10_username_sync", "20_event_routing", "30_reconciliation")
]
RUN_ID = re.compile(r"users named (ty[0-9a-f]{6})-…")


@pytest.fixture(scope="module")
def sides() -> Iterator[list[WaldurInstance]]:
    """Two Waldurs that this process, not robot, has started."""
    with Supervisor() as supervisor:
        yield supervisor.start_waldurs()


@pytest.fixture(scope="module")
def stack() -> Iterator[ExitStack]:
    """Ends what is still running."""
    with ExitStack() as stack:
        yield stack


def environment(sides: list[WaldurInstance]) -> dict[str, str]:
    """Where the Waldurs are and who their staff is."""
    return {"WALDUR_E2E_TESTS": "true"} | {
        name: value
        for side in sides
        for name, value in (
            (f"WALDUR_URL_{side.name}", side.url),
            (f"WALDUR_STAFF_TOKEN_{side.name}", side.staff_token),
        )
    }


def variables(sides: list[WaldurInstance], directory: Path, *, with_shells: bool = True) -> str:
    """A variable file: where STOMP is, and how to reach the shells."""
    shell = str(PROJECT / "tests" / "waldur_shell.py")
    shells = {}
    for side in sides:
        control = side.control._client  # the double's own, which the run does not know
        headers = control._client.headers
        shells[side.name] = {"command": [sys.executable, shell, control.base_url, headers["X-Lab-Token"]]}
    content = {
        "STOMP": {"websocket_use_tls": False, "stomp_ws_port": sides[0].port},
        "SHELLS": shells if with_shells else {},
    }
    file = directory / f"own-{with_shells}.json"
    file.write_text(json.dumps(content))
    return str(file)


@pytest.fixture(scope="module")
def runs(
    sides: list[WaldurInstance], stack: ExitStack, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, RobotRun]:
    """A run of document 001, one without a shell, and one that is killed; each at its end."""
    directory = tmp_path_factory.mktemp("own")

    def start(name: str, *suites: Path, with_shells: bool = True) -> RobotRun:
        options = ("--variablefile", variables(sides, directory, with_shells=with_shells))
        run = RobotRun(directory / name, *options, *suites, environment=environment(sides))
        return stack.enter_context(run)

    started = {
        "whole": start("whole", *DOCUMENTED),
        "shell-less": start("shell-less", DOCUMENTED[0], with_shells=False),
        "killed": start("killed", DOCUMENTED[0]),
    }
    started["killed"].wait_for("START KEYWORD: WaldurLibrary.Sync Usernames [")
    send(started["killed"], signal.SIGKILL)
    for run in started.values():
        wait_until(run.process.poll, lambda status: status is not None, Deadline(ENDS_WITHIN), "the run to end")
        run.finish()
    return started


def left(sides: list[WaldurInstance], run: str) -> list[str]:
    """What a run has left on either side."""
    found = []
    for side in sides:
        with Waldur(side.url, side.staff_token) as waldur:
            for collection, attribute in PREPARED_COLLECTIONS.items():
                found += [it[attribute] for it in waldur.all(collection) if it[attribute].startswith(run)]
    return found


def run_id(run: RobotRun) -> str:
    """The id that a run has printed."""
    found = RUN_ID.search(run.stdout)
    assert found, f"no run id in:\n{run.stdout}"
    return found[1]


def test_every_documented_test_passes_and_leaves_nothing(
    runs: dict[str, RobotRun], sides: list[WaldurInstance]
) -> None:
    run = runs["whole"]
    assert {name: test.message for name, test in run.tests().items() if test.status != "PASS"} == {}
    assert len(run.tests()) == 18
    assert left(sides, run_id(run)) == []
    assert run.leftovers() == []
    assert leaks_in(run.written(), [side.staff_token for side in sides]) == []


def test_what_will_be_made_is_printed_first(runs: dict[str, RobotRun], sides: list[WaldurInstance]) -> None:
    before, plan, _ = runs["whole"].stdout.partition("this run makes, changes and deletes")
    assert plan
    assert sides[0].url in before
    assert not re.search(r"\| (PASS|FAIL|SKIP) \|", before)


def test_without_a_shell_the_tests_skip_and_say_how_to_give_one(runs: dict[str, RobotRun]) -> None:
    tests = runs["shell-less"].tests().values()
    assert {test.status for test in tests} == {"SKIP"}
    for test in tests:
        assert "needs a Django shell on Waldur A: set the variable SHELLS" in test.message


def test_cleanup_deletes_what_a_killed_run_made(
    runs: dict[str, RobotRun],
    sides: list[WaldurInstance],
    tmp_path: Path,
    stack: ExitStack,
) -> None:
    run = run_id(runs["killed"])
    assert left(sides, run), "the run was killed too late"
    cleanup = Run(tmp_path / "cleanup", "testyard", "cleanup", "--run", run, environment=environment(sides))
    stack.enter_context(cleanup)
    cleanup.finish()
    assert (cleanup.process.returncode, cleanup.stderr) == (0, "")
    assert f"users {run}-subject on Waldur B: deleted" in cleanup.stdout
    assert left(sides, run) == []


def test_without_staff_tokens_the_tests_skip_and_name_the_variables(tmp_path: Path, stack: ExitStack) -> None:
    run = RobotRun(tmp_path / "run", DOCUMENTED[0], environment={"WALDUR_E2E_TESTS": "true"})
    stack.enter_context(run)
    run.finish()
    tests = run.tests().values()
    assert {test.status for test in tests} == {"SKIP"}
    for test in tests:
        assert "set WALDUR_URL_A, WALDUR_STAFF_TOKEN_A, WALDUR_URL_B, WALDUR_STAFF_TOKEN_B" in test.message
