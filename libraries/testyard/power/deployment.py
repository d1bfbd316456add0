"""A deployment directory, as the deployer writes it and the power and workflow backends read it.

The files are upstream's own (contract "cluster" 2.1, 2.7): `.exasol.json`, `inventory.ini`, `ssh_config`,
`known_hosts`. What a deployer leaves out has the defaults of the tools that read these files.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from testyard.power.problems import DeploymentError, MissingDeploymentError, UnknownNodeError
from testyard.power.protocol import ProviderName
from testyard.power.transitions import PowerApi

if TYPE_CHECKING:
    from paramiko import SSHConfig

STATE_FILE = ".exasol.json"
INVENTORY = "inventory.ini"
NODES_SECTION = "exasol_nodes"
# Ansible's sections for what holds for every host.
VARIABLES_SECTIONS = ("all:vars", f"{NODES_SECTION}:vars")
SSH_CONFIG = "ssh_config"
KNOWN_HOSTS = "known_hosts"
PRIVATE_KEY = "id_ed25519"


class StateFile(BaseModel):
    """The deployer's state file (contract "cluster" 2.7); what a newer deployer adds is kept out of the way."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    version: str = "1.0"
    status: str
    cloud_provider: str
    deployment_id: str = ""
    parameters: dict[str, Any] = Field(default_factory=dict)


class Node(BaseModel):
    """One line of the inventory.

    Attributes:
        name: The node's name, for example `n11`.
        host: Address.
        ssh_port: TCP port of SSH.
        user: Who logs in.
        private_key: The key's file.
        instance_id: The provider's identifier, empty when the deployer does not write it.
        region: Region or zone, empty when the deployer does not write it.
        admin_ui_port: TCP port of the admin UI.
        database_port: TCP port of the database.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: str
    host: str = Field(alias="ansible_host", min_length=1)
    ssh_port: int = Field(default=22, alias="ansible_port", gt=0, lt=65536)
    user: str = Field(alias="ansible_user", min_length=1)
    private_key: Path
    instance_id: str = ""
    region: str = ""
    admin_ui_port: int = Field(default=8443, gt=0, lt=65536)
    database_port: int = Field(default=8563, gt=0, lt=65536)

    @property
    def known_as(self) -> str:
        """The name under which known_hosts lists the node's host key."""
        return self.host if self.ssh_port == 22 else f"[{self.host}]:{self.ssh_port}"

    @property
    def address(self) -> str:
        """Who and where, for people: `admin@127.0.0.1:40001`."""
        return f"{self.user}@{self.host}:{self.ssh_port}"


@dataclass(frozen=True)
class Deployment:
    """One cluster.

    Attributes:
        directory: The deployment directory.
        state: What the deployer's state file said when the deployment was read.
        nodes: The inventory, in its order.
    """

    directory: Path
    state: StateFile
    nodes: tuple[Node, ...]

    @classmethod
    def read(cls, directory: Path) -> Deployment:
        """Read a deployment directory.

        Args:
            directory: What the deployer calls `--deployment-dir`.

        Raises:
            MissingDeploymentError: A file is missing; says which.
            DeploymentError: A file is not what a deployer writes; says which and what is wrong.
        """
        directory = directory.absolute()
        return cls(directory, read_state(directory), tuple(_nodes(directory)))

    @property
    def provider(self) -> ProviderName:
        """Whose machines these are.

        Raises:
            DeploymentError: The provider is none of the document's.
        """
        try:
            return ProviderName(self.state.cloud_provider)
        except ValueError:
            message = (
                f"{self.directory / STATE_FILE}: power control knows no provider {self.state.cloud_provider!r}; "
                f"it knows {', '.join(ProviderName)}."
            )
            raise DeploymentError(message) from None

    @property
    def identifier(self) -> str:
        """The deployment's id, which the tags of its instances carry.

        Raises:
            DeploymentError: The state file has none, so that no instance can be told to be the deployment's.
        """
        if not self.state.deployment_id:
            message = (
                f"{self.directory / STATE_FILE} has no deployment_id: which instances are this deployment's "
                "cannot be told, and none is touched."
            )
            raise DeploymentError(message)
        return self.state.deployment_id

    @property
    def power_api(self) -> PowerApi:
        """What the suite's parameter `power_api` opted in to.

        Raises:
            DeploymentError: The parameter has another value.
        """
        value = self.state.parameters.get("power_api", PowerApi.DOCUMENT)
        try:
            return PowerApi(value)
        except ValueError:
            message = f"The parameter power_api is {' or '.join(PowerApi)}, got {value!r}."
            raise DeploymentError(message) from None

    @property
    def known_hosts(self) -> Path:
        """The nodes' host keys."""
        return self.directory / KNOWN_HOSTS

    @property
    def names(self) -> tuple[str, ...]:
        """The nodes' names."""
        return tuple(node.name for node in self.nodes)

    def node(self, name: str) -> Node:
        """The node of that name.

        Raises:
            UnknownNodeError: There is none; lists the nodes.
        """
        for node in self.nodes:
            if node.name == name:
                return node
        message = f"There is no node {name!r} in {self.directory / INVENTORY}; there are {', '.join(self.names)}."
        raise UnknownNodeError(message)


