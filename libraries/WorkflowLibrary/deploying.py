"""Keywords about deployments: make them, choose between them, end them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from assertionengine import AssertionOperator, verify_assertion
from robot.api import logger
from robot.api.deco import keyword
from testyard.core.errors import UserError
from testyard.power.protocol import ProviderName
from testyard.workflow.measurements import beside_each_other

from WorkflowLibrary.session import OpenCluster, Session

DEFAULT_ALIAS = "default"
SIZE = "cluster_size"


class DeploymentKeywords:
    """Deployments of clusters."""

    _session: Session

    @keyword(tags=["Setup"])
    def initialize_deployment(
        self, provider: ProviderName, *, alias: str = DEFAULT_ALIAS, size: int = 3, **parameters: Any
    ) -> None:
        """Let the deployer prepare a deployment, in a directory of its own; nothing runs yet.

        Args:
            provider: Where it will be.
            alias: What this run calls it.
            size: How many nodes: `n11`, `n12` and so on.
            parameters: Options of the deployer, as a workflow's `parameters` would name them.

        Raises:
            UserError: The deployer refuses, or the alias is taken.

        Example:
            | Initialize Deployment | gcp |
        """
        opened = self._session.open(alias, provider.value, {SIZE: size, **parameters})
        opened.cluster.deployer.init(provider.value, opened.context.parameters)
        logger.info(f"Deployment directory: {opened.cluster.directory}")

    @keyword(tags=["Setup"])
    def deploy_cluster(
        self, provider: ProviderName, *, alias: str = DEFAULT_ALIAS, size: int = 3, **parameters: Any
    ) -> Path:
        """Initialize a deployment and deploy it, and wait until it can be used.

        Args:
            provider: Where.
            alias: What this run calls it.
            size: How many nodes: `n11`, `n12` and so on.
            parameters: Options of the deployer, such as `database=${False}` for nodes without a database, and
                `power_api=extended`.

        Returns:
            The deployment's directory.

        Raises:
            UserError: The deployer refuses, or the alias is taken.

        Example:
            | ${directory} = | Deploy Cluster | aws |
            | ${directory} = | Deploy Cluster | hetzner | alias=second | size=2 | database=${False} |
        """
        self.initialize_deployment(provider, alias=alias, size=size, **parameters)
        cluster = self._session.here.cluster
        cluster.deploy()
        if cluster.has_database:
            cluster.integrity.seed()
        logger.info(f"{cluster.deployment.identifier}: {', '.join(node.name for node in cluster.nodes)}")
        return cluster.directory

    @keyword(tags=["Setup"])
    def deploy_clusters(self, *providers: ProviderName, size: int = 3, **parameters: Any) -> None:
        """Deploy a cluster at each of several providers, all at the same time.

        Args:
            providers: Where; each cluster's alias is its provider's name.
            size: How many nodes each.
            parameters: Options of the deployer, as for `Deploy Cluster`.

        Raises:
            UserError: A deployer refuses, or an alias is taken.

        Example:
            | Deploy Clusters | aws | azure | gcp | size=2 | database=${False} |
        """
        clusters = []
        for provider in providers:
            opened = self._session.open(provider.value, provider.value, {SIZE: size, **parameters})
            clusters.append((provider, opened))

        def deploy(each: tuple[ProviderName, OpenCluster]) -> None:
            provider, opened = each
            opened.cluster.deployer.init(provider.value, opened.context.parameters)
            opened.cluster.deploy()
            if opened.cluster.has_database:
                opened.cluster.integrity.seed()

        # Threads do not log: Robot Framework would drop it.
        beside_each_other(deploy, clusters)
        for provider, opened in clusters:
            logger.info(f"{provider.value}: {opened.cluster.deployment.identifier} in {opened.cluster.directory}")

    @keyword(tags=["Setup"])
    def switch_cluster(self, alias: str) -> Path:
        """Use another cluster of this run.

        Args:
            alias: What this run calls it.

        Returns:
            The deployment's directory.

        Raises:
            UserError: There is no such cluster.

        Example:
            | Switch Cluster | second |
        """
        if alias not in self._session.clusters:
            known = ", ".join(self._session.clusters) or "none"
            message = f"There is no cluster {alias!r}; there is {known}."
            raise UserError(message)
        self._session.current = alias
        return self._session.here.cluster.directory

    @keyword(tags=["Setup"])
    def put_back_what_workflows_took_down(self) -> None:
        """Start every node that steps of workflows have taken down, the last one first.

        The end of a test does it too.

        Raises:
            UserError: One could not be put back; says why.

        Example:
            | Put Back What Workflows Took Down |
        """
        leftovers = self._session.undo()
        for leftover in leftovers:
            logger.info(f"{leftover.name}: {leftover.outcome}")
        left = [f"{it.name}: {it.outcome}" for it in leftovers if not it.ended]
        if left:
            message = f"Not put back: {'; '.join(left)}"
            raise UserError(message)

    @keyword(tags=["Setup"])
    def destroy_every_cluster(self) -> None:
        """Destroy every cluster that this run has deployed, and remove their directories.

        Raises:
            UserError: The deployer refused; says which.

        Example:
            | Destroy Every Cluster |
        """
        problems = self._session.destroy_all()
        if problems:
            raise UserError(" ".join(problems))

    @keyword(tags=["Getter"])
    def deployment_directory(self) -> Path:
        """The directory of the deployment in use.

        Example:
            | ${directory} = | Deployment Directory |
        """
        return self._session.here.cluster.directory

    @keyword(tags=["Getter"])
    def deployment_id(self) -> str:
        """The id of the deployment in use, which its machines carry as a tag.

        Example:
            | ${id} = | Deployment Id |
        """
        status = self._session.here.cluster.deployer.status()
        return str(status.get("deployment_id", ""))

    @keyword(tags=["Getter", "Assertion"])
    def get_deployment_status(
        self,
        assertion_operator: AssertionOperator | None = None,
        assertion_expected: str | None = None,
        message: str | None = None,
    ) -> str:
        """What the deployer says of the deployment in use, such as `database_ready` or `stopped`.

        Args:
            assertion_operator: Compares the status, such as `==`.
            assertion_expected: The status that it is compared with.
            message: Instead of the comparison's own message.

        Example:
            | Get Deployment Status | == | database_ready |
        """
        status = str(self._session.here.cluster.deployer.status().get("status"))
        value: str = verify_assertion(status, assertion_operator, assertion_expected, "Deployment status", message)
        return value

    @keyword(tags=["Getter"])
    def node_addresses(self, node: str) -> dict[str, Any]:
        """Where a node of the deployment in use is: host, ports, user and the path of the key.

        Args:
            node: Its name.

        Raises:
            UserError: There is no such node.

        Example:
            | ${address} = | Node Addresses | n11 |
        """
        deployment = self._session.here.cluster.deployment
        found = deployment.node(node)
        return {
            "host": found.host,
            "port": found.ssh_port,
            "user": found.user,
            "admin_ui_port": found.admin_ui_port,
            "database_port": found.database_port,
            "key": str(found.private_key),
            "known_hosts": str(deployment.known_hosts),
        }
