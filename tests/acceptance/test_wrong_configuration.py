"""A wrong configuration of one's own ends the run at once, in one line that names it and shows no token."""

from __future__ import annotations

import copy
import re
import resource
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml
from acceptance_support import FEDERATION, RobotRun, leaks_in
from own_waldurs import Side, configuration

AT_ONCE = timedelta(seconds=3)
CONFIGURATION = "WALDUR_E2E_CONFIG"
PROJECT = "WALDUR_E2E_PROJECT_A_UUID"
TOKENS = ("3b1f0c9d8e7a6b5c4d3e2f1a0b9c8d7e6f5a4b3c", "91c0d2e4f6a8b0c2d4e6f8091a2b3c4d5e6f7a8b")
PASTED_TOKEN = "e7d1c5b9a3f08642e7d1c5b9a3f08642e7d1c5b9"
NUMERIC_TOKEN = 4902738165524390
FATAL = "Test execution stopped due to a fatal error."


@dataclass(frozen=True)
class Mistake:
    """One value of a configuration changed for the worse.

    Attributes:
        name: What somebody did.
        keys: Where.
        change: Makes the wrong value of the right one; None removes the key.
        said: What the line says after the file's path.
    """

    name: str
    keys: tuple[str | int, ...]
    change: Callable[[Any], Any] | None
    said: str

    def __str__(self) -> str:
        return self.name

    def make(self, content: dict[str, Any]) -> dict[str, Any]:
        """The content with this mistake in it."""
        spoiled = copy.deepcopy(content)
        place: Any = spoiled
        for key in self.keys[:-1]:
            place = place[key]
        if self.change is None:
            del place[self.keys[-1]]
        else:
            place[self.keys[-1]] = self.change(place[self.keys[-1]])
        return spoiled


OFFERING = ("offerings", 0)
SETTINGS = (*OFFERING, "backend_settings")
COMPONENT = (*OFFERING, "backend_components", "node_hours")

MISTAKES = [
    Mistake(
        "an-offering-without-its-dash", ("offerings",), lambda it: it[0], "key offerings: .*list.*, got mapping"
    ),
    Mistake("settings-with-a-dash", SETTINGS, lambda it: [it], r"key offerings\.0\.backend_settings: .+ got list"),
    Mistake(
        "a-token-for-a-uuid",
        (*OFFERING, "waldur_offering_uuid"),
        lambda _: PASTED_TOKEN,
        r"key offerings\.0\.waldur_offering_uuid: .*is not a UUID, got text",
    ),
    Mistake(
        "a-number-for-a-token",
        (*OFFERING, "waldur_api_token"),
        lambda _: NUMERIC_TOKEN,
        r"key offerings\.0\.waldur_api_token: .+ got number",
    ),
    Mistake(
        "a-text-for-a-port",
        (*OFFERING, "stomp_ws_port"),
        lambda _: "many",
        r"key offerings\.0\.stomp_ws_port: .+ got text 'many'",
    ),
    Mistake(
        "a-missing-key",
        (*SETTINGS, "target_offering_uuid"),
        None,
        r"key offerings\.0\.backend_settings\.target_offering_uuid: is missing",
    ),
    Mistake(
        "a-text-for-a-factor",
        (*COMPONENT, "target_components", "cpu_k_hours", "factor"),
        lambda _: "lots",
        r"key offerings\.0\.backend_components\.node_hours\.target_components\.cpu_k_hours\.factor: .+ 'lots'",
    ),
]

TEXTS = {
    "no-yaml": (
        f"offerings:\n  - waldur_api_token: {TOKENS[0]}\n    name: [x\n",
        "is not YAML at line [34], column",
    ),
    "only-text": (TOKENS[1], "expected a mapping .+, got text"),
}


class Room:
    """Where one run and its configuration live."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.file = directory / "agent.yaml"
        self.run: RobotRun | None = None

    def refused(self, **changed: str | None) -> str:
        """Run all suites; gives the one line that says why not, after the checks that every refusal needs."""
        before = processor_time()
        variables = {"WALDUR_E2E_TESTS": "true", CONFIGURATION: str(self.file), PROJECT: uuid4().hex} | changed
        environment = {name: value for name, value in variables.items() if value is not None}
        self.run = run = RobotRun(self._directory / "run", FEDERATION, environment=environment)
        run.finish()
        assert processor_time() - before < AT_ONCE, "robot went on working"
        assert run.process.returncode != 0
        assert {test.status for test in run.tests().values()} == {"FAIL"}
        assert len(run.tests()) > 20, "suites are missing"
        assert [test.message for test in run.result().suite.suites[1].tests] == [FATAL] * 4
        assert run.debug.count("START SETUP") == 1, "another suite was set up"
        message = run.result().suite.suites[0].message.removeprefix("Suite setup failed:\n")
        lines = run.stdout.splitlines()
        assert lines.count(message) == 1, f"not one line on the console: {message!r}"
        assert "Traceback" not in run.stdout + run.stderr + message
        assert run.stderr == ""
        assert leaks_in(run.written(), (*TOKENS, PASTED_TOKEN, str(NUMERIC_TOKEN))) == []
        assert run.leftovers() == []
        return message


def processor_time() -> timedelta:
    """What the ended child processes have worked; unlike the time they took, others' work does not change it."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return timedelta(seconds=used.ru_utime + used.ru_stime)


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    """A directory for one run, which ends with the test."""
    room = Room(tmp_path)
    yield room
    if room.run is not None:
        room.run.destroy()


@pytest.fixture(scope="module")
def content() -> dict[str, Any]:
    """A configuration without a mistake, of Waldurs that do not exist."""
    return configuration(
        Side("http://127.0.0.1:1/api/", TOKENS[0], uuid4().hex),
        Side("http://127.0.0.2:1/api/", TOKENS[1], uuid4().hex),
        customer=uuid4().hex,
        port=1,
    )


@pytest.mark.parametrize("mistake", MISTAKES, ids=str)
def test_a_wrong_value_is_named_by_key_type_and_file(
    mistake: Mistake, room: Room, content: dict[str, Any]
) -> None:
    room.file.write_text(yaml.safe_dump(mistake.make(content)))

    assert re.match(f"The agent configuration {re.escape(str(room.file))}: {mistake.said}", room.refused())


@pytest.mark.parametrize("name", TEXTS)
def test_a_file_without_a_mapping_is_named(name: str, room: Room) -> None:
    text, said = TEXTS[name]
    room.file.write_text(text)

    assert re.match(f"The agent configuration {re.escape(str(room.file))}:? {said}", room.refused())


def test_a_missing_file_is_named(room: Room) -> None:
    assert room.refused() == f"The agent configuration {room.file} cannot be read: No such file or directory."


@pytest.mark.parametrize("missing", [(PROJECT,), (CONFIGURATION, PROJECT)], ids=" ".join)
def test_a_missing_variable_is_named(missing: tuple[str, ...], room: Room) -> None:
    message = room.refused(**dict.fromkeys(missing))

    assert f"{' and '.join(missing)} must be set" in message
