"""What is seen of a cluster's nodes: over SSH and from the provider's API, the admin UI, and the database.

A node runs when it answers over SSH with a boot id and the provider's API, where it can be asked, says running; it
is stopped when SSH is dead and the API says stopped. Where the two disagree, neither is true, and both are told.
Nothing here is a verdict, and nothing is left out: a node that could not be asked is told with the reason.
"""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum, StrEnum
from pathlib import Path
from typing import TypeVar

import psycopg

from testyard.core.errors import UserError
from testyard.power.deployment import Node
from testyard.power.protocol import PowerState
from testyard.power.shell import Reach, SshAnswer
from testyard.workflow.database import Credentials, NoAnswerError, Session, first_value, reason
from testyard.workflow.settings import Deadlines

Item = TypeVar("Item")
Seen = TypeVar("Seen")

CERTIFICATE_FILE = "admin_ui.crt"
# A transaction that leaves nothing behind, and still has to be written, and confirmed by a standby.
PROBING_COMMIT = "select pg_logical_emit_message(true, 'testyard', 'probe')"


class NodeState(StrEnum):
    """Where a node is, by everything that could be asked."""

    RUNNING = "running"
    STOPPED = "stopped"
    UNCLEAR = "unclear"


@dataclass(frozen=True)
class ApiAnswer:
    """What the provider's API says of a node.

    Attributes:
        state: Its state; nothing when it cannot be asked, or has failed.
        provider: Who was asked.
        problem: Why there is no state.
        failed: Whether it was asked, and the call failed: then the node's state is unclear.
    """

    state: PowerState | None
    provider: str
    problem: str = ""
    failed: bool = False

    def __str__(self) -> str:
        if self.state is not None:
            return f"{self.provider} says {self.state.value}"
        return f"{self.provider} {'failed' if self.failed else 'cannot be asked'}: {self.problem}"


@dataclass(frozen=True)
class NodeSight:
    """What was seen of a node's power.

    Attributes:
        node: Its name.
        ssh: What SSH gave.
        api: What the provider's API gave.
    """

    node: str
    ssh: SshAnswer
    api: ApiAnswer

    @property
    def state(self) -> NodeState:
        """The state that everything asked agrees on."""
        if self.api.failed:
            return NodeState.UNCLEAR
        if self.ssh.reach is Reach.ANSWERS and self.ssh.boot_id and self.api.state in {None, PowerState.RUNNING}:
            return NodeState.RUNNING
        if self.ssh.reach is Reach.DEAD and self.api.state in {None, PowerState.STOPPED}:
            return NodeState.STOPPED
        return NodeState.UNCLEAR

    def __str__(self) -> str:
        return f"{self.node} {self.state.value} ({self.ssh}; {self.api})"


class Role(Enum):
    """What a node's database is."""

    PRIMARY = "primary"
    PRIMARY_WITHOUT_WRITES = "primary, but takes no writes"
    STANDBY = "standby"
    NONE = "accepts no connections"


@dataclass(frozen=True)
class DatabaseSight:
    """What was seen of a node's database.

    Attributes:
        node: Its name.
        role: What it is.
        problem: Why it accepts no connections, or no writes.
    """

    node: str
    role: Role
    problem: str = ""

    @property
    def accepts(self) -> bool:
        """Whether it accepts connections and answers queries."""
        return self.role is not Role.NONE

    def __str__(self) -> str:
        return f"{self.node} {self.role.value}{f' ({self.problem})' if self.problem else ''}"


@dataclass(frozen=True)
class AdminUiSight:
    """What was seen of a node's admin UI.

    Attributes:
        node: Its name.
        status: The HTTP status; 0 when nothing answered.
        problem: Why nothing did.
    """

    node: str
    status: int
    problem: str = ""

    @property
    def accessible(self) -> bool:
        """Whether it shows its page, or the way to it."""
        return 200 <= self.status < 400

    def __str__(self) -> str:
        return f"{self.node} {f'HTTP {self.status}' if self.status else self.problem}"


def beside_each_other(look: Callable[[Item], Seen], items: Sequence[Item]) -> list[Seen]:
    """Look at all items at once, each in a thread of its own; results in the items' order.

    Raises:
        Exception: The first one that a look raised, after all looks have ended.
    """
    if len(items) < 2:
        return [look(item) for item in items]
    with ThreadPoolExecutor(len(items), "measure") as threads:
        return list(threads.map(look, items))


def see_database(node: Node, credentials: Credentials, deadlines: Deadlines) -> DatabaseSight:
    """Connect to a node's database and ask what it is; a primary has to commit something.

    Args:
        node: Whose database.
        credentials: As whom.
        deadlines: ``database_connect`` and ``database_answer`` count.
    """
    try:
        session = Session(node.host, node.database_port, credentials, deadlines.database_connect)
    except psycopg.OperationalError as problem:
        return DatabaseSight(node.name, Role.NONE, reason(problem))
    with session:
        try:
            recovering = first_value(session.run("select pg_is_in_recovery()", within=deadlines.database_answer))
        except psycopg.Error as problem:
            return DatabaseSight(node.name, Role.NONE, f"connected, then: {reason(problem)}")
        if recovering != "f":
            return DatabaseSight(node.name, Role.STANDBY)
        try:
            session.run(PROBING_COMMIT, within=deadlines.database_answer)
        except psycopg.Error as problem:
            told = "a commit got no answer" if isinstance(problem, NoAnswerError) else reason(problem)
            return DatabaseSight(node.name, Role.PRIMARY_WITHOUT_WRITES, told)
    return DatabaseSight(node.name, Role.PRIMARY)


def is_primary(session: Session, within: timedelta) -> bool:
    """Whether the node at the other end of a session is not recovering; false when it does not answer."""
    try:
        return first_value(session.run("select pg_is_in_recovery()", within=within)) == "f"
    except psycopg.Error:
        return False


def see_admin_ui(node: Node, directory: Path, within: timedelta) -> AdminUiSight:
    """Ask for the first page of a node's admin UI over HTTPS, checked against the deployment's certificate.

    Raises:
        UserError: The deployment has no certificate to check it against.
    """
    context = _trust(directory / CERTIFICATE_FILE)
    connection = http.client.HTTPSConnection(
        node.host, node.admin_ui_port, timeout=within.total_seconds(), context=context
    )
    try:
        connection.request("GET", "/", headers={"Connection": "close"})
        return AdminUiSight(node.name, connection.getresponse().status)
    except ssl.SSLCertVerificationError as problem:
        return AdminUiSight(node.name, 0, f"its certificate is not the deployment's: {problem.verify_message}")
    except (OSError, http.client.HTTPException) as problem:
        return AdminUiSight(node.name, 0, str(problem) or type(problem).__name__)
    finally:
        connection.close()


def told(sights: Iterable[object]) -> str:
    """A sentence of everything that was seen."""
    return "; ".join(map(str, sights)) or "there are no nodes"


def _trust(certificate: Path) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=certificate)
    except FileNotFoundError:
        message = f"The admin UIs cannot be checked: there is no {certificate}."
    except ssl.SSLError:
        message = f"The admin UIs cannot be checked: {certificate} holds no certificate."
    raise UserError(message)
