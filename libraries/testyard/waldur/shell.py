"""What document 001 does in Waldur's Django shell, by a command that the user configures.

The command starts Waldur's shell and gets the Python to run as its last argument, after ``-c``: on this machine,
or over SSH on the machine where Waldur runs. The last line that the code prints is its answer, as JSON.
"""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from testyard.core.deadline import seconds
from testyard.core.errors import ConfigurationError, UserError
from testyard.core.redact import secrets_in_use
from testyard.waldur.states import Side

ANSWER = "testyard answers "
SHOWN_LENGTH = 500

IMPORTS = """
import json
from django.contrib.auth import get_user_model
from waldur_core.structure.models import Project
from waldur_mastermind.marketplace.models import Offering, Order, Resource
from waldur_mastermind.marketplace.tasks import create_or_restore_offering_users_for_user
"""

# Each works on ``given``, the operation's arguments, and leaves its answer in ``answer``.
OPERATIONS: Mapping[str, str] = {
    "set_plugin_options": """
offering = Offering.objects.get(uuid=given["offering"])
offering.plugin_options = {**offering.plugin_options, **given["plugin_options"]}
offering.save(update_fields=["plugin_options"])
answer = {"plugin_options": offering.plugin_options}
""",
    "create_resource": """
offering = Offering.objects.get(uuid=given["offering"])
project = Project.objects.get(uuid=given["project"])
state = Resource.States.OK
name = given.get("name", "resource")
resource = Resource.objects.create(offering=offering, project=project, name=name, state=state)
answer = {"uuid": resource.uuid.hex}
""",
    "set_order_age": """
from datetime import timedelta
from django.utils import timezone
modified = timezone.now() - timedelta(seconds=given["seconds"])
Order.objects.filter(uuid=given["order"]).update(modified=modified)
answer = {"modified": modified.isoformat()}
""",
    "create_or_restore_offering_users_for_user": """
user = get_user_model().objects.get(uuid=given["user"])
project = Project.objects.get(uuid=given["project"])
create_or_restore_offering_users_for_user(user.uuid.hex, project.uuid.hex)
answer = {}
""",
    "set_federated_identity_sync": """
from constance import config
config.FEDERATED_IDENTITY_SYNC_ENABLED = given["enabled"]
answer = {"enabled": given["enabled"]}
""",
}


class ShellCommand(BaseModel):
    """How to reach the shell of one Waldur.

    Attributes:
        command: Starts the shell, such as ``["uv", "run", "waldur", "shell"]``.
        host: Where, as ``ssh`` takes it, such as ``waldur@b.example.org``; this machine when empty. The key must
            need no passphrase, and the host must be known.
        directory: Where the command starts; on another machine before anything else.
    """

    model_config = ConfigDict(extra="forbid")

    command: list[str] = Field(min_length=1)
    host: str = ""
    directory: str = ""

    def arguments(self, code: str) -> list[str]:
        """The command line that runs some Python in the shell."""
        command = [*self.command, "-c", code]
        if not self.host:
            return command
        remote = shlex.join(command)
        if self.directory:
            remote = f"cd {shlex.quote(self.directory)} && {remote}"
        return ["ssh", "-o", "BatchMode=yes", self.host, remote]


def shell_command(side: Side, content: Mapping[str, Any]) -> ShellCommand:
    """Read how to reach the shell of one Waldur.

    Raises:
        ConfigurationError: Names the key that is missing, unknown or of the wrong type.
    """
    try:
        return ShellCommand.model_validate(dict(content))
    except ValidationError as problem:
        first = problem.errors()[0]
        key = ".".join(map(str, first["loc"]))
        message = f"The shell of Waldur {side.value}, variable SHELLS: key {key}: {first['msg']}."
        raise ConfigurationError(message) from None


def run_in_shell(
    shell: ShellCommand, operation: str, arguments: Mapping[str, Any], *, within: timedelta = timedelta(minutes=1)
) -> dict[str, Any]:
    """Run one operation in a Waldur's shell.

    Args:
        shell: How to reach it.
        operation: One of ``OPERATIONS``.
        arguments: What the operation works on.
        within: Give up after this time.

    Returns:
        The operation's answer.

    Raises:
        UserError: The operation is unknown, or the shell did not start, failed, or gave no answer.
    """
    if operation not in OPERATIONS:
        message = f"There is no shell operation {operation!r}, expected one of {', '.join(OPERATIONS)}."
        raise UserError(message)
    code = code_of(operation, arguments)
    # Only the program: what follows may hold a password.
    where = f"Waldur's shell ({shell.command[0]} …{f' on {shell.host}' if shell.host else ''})"
    directory = shell.directory if shell.directory and not shell.host else None
    try:
        run = subprocess.run(
            shell.arguments(code),
            cwd=directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=within.total_seconds(),
            check=False,
        )
    except OSError as problem:
        message = f"{where} did not start: {problem.strerror}: {problem.filename}."
        raise UserError(message) from None
    except subprocess.TimeoutExpired:
        message = f"{where} did not finish {operation} within {seconds(within)}."
        raise UserError(message) from None
    if run.returncode:
        message = f"{where} failed at {operation} with status {run.returncode}: {_last(run.stderr or run.stdout)}"
        raise UserError(message)
    for line in reversed(run.stdout.splitlines()):
        if line.startswith(ANSWER):
            answer: dict[str, Any] = json.loads(line.removeprefix(ANSWER))
            return answer
    message = f"{where} gave no answer to {operation}; it said: {_last(run.stdout + run.stderr)}"
    raise UserError(message)


def code_of(operation: str, arguments: Mapping[str, Any]) -> str:
    """The Python that an operation runs."""
    given = f"given = json.loads({json.dumps(dict(arguments))!r})"
    told = f"print({ANSWER!r} + json.dumps(answer))"
    return "\n".join((IMPORTS.strip(), given, OPERATIONS[operation].strip(), told))


def _last(text: str) -> str:
    lines: Sequence[str] = text.strip().splitlines() or ["nothing"]
    return secrets_in_use.mask(lines[-1][-SHOWN_LENGTH:])
