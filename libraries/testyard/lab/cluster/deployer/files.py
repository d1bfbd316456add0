"""The files of a deployment's directory, by the names and forms that the documented deployer gives them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from testyard.core.errors import UserError
from testyard.core.redact import secrets_in_use
from testyard.lab.cluster.deployer.storage import OPEN_TO_ALL, PRIVATE, write_durably

INVENTORY: Final = "inventory.ini"
NODES_SECTION: Final = "[exasol_nodes]"
SSH_CONFIG: Final = "ssh_config"
KNOWN_HOSTS: Final = "known_hosts"
PRIVATE_KEY: Final = "id_ed25519"
ADMIN_UI_CERTIFICATE: Final = "admin_ui.crt"
CREDENTIALS: Final = ".credentials.json"
CLOUD: Final = ".cloud.json"
DATACENTRE: Final = ".datacentre.json"
CREATED_BY_DEPLOY: Final = (
    *(INVENTORY, SSH_CONFIG, KNOWN_HOSTS, PRIVATE_KEY, ADMIN_UI_CERTIFICATE, CREDENTIALS, CLOUD, DATACENTRE),
)

SSH_PORT: Final = 22
ADMIN_UI_PORT: Final = 8443
DATABASE_PORT: Final = 8563
CONNECT_TIMEOUT: Final = 10


class Node(NamedTuple):
    """A node as the inventory names it.

    Attributes:
        name: Such as ``n11``.
        host: The address of all its ports.
        ssh_port: Of its SSH server.
        user: Who logs in there.
        instance_id: What its provider calls it.
        region: Region or zone.
        admin_ui_port: Of its admin UI.
        database_port: Of its database.
    """

    name: str
    host: str
    ssh_port: int
    user: str
    instance_id: str
    region: str
    admin_ui_port: int
    database_port: int


class DatabaseLogin(NamedTuple):
    """How to log in to the deployment's database.

    Attributes:
        user: Role.
        password: Its password.
        name: Of the database.
    """

    user: str
    password: str
    name: str


def write_private_key(directory: Path, private_key: str) -> None:
    """Write the key that logs in to the nodes."""
    write_durably(directory / PRIVATE_KEY, private_key, PRIVATE)


def write_deployment(directory: Path, created: Mapping[str, Any]) -> list[Node]:
    """Write what the datacentre answered when it created the deployment.

    Args:
        directory: The deployment's.
        created: The control API's answer to ``POST /deployments``.

    Returns:
        The nodes, in the order of their names.
    """
    nodes = [
        Node(
            name,
            str(node["host"]),
            int(node["ssh_port"]),
            str(node["user"]),
            str(node["instance_id"]),
            str(node["region"]),
            int(node["admin_ui_port"]),
            int(node["database_port"]),
        )
        for name, node in sorted(created["nodes"].items())
    ]
    host_keys = {name: str(node["host_key"]) for name, node in created["nodes"].items()}
    private: dict[str, str] = {}
    if created.get("database"):
        login = DatabaseLogin(*(str(created["database"][name]) for name in DatabaseLogin._fields))
        secrets_in_use.add(login.password)
        private[CREDENTIALS] = _json({"database": login._asdict()})
    if created.get("cloud"):
        private[CLOUD] = _json(created["cloud"])
    public = {
        SSH_CONFIG: _ssh_config(directory.resolve(), nodes),
        KNOWN_HOSTS: _known_hosts(nodes, host_keys),
        ADMIN_UI_CERTIFICATE: str(created["admin_ui_certificate"]),
        # Last: who sees the inventory finds everything else.
        INVENTORY: _inventory(nodes),
    }
    for name, text in private.items():
        write_durably(directory / name, text, PRIVATE)
    for name, text in public.items():
        write_durably(directory / name, text, OPEN_TO_ALL)
    return nodes


def remove_deployment(directory: Path) -> None:
    """Remove what ``deploy`` wrote: none of it is of use when the nodes are gone, and some of it is secret."""
    for name in CREATED_BY_DEPLOY:
        (directory / name).unlink(missing_ok=True)


def read_nodes(directory: Path) -> list[Node]:
    """The nodes of the inventory, in its order.

    Raises:
        UserError: There is no inventory, or it is broken.
    """
    path = directory / INVENTORY
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        message = (
            f"there are no nodes: {directory} has no {INVENTORY}; the deployment is not deployed (completely)"
        )
        raise UserError(message) from None
    nodes, inside = [], False
    for number, line in enumerate(map(str.strip, lines), 1):
        if line.startswith("["):
            inside = line == NODES_SECTION
        elif inside and line and not line.startswith(("#", ";")):
            try:
                nodes.append(_node(line))
            except (KeyError, ValueError) as problem:
                message = f"{path}:{number} names no node: {problem} in {line!r}"
                raise UserError(message) from None
    if not nodes:
        message = f"{path} names no node in a section {NODES_SECTION}"
        raise UserError(message)
    return nodes


def read_login(directory: Path) -> DatabaseLogin | None:
    """How to log in to the database; None when the deployment has none.

    Raises:
        UserError: The file is broken.
    """
    path = directory / CREDENTIALS
    try:
        content = json.loads(path.read_text(encoding="utf-8"))["database"]
        login = DatabaseLogin(*(str(content[name]) for name in DatabaseLogin._fields))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as problem:
        message = f"{path} is no file of credentials: {type(problem).__name__}"
        raise UserError(message) from None
    secrets_in_use.add(login.password)
    return login


def _node(line: str) -> Node:
    name, *words = shlex.split(line)
    values = dict(word.split("=", 1) for word in words)
    return Node(
        name,
        values["ansible_host"],
        int(values.get("ansible_port", SSH_PORT)),
        values["ansible_user"],
        values.get("instance_id", ""),
        values.get("region", ""),
        int(values.get("admin_ui_port", ADMIN_UI_PORT)),
        int(values.get("database_port", DATABASE_PORT)),
    )


def _inventory(nodes: Iterable[Node]) -> str:
    lines = (
        f"{node.name} ansible_host={node.host} ansible_port={node.ssh_port} ansible_user={node.user} "
        f"instance_id={node.instance_id} region={node.region} "
        f"admin_ui_port={node.admin_ui_port} database_port={node.database_port}"
        for node in nodes
    )
    return "\n".join([NODES_SECTION, *lines, ""])


def _ssh_config(directory: Path, nodes: Iterable[Node]) -> str:
    """A file for ``ssh -F``: only known hosts, never a question."""
    return "\n".join(
        f"Host {node.name}\n"
        f"  HostName {node.host}\n"
        f"  Port {node.ssh_port}\n"
        f"  User {node.user}\n"
        f'  IdentityFile "{directory / PRIVATE_KEY}"\n'
        f'  UserKnownHostsFile "{directory / KNOWN_HOSTS}"\n'
        "  StrictHostKeyChecking yes\n"
        "  BatchMode yes\n"
        f"  ConnectTimeout {CONNECT_TIMEOUT}\n"
        for node in nodes
    )


def _known_hosts(nodes: Iterable[Node], host_keys: Mapping[str, str]) -> str:
    return "".join(
        f"{node.host if node.ssh_port == SSH_PORT else f'[{node.host}]:{node.ssh_port}'} {host_keys[node.name]}\n"
        for node in nodes
    )


def _json(content: object) -> str:
    return json.dumps(content, indent=2) + "\n"
