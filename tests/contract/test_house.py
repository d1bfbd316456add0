"""The house keeps its rules, and each rule can fail: a small bad project turns it red."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import house_support as house
import pytest
from house_support import PROJECT

FEDERATION = (
    *(f"FED-S{number}" for number in range(1, 6)),
    *(f"FED-{number}" for number in ("1", "2", "3", "4", "5", "6", "7", "7b", "8")),
    *(f"FED-K{number}" for number in range(1, 6)),
    *(f"FED-N{number}" for number in range(1, 5)),
)

USERNAMES = (
    *(f"USR-1.{number}" for number in range(1, 7)),
    *(f"USR-2.{number}" for number in range(1, 6)),
    *(f"USR-3.{number}" for number in range(1, 8)),
    *(f"USR-X{number}" for number in range(1, 11)),
)
PIPELINES = (
    *(f"PIPE-{number}" for number in range(1, 9)),
    *(f"PIPE-C{number}" for number in range(1, 22)),
    *(f"PIPE-F{number}" for number in range(1, 11)),
)
CLUSTER = (
    *(
        f"FLOW-{group}{number}"
        for group, most in {"S": 10, "C": 14, "E": 3, "M": 30, "R": 3, "X": 2, "L": 4, "V": 9, "F": 6}.items()
        for number in range(1, most + 1)
    ),
)

EVENT_BUS = (
    *(
        f"BUS-{group}.{number}"
        for group, most in {1: 7, 2: 7, 3: 11, 4: 14, 5: 10, 6: 6}.items()
        for number in range(1, most + 1)
    ),
    *(f"BUS-F{number}" for number in range(1, 7)),
)

RULES = (
    house.imports_against_the_direction,
    house.sleeps,
    house.too_long,
    house.undocumented_tests,
    house.keyword_names_in_two_files,
    house.identical_bodies,
    house.forbidden_words,
    house.logic_in_suites,
    house.scenario_mismatches,
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_project_keeps_the_rule(rule):
    assert rule(PROJECT) == []


@pytest.fixture
def project(tmp_path: Path) -> Callable[[Mapping[str, str]], Path]:
    """Writes a small project."""

    def write(files: Mapping[str, str]) -> Path:
        for relative, text in files.items():
            path = tmp_path / relative
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return tmp_path

    return write


def test_the_rules_look_at_something():
    for folder, pattern, least in [
        ("libraries", "*.py", 50),
        ("suites", "*.robot", 5),
        ("resources", "*.resource", 2),
    ]:
        assert len(list((PROJECT / folder).rglob(pattern))) >= least, folder


# ---- rule 1: direction

TREE = dict.fromkeys(
    [
        "libraries/testyard/__init__.py",
        "libraries/testyard/__main__.py",
        "libraries/testyard/core/__init__.py",
        "libraries/testyard/core/deadline.py",
        "libraries/testyard/power/engine.py",
        "libraries/testyard/stomp/capture.py",
        "libraries/testyard/waldur/api.py",
        "libraries/testyard/workflow/engine.py",
        "libraries/testyard/lab/__init__.py",
        "libraries/testyard/lab/control.py",
        "libraries/testyard/lab/environment.py",
        "libraries/testyard/lab/supervisor/__init__.py",
        "libraries/testyard/lab/sabotage/__init__.py",
        "libraries/testyard/lab/sabotage/defect.py",
        "libraries/LabLibrary.py",
        "libraries/StompLibrary.py",
        "libraries/WaldurLibrary/__init__.py",
        "libraries/WaldurLibrary/session.py",
    ],
    "",
)


@pytest.mark.parametrize(
    ("importer", "statement"),
    [
        ("testyard/core/deadline.py", "import testyard.waldur.api"),
        ("testyard/core/deadline.py", "from testyard import __version__"),
        ("testyard/core/deadline.py", "from ..stomp import capture"),
        ("testyard/core/deadline.py", "def late():\n    from testyard.lab import control"),
        ("testyard/waldur/api.py", "from testyard.stomp.capture import Event"),
        ("testyard/waldur/api.py", "if True:\n    from testyard import stomp"),
        ("testyard/waldur/api.py", "from testyard.lab.control import Control"),
        ("testyard/stomp/capture.py", "from testyard.waldur import api"),
        ("testyard/power/engine.py", "from testyard.workflow import engine"),
        ("testyard/workflow/engine.py", "from testyard.waldur import api"),
        ("testyard/workflow/engine.py", "from testyard.lab.control import Control"),
        ("testyard/lab/control.py", "from testyard.waldur.api import Waldur"),
        ("testyard/lab/control.py", "from testyard.lab.sabotage.defect import Defect"),
        ("testyard/lab/control.py", "from .sabotage import defect"),
        ("testyard/lab/control.py", "import testyard.__main__"),
        ("testyard/lab/sabotage/defect.py", "from testyard.__main__ import main"),
        ("testyard/lab/sabotage/defect.py", "from robot.api import logger"),
        ("testyard/core/deadline.py", "import robot"),
        ("testyard/__main__.py", "import robot.running"),
        ("testyard/waldur/api.py", "import WaldurLibrary"),
        ("WaldurLibrary/session.py", "from testyard.lab.supervisor import Supervisor"),
        ("WaldurLibrary/__init__.py", "from testyard.lab import environment"),
        ("WaldurLibrary/__init__.py", "from LabLibrary import Fault"),
        ("StompLibrary.py", "import testyard.lab"),
        ("StompLibrary.py", "from testyard.__main__ import main"),
        ("LabLibrary.py", "from testyard.lab import control"),
        ("LabLibrary.py", "from testyard.lab import *"),
        ("LabLibrary.py", "from testyard.lab.sabotage import Saboteur"),
        ("LabLibrary.py", "import StompLibrary"),
    ],
)
def test_an_import_against_the_direction_is_found(project, importer, statement):
    bad = project(TREE | {f"libraries/{importer}": statement})
    violations = house.imports_against_the_direction(bad)
    assert violations
    assert all(violation.startswith(f"libraries/{importer}:") for violation in violations)


@pytest.mark.parametrize(
    ("importer", "statement"),
    [
        (
            "testyard/core/deadline.py",
            "import time\nfrom testyard.core import deadline\nfrom . import deadline as d",
        ),
        (
            "testyard/waldur/api.py",
            "import httpx\nfrom testyard.core.deadline import Deadline\nfrom ..core import deadline",
        ),
        ("testyard/lab/control.py", "from testyard.lab.supervisor import x\nfrom testyard.core import deadline"),
        (
            "testyard/lab/sabotage/defect.py",
            "from testyard.waldur import api\nfrom testyard.lab import supervisor",
        ),
        ("testyard/__main__.py", "from testyard.lab.sabotage import defect\nfrom testyard import __version__"),
        ("testyard/workflow/engine.py", "from testyard.power import engine\nfrom testyard.core import deadline"),
        ("LabLibrary.py", "from robot.api import logger\nfrom testyard.lab import supervisor, environment"),
        (
            "WaldurLibrary/__init__.py",
            "from WaldurLibrary.session import Session\nfrom testyard import __version__",
        ),
        ("StompLibrary.py", "from testyard.stomp.capture import Event\nfrom testyard.waldur import api"),
        ("StompLibrary.py", "import robotics\nimport testyardstick.lab"),
    ],
)
def test_an_import_along_the_direction_is_fine(project, importer, statement):
    assert house.imports_against_the_direction(project(TREE | {f"libraries/{importer}": statement})) == []


# ---- rule 5: who sleeps


@pytest.mark.parametrize(
    "code",
    [
        "import time\ntime.sleep(1)",
        "import asyncio\nasync def wait():\n    await asyncio.sleep(0)",
        "import anyio\npause = anyio.sleep",
        "import anyio\nanyio.sleep_forever()",
        "from time import sleep",
        "from anyio import sleep_until as later",
    ],
)
def test_a_sleep_is_found(project, code):
    bad = project({"libraries/testyard/waldur/agent.py": code})
    (violation,) = house.sleeps(bad, allowed={})
    assert violation.startswith("libraries/testyard/waldur/agent.py:")


def test_other_peoples_sleep_is_no_sleep(project):
    code = "import processors\nkept = processors.sleep\nasleep = True\n"
    assert house.sleeps(project({"libraries/testyard/agent.py": code}), allowed={}) == []


def test_a_permission_to_sleep_that_nobody_uses_is_found(project):
    awake = project({"libraries/testyard/core/deadline.py": "import time\n"})
    (violation,) = house.sleeps(awake, allowed={"libraries/testyard/core/deadline.py": "waits"})
    assert "take it off the list" in violation


# ---- rule 14: sizes and copies

TEST = "*** Test Cases ***\n"
KEYWORD = "*** Keywords ***\n"


def steps(count: int, name: str = "Log") -> str:
    return "".join(f"    {name}    {number}\n" for number in range(count))


def documented(name: str, body: str) -> str:
    return f"{name}\n    [Documentation]    Says why.\n{body}"


@pytest.mark.parametrize(
    ("relative", "text", "said"),
    [
        ("suites/a/1.robot", TEST + "\n" * 300, "has 301 lines, at most 300"),
        (
            "suites/a/1.robot",
            TEST + "".join(f"T{n}\n    No Operation\n" for n in range(21)),
            "has 21 tests, at most 20",
        ),
        ("resources/x.resource", KEYWORD + "\n" * 400, "has 401 lines, at most 400"),
        ("resources/x.resource", KEYWORD + "Long One\n" + steps(40), "Long One has 41 lines, at most 40"),
        ("suites/a/1.robot", KEYWORD + "Long One\n" + steps(40) + TEST, "Long One has 41 lines, at most 40"),
        ("libraries/testyard/x.py", "\n" * 501, "has 501 lines, at most 500"),
        ("libraries/SomeLibrary.py", "\n" * 501, "has 501 lines, at most 500"),
        ("tests/unit/test_x.py", "\n" * 501, "has 501 lines, at most 500"),
    ],
)
def test_what_is_too_long_is_found(project, relative, text, said):
    (violation,) = house.too_long(project({relative: text}))
    assert violation.startswith(f"{relative}:")
    assert violation.endswith(said)


def test_what_is_just_short_enough_is_fine(project):
    fine = project(
        {
            "suites/a/1.robot": TEST + "".join(f"T{n}\n    No Operation\n" for n in range(20)) + "\n" * 259,
            "resources/x.resource": KEYWORD + "Short One\n" + steps(39) + "\n" * 350,
            "libraries/testyard/x.py": "\n" * 500,
        }
    )
    assert house.too_long(fine) == []


@pytest.mark.parametrize("documentation", ["", "    [Documentation]\n", "    # only a comment\n"])
def test_a_test_without_documentation_is_found(project, documentation):
    bad = project(
        {"suites/a/1.robot": TEST + f"Silent\n{documentation}    No Operation\n" + documented("Told", steps(1))}
    )
    assert house.undocumented_tests(bad) == ["suites/a/1.robot:2: test Silent has no documentation"]


@pytest.mark.parametrize("again", ["A Federation Exists", "a_federation exists", "AFederationExists"])
def test_a_keyword_name_in_two_files_is_found(project, again):
    bad = project(
        {
            "resources/one.resource": f"{KEYWORD}A Federation Exists\n{steps(1)}",
            "resources/two.resource": f"{KEYWORD}{again}\n{steps(1)}",
        }
    )
    assert house.keyword_names_in_two_files(bad, libraries=()) == [
        "resources/one.resource:1: keyword afederationexists is also in resources/two.resource"
    ]


def test_a_keyword_that_hides_a_librarys_is_found(project):
    bad = project({"resources/one.resource": f"{KEYWORD}Start The Lab\n{steps(1)}"})
    (violation,) = house.keyword_names_in_two_files(bad)
    assert "keyword startthelab is also in" in violation


@pytest.mark.parametrize("name", ["resources/one.resource", "suites/a/2.robot"])
def test_identical_bodies_are_found_in_whatever_layout(project, name):
    first = f"{TEST}One\n    [Documentation]    One.\n{steps(4)}"
    second = f"{KEYWORD}Two\n    [Tags]    x\n    # again\n{steps(4)}".replace("Log    2", "Log\n    ...    2")
    (violation,) = house.identical_bodies(project({"suites/a/1.robot": first, name: second}))
    assert "the same 4 statements as " in violation


def test_identical_blocks_within_bodies_are_found(project):
    text = (
        "{name}\n    Log    {name}\n    GROUP    {name}\n"
        + steps(4).replace("    Log", "        Log")
        + "    END\n"
    )
    bad = project({"suites/a/1.robot": TEST + text.format(name="One") + text.format(name="Two")})
    assert house.identical_bodies(bad) == ["suites/a/1.robot:12: the same 4 statements as suites/a/1.robot:4"]


def test_short_or_different_bodies_are_no_copies(project):
    text = f"{TEST}One\n{steps(3)}Two\n{steps(3)}Three\n{steps(4)}Four\n{steps(4, 'No Operation')}"
    assert house.identical_bodies(project({"suites/a/1.robot": text})) == []


# ---- rules 5 and 14: what suites and resources say


@pytest.mark.parametrize(
    "line",
    [
        "Sleep    1s",
        "BuiltIn.Sleep    1s",
        "sleep    1s",
        "Run Keyword    Sleep    1s",
        "${x}    Evaluate    1 + 1",
        "Wait Until Keyword Succeeds    3x    1s    No Operation",
        "[Teardown]    Sleep    1s",
        "[Setup]    Run Keyword    Evaluate    1",
        "Log    ${{ 1 + 1 }}",
        "VAR    ${x}    ${{ [] }}",
        "Log    http://waldur.example/api/",
        "Connect    url=wss://mq/ws",
        "VAR    ${url}    HTTPS://waldur.example",
        "Connect    127.0.0.1",
        "Connect    host=10.0.0.1:8080",
        "Connect    localhost",
        "Connect    ::1",
        "Connect    password=hunter2",
        "Connect    passcode=guest",
        "Connect    api_key=k",
        "Connect    customer_token=abc",
        "VAR    ${PASSWORD}    hunter2",
        "VAR    &{login}    user=me    password=hunter2",
        "VAR    ${TOKEN: Secret}    abc",
        "Log    c0ffee00c0ffee11c0ffee22c0ffee33",
        "GROUP    http://in.a.name\n        No Operation\n    END",
        "IF    True\n        No Operation\n    ELSE\n        Sleep    1s\n    END",
        "TRY\n        No Operation\n    EXCEPT\n        Sleep    1s\n    FINALLY\n        No Operation\n    END",
    ],
)
@pytest.mark.parametrize(("name", "head"), [("suites/a/1.robot", TEST), ("resources/x.resource", KEYWORD)])
def test_a_forbidden_word_is_found(project, name, head, line):
    bad = project({name: f"{head}One\n    [Documentation]    x\n    {line}\n"})
    assert house.forbidden_words(bad) != []


@pytest.mark.parametrize(
    "settings",
    [
        "Suite Setup    Sleep    1s",
        "Test Teardown    Evaluate    1",
        "Test Template    Wait Until Keyword Succeeds",
        "Library    SomeLibrary    url=http://waldur.example",
        "Resource    http://waldur.example/x.resource",
    ],
)
def test_a_forbidden_word_is_found_in_settings(project, settings):
    assert house.forbidden_words(project({"suites/a/1.robot": f"*** Settings ***\n{settings}\n{TEST}"})) != []


@pytest.mark.parametrize(
    "line", ["${PASSWORD}    hunter2", "${URL}    http://x", "&{LOGIN}    token=abc", "${T: Secret}    "]
)
def test_a_forbidden_word_is_found_among_variables(project, line):
    found = house.forbidden_words(project({"suites/a/1.robot": f"*** Variables ***\n{line}\n{TEST}"}))
    assert (found != []) is not line.startswith("${T: Secret}")


@pytest.mark.parametrize(
    "line",
    [
        "[Documentation]    See http://waldur.example, 127.0.0.1, Sleep",
        "[Tags]    10.0.0.1",
        "# Sleep    1s    http://waldur.example",
        "Connect    token=${token}    password=%{PASSWORD}",
        "VAR    &{target}    url=${url}    token=${token}",
        "${token}    Create Token    B    ${user}",
        "This Pins A Known Issue    FED-K2    1.0.7",
        "The Lab Sleeps    evaluated    1.2.3.4.5    tokens",
        "GROUP    Nothing forbidden\n        No Operation\n    END",
    ],
)
def test_other_words_are_fine(project, line):
    assert house.forbidden_words(project({"suites/a/1.robot": f"{TEST}One\n    {line}\n"})) == []


@pytest.mark.parametrize(
    "body",
    [
        "FOR    ${x}    IN    1    2\n        No Operation\n    END",
        "WHILE    True\n        No Operation\n    END",
        "IF    True\n        No Operation\n    END",
        "IF    True    No Operation",
        "GROUP    x\n        IF    True    No Operation\n    END",
        "Run Keyword If    True    No Operation",
        "Repeat Keyword    2    No Operation",
        "[Teardown]    Run Keyword If    True    No Operation",
    ],
)
def test_logic_in_a_suite_is_found_and_in_a_resource_is_fine(project, body):
    bad = project({"suites/a/1.robot": f"{TEST}One\n    {body}\n"})
    (violation,) = house.logic_in_suites(bad)
    assert violation.startswith("suites/a/1.robot:")
    (bad / "suites/a/1.robot").unlink()
    assert house.logic_in_suites(project({"resources/x.resource": f"{KEYWORD}One\n    {body}\n"})) == []


@pytest.mark.parametrize("setting", ["Library    WaldurLibrary", "Variables    ../../variables/defaults.yaml"])
def test_a_suite_that_imports_more_than_resources_is_found(project, setting):
    bad = project({"suites/a/1.robot": f"*** Settings ***\n{setting}\nResource    x.resource\n{TEST}"})
    (violation,) = house.logic_in_suites(bad)
    assert violation.startswith("suites/a/1.robot:2: suites import resources only")


# ---- scenario ids


def test_the_list_has_every_scenario_of_the_domains_delivered():
    known = house.scenarios(PROJECT)
    assert tuple(known) == FEDERATION + USERNAMES + PIPELINES + CLUSTER + EVENT_BUS
    assert all(known.values())


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ("", "FED-1 has no test"),
        ("FED-1    FED-99", "tag FED-99 names no scenario"),
        ("FED-1    FED-K7", "tag FED-K7 names no scenario"),
        ("FED-1    fed-2", "tag fed-2 names no scenario"),
        ("FED-1    USR-1.1", "tag USR-1.1 names no scenario"),
        ("FED-1    follows:FED-2", "tag follows:FED-2 names no scenario"),
        ("follows:FED-1", "FED-1 has no test"),
    ],
)
def test_an_id_without_a_test_and_a_tag_without_an_id_are_found(project, tags, said):
    bad = project(
        {
            "tests/data/scenarios.md": "| id | case | observed |\n|---|---|---|\n| FED-1 | start | it runs |\n",
            "suites/a/1.robot": f"{TEST}One\n    [Tags]    {tags}\n    No Operation\n",
        }
    )
    (violation,) = house.scenario_mismatches(bad)
    assert violation.endswith(said)


def test_tags_that_are_no_ids_are_fine(project):
    others = "needs:faults    known-issue    slow    http-2"
    fine = project(
        {
            "tests/data/scenarios.md": "| FED-1 | start | it runs |\n",
            "suites/a/1.robot": f"{TEST}One\n    [Tags]    FED-1    {others}\n    No Operation\n",
        }
    )
    assert house.scenario_mismatches(fine) == []
