"""What a member of the cluster is told when its node boots, and what it tells the manager."""

from __future__ import annotations

import secrets
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from testyard.core.redact import secrets_in_use
from testyard.lab.cluster.database.lineage import Lineage
from testyard.lab.cluster.database.timing import Timings


class Endpoint(NamedTuple):
    """Where something is reached: an address and a TCP port."""

    host: str
    port: int


class Accounts(BaseModel):
    """Who may log in to the database.

    Args:
        superuser: The agents' user.
        superuser_password: Its password.
        replication: The standbys' user.
        replication_password: Its password.
        user: The user of those who use the cluster; owns the database.
        password: Its password.
        database: The database of that user.
    """

    model_config = ConfigDict(frozen=True)

    superuser: str = "testyard"
    superuser_password: str = Field(repr=False)
    replication: str = "replication"
    replication_password: str = Field(repr=False)
    user: str = "sys"
    password: str = Field(repr=False)
    database: str = "exa"


def new_accounts(user: str = "sys", password: str | None = None, database: str = "exa") -> Accounts:
    """Accounts with new random passwords, which are masked from now on.

    Args:
        user: The user of those who use the cluster.
        password: Its password; None makes one.
        database: That user's database.
    """
    accounts = Accounts(
        superuser_password=secrets.token_hex(16),
        replication_password=secrets.token_hex(16),
        user=user,
        password=password or secrets.token_hex(16),
        database=database,
    )
    secrets_in_use.add(accounts.superuser_password, accounts.replication_password, accounts.password)
    return accounts


class Software(BaseModel):
    """The installation of PostgreSQL and who runs it.

    Args:
        installation: Where ``bin``, ``lib`` and ``share`` are.
        account: User and group id to run as; None is this process's own.
    """

    model_config = ConfigDict(frozen=True)

    installation: Path
    account: tuple[int, int] | None = None


class MemberPlan(BaseModel):
    """Everything a member knows when its node boots; JSON in between.

    Args:
        name: Of the node.
        members: The names of all nodes, this one too, in the same order everywhere.
        directory: The member's own, on the node's disk, filled from the template; the account must reach it.
        host: Address to listen at.
        port: PostgreSQL's TCP port.
        agent_port: The agent's TCP port; 0 takes a free one.
        token: What the manager shows the agent.
        peers: Where this node reaches the others' PostgreSQL.
        accounts: Who may log in.
        software: What runs.
        timings: How long things may take.
        synchronous: Whether a commit waits for standbys; False makes a cluster that loses writes, to test tests.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    members: tuple[str, ...]
    directory: Path
    host: str = "127.0.0.1"
    port: int
    agent_port: int = 0
    token: str = Field(repr=False)
    peers: dict[str, Endpoint]
    accounts: Accounts
    software: Software
    timings: Timings = Timings()
    synchronous: bool = True


class Role(StrEnum):
    """What a member's PostgreSQL does now."""

    STOPPED = "stopped"
    STARTING = "starting"
    STANDBY = "standby"
    PRIMARY = "primary"
    REJOINING = "rejoining"


class MemberStatus(BaseModel):
    """What a member says of itself.

    Args:
        name: Of the node.
        role: What its PostgreSQL does.
        term: The highest term that it knows.
        accepts_connections: Whether its PostgreSQL has just answered a query.
        position: Where its WAL ends, as a number of bytes; None when that is not known.
        oldest: Where the WAL begins that it still has; 0 when it is no primary.
        timeline: PostgreSQL's id of the timeline that the end of its WAL is on.
        lineage: The promotions that its WAL has something of.
        follows: The member that it receives from, or tries to.
        follows_term: In which term it was told to.
        streaming: Whether it receives.
        clock: Its own monotonic clock, in seconds, when it answered; a renewal of the lease counts from it.
        problem: Why it could not rejoin; empty when nothing is wrong.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    role: Role
    term: int
    accepts_connections: bool
    position: int | None
    oldest: int = 0
    timeline: int
    lineage: Lineage
    follows: str | None
    follows_term: int
    streaming: bool
    clock: float
    problem: str = ""


class Fenced(BaseModel):
    """How far a member has come that receives nothing more.

    Args:
        name: Of the node.
        position: Where its WAL ends; None when it has none to offer.
        lineage: The promotions that its WAL has something of.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    position: int | None
    lineage: Lineage


class Promoted(BaseModel):
    """The beginning of a reign.

    Args:
        name: Of the new primary.
        lineage: Its promotions, this one last.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    lineage: Lineage
