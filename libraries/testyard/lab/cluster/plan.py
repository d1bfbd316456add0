"""What a node's process is told when its power is switched on, and what the two sides say to each other then.

Standard input carries lines of JSON to the node: first its ``NodePlan``, then a ``{"id": 1, "command": ...}`` for
each of ``Command``. When it ends, the datacentre has ended, and the node ends at once. Standard output carries
lines back:

``{"event": "ready", "boot_id": UUID, "pid": 123}``
    SSH and the admin UI answer.
``{"event": "stopping", "returns": true}``
    An orderly shutdown has begun; whether the node boots again afterwards.
``{"event": "end", "returns": true}``
    The last line of a process that ends on purpose, also when it kills itself as a crash does.
``{"id": 1, "error": null}``
    A command is done.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from testyard.lab.cluster.database.plan import MemberPlan
from testyard.lab.cluster.database.timing import Timings as DatabaseTimings

HOST = "127.0.0.1"
USER = "admin"
# The longest line: a plan with two keys and a certificate has some 4 kB.
LONGEST_LINE = 1 << 20


class Command(StrEnum):
    """What the datacentre asks of a running node."""

    PRESS = "press"
    STOP_SERVICES = "stop-services"
    NEW_HOST_KEY = "new-host-key"
    CLAIM_BOOT_ID = "claim-boot-id"


class Timings(BaseModel):
    """How long things take on a deployment's machines, in seconds.

    Args:
        boot: Before SSH answers, beside what starting takes.
        shutdown: Of an orderly shutdown, beside what stopping the services takes.
        crash: Between the answer to the crash command and the crash.
        database: Settings of the database's manager and agents.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    boot: float = Field(default=0.0, ge=0)
    shutdown: float = Field(default=0.0, ge=0)
    crash: float = Field(default=0.5, ge=0)
    database: DatabaseTimings = DatabaseTimings()


class NodePlan(BaseModel):
    """Everything a node's process knows of itself when it boots.

    Args:
        deployment: Id of the deployment.
        node: Its name.
        directory: Its disk: what is there stays when the power goes.
        ssh_port: TCP port of the SSH server.
        admin_ui_port: TCP port of the admin UI.
        host_key: Private host key in OpenSSH's format.
        authorized_key: Public key of the only one who may log in.
        admin_ui_file: Certificate and key of the admin UI, one file.
        sysrq: Whether its kernel obeys SysRq.
        lifeline: The descriptor that every process of the node holds open.
        timings: How long things take.
        database: What its member of the database knows; None for a node without one.
    """

    model_config = ConfigDict(frozen=True)

    deployment: str
    node: str
    directory: Path
    ssh_port: int
    admin_ui_port: int
    host_key: str = Field(repr=False)
    authorized_key: str
    admin_ui_file: Path
    sysrq: bool
    lifeline: int
    timings: Timings
    database: MemberPlan | None
