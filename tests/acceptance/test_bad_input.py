"""What somebody gives wrongly is one clear error each, and nothing is left behind."""

from __future__ import annotations

import re
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from acceptance_support import DATA, RobotRun, Run, lines_of
from robot.result import TestCase as Ended

ADDRESS_OF_A, ADDRESS_OF_B = "127.0.0.1", "127.0.0.2"
SUITES = ("chain", "another_chain", "bad_start", "bad_input", "bad_federation")

# What the messages say, as text; … stands for any text, {…} for a port.
FAILURES = {
    "A Port That Is Taken On The Address Of A": "Cannot listen on 127.0.0.1 port {port_a}: …already in use.",
    "A Port That Is Taken On The Address Of B": "Cannot listen on 127.0.0.2 port {port_b}: …already in use.",
    "The Lab Was Not Started": "The lab is not running: 'Start The Lab' first.",
    "An Address Where Nobody Listens": "Waldur A at http://127.0.0.1:{closed} cannot be reached: …refused.",
    "An Address That Is None": "Waldur A at waldur cannot be reached: …missing an 'http://' or 'https://'…",
    "A Wrong Token": "Waldur B answered 401 to GET /api/users/me/, expected 200: …Invalid token.…",
    "A Waldur That Does Not Exist": "The lab has no Waldur 'C', expected one of A, B.",
    "A Fault That Does Not Exist": "…Fault does not have member 'EARTHQUAKE'. Available: …'NO_STOMP'…",
    "A Fault Without What It Needs": "…'milliseconds' is missing…",
    "A Channel That Does Not Exist": "There is no channel called 'sauce'; open channels: none.",
    "A Mapping That Does Not Exist": "Dictionary '${MAPPINGS}' has no key 'node ours'.",
    "Events Of Somebody Else": "…Dictionary '${EVENT_SOURCES}' has no key 'everybody'.",
    "A Keyword Without A Federation": "There is no federation: 'Join Federation' first.",
    "A Side That Does Not Exist": "…Side does not have member 'C'. Available: 'A' and 'B'",
    "An Order That Is No UUID": "Expected a UUID (32 hexadecimal digits, with or without dashes), got 'order-17'.",
    "An Order That Does Not Exist": "Waldur A answered 404 to GET /api/marketplace-orders/…17/, expected 200: …",
    "A State That Does Not Exist": "…OrderState does not have member 'finished'. Available: …'DONE'…",
    "A Component That The Offering Lacks": "Waldur A answered 400 to POST /api/marketplace-orders/…limits…gpu…",
    "A Component That The Configuration Lacks": "The configuration has no component gpu.",
    "A Known Issue Of Another Version": (
        "Known issue ISSUE-1: something is wrong …agent 0.9.9; the installed version 1.0.7 has to be reviewed…"
    ),
    "A Known Issue That Is None Any More": "Known issue ISSUE-2: something else is wrong …: The order is done.",
}

SKIPS = {
    "Second": "CHAIN-1 must pass first, but 'First' is FAIL: The first one went wrong:…here is why.",
    "Third": "CHAIN-…'First' is FAIL: The first one went wrong:…",
    "Sixth": "CHAIN-0 must pass first, but it did not run in this suite.",
    "Seventh": "CHAIN-1 must pass first, but 'First' is FAIL: …",
    "Eighth": "The tag 'needs:miracles' is not known, expected one of listeners, …, test-clock, …, libvirt.",
    "Follows A Scenario Of Another Suite": "CHAIN-4 must pass first, but it did not run in this suite.",
}

CALLS = {
    "conduct": "…'conduct'…controls…",
    "": "…COMMAND…",
    "controls --domain weather": "…'weather', expected one of federation…",
    "controls --defect agent-sleeps-in": "…'agent-sleeps-in'…",
    "controls --processes many": "…--processes…'many'…",
    "cleanup": "…--run…",
    "cleanup --run ty000000": "…WALDUR_E2E_CONFIG and WALDUR_E2E_PROJECT_A_UUID must be set…",
}

PREFLIGHTS = {
    "Components That The Offerings Lack": [
        "FED-S3 Waldur A: component node_hours: expected billed by limit, found no such component",
        (
            "FED-S3 Waldur B: component cpu_k_hours = node_hours x 128: expected billed by limit, "
            "found no such component"
        ),
    ],
    "Offerings Of Another Type": [
        "FED-S2 Waldur A: the offering's type: expected Marketplace.Slurm, found Marketplace.Basic",
        "FED-S1 Waldur B: the offering's type: expected Marketplace.Slurm, found Marketplace.Basic",
    ],
}


@pytest.fixture(scope="module")
def taken() -> Iterator[dict[str, int]]:
    """Ports that somebody else listens on, by address."""
    with socket.create_server((ADDRESS_OF_A, 0)) as on_a, socket.create_server((ADDRESS_OF_B, 0)) as on_b:
        yield {ADDRESS_OF_A: on_a.getsockname()[1], ADDRESS_OF_B: on_b.getsockname()[1]}


@pytest.fixture(scope="module")
def ports(taken: dict[str, int]) -> Iterator[dict[str, int]]:
    """The ports that messages name; nobody can listen on the closed one, as it is ours."""
    with socket.socket() as closed:
        closed.bind((ADDRESS_OF_A, 0))
        yield {"port_a": taken[ADDRESS_OF_A], "port_b": taken[ADDRESS_OF_B], "closed": closed.getsockname()[1]}


