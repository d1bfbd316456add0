"""Keywords about the datacentre of the lab: its machines, the network between them, and what goes wrong there."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

from robot.api import logger
from robot.api.deco import keyword
from testyard.core.errors import NotMetError, UserError
from testyard.lab.environment import Environment

from LabLibrary.world import World

# Where the deployer of the lab writes how its providers are reached.
CLOUD_SETTINGS = ".cloud.json"


class DatacentreKeywords:
    """The datacentre of the lab, in which clusters are deployed."""

    _world: World

    @keyword(tags=["Setup"])
    def start_the_datacentre(self, *, within: timedelta = timedelta(seconds=20)) -> None:
        """Start the datacentre of the lab, which has no machine yet; deployers that the run starts use it.

        Takes the one that an earlier suite of the run left, which `Stop The Datacentre` has emptied. Does nothing
        when it runs already, and nothing on your own systems.

        Args:
            within: Give up after this time.

        Raises:
            LabError: It did not become ready; nothing is left running.

        Example:
            | Start The Datacentre |
        """
        if self._world.environment is Environment.OWN or self._world.clusters.lab is not None:
            return
        lab = self._world.clusters.hand_out(within=within)
        logger.info(f"Datacentre of the lab: {lab.client.base_url}, process {lab.pid}")

    @keyword(tags=["Setup"])
    def stop_the_datacentre(self) -> None:
        """Undo every fault, check that no link is left cut, and remove every machine.

        The empty datacentre waits for the next suite of the run and ends with the run.

        Raises:
            NotMetError: A link was still cut.

        Example:
            | Stop The Datacentre |
        """
        lab = self._world.clusters.lab
        try:
            self._world.heal()
            if lab is not None and lab.lives():
                cut = [link for deployment in lab.deployments() for link in lab.silent_links(deployment)]
                if cut:
                    message = f"Links are still cut after everything was healed: {', '.join(cut)}."
                    raise NotMetError(message)
        finally:
            self._world.clusters.take_back()

    @keyword(tags=["Getter"])
    def machines_of(self, deployment: str) -> dict[str, str]:
        """The power of a deployment's machines, as the datacentre itself knows it.

        Args:
            deployment: The deployment's id.

        Returns:
            The state of each node by its name: `running`, `starting`, `stopping` or `stopped`; none when nothing
            is deployed under that id.

        Example:
            | ${machines} = | Machines Of | ${deployment} |
        """
        lab = self._world.cluster_lab()
        if deployment not in lab.deployments():
            return {}
        return {name: node["state"] for name, node in lab.state(deployment)["nodes"].items()}

    @keyword(tags=["Getter"])
    def deployments_of_the_datacentre(self) -> list[str]:
        """The ids of everything that is deployed now.

        Example:
            | ${deployments} = | Deployments Of The Datacentre |
        """
        return self._world.cluster_lab().deployments()

    @keyword(tags=["Fault"])
    def isolate_node(self, deployment: str, node: str) -> None:
        """Cut a node off from every other, in both directions, until the test ends or it is healed.

        Nobody is told: connections stay open and silent, as when a switch fails. Clients still reach the node.

        Args:
            deployment: The deployment's id.
            node: The node's name.

        Example:
            | Isolate Node | ${deployment} | n11 |
        """
        lab = self._world.cluster_lab()
        lab.peers_of(deployment, node)
        self._world.will_undo(("isolated", deployment, node), lambda: lab.isolate(deployment, node, silent=False))
        lab.isolate(deployment, node, silent=True)
        logger.info(f"Cut: {', '.join(lab.silent_links(deployment))}")

    @keyword(tags=["Fault"])
    def heal_node(self, deployment: str, node: str) -> None:
        """End `Isolate Node` before the test does.

        Args:
            deployment: The deployment's id.
            node: The node's name.

        Raises:
            NotMetError: A link of the node is still cut.

        Example:
            | Heal Node | ${deployment} | n11 |
        """
        self._world.undo(("isolated", deployment, node))
        cut = [link for link in self._world.cluster_lab().silent_links(deployment) if node in link.split(" -> ")]
        if cut:
            message = f"Links of {node} are still cut: {', '.join(cut)}."
            raise NotMetError(message)

    @keyword(tags=["Fault"])
    def cut_link(self, deployment: str, source: str, target: str) -> None:
        """Let nothing pass from one node to another, until the test ends; the other direction stays open.

        Args:
            deployment: The deployment's id.
            source: Who sends: a node's name, or `manager`.
            target: Who does not hear it.

        Example:
            | Cut Link | ${deployment} | n12 | n11 |
        """
        lab = self._world.cluster_lab()
        self._world.will_undo(
            ("cut", deployment, source, target),
            lambda: lab.set_link(deployment, source, target, silent=False),
        )
        lab.set_link(deployment, source, target, silent=True)
        logger.info(f"Cut: {source} -> {target}")

    @keyword(tags=["Fault"])
    def let_the_cloud_credential_expire(self, deployment: str) -> None:
        """Let the provider refuse the deployment's credential, until the test ends.

        Args:
            deployment: The deployment's id.

        Example:
            | Let The Cloud Credential Expire | ${deployment} |
        """
        lab = self._world.cluster_lab()
        self._world.will_undo(("expired", deployment), lambda: lab.set_cloud(deployment, expired=False))
        lab.set_cloud(deployment, expired=True)

    @keyword(tags=["Fault"])
    def change_host_key(self, deployment: str, node: str) -> None:
        """Let a node show another SSH host key from now on, as another machine at its address would.

        Args:
            deployment: The deployment's id.
            node: The node's name.

        Example:
            | Change Host Key | ${deployment} | n12 |
        """
        lab = self._world.cluster_lab()
        self._world.will_undo(("host key", deployment, node), lambda: lab.act(deployment, node, "first-host-key"))
        lab.act(deployment, node, "new-host-key")

    @keyword(tags=["Fault"])
    def restore_host_key(self, deployment: str, node: str) -> None:
        """End `Change Host Key` before the test does.

        Args:
            deployment: The deployment's id.
            node: The node's name.

        Example:
            | Restore Host Key | ${deployment} | n12 |
        """
        self._world.undo(("host key", deployment, node))

    @keyword(tags=["Fault"])
    def renew_the_cloud_credential(self, deployment: str) -> None:
        """End `Let The Cloud Credential Expire` before the test does.

        Args:
            deployment: The deployment's id.

        Example:
            | Renew The Cloud Credential | ${deployment} |
        """
        self._world.undo(("expired", deployment))

    @keyword(tags=["Fault"])
    def forget_cloud_setting(self, directory: Path, setting: str) -> None:
        """Remove a setting of the provider from a deployment's directory, until the test ends.

        Args:
            directory: The deployment's directory.
            setting: Such as `AWS_REGION`.

        Raises:
            UserError: The directory has no such setting.

        Example:
            | Forget Cloud Setting | ${directory} | AWS_REGION |
        """
        file = directory / CLOUD_SETTINGS
        before = file.read_text(encoding="utf-8")
        settings = json.loads(before)
        if setting not in settings:
            message = f"{file} has no setting {setting}; it has {', '.join(settings)}."
            raise UserError(message)
        self._world.will_undo(("forgotten", directory, setting), lambda: file.write_text(before, encoding="utf-8"))
        file.write_text(
            json.dumps({name: it for name, it in settings.items() if name != setting}), encoding="utf-8"
        )

    @keyword(tags=["Fault"])
    def pretend_to_be_the_controller(self, deployment: str, node: str) -> None:
        """Let a node tell the boot id of the machine that runs the tests, until it boots again or the test ends.

        Args:
            deployment: The deployment's id.
            node: The node's name.

        Example:
            | Pretend To Be The Controller | ${deployment} | n12 |
        """
        lab = self._world.cluster_lab()
        self._world.will_undo(
            ("controller", deployment, node), lambda: lab.act(deployment, node, "claim-own-boot-id")
        )
        lab.act(deployment, node, "claim-host-boot-id")
