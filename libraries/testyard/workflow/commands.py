"""``custom_command``: a program of the user's, run in the deployment's directory (003, step 10; contract 2.1).

No shell: the arguments reach the program as they are written. ``$deployment_dir`` and ``$provider`` are filled in,
``$$`` is a dollar sign; any other ``$name`` is refused when the workflow is loaded, since nobody would expand it.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from datetime import timedelta
from string import Template
from typing import IO, Any

from testyard.core.deadline import Deadline, seconds, wait_until
from testyard.core.errors import NotMetError, UserError
from testyard.core.redact import secrets_in_use
from testyard.workflow.context import Context
from testyard.workflow.model import CustomCommandFields, Retry, Step

VARIABLES = ("deployment_dir", "provider")
CUSTOM_COMMAND_RETRY = Retry(max_attempts=1, delay_seconds=10)
# Enough to see a program's complaint; the whole output does not belong into a result.
SHOWN_LINES = 20
SHOWN_BYTES = 16_384
# What a program gets to end by itself before it is killed.
GRACE = timedelta(seconds=2)


def unknown_variables(arguments: Iterable[str]) -> Iterator[str]:
    """The ``$names`` in arguments that nobody fills in."""
    for argument in arguments:
        yield from (name for name in Template(argument).get_identifiers() if name not in VARIABLES)


def filled_in(arguments: Iterable[str], context: Context) -> list[str]:
    """The arguments with their variables filled in."""
    values = {"deployment_dir": str(context.deploy_dir.absolute()), "provider": context.provider}
    return [Template(argument).safe_substitute(values) for argument in arguments]


def custom_command(context: Context, step: Step) -> dict[str, Any]:
    """Run the program and wait for it.

    Args:
        context: Its ``deploy_dir`` is where the program runs.
        step: Has :class:`CustomCommandFields`.

    Returns:
        The command, its exit status and the last lines of what it printed.

    Raises:
        UserError: There is no such program or directory.
        NotMetError: It ended with another status than 0, or not in time; quotes its last lines.
    """
    fields = step.own(CustomCommandFields)
    command = filled_in(fields.custom_command, context)
    shown = secrets_in_use.mask(shlex.join(command))
    deadline = Deadline(timedelta(seconds=fields.timeout_seconds))
    # A file, not a pipe: what the program leaves running may keep a pipe open for ever.
    with tempfile.TemporaryFile() as output:
        process = _started(command, shown, context, output)
        try:
            wait_until(
                lambda: process.poll() is not None or context.cancelled.is_set(),
                bool,
                deadline,
                "the program's end",
            )
        except NotMetError:
            raise NotMetError(f"{shown} did not end within {seconds(deadline.within)}{_quoted(output)}") from None
        finally:
            _end(process)
        if context.cancelled.is_set():
            raise NotMetError(f"{shown} was ended because the run is being aborted{_quoted(output)}")
        if process.returncode != 0:
            raise NotMetError(f"{shown} ended with exit status {process.returncode}{_quoted(output)}")
        return {"command": command, "exit_status": 0, "output": _last_lines(output)}


def plan_custom_command(context: Context, step: Step) -> str:
    """What a dry run says."""
    command = filled_in(step.own(CustomCommandFields).custom_command, context)
    return f"run {shlex.join(command)} in {context.deploy_dir}"


def _started(command: list[str], shown: str, context: Context, output: IO[bytes]) -> subprocess.Popen[bytes]:
    if not context.deploy_dir.is_dir():
        message = f"{shown} cannot be run: there is no deployment directory {context.deploy_dir}."
        raise UserError(message)
    try:
        return subprocess.Popen(
            command,
            cwd=context.deploy_dir,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as problem:
        message = f"{shown} cannot be run in {context.deploy_dir}: {problem.strerror}."
        raise UserError(message) from None


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a program that is still running, with all that it started: first asked, then killed."""
    if process.poll() is not None:
        return
    for signum in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signum)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE.total_seconds())
            return


def _last_lines(output: IO[bytes]) -> list[str]:
    size = output.seek(0, os.SEEK_END)
    output.seek(max(size - SHOWN_BYTES, 0))
    text = output.read().decode(errors="replace")
    return secrets_in_use.mask(text).splitlines()[-SHOWN_LINES:]


def _quoted(output: IO[bytes]) -> str:
    lines = _last_lines(output)
    return ":\n" + "\n".join(lines) if lines else " and printed nothing."