@pytest.fixture(scope="module", autouse=True)
def started(ports: dict[str, int], tmp_path_factory: pytest.TempPathFactory) -> Iterator[RobotRun]:
    """One run of every suite with something wrong in it; it goes on while the commands are tested."""
    environment = {
        "PORT_TAKEN_ON_A": str(ports["port_a"]),
        "PORT_TAKEN_ON_B": str(ports["port_b"]),
        "CLOSED_PORT": str(ports["closed"]),
        "WRONG_TOKEN": secrets.token_hex(20),
    }
    suites = [DATA / f"{name}.robot" for name in SUITES]
    with RobotRun(tmp_path_factory.mktemp("bad") / "run", *suites, environment=environment) as run:
        yield run


@pytest.fixture(scope="module")
def run(started: RobotRun) -> RobotRun:
    """The finished run."""
    return started.finish()


@pytest.fixture(scope="module")
def tests(run: RobotRun) -> dict[str, Ended]:
    """The run's tests by name."""
    return run.tests()


def should_say(message: str, expected: str, ports: dict[str, int]) -> None:
    """Check a message against the text that it should be."""
    for name, port in ports.items():
        expected = expected.replace(f"{{{name}}}", str(port))
    assert re.fullmatch(".*".join(map(re.escape, expected.split("…"))), message), message


def should_be_refused(run: Run, said: str) -> None:
    """Check the end of a command that was called wrongly: status 2, one line, nothing left."""
    lines = list(lines_of(run.stderr))
    assert run.process.returncode == 2
    assert run.stdout == ""
    assert len(lines) == 1, run.stderr
    should_say(lines[0], said, {})
    assert run.leftovers() == []


# The commands.


@pytest.mark.parametrize("call", CALLS)
def test_a_bad_call_is_one_line(call: str, tmp_path: Path) -> None:
    with Run(tmp_path / "run", "testyard", *call.split()) as run:
        run.finish()

        should_be_refused(run, f"testyard…: {CALLS[call]}")


def test_a_port_that_is_taken_is_named_by_the_lab_command(taken: dict[str, int], tmp_path: Path) -> None:
    port = taken[ADDRESS_OF_B]
    with Run(tmp_path / "run", "testyard", "lab", "--port", str(port)) as run:
        run.finish()

        should_be_refused(run, f"testyard: Cannot listen on 127.0.0.2 port {port}: Address already in use.")


@pytest.mark.parametrize("option", ["--port", "--control-port"])
def test_a_port_that_is_taken_is_named_by_the_double(option: str, taken: dict[str, int], tmp_path: Path) -> None:
    port = taken[ADDRESS_OF_A]
    directory = tmp_path / "run" / "temporary" / "double"
    options = ("--name", "A", option, str(port), "--directory", str(directory))
    handshake = '{"staff_token": "0123456789abcdef", "control_token": "fedcba9876543210"}\n'
    with Run(tmp_path / "run", "testyard.lab.waldur", *options, stdin=handshake) as run:
        run.finish()

        should_be_refused(run, f"testyard.lab.waldur: …port {port} of 127.0.0.1: Address already in use…")


def test_a_double_without_its_secrets_says_what_it_expects(tmp_path: Path) -> None:
    directory = tmp_path / "run" / "temporary" / "double"
    with Run(
        tmp_path / "run", "testyard.lab.waldur", "--name", "A", "--directory", str(directory), stdin="hello\n"
    ) as run:
        run.finish()

        should_be_refused(run, "testyard.lab.waldur: the first line of standard input must be {…}")


# The keywords.


@pytest.mark.parametrize("name", FAILURES)
def test_a_mistake_is_one_clear_error(name: str, tests: dict[str, Ended], ports: dict[str, int]) -> None:
    test = tests[name]

    assert test.status == "FAIL"
    should_say(test.message, FAILURES[name], ports)
    assert "\n" not in test.message
    assert "Traceback" not in test.message


@pytest.mark.parametrize("name", PREFLIGHTS)
def test_the_preflight_names_what_cannot_work(name: str, tests: dict[str, Ended]) -> None:
    title, *lines = tests[name].message.splitlines()

    assert tests[name].status == "FAIL"
    assert title == "The preflight found:"
    assert [line for line in PREFLIGHTS[name] if line not in lines] == []


@pytest.mark.parametrize("name", SKIPS)
def test_a_test_that_can_say_nothing_is_skipped_with_the_reason(name: str, tests: dict[str, Ended]) -> None:
    assert tests[name].status == "SKIP"
    should_say(tests[name].message, SKIPS[name], {})


def test_everything_else_passes(tests: dict[str, Ended]) -> None:
    others = {name: test.status for name, test in tests.items() if not {name} & {*FAILURES, *SKIPS, *PREFLIGHTS}}

    assert others == {"First": "FAIL", "Fourth": "PASS", "Fifth": "PASS", "The Lab Can Be Started": "PASS"}


def test_mistakes_leave_nothing_behind(run: RobotRun) -> None:
    assert run.leftovers() == []
    assert "Traceback" not in run.stdout + run.stderr
    assert run.stderr == ""
