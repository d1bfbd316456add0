"""One deployment as workflows see it: its deployer, its power, what can be measured of it, and its data."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from testyard.core.deadline import Deadline, wait_until
from testyard.core.errors import NotMetError, UserError
from testyard.core.leftover import Leftover
from testyard.power.cloud_settings import load_sdk, open_provider, read_settings, why_not_asked
from testyard.power.deadlines import Deadlines as PowerDeadlines
from testyard.power.deployment import Deployment, Node
from testyard.power.engine import PowerControl
from testyard.power.planning import Instruction
from testyard.power.problems import DeploymentError
from testyard.power.protocol import Instance, PowerState, ProviderName
from testyard.power.readings import Api, Machine
from testyard.power.shell import Reach, SshAnswer, open_shell
from testyard.power.transitions import PowerApi
from testyard.workflow.database import CREDENTIALS_FILE, Credentials, Session
from testyard.workflow.deployer import Answer, Deployer
from testyard.workflow.integrity import IntegrityWatch, Seed
from testyard.workflow.measurements import (
    AdminUiSight,
    ApiAnswer,
    DatabaseSight,
    NodeSight,
    Role,
    beside_each_other,
    is_primary,
    see_admin_ui,
    see_database,
)
from testyard.workflow.settings import WorkflowSettings

if TYPE_CHECKING:
    from testyard.power.ssh import NodeShell


class Cluster:
    """One deployment.

    What the deployer wrote into the directory is read anew each time: nothing here is from before a fault.

    Args:
        directory: The deployment's directory; it need not be deployed yet.
        settings: Deployer, deadlines.
        provider: Where it is, or will be, deployed.
        parameters: The suite's parameters; ``cluster_size`` says how many nodes there must be.
        log: Is told what goes on.
        environment: Where the providers' settings are, beside the directory's own.

    Example:
        >>> cluster = Cluster(Path("d"), WorkflowSettings(), provider="aws")
        >>> cluster.deployer.command("deploy")[-3:]
        ('deploy', '--deployment-dir', 'd')
    """

    def __init__(
        self,
        directory: Path,
        settings: WorkflowSettings,
        *,
        provider: str,
        parameters: Mapping[str, Any] | None = None,
        log: Callable[[str], None] = print,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.directory = directory
        self.settings = settings
        self.provider = provider
        self.parameters = dict(parameters or {})
        self.log = log
        self._environment = os.environ if environment is None else environment
        self.deployer = Deployer(directory, settings, environment=environment)
        # The provider's API of the deployment with this id, once it was opened.
        self._opened: tuple[str, Api] | None = None
        self._lock = threading.RLock()
        self._power: PowerControl | None = None
        self._order: deque[str] = deque()

    @property
    def deployment(self) -> Deployment:
        """What the deployer wrote into the directory.

        Raises:
            DeploymentError: Nothing is deployed, or a file is not what it should be.
        """
        return Deployment.read(self.directory)

    def deploy(self) -> Answer:
        """Create the nodes; meanwhile the provider's SDK is imported, as the next thing is to ask it.

        Raises:
            DeployerError: It failed, or took too long.
        """
        importing = threading.Thread(target=load_sdk, args=(ProviderName(self.provider),), daemon=True)
        importing.start()
        answer = self.deployer.deploy()
        importing.join()
        return answer

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All nodes.

        Raises:
            DeploymentError: Nothing is deployed, or there are not as many nodes as ``cluster_size`` says.
        """
        nodes = self.deployment.nodes
        expected = self.parameters.get("cluster_size", len(nodes))
        if len(nodes) != expected:
            names = ", ".join(node.name for node in nodes)
            message = f"The cluster should have {expected} nodes, the inventory has {len(nodes)}: {names}."
            raise DeploymentError(message)
        return nodes

    @property
    def power_api(self) -> PowerApi:
        """What the suite's parameter ``power_api`` opted in to.

        Raises:
            UserError: It has another value.
        """
        value = self.parameters.get("power_api") or PowerApi.DOCUMENT
        try:
            return PowerApi(value)
        except ValueError:
            message = f"The parameter power_api is {' or '.join(PowerApi)}, got {value!r}."
            raise UserError(message) from None

    @cached_property
    def power_deadlines(self) -> PowerDeadlines:
        """What power control may take.

        Raises:
            UserError: The settings name a deadline that it does not have.
        """
        return PowerDeadlines.of(self.settings.power_deadlines)

    @property
    def power(self) -> PowerControl:
        """The power of the deployment's nodes.

        Raises:
            DeploymentError: Nothing is deployed.
        """
        deployment = self.deployment
        with self._lock:
            # It remembers each node's last boot id; another deployment in this directory has other nodes.
            if self._power is None or self._power.deployment.identifier != deployment.identifier:
                self._power = PowerControl(
                    deployment,
                    deadlines=self.power_deadlines,
                    power_api=self.power_api,
                    operator=self._instruct,
                    environment=self._environment,
                )
            return self._power

    def node_sights(self, names: Sequence[str] | None = None) -> list[NodeSight]:
        """Look at the power of nodes, over SSH and by the provider's API, all at once.

        Args:
            names: Which nodes; all of them when not given.

        Raises:
            UserError: There is no such node or deployment, or a node's host key has changed.
        """
        deployment = self.deployment
        nodes = self.nodes if names is None else [deployment.node(name) for name in names]
        api, instances, unasked = self._instances(deployment)

        def look(node: Node) -> NodeSight:
            shell = self._shell(deployment, node)
            try:
                answer = unasked
                if api is not None:
                    answer = self._ask(api, Machine(node, shell, api, instances).instance)
                return NodeSight(node.name, shell.answer(), answer)
            finally:
                shell.close()

        return beside_each_other(look, nodes)

    def ssh_answers(self) -> dict[str, SshAnswer]:
        """Connect to every node over SSH, all at once.

        Raises:
            UserError: There is no deployment, or a node's host key has changed.
        """
        deployment, nodes = self.deployment, self.nodes

        def look(node: Node) -> SshAnswer:
            shell = self._shell(deployment, node)
            try:
                return shell.answer()
            finally:
                shell.close()

        return dict(zip((node.name for node in nodes), beside_each_other(look, nodes), strict=True))

    def power_states(self) -> dict[str, PowerState]:
        """What the provider's API says of every node.

        Raises:
            UserError: It cannot be asked, or has refused; says why, and what to do.
        """
        deployment = self.deployment
        api = self._api(deployment)
        instances = api.instances()
        machines = [Machine(node, self._shell(deployment, node), api, instances) for node in self.nodes]
        return {it.node.name: api.state(it.instance) for it in machines if it.instance is not None}

    def databases(self) -> list[DatabaseSight]:
        """Look at every node's database, all at once.

        Raises:
            UserError: There is no deployment, or it has no database.
        """
        credentials = Credentials.read(self.directory)
        return beside_each_other(lambda it: see_database(it, credentials, self.settings.deadlines), self.nodes)

    def elected_databases(self) -> list[DatabaseSight]:
        """Look at every node's database until there is a primary, or until ``election`` is over.

        Where the majority of the nodes is down, nobody is elected, and nothing is waited for.

        Raises:
            UserError: There is no deployment, or it has no database.
        """
        seen: list[DatabaseSight] = []

        def look() -> bool:
            seen[:] = self.databases()
            return any(database.role is Role.PRIMARY for database in seen)

        if look() or not self._may_elect():
            return seen
        try:
            wait_until(look, bool, Deadline(self.settings.deadlines.election), "a primary")
        except NotMetError:
            return seen  # whoever asked says what it saw instead
        return seen

    def _may_elect(self) -> bool:
        """Whether a majority of the nodes answers: without one there is no primary to wait for."""
        reaches = [answer.reach for answer in self.ssh_answers().values()]
        return 2 * reaches.count(Reach.DEAD) < len(reaches)

    def admin_uis(self) -> list[AdminUiSight]:
        """Ask every node's admin UI for its page, all at once.

        Raises:
            UserError: There is no deployment, or no certificate to check the answers against.
        """
        within = self.settings.deadlines.admin_ui
        return beside_each_other(lambda node: see_admin_ui(node, self.directory, within), self.nodes)

    @property
    def has_database(self) -> bool:
        """Whether the deployer gave credentials for a database."""
        return (self.directory / CREDENTIALS_FILE).is_file()

    def open_primary(self) -> tuple[str, Session]:
        """A session on the node that is the primary now, and the node's name.

        Raises:
            psycopg.OperationalError: No node is.
            UserError: There is no deployment, or it has no database.
        """
        deadlines = self.settings.deadlines
        credentials = Credentials.read(self.directory)
        problem = psycopg.OperationalError("no node is a primary")
        for node in self._in_turn():
            try:
                session = Session(node.host, node.database_port, credentials, deadlines.database_connect)
            except psycopg.OperationalError as refused:
                problem = refused
                continue
            if is_primary(session, deadlines.database_answer):
                return node.name, session
            session.close()
        raise problem

    @cached_property
    def integrity(self) -> IntegrityWatch:
        """The seeded table and the writes of this deployment."""
        seed = Seed(self.directory.absolute().name, self.settings.integrity_rows)
        return IntegrityWatch(self.directory, self.open_primary, seed, answer=self.settings.deadlines.integrity)

    def undo(self) -> list[Leftover]:
        """Put back every node that this process has taken down, the last one first.

        Returns:
            What became of each; what could not be undone stays in the journal for the next run.
        """
        return self._power.undo_all() if self._power is not None else []

    def destroy(self) -> None:
        """End the deployment and everything that belongs to it.

        Raises:
            DeployerError: It was refused, failed, or took too long.
        """
        self.close()
        self.deployer.destroy()

    def close(self) -> None:
        """Stop writing, and give back connections; safe to call again."""
        with self._lock:
            opened, self._opened = self._opened, None
            power, self._power = self._power, None
        if opened is not None:
            opened[1].close()
        if power is not None:
            power.close()
        self.integrity.pause()

    def _instruct(self, instruction: Instruction) -> None:
        """Tell the operator what to start; where a command plays the operator, run it."""
        self.log(str(instruction))
        self.deployer.run_operator(instruction.nodes)

    def _in_turn(self) -> list[Node]:
        """The nodes, beginning with another one each time: one that only seems to be a primary holds nobody up."""
        nodes = {node.name: node for node in self.deployment.nodes}
        with self._lock:
            if set(self._order) != set(nodes):
                self._order = deque(nodes)
            order = list(self._order)
            self._order.rotate(-1)
        return [nodes[name] for name in order]

    def _shell(self, deployment: Deployment, node: Node) -> NodeShell:
        deadlines = self.settings.deadlines
        return open_shell(
            node,
            deployment.known_hosts,
            connect_timeout=deadlines.ssh_connect,
            command_timeout=deadlines.ssh_command,
        )

    def _instances(self, deployment: Deployment) -> tuple[Api | None, Mapping[str, Instance], ApiAnswer]:
        why = why_not_asked(deployment.provider, read_settings(deployment, self._environment))
        if why is not None:
            return None, {}, ApiAnswer(None, self.provider, why)
        try:
            api = self._api(deployment)
            return api, api.instances(), ApiAnswer(None, self.provider)
        except UserError as problem:
            return None, {}, ApiAnswer(None, self.provider, str(problem), failed=True)

    def _ask(self, api: Api, instance: Instance | None) -> ApiAnswer:
        if instance is None:
            return ApiAnswer(None, self.provider, "it has no such instance", failed=True)
        try:
            return ApiAnswer(api.state(instance), self.provider)
        except UserError as problem:
            return ApiAnswer(None, self.provider, str(problem), failed=True)

    def _api(self, deployment: Deployment) -> Api:
        settings = read_settings(deployment, self._environment)
        with self._lock:
            if self._opened is None or self._opened[0] != deployment.identifier:
                self._opened = deployment.identifier, Api(open_provider(deployment, settings))
            return self._opened[1]
