"""A node's command table: what is in it works, and nothing else reaches anything."""

from __future__ import annotations

import asyncio
import shlex
from pathlib import Path

import pytest
from testyard.lab.cluster.files import NodeFiles
from testyard.lab.cluster.shell import CRASH, NOT_FOUND, Answer, PowerChange, Service, ServiceState, Shell

BOOT_ID = "0b5f3c2e-7f7e-4ad1-b1a5-9a2f4f1f6f5e"


class Unit:
    """A service that remembers what was done to it."""

    def __init__(self) -> None:
        self.state = ServiceState.ACTIVE
        self.done: list[str] = []
        self.problem = ""

    async def start(self) -> None:
        if self.problem:
            raise OSError(self.problem)
        self.state = ServiceState.ACTIVE
        self.done.append("start")

    async def stop(self) -> None:
        self.state = ServiceState.INACTIVE
        self.done.append("stop")


class Machine:
    """What the commands read and change."""

    hostname = "n11"
    boot_id = BOOT_ID
    uptime_seconds = 12.345

    def __init__(self, directory: Path) -> None:
        self.files = NodeFiles(directory / "files")
        self.unit = Unit()
        self.services: dict[str, Service] = {"admin-ui": self.unit}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def say(machine: Machine, line: str) -> Answer:
    return asyncio.run(Shell(machine).run(line))


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("cat /proc/sys/kernel/random/boot_id", f"{BOOT_ID}\n"),
        ("cat /proc/uptime", "12.35 12.35\n"),
        ("hostname", "n11\n"),
        ("true", ""),
        ("ls", ""),
        ("sync", ""),
        ("systemctl is-active admin-ui", "active\n"),
    ],
)
def test_what_the_table_has_is_answered(machine: Machine, line: str, answer: str) -> None:
    assert say(machine, line) == Answer(answer)


@pytest.mark.parametrize(
    ("line", "change"),
    [
        ("sudo reboot", PowerChange.REBOOT),
        ("sudo shutdown -h now", PowerChange.SHUTDOWN),
        ("sudo poweroff -f", PowerChange.POWER_OFF),
        (CRASH, PowerChange.CRASH),
    ],
)
def test_what_changes_the_power_says_so_and_does_nothing_itself(
    machine: Machine, line: str, change: PowerChange
) -> None:
    assert say(machine, line) == Answer(change=change)


@pytest.mark.parametrize(
    "line",
    [
        "",
        " ",
        "reboot",
        "sudo reboot now",
        "sudo reboot; true",
        " sudo reboot",
        "sudo reboot\n",
        "true && sudo poweroff -f",
        "hostname evil",
        "hostname\nsudo reboot",
        "rm -rf /",
        "cat x | sh",
        "cat $(sudo reboot)",
        "cat `id`",
        "cat a b",
        "printf %s $(id) > x",
        'printf %s "$(id)" > x',
        "printf %s `id` > x",
        "printf %s a; id > x",
        "printf %s a > x; id",
        "printf %s a >> x",
        "printf %s a > x > y",
        "printf %s a > x y",
        "printf %s 'open > x",
        "printf %d 1 > x",
        "systemctl is-active admin-ui; id",
        "sudo systemctl disable admin-ui",
        "systemctl stop admin-ui",
        "sudo sh -c 'echo b > /proc/sysrq-trigger'",
        CRASH.replace("0.5", "0"),
    ],
)
def test_what_the_table_has_not_is_not_found_and_changes_nothing(machine: Machine, line: str) -> None:
    answer = say(machine, line)
    assert answer.status == NOT_FOUND
    assert answer.stderr.endswith(": command not found\n")
    assert answer.stdout == ""
    assert answer.change is None
    assert machine.files.names() == []
    assert machine.unit.done == []


@pytest.mark.parametrize(
    "text",
    ["plain", "", "two words", "it's", "$HOME `id` $(id)", 'a "quote"', "line\nbreak", "a > b; c | d", "ä€"],
)
def test_a_text_comes_back_as_it_was_written(machine: Machine, text: str) -> None:
    assert say(machine, f"printf %s {shlex.quote(text)} > notes.txt") == Answer()
    assert say(machine, "cat notes.txt") == Answer(text)
    assert say(machine, "ls") == Answer("notes.txt\n")


def test_a_file_name_may_be_quoted(machine: Machine) -> None:
    assert say(machine, "printf %s \"a b\" > 'x'") == Answer()
    assert say(machine, 'cat "x"') == Answer("a b")


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../x", "..", ".", "a/b", "/proc/1/environ", ".hidden", "'a b'", "-" + "x" * 300]
)
def test_files_outside_the_nodes_directory_are_refused(machine: Machine, tmp_path: Path, name: str) -> None:
    (tmp_path / "x").write_text("outside")
    shown = name.strip("'")
    assert say(machine, f"cat {name}") == Answer(stderr=f"cat: {shown}: Permission denied\n", status=1)
    written = say(machine, f"printf %s evil > {name}")
    assert written == Answer(stderr=f"sh: 1: cannot create {shown}: Permission denied\n", status=2)
    machine.files.sync()
    assert (tmp_path / "x").read_text() == "outside"
    assert machine.files.names() == []


def test_a_link_out_of_the_directory_is_not_followed(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("outside")
    (tmp_path / "files" / "link").symlink_to(tmp_path / "secret")
    assert say(machine, "cat link").status == 1
    assert say(machine, "printf %s evil > link").status == 2
    machine.files.sync()
    assert (tmp_path / "secret").read_text() == "outside"


def test_a_file_that_is_not_there_is_told(machine: Machine) -> None:
    assert say(machine, "cat x") == Answer(stderr="cat: x: No such file or directory\n", status=1)


def test_what_was_written_is_on_the_disk_only_after_a_sync(machine: Machine, tmp_path: Path) -> None:
    say(machine, "printf %s one > x")
    assert say(machine, "cat x").stdout == "one"
    assert NodeFiles(tmp_path / "files").names() == []
    say(machine, "sync")
    say(machine, "printf %s two > x")
    assert say(machine, "cat x").stdout == "two"
    assert NodeFiles(tmp_path / "files").read("x") == "one"


def test_services_are_started_and_stopped(machine: Machine) -> None:
    assert say(machine, "sudo systemctl stop admin-ui") == Answer()
    assert say(machine, "systemctl is-active admin-ui") == Answer("inactive\n", status=3)
    assert say(machine, "sudo systemctl start admin-ui") == Answer()
    assert say(machine, "sudo systemctl restart admin-ui") == Answer()
    assert machine.unit.done == ["stop", "start", "stop", "start"]
    machine.unit.state = ServiceState.FAILED
    assert say(machine, "systemctl is-active admin-ui") == Answer("failed\n", status=3)


def test_a_service_that_does_not_start_says_why(machine: Machine) -> None:
    machine.unit.problem = "no room"
    answer = say(machine, "sudo systemctl start admin-ui")
    assert answer == Answer(stderr="Job for admin-ui.service failed: no room\n", status=1)


def test_a_service_that_the_node_has_not_is_told(machine: Machine) -> None:
    assert say(machine, "systemctl is-active database") == Answer("inactive\n", status=3)
    answer = say(machine, "sudo systemctl start database")
    assert answer.status == 5
    assert "Unit database.service not found" in answer.stderr
