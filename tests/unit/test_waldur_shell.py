"""A Django shell is reached by a configured command, here or over SSH; every failure says what and where."""

import os
import stat
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from testyard.core.errors import ConfigurationError, UserError
from testyard.waldur.shell import OPERATIONS, ShellCommand, code_of, run_in_shell, shell_command
from testyard.waldur.states import Side

ARGUMENTS = {"enabled": True}
OPERATION = "set_federated_identity_sync"


def shell(code: str) -> ShellCommand:
    """A shell that ignores what it shall run and does something else."""
    return ShellCommand(command=[sys.executable, "-c", code])


def test_the_last_answer_line_is_the_answer() -> None:
    chatty = shell("print('banner'); print('testyard answers {\"enabled\": true}'); print('bye')")
    assert run_in_shell(chatty, OPERATION, ARGUMENTS) == {"enabled": True}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_code_is_python_that_works_on_its_arguments_and_answers(operation: str) -> None:
    code = code_of(operation, {"name": 'it\'s "quoted" {x} \\ \n'})
    compile(code, operation, "exec")
    given: dict[str, object] = {}
    line = next(line for line in code.splitlines() if line.startswith("given = "))
    exec(f"import json\n{line}", given)
    assert given["given"] == {"name": 'it\'s "quoted" {x} \\ \n'}
    assert "answer = " in code


def test_over_ssh_the_command_is_one_quoted_argument(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for ``ssh`` runs the remote command as sshd does: with a shell."""
    seen = tmp_path / "seen"
    ssh = tmp_path / "ssh"
    ssh.write_text(f'#!/bin/sh\nprintf "%s\\n" "$1" "$2" "$3" > {seen}\nexec sh -c "$4"\n')
    ssh.chmod(ssh.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    directory = tmp_path / "with space"
    directory.mkdir()
    remote = ShellCommand(
        command=[sys.executable, "-c", 'import os; print(\'testyard answers {"in": "%s"}\' % os.getcwd())'],
        host="waldur@b.example.org",
        directory=str(directory),
    )
    assert run_in_shell(remote, OPERATION, ARGUMENTS) == {"in": str(directory)}
    assert seen.read_text().splitlines() == ["-o", "BatchMode=yes", "waldur@b.example.org"]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (shell("raise SystemExit('no such table')"), "failed at .* with status 1: no such table"),
        (shell("print('hello')"), "gave no answer to .*; it said: hello"),
        (
            ShellCommand(command=["no-such-shell"]),
            r"shell \(no-such-shell …\) did not start: No such file",
        ),
        (ShellCommand(command=["x"], directory="/no/such/place"), "did not start"),
    ],
)
def test_a_shell_that_does_not_answer_is_told(command: ShellCommand, message: str) -> None:
    with pytest.raises(UserError, match=message):
        run_in_shell(command, OPERATION, ARGUMENTS)


def test_a_shell_that_hangs_is_given_up() -> None:
    waiting = ShellCommand(command=[sys.executable, "-c", "import signal; signal.pause()"])
    with pytest.raises(UserError, match=r"did not finish set_federated_identity_sync within 0\.2 s"):
        run_in_shell(waiting, OPERATION, ARGUMENTS, within=timedelta(seconds=0.2))


def test_what_follows_the_program_is_not_shown() -> None:
    secretive = ShellCommand(command=[sys.executable, "-c", "raise SystemExit(3)", "--password=hunter2"])
    with pytest.raises(UserError) as problem:
        run_in_shell(secretive, OPERATION, ARGUMENTS)
    assert "hunter2" not in str(problem.value)


def test_an_unknown_operation_is_refused_by_name() -> None:
    with pytest.raises(UserError, match="no shell operation 'drop_tables', expected one of set_plugin_options"):
        run_in_shell(shell(""), "drop_tables", {})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "key command: Field required"),
        ({"command": []}, "key command: List should have at least 1 item"),
        ({"command": ["waldur"], "hots": "b"}, "key hots: Extra inputs are not permitted"),
        ({"command": "waldur shell"}, "key command: Input should be a valid list"),
    ],
)
def test_a_wrong_description_names_the_key(content: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"The shell of Waldur B, variable SHELLS: {message}"):
        shell_command(Side.B, content)
