"""No token's value is in anything a run writes, at any log level; and this would be noticed."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from acceptance_support import DATA, FEDERATION, RobotRun, expanded, leaks_in

WRONG_TOKEN = "WRONG_TOKEN"
FILES = {
    "output.xml",
    "log.html",
    "report.html",
    "debug.txt",
    "xunit.xml",
    "federation-report.md",
    "stdout",
    "stderr",
}

USERNAMES = FEDERATION.parent / "usernames"
PASSING_SECRETS = (
    FEDERATION / "20_rest_polling.robot",
    FEDERATION / "30_stomp_events.robot",
    USERNAMES / "20_event_routing.robot",
    USERNAMES / "85_daemon.robot",
)
"""Between them these suites pass every secret there is, also to a daemon."""


@dataclass(frozen=True)
class Watched:
    """A finished run and every secret value it used."""

    run: RobotRun
    values: frozenset[str]

    def leaks(self) -> list[str]:
        """Where a value can be read."""
        return leaks_in(self.run.written(), self.values)


class Runs:
    """Starts runs at the most detailed level, under the watcher."""

    def __init__(self, stack: ExitStack, directory: Path) -> None:
        self._stack = stack
        self._directory = directory

    def start(self, name: str, *suites: Path, masking: str = "on", **environment: str) -> RobotRun:
        """Start a run of some suites."""
        directory = self._directory / name
        watcher = f"{DATA / 'TokenWatcher.py'}:{self._values(name)}:{masking}"
        options = ("--loglevel", "TRACE", "--xunit", "xunit.xml", "--listener", watcher)
        return self._stack.enter_context(RobotRun(directory, *options, *suites, environment=environment))

    def finished(self, name: str, run: RobotRun) -> Watched:
        """Wait for a run, and read what the watcher saw."""
        run.finish()
        return Watched(run, frozenset(self._values(name).read_text().split()))

    def _values(self, name: str) -> Path:
        return self._directory / f"{name}.values"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """Runs of this module; none survives it."""
    with ExitStack() as stack:
        yield Runs(stack, tmp_path_factory.mktemp("secrets"))


@pytest.fixture(scope="module")
def started(runs: Runs) -> dict[str, RobotRun]:
    """All the runs at once: they have two cores."""
    wrong = {WRONG_TOKEN: secrets.token_hex(20)}
    careless = DATA / "careless_with_secrets.robot"
    # Without the gate WALDUR_E2E_TESTS the lab is used, whatever the other variables say.
    ungated = {"WALDUR_E2E_CONFIG": "/nowhere/agent.yaml", "WALDUR_E2E_PROJECT_A_UUID": "nothing"}
    return {
        "whole": runs.start("whole", *PASSING_SECRETS, **ungated),
        "careless": runs.start("careless", careless, **wrong),
        "unmasked": runs.start("unmasked", careless, masking="off", **wrong),
    }


@pytest.fixture(scope="module")
def careless(runs: Runs, started: dict[str, RobotRun]) -> Watched:
    """A run whose tests quote tokens in every way."""
    return runs.finished("careless", started["careless"])


@pytest.fixture(scope="module")
def unmasked(runs: Runs, started: dict[str, RobotRun]) -> Watched:
    """The same run with masking switched off."""
    return runs.finished("unmasked", started["unmasked"])


@pytest.fixture(scope="module")
def whole(runs: Runs, started: dict[str, RobotRun]) -> Watched:
    """A run of suites that pass every secret there is."""
    return runs.finished("whole", started["whole"])


def test_a_failing_run_shows_no_token(careless: Watched) -> None:
    assert careless.run.written().keys() >= FILES
    assert careless.leaks() == []
    outcomes = [(test.status, "***" in test.message) for test in careless.run.tests().values()]
    assert outcomes.count(("FAIL", True)) >= 3, "the tests were to fail with a token in their messages"
    assert ("SKIP", True) in outcomes
    assert ("PASS", False) not in outcomes
    assert "passcode:***" in careless.run.debug, "the STOMP client was to log its passcode"


def test_the_check_notices_a_run_that_masks_nothing(unmasked: Watched) -> None:
    shown = {leak.partition(" ")[0] for leak in unmasked.leaks()}

    assert shown == FILES


def test_a_whole_run_shows_no_token(whole: Watched) -> None:
    # Staff and control tokens of two Waldurs; agent and customer on A, agent and provider on B.
    assert len(whole.values) >= 6
    assert whole.run.written().keys() >= FILES
    assert whole.leaks() == []
    assert {name: test.message for name, test in whole.run.tests().items() if test.status == "FAIL"} == {}


def test_without_the_gate_the_lab_is_used_whatever_the_other_variables_say(whole: Watched) -> None:
    assert "Waldur A of the lab: http://127.0.0.1" in whole.run.debug
    assert {name: test.message for name, test in whole.run.tests().items() if test.status == "FAIL"} == {}
    assert whole.run.leftovers() == []


@pytest.mark.parametrize(
    "hidden",
    [
        "0f3a9c51d27be8460f3a9c51d27be8460f3a9c51",
        *(
            base64.b64encode(f"{login}:0f3a9c51d27be8460f3a9c51d27be8460f3a9c51".encode()).decode()
            for login in ("u", "us", "usr")
        ),
        "0f3a9c51d27be8460f3a…",
    ],
)
def test_the_check_knows_the_forms_of_a_token(hidden: str) -> None:
    secret = "0f3a9c51d27be8460f3a9c51d27be8460f3a9c51"

    assert leaks_in({"log": f"before {hidden} after"}, [secret]) == ["log shows 0f3a…"]
    assert leaks_in({"log": f"before {hidden[::-1]} after"}, [secret]) == []


def test_the_check_reads_what_is_compressed_in_a_log(careless: Watched) -> None:
    page = (careless.run.results / "log.html").read_text(encoding="utf-8")

    # LoudLibrary's long text is there, but only for who decompresses it.
    assert "the answer the answer the answer the answer" not in page
    assert "the answer the answer the answer the answer" in expanded(page)
