"""The state file of a deployment, ``.exasol.json`` (contract 2.7)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from testyard.core.errors import UserError
from testyard.lab.cluster.deployer.states import Status
from testyard.lab.cluster.deployer.storage import write_durably

STATE_FILE: Final = ".exasol.json"
VERSION: Final = "1.0"


class State(NamedTuple):
    """What is known of a deployment, by the keys of the state file.

    Attributes:
        version: Of the file's format.
        status: The deployment's state.
        db_version: The database's version, as it was asked for.
        architecture: The nodes' processor, such as ``x86_64``.
        cloud_provider: ``aws``, ``azure``, ``gcp``, ``digitalocean``, ``hetzner`` or ``libvirt``.
        created_at: When it was initialised; UTC, ISO 8601.
        updated_at: When this file was written last.
        deployment_id: Its id; every instance carries it as the tag ``deployment``.
        parameters: What ``init`` was given.
    """

    version: str
    status: Status
    db_version: str
    architecture: str
    cloud_provider: str
    created_at: str
    updated_at: str
    deployment_id: str
    parameters: Mapping[str, Any]


def now() -> str:
    """This moment in UTC, such as ``2026-01-31T12:00:00Z``."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def exists(directory: Path) -> bool:
    """Whether the directory has a deployment."""
    return (directory / STATE_FILE).exists()


def read_state(directory: Path) -> State:
    """The state of the directory's deployment.

    Raises:
        UserError: There is no such directory, no deployment in it, or its state file is broken.
    """
    path = directory / STATE_FILE
    if not directory.is_dir():
        message = f"there is no directory {directory}"
        raise UserError(message)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        fields = {name: content[name] for name in State._fields}
        return State(**{**fields, "status": Status(fields["status"])})
    except FileNotFoundError:
        message = f"there is no deployment in {directory}: it has no {STATE_FILE}; run init first"
    except OSError as problem:
        message = f"{path} cannot be read: {problem.strerror}"
    except KeyError as problem:
        message = f"{path} is no state file: it has no {problem}"
    except (ValueError, TypeError) as problem:
        message = f"{path} is no state file: {problem}"
    raise UserError(message) from None


def write_state(directory: Path, state: State) -> State:
    """Write the state; ``updated_at`` becomes now.

    Returns:
        What was written.
    """
    written = state._replace(updated_at=now())
    write_durably(directory / STATE_FILE, json.dumps(written._asdict(), indent=2) + "\n")
    return written


def set_status(directory: Path, status: Status) -> State:
    """Write another status into the state file."""
    return write_state(directory, read_state(directory)._replace(status=status))
