"""Power of a cluster's machines at six providers: stop, start, restart, crash, and the proof of each."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from assertionengine import AssertionOperator, verify_assertion
from robot.api import logger
from robot.api.deco import keyword, library
from testyard import __version__
from testyard.core.errors import NotMetError, UserError
from testyard.core.leftover import Leftover
from testyard.core.listening import MaskingListener
from testyard.core.tables import html_table
from testyard.power.deadlines import Deadlines
from testyard.power.engine import PowerControl, replay
from testyard.power.planning import Instruction, Operator
from testyard.power.protocol import PowerState, ProviderName
from testyard.power.results import PowerResult
from testyard.power.transitions import CrashMethod, Operation, PowerApi, RestartMethod, Support, transition
from testyard.power.undo import JOURNAL
from testyard.workflow.deployer import Deployer
from testyard.workflow.settings import chosen_settings

RESULT_COLUMNS = ("node", "outcome", "command", "boot before", "boot after", "proof")


@library(scope="GLOBAL", version=__version__, listener="SELF", doc_format="MARKDOWN")
class PowerLibrary(MaskingListener):
    """Stop, start, restart and crash a cluster's machines, and know that it has happened.

    The machines are those of a *deployment directory*: an inventory of nodes with their addresses, a key, and the
    host keys they were deployed with. Credentials come from the environment, under the names that the providers'
    own tools use (`AWS_ACCESS_KEY_ID`, `AZURE_CLIENT_SECRET`, `GOOGLE_APPLICATION_CREDENTIALS`,
    `DIGITALOCEAN_TOKEN`, `HCLOUD_TOKEN`, `LIBVIRT_DEFAULT_URI`); they never reach a log.

    What each provider can do is the table of document 003. Where it says no, a keyword fails with
    `NotImplementedError`, provider and operation; where it says manual, stopping is a shutdown inside the machine,
    and starting waits for a person. `power_api=extended` opts in to what the providers' interfaces can do today.

    Nothing is believed: an operation is done when the machine has left its state, has reached the next one, and a
    new boot id, silence over SSH or the provider's word proves it. A machine that has the boot id of the one that
    runs the tests is never touched. What was taken down is put back at the end of the test, whatever happens, and
    after a kill by `Put Back What A Killed Run Left`.
    """

    def __init__(self, *, settings: dict[str, Any] | None = None) -> None:
        """Choose how long things may take, and who starts what has to be started by hand.

        Args:
            settings: What differs from the documented defaults, as for WorkflowLibrary: `power_deadlines`, seconds
                by name (`boot`, `stop`, `crash`, `reboot`, ...), and `operator`, a command that plays the person.
        """
        MaskingListener.__init__(self)
        self._settings = chosen_settings(settings or {})
        self._deadlines = Deadlines.of(self._settings.power_deadlines)
        # Opening a provider's SDK takes up to a second: whoever comes back to a deployment finds it open.
        self._opened: dict[tuple[Path, PowerApi | None], PowerControl] = {}
        self._power: PowerControl | None = None
        self._boots: dict[Path, dict[str, str]] = {}
        self._last: tuple[PowerResult, ...] = ()

    # What Robot Framework calls as it runs.

    def end_test(self, data: Any, result: Any) -> None:
        """Put back what the test took down and did not start again."""
        self._put_back()
        super().end_test(data, result)

    def close(self) -> None:
        """Put back what is still down, also after Ctrl-C, and give back connections."""
        self._put_back()
        self.leave_deployments()

    def _put_back(self) -> None:
        for power in self._opened.values():
            for leftover in power.undo_all():
                tell = logger.info if leftover.ended else logger.warn
                tell(f"Put back: {leftover.name}: {leftover.outcome}")

    @property
    def _control(self) -> PowerControl:
        if self._power is None:
            message = "No deployment is in use: 'Use Deployment' first."
            raise UserError(message)
        return self._power

    # Whose power it is.

    @keyword(tags=["Setup"])
    def use_deployment(self, directory: Path, *, power_api: PowerApi | None = None) -> None:
        """Use the machines of a deployment from now on.

        Args:
            directory: The deployment's directory.
            power_api: `DOCUMENT` is the table of document 003, `EXTENDED` what the providers' interfaces can do;
                what the deployment's parameters say when not given.

        Raises:
            UserError: The directory has no deployment, or its files are not what they should be.

        Example:
            | Use Deployment | ${directory} |
            | Use Deployment | ${directory} | power_api=extended |
        """
        self._power = self._opened.get((directory, power_api))
        if self._power is None:
            self._power = self._opened[directory, power_api] = self._open(directory, power_api)
        deployment = self._power.deployment
        logger.info(f"{deployment.provider.value}: {', '.join(deployment.names)} in {directory}")

    def _open(self, directory: Path, power_api: PowerApi | None) -> PowerControl:
        return PowerControl.open(
            directory, deadlines=self._deadlines, power_api=power_api, operator=self._operator(directory)
        )

    def _operator(self, directory: Path) -> Operator:
        deployer = Deployer(directory, self._settings)

        def instruct(instruction: Instruction) -> None:
            logger.info(f"To be done by hand: {instruction}")
            deployer.run_operator(instruction.nodes)

        return instruct

    @keyword(tags=["Setup"])
    def leave_deployments(self) -> None:
        """Give back the connections to all deployments that were used, before they are destroyed.

        Example:
            | Leave Deployments |
        """
        for power in self._opened.values():
            power.close()
        self._opened.clear()
        self._power = None
        self._boots.clear()

    @keyword(tags=["Getter"])
    def get_provider(self) -> str:
        """Whose machines those of the deployment in use are, such as `aws`.

        Example:
            | ${provider} = | Get Provider |
        """
        return self._control.deployment.provider.value

    # What is done.

    @keyword(tags=["Fault"])
    def stop_node(self, node: str) -> PowerResult:
        """Stop one node by the provider's interface, in an orderly way, and prove that it is off.

        Args:
            node: Its name.

        Returns:
            What was done, the states that were seen, and the proof.

        Raises:
            NotImplementedError: The provider's row of the table says no.
            UserError: There is no such node, it does not run, or the provider refuses.
            NotMetError: It did not stop in time.

        Example:
            | Stop Node | n12 |
        """
        return self._shown_one(self._control.stop_node(node))

    @keyword(tags=["Power"])
    def start_node(self, node: str) -> PowerResult:
        """Start one node by the provider's interface, and wait until it answers over SSH.

        Args:
            node: Its name.

        Returns:
            What was done, the states that were seen, and the proof.

        Raises:
            NotImplementedError: The provider's row of the table says no.
            UserError: There is no such node, it runs already, or the provider refuses.
            NotMetError: It did not answer in time.

        Example:
            | Start Node | n12 |
        """
        return self._shown_one(self._control.start_node(node))

    @keyword(tags=["Fault"])
    def restart_node(self, node: str, method: RestartMethod = RestartMethod.SSH) -> PowerResult:
        """Restart one node, and prove it by its boot id.

        Args:
            node: Its name.
            method: `SSH` is `sudo reboot`; `GRACEFUL` stops and starts it by the provider's interface.

        Returns:
            What was done, the states that were seen, and the proof.

        Raises:
            NotImplementedError: The provider's row of the table says no.
            UserError: There is no such node, it does not run, or the provider refuses.
            NotMetError: It did not come back in time, or came back without having booted.

        Example:
            | Restart Node | n12 |
            | Restart Node | n12 | graceful |
        """
        return self._shown_one(self._control.restart_node(node, method))

    @keyword(tags=["Fault"])
    def crash_node(self, node: str, method: CrashMethod = CrashMethod.SSH) -> PowerResult:
        """Take one node down hard: nothing is synced, nobody is told.

        Args:
            node: Its name.
            method: `SSH` writes to the kernel's SysRq trigger, or powers off by force where the kernel refuses;
                `DESTROY` is the provider's hard stop.

        Returns:
            What was done; its `outcome` tells whether the node came back by itself or stayed down.

        Raises:
            NotImplementedError: The provider's row of the table says no.
            UserError: There is no such node, it does not run, or the provider refuses.
            NotMetError: It did not go down in time.

        Example:
            | Crash Node | n11 |
            | Crash Node | n11 | destroy |
        """
        return self._shown_one(self._control.crash_node(node, method))

    @keyword(tags=["Fault"])
    def stop_every_node(self) -> tuple[PowerResult, ...]:
        """Stop all nodes at once: by the provider's interface, or where that is manual by a shutdown inside them.

        Returns:
            What was done to each node.

        Raises:
            UserError: All are stopped already, or the provider refuses.
            NotMetError: One did not stop in time.

        Example:
            | Stop Every Node |
        """
        return self._shown(self._control.stop_cluster())

    @keyword(tags=["Power"])
    def start_every_node(self) -> tuple[PowerResult, ...]:
        """Start all nodes at once: by the provider's interface, or where that is manual by a person who is told.

        Returns:
            What was done to each node.

        Raises:
            UserError: All run already, or the provider refuses.
            NotMetError: One did not answer in time.

        Example:
            | Start Every Node |
        """
        return self._shown(self._control.start_cluster())

    @keyword(tags=["Power"])
    def put_back_what_is_down(self) -> None:
        """Start every node that this run has taken down, the last one first; the end of a test does it too.

        Raises:
            UserError: One could not be put back; says why.

        Example:
            | Put Back What Is Down |
        """
        _tell_leftovers([leftover for power in self._opened.values() for leftover in power.undo_all()])

    @keyword(tags=["Power"])
    def put_back_what_a_killed_run_left(self, directory: Path) -> None:
        """Start every node of a deployment that a run took down which was killed before it could put it back.

        Args:
            directory: The deployment's directory.

        Raises:
            UserError: One could not be put back; says why.

        Example:
            | Put Back What A Killed Run Left | ${directory} |
        """
        _tell_leftovers(replay(directory / JOURNAL, deadlines=self._deadlines, operator=self._operator(directory)))

    def _shown_one(self, result: PowerResult) -> PowerResult:
        self._shown((result,))
        return result

    def _shown(self, results: tuple[PowerResult, ...]) -> tuple[PowerResult, ...]:
        self._last = results
        _show(results)
        return results

    # What is seen.

    @keyword(tags=["Getter", "Assertion"])
    def get_node_state(
        self,
        node: str,
        assertion_operator: AssertionOperator | None = None,
        assertion_expected: str | None = None,
        message: str | None = None,
    ) -> str:
        """How a node is now: `running`, `starting`, `stopping`, `stopped` or `unknown`.

        SSH and the provider's interface, where it can be asked, must agree; where they do not it is `unknown`.

        Args:
            node: Its name.
            assertion_operator: Compares the state, such as `==`.
            assertion_expected: The state that it is compared with.
            message: Instead of the comparison's own message.

        Example:
            | Get Node State | n12 | == | stopped |
        """
        reading = self._control.reading(node)
        logger.info(f"{node}: {reading}")
        state: PowerState = reading.state
        value: str = verify_assertion(
            state.value, assertion_operator, assertion_expected, f"State of {node}", message
        )
        return value

    @keyword(tags=["Assertion"])
    def the_last_operation_should_have_seen(self, *states: str) -> None:
        """Fail unless the nodes of the last operation were seen in these states on their way.

        Args:
            states: Such as `stopped`, for a power cycle.

        Raises:
            NotMetError: A node was not; tells what was seen, and when.
            UserError: Nothing was done yet.

        Example:
            | Restart Node | n12 | graceful |
            | The Last Operation Should Have Seen | stopped |
        """
        if not self._last:
            message = "Nothing was done yet: stop, start, restart or crash a node first."
            raise UserError(message)
        for result in self._last:
            seen = {state.state.value for state in result.states}
            if not set(states) <= seen:
                shown = "; ".join(f"{it.time:%H:%M:%S.%f} {it.state.value} ({it.detail})" for it in result.states)
                message = f"{result.node} was not seen {', '.join(states)}: {shown}"
                raise NotMetError(message)

    @keyword(tags=["Assertion"])
    def nodes_should_be(self, **states: str) -> None:
        """Fail unless nodes are in these states, by SSH and by the provider's word where it can be asked.

        Args:
            states: `running` or `stopped`, by the nodes' names.

        Raises:
            NotMetError: One is not; says what was seen of it.

        Example:
            | Nodes Should Be | n11=running | n12=stopped |
        """
        readings = self._control.readings(list(states))
        for node, reading in readings.items():
            logger.info(f"{node}: {reading}")
        wrong = [f"{node}: {reading}" for node, reading in readings.items() if reading.state != states[node]]
        if wrong:
            expected = ", ".join(f"{node} {state}" for node, state in states.items())
            message = f"Expected {expected}; but {'; '.join(wrong)}"
            raise NotMetError(message)

    @keyword(tags=["Setup"])
    def remember_every_boot(self) -> None:
        """Note the boot id of every node, for `Only These Nodes Should Have Booted`.

        Raises:
            NotMetError: A node does not answer.

        Example:
            | Remember Every Boot |
        """
        self._boots[self._control.deployment.directory] = self._boot_ids()

    @keyword(tags=["Assertion"])
    def only_these_nodes_should_have_booted(self, *nodes: str) -> None:
        """Fail unless these nodes have another boot id than when it was noted, and all others have the same.

        The present ids are noted for the next time.

        Args:
            nodes: Their names; none means that no node has booted.

        Raises:
            NotMetError: A node booted that should not have, or the other way round, or one does not answer.
            UserError: Nothing was noted.

        Example:
            | Remember Every Boot |
            | Restart Node | n12 |
            | Only These Nodes Should Have Booted | n12 |
        """
        directory = self._control.deployment.directory
        before = self._boots.get(directory)
        if not before:
            message = "No boot was noted: 'Remember Every Boot' first."
            raise UserError(message)
        now = self._boots[directory] = self._boot_ids()
        booted = {node for node, boot in now.items() if boot != before.get(node)}
        if booted != set(nodes):
            shown = "; ".join(f"{node}: {before.get(node)}, now {boot}" for node, boot in now.items())
            expected = ", ".join(nodes) or "no node"
            message = (
                f"Expected that {expected} had booted, but {', '.join(sorted(booted)) or 'none'} had. {shown}"
            )
            raise NotMetError(message)

    def _boot_ids(self) -> dict[str, str]:
        readings = self._control.readings()
        silent = [f"{node}: {reading}" for node, reading in readings.items() if not reading.boot_id]
        if silent:
            message = f"No boot id of {'; '.join(silent)}"
            raise NotMetError(message)
        return {node: reading.boot_id or "" for node, reading in readings.items()}

    @keyword(tags=["Getter", "Assertion"])
    def get_power_support(
        self,
        provider: ProviderName,
        operation: Operation,
        assertion_operator: AssertionOperator | None = None,
        assertion_expected: str | None = None,
        message: str | None = None,
        *,
        power_api: PowerApi = PowerApi.DOCUMENT,
    ) -> str:
        """What the table of document 003 says about an operation at a provider: `yes`, `manual` or `no`.

        Args:
            provider: The provider.
            operation: Such as `STOP_NODE` or `CRASH_DESTROY`.
            assertion_operator: Compares the answer, such as `==`.
            assertion_expected: The answer that it is compared with.
            message: Instead of the comparison's own message.
            power_api: Which table.

        Example:
            | Get Power Support | hetzner | STOP_NODE | == | no |
        """
        support: Support = transition(provider, operation, power_api).support
        value: str = verify_assertion(
            support.value, assertion_operator, assertion_expected, f"{provider.value}, {operation.value}", message
        )
        return value


def _tell_leftovers(leftovers: list[Leftover]) -> None:
    told = [f"{leftover.name}: {leftover.outcome}" for leftover in leftovers]
    for line in told:
        logger.info(line)
    left = [line for line, leftover in zip(told, leftovers, strict=True) if not leftover.ended]
    if left:
        message = f"Not put back: {'; '.join(left)}"
        raise UserError(message)


def _show(results: tuple[PowerResult, ...]) -> None:
    rows = [
        (it.node, it.outcome.value, it.command, it.boot_id_before or "", it.boot_id_after or "", it.proof)
        for it in results
    ]
    longest = max((it.duration for it in results), default=timedelta())
    title = f"{results[0].operation.value}: {longest.total_seconds():.2f} s" if results else "nothing done"
    logger.info(html_table(title, RESULT_COLUMNS, rows), html=True)