def read_state(directory: Path) -> StateFile:
    """The deployer's state file.

    Raises:
        MissingDeploymentError: There is none.
        DeploymentError: It is not what a deployer writes.
    """
    path = directory / STATE_FILE
    try:
        return StateFile.model_validate_json(_text(path))
    except ValidationError as problem:
        raise _invalid(path, problem) from None


def _nodes(directory: Path) -> list[Node]:
    path = directory / INVENTORY
    hosts, variables = _inventory(_text(path), path)
    ssh_config = _ssh_config(directory)
    nodes = []
    for name, line in hosts.items():
        configured = ssh_config.lookup(name) if ssh_config else {}
        values = {"ansible_user": configured.get("user"), **variables, **line}
        key = _private_key(directory, configured)
        try:
            nodes.append(Node.model_validate({**values, "name": name, "private_key": key}))
        except ValidationError as problem:
            raise _invalid(path, problem, f"node {name}") from None
    if not nodes:
        message = f"{path} has no node in [{NODES_SECTION}]."
        raise DeploymentError(message)
    return nodes


def _inventory(text: str, path: Path) -> tuple[dict[str, dict[str, str]], dict[str, str]]:
    """The hosts' lines and the variables for all of them (Ansible's INI format, which is not Python's)."""
    hosts: dict[str, dict[str, str]] = {}
    variables: dict[str, str] = {}
    section = ""
    for number, line in enumerate(text.splitlines(), 1):
        try:
            words = shlex.split(line, comments=not line.lstrip().startswith(";"))
        except ValueError as problem:
            message = f"{path}, line {number}: {problem}."
            raise DeploymentError(message) from None
        if not words or line.lstrip().startswith(";"):
            continue
        if line.strip().startswith("["):
            section = line.strip().split("]")[0].lstrip("[")
        elif section == NODES_SECTION:
            hosts[words[0]] = _assignments(words[1:])
        elif section in VARIABLES_SECTIONS:
            variables.update(_assignments(words))
    return hosts, variables


def _assignments(words: list[str]) -> dict[str, str]:
    return {name: value for name, equals, value in (word.partition("=") for word in words) if equals}


def _ssh_config(directory: Path) -> SSHConfig | None:
    path = directory / SSH_CONFIG
    if not path.is_file():
        return None
    # Takes longer to import than all the rest here: who only lists or plans workflows does not wait for it.
    from paramiko import SSHConfig

    return SSHConfig.from_path(str(path))


def _private_key(directory: Path, configured: Mapping[str, Any]) -> Path:
    """The first key that ssh_config names for the node and that exists, else the deployment's own."""
    named = (directory / Path(name).expanduser() for name in configured.get("identityfile", []))
    return next((path for path in named if path.is_file()), directory / PRIVATE_KEY)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        message = f"There is no {path}: deploy first, or name another deployment directory."
        raise MissingDeploymentError(message) from None
    except (OSError, UnicodeDecodeError) as problem:
        message = f"{path} cannot be read: {problem}."
        raise DeploymentError(message) from None


def _invalid(path: Path, problem: ValidationError, where: str = "") -> DeploymentError:
    errors = (
        f"{'.'.join(map(str, error['loc'])) or 'the file'}: {error['msg']}"
        for error in problem.errors(include_url=False)
    )
    return DeploymentError(f"{path}{f', {where}' if where else ''}: {'; '.join(errors)}.")
