"""Power of one deployment's machines: every operation of the transition table, proven or refused.

Example:
    >>> with PowerControl.open(Path("deployment")) as power:
    ...     power.stop_node("n12").proof
    'Node n12 (i-0abc) is off: SSH dead (...), API says stopped.'
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from testyard.core.deadline import Deadline, wait_until
from testyard.core.errors import UserError
from testyard.core.leftover import Leftover
from testyard.power.attempt import Attempt, Circumstances
from testyard.power.cloud_settings import open_provider, read_settings, why_not_asked
from testyard.power.deadlines import Deadlines
from testyard.power.deployment import Deployment, Node, read_state
from testyard.power.planning import Instruction, Operator, PlannedCall, Target, plan
from testyard.power.problems import (
    MissingDeploymentError,
    UnknownNodeError,
    UnsupportedOperationError,
    WrongStateError,
)
from testyard.power.protocol import PowerProvider
from testyard.power.readings import Api, Machine, Reading
from testyard.power.results import PowerResult
from testyard.power.shell import Shell, open_shell
from testyard.power.together import together
from testyard.power.transitions import (
    CrashMethod,
    Method,
    Operation,
    PowerApi,
    RestartMethod,
    Support,
    Transition,
    refusal,
    transition,
)
from testyard.power.undo import JOURNAL, UndoEntry, UndoJournal

CONTROLLER_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
DESTROYED = "destroyed"
# A command that takes a machine down has acted by then, or never will: the crash waits half a second by itself.
ACTS_WITHIN = timedelta(seconds=2)
# What a node does by itself after these, when nobody waits for it any more.
COMES_BACK = frozenset({Operation.CRASH_SSH.value, Operation.RESTART_SSH.value})

_log = logging.getLogger(__name__)


def controller_boot_id() -> str:
    """The boot id of the machine that the tests run on; empty on a system that has none."""
    try:
        return CONTROLLER_BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""


class PowerControl:
    """The power of one deployment's machines; use it in a `with` statement, whose end undoes what is still on.

    Operations on different nodes may run in different threads; those on one node wait for each other.

    Args:
        deployment: The nodes and whose they are.
        deadlines: By default the documented ones.
        power_api: By default what the deployment's parameter says.
        operator: Told what to do where a start is manual; by default the text is logged and waited for.
        environment: Where the provider's settings are that the deployment directory does not have.
        journal: Where undos are registered; by default in the deployment directory.
        provider: Opens the provider's API; by default the module of the deployment's provider, if it can be asked.
        shell: Makes a node's shell; by default SSH.
        controller: The boot id that is never to be a target's.
    """

    def __init__(
        self,
        deployment: Deployment,
        *,
        deadlines: Deadlines | None = None,
        power_api: PowerApi | None = None,
        operator: Operator | None = None,
        environment: Mapping[str, str] = os.environ,
        journal: UndoJournal | None = None,
        provider: Callable[[], PowerProvider] | None = None,
        shell: Callable[[Node], Shell] | None = None,
        controller: str | None = None,
    ) -> None:
        self.deployment = deployment
        self.deadlines = deadlines or Deadlines()
        self.power_api = power_api or deployment.power_api
        self.journal = journal or UndoJournal(deployment.directory / JOURNAL)
        self._operator = operator
        self._settings = read_settings(deployment, environment)
        self._open_provider = provider
        self._shell = shell or self._ssh
        self._circumstances = Circumstances(
            deployment,
            self.deadlines,
            self.journal,
            controller_boot_id() if controller is None else controller,
            {},
        )
        self._api: Api | None = None
        self._api_lock = threading.Lock()
        self._node_locks = {name: threading.RLock() for name in deployment.names}

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        deadlines: Deadlines | None = None,
        power_api: PowerApi | None = None,
        operator: Operator | None = None,
        environment: Mapping[str, str] = os.environ,
    ) -> PowerControl:
        """The control of the deployment in a directory; nothing is called yet.

        Args:
            directory: The deployment directory.
            deadlines: By default the documented ones.
            power_api: By default what the deployment's parameter says.
            operator: Told what to do where a start is manual.
            environment: Where the provider's settings are that the directory does not have.

        Raises:
            DeploymentError: The directory has no deployment, or a wrong one.
            UserError: Its settings cannot be read.
        """
        deployment = Deployment.read(directory)
        return cls(
            deployment, deadlines=deadlines, power_api=power_api, operator=operator, environment=environment
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            left = [it for it in self.undo_all() if not it.ended]
        finally:
            self.close()
        if left and problem is None:
            message = f"Not undone: {'; '.join(f'{it.name}: {it.outcome}' for it in left)}"
            raise UserError(message)

    def close(self) -> None:
        """Give back connections; what is still to be undone stays in the journal."""
        with self._api_lock:
            if self._api is not None:
                self._api.close()
                self._api = None

    # ---- what can be done

    def stop_cluster(self) -> tuple[PowerResult, ...]:
        """Stop every node (document 003, step 4): by the API, or where that is manual by an in-guest shutdown.

        Returns:
            One result per node; a node that was stopped already is left alone.

        Raises:
            WrongStateError: Every node is stopped already, or one is on the way; nothing was touched.
            ProtectedMachineError: A node is the machine that the tests run on; nothing was touched.
            NotMetError: A node did not stop in time.
            UserError: The API refused.
        """
        return self._do_to_all(Operation.STOP_CLUSTER)

    def start_cluster(self) -> tuple[PowerResult, ...]:
        """Start every node (document 003, step 5): by the API, or where that is manual by an operator.

        Returns:
            One result per node; a node that ran already is left alone.

        Raises:
            WrongStateError: Every node runs already, or one is on the way; nothing was touched.
            NotMetError: A node did not answer in time.
            UserError: The API refused.
        """
        return self._do_to_all(Operation.START_CLUSTER)

    def stop_node(self, node: str) -> PowerResult:
        """Stop one node by the API (document 003, step 6).

        Raises:
            UnsupportedOperationError: The document's table says no; also a NotImplementedError.
            UnknownNodeError: There is no such node.
            WrongStateError: It does not run.
            ProtectedMachineError: It is the machine that the tests run on.
            NotMetError: It did not stop in time.
            UserError: The API refused.
        """
        return self.do(Operation.STOP_NODE, node)

    def start_node(self, node: str) -> PowerResult:
        """Start one node by the API (document 003, step 7) and wait until it answers over SSH.

        Raises:
            As `stop_node`.
        """
        return self.do(Operation.START_NODE, node)

    def crash_node(self, node: str, method: CrashMethod = CrashMethod.SSH) -> PowerResult:
        """Crash one node (document 003, step 9).

        Args:
            node: Its name.
            method: SysRq or `poweroff -f` over SSH, or the API's hard stop.

        Returns:
            The outcome tells "came back" from "stayed down" by the boot id.

        Raises:
            As `stop_node`.
        """
        return self.do(Operation.of_step("crash_node", method.value), node)

    def restart_node(self, node: str, method: RestartMethod = RestartMethod.SSH) -> PowerResult:
        """Restart one node (document 003, step 8); proven by a new boot id.

        Args:
            node: Its name.
            method: `sudo reboot` over SSH, or stop and start by the API.

        Raises:
            As `stop_node`.
        """
        return self.do(Operation.of_step("restart_node", method.value), node)

    def do(self, operation: Operation, node: str) -> PowerResult:
        """Do one operation of the table to one node.

        Args:
            operation: One that is done to a node, not to the cluster.
            node: Its name.

        Raises:
            As `stop_node`.
        """
        if operation.of_cluster:
            message = f"{operation.value} is done to all nodes, not to {node!r}."
            raise WrongStateError(message)
        row, target = self._supported(operation), self.deployment.node(node)
        with self._attempts(row, [target]) as (attempt,):
            attempt.begin()
            return attempt.carry_out()

    def plan(self, operation: Operation, node: str | None = None) -> list[PlannedCall]:
        """What an operation would do, for a dry run: no call is made.

        Args:
            operation: What would be done.
            node: To which node; by default to all.
        """
        nodes = self.deployment.nodes if node is None else (self.deployment.node(node),)
        targets = [_target(it) for it in nodes]
        return plan(
            self.deployment.provider, operation, targets, power_api=self.power_api, deadlines=self.deadlines
        )

    # ---- what can be seen

    @property
    def api_unavailable(self) -> str | None:
        """Why the provider's API cannot be asked, so that SSH alone decides; None when it can be asked."""
        if self._open_provider is not None:
            return None
        if not self.deployment.state.deployment_id:
            return "the state file has no deployment_id"
        return why_not_asked(self.deployment.provider, self._settings)

    def reading(self, node: str) -> Reading:
        """How a node looks now, over SSH and to the provider's API where it can be asked.

        Raises:
            UnknownNodeError: There is no such node.
            HostKeyError: Its host key is not the known one.
            UserError: The API refuses, for example an expired credential.
        """
        return self.readings([node])[node]

    def readings(self, nodes: Sequence[str] | None = None) -> dict[str, Reading]:
        """How nodes look now, all at the same time.

        Args:
            nodes: By default all.

        Raises:
            As `reading`.
        """
        chosen = [self.deployment.node(name) for name in nodes or self.deployment.names]
        with self._machines(chosen, needs_api=False) as machines:
            looks = together(machines, Machine.look, threading.Event())
        return {node.name: look for node, look in zip(chosen, looks, strict=True)}

    # ---- undoing

    def undo_all(self) -> list[Leftover]:
        """Put back every node that this process has taken down, the last one first.

        Returns:
            What became of each; what could not be undone stays in the journal for the next run.
        """
        return self.journal.undo_all(self.undo)

    def undo(self, entry: UndoEntry) -> str:
        """Put the node of one journal entry back: it runs when this returns.

        Args:
            entry: The entry.

        Returns:
            What was done, or that there was nothing to do.

        Raises:
            UserError: It cannot be undone; says why, and what to do by hand.
            NotMetError: The node did not run in time.
        """
        try:
            if read_state(self.deployment.directory).status == DESTROYED:
                return "the deployment has been destroyed"
            node = self.deployment.node(entry.node)
        except (MissingDeploymentError, UnknownNodeError):
            return "the deployment is gone"
        # To start what is down is no step of a test: the table's way to start a whole cluster does for one node.
        row = transition(self.deployment.provider, Operation.START_CLUSTER, self.power_api)
        with self._attempts(row, [node]) as (attempt,):
            reading = self._settled(attempt.machine, entry)
            if reading.is_on:
                return f"it runs: {reading}"
            instruction = self._instruction([attempt.machine])
            if row.method is Method.OPERATOR and self._operator is None:
                message = f"It is down, and only an operator can start it. {instruction}"
                raise UserError(message)
            attempt.begin()
            if row.method is Method.OPERATOR:
                self._tell(instruction)
            return attempt.carry_out().proof

    def _settled(self, machine: Machine, entry: UndoEntry) -> Reading:
        """The node once it is on for good, or off for good: the fault may not have acted yet."""
        may_come_back = Deadline(self.deadlines.reboot)

        def has_settled(reading: Reading) -> bool:
            if reading.is_on:
                return reading.boot_id != entry.boot_id or datetime.now(UTC) - entry.time > ACTS_WITHIN
            knows = reading.api is not None or entry.operation not in COMES_BACK
            return reading.is_off and (knows or may_come_back.expired)

        deadline = Deadline(self.deadlines.boot + self.deadlines.reboot)
        what = f"node {machine.name} to be on or off"
        return wait_until(machine.look, has_settled, deadline, what, interval=self.deadlines.poll)

    # ---- how

    def _supported(self, operation: Operation) -> Transition:
        row = transition(self.deployment.provider, operation, self.power_api)
        if row.support is Support.NO:
            raise UnsupportedOperationError(refusal(row))
        return row

    def _do_to_all(self, operation: Operation) -> tuple[PowerResult, ...]:
        row = self._supported(operation)
        with self._attempts(row, self.deployment.nodes) as attempts:
            abandoned = attempts[0].abandoned
            together(attempts, Attempt.begin, abandoned)
            waiting = [attempt.machine for attempt in attempts if not attempt.is_there]
            if not waiting:
                state = " or ".join(sorted(row.end))
                message = f"{operation.value} has nothing to do: every node of the deployment is {state} already."
                raise WrongStateError(message)
            if row.method is Method.OPERATOR:
                self._tell(self._instruction(waiting))
            return tuple(together(attempts, Attempt.carry_out, abandoned))

    def _tell(self, instruction: Instruction) -> None:
        if self._operator is not None:
            self._operator(instruction)
        else:
            _log.warning("%s", instruction)

    def _instruction(self, machines: Sequence[Machine]) -> Instruction:
        deployment = self.deployment
        targets = tuple(
            Target(it.node.name, it.node.address, it.instance.identifier if it.instance else it.node.instance_id)
            for it in machines
        )
        name = deployment.state.deployment_id or str(deployment.directory)
        return Instruction(deployment.provider, name, targets)

    @contextmanager
    def _attempts(self, row: Transition, nodes: Sequence[Node]) -> Iterator[list[Attempt]]:
        abandoned = threading.Event()
        with ExitStack() as stack:
            # Always in the inventory's order, so that two threads never wait for each other.
            for node in nodes:
                stack.enter_context(self._node_locks[node.name])
            machines = stack.enter_context(self._machines(nodes, needs_api=row.method.by_api))
            yield [Attempt(row, machine, self._circumstances, abandoned) for machine in machines]

    @contextmanager
    def _machines(self, nodes: Sequence[Node], *, needs_api: bool) -> Iterator[list[Machine]]:
        api = self._opened_api(needs_api)
        instances = api.instances() if api else {}
        with ExitStack() as stack:
            machines = []
            for node in nodes:
                shell = self._shell(node)
                stack.callback(shell.close)
                machines.append(Machine(node, shell, api, instances))
            yield machines

    def _opened_api(self, needed: bool) -> Api | None:
        """The provider's API; None where it cannot be asked and need not be."""
        with self._api_lock:
            if self._api is None:
                if self._open_provider is not None:
                    self._api = Api(self._open_provider())
                elif needed or self.api_unavailable is None:
                    self._api = Api(open_provider(self.deployment, self._settings))
            return self._api

    def _ssh(self, node: Node) -> Shell:
        return open_shell(
            node,
            self.deployment.known_hosts,
            connect_timeout=self.deadlines.ssh,
            command_timeout=self.deadlines.command,
        )


def replay(
    path: Path,
    *,
    deadlines: Deadlines | None = None,
    operator: Operator | None = None,
    environment: Mapping[str, str] = os.environ,
) -> list[Leftover]:
    """Undo what a run that was killed left behind; faults of processes that still live are left alone.

    Args:
        path: The journal of a deployment directory.
        deadlines: By default the documented ones.
        operator: Told what to do where a start is manual.
        environment: Where the provider's settings are that the directory does not have.

    Returns:
        What became of each fault; a deployment that is gone has nothing to undo.
    """
    journal = UndoJournal(path)

    def undo(entry: UndoEntry) -> str:
        try:
            deployment = Deployment.read(entry.directory)
        except MissingDeploymentError:
            return "the deployment is gone"
        control = PowerControl(
            deployment, deadlines=deadlines, operator=operator, environment=environment, journal=journal
        )
        try:
            return control.undo(entry)
        finally:
            control.close()

    return journal.undo_all(undo, mine=False)


def _target(node: Node) -> Target:
    return Target(node.name, node.address, node.instance_id)
