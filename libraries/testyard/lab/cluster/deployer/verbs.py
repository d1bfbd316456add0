"""What the deployer does: one method per verb of its command line."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from testyard.core.errors import UserError
from testyard.lab.cluster.deployer import state_file
from testyard.lab.cluster.deployer.lock import SHORT_OPERATION, Holder, LockedError, held, holder_of
from testyard.lab.cluster.deployer.parameters import (
    DEFAULT_DATABASE_VERSION,
    MANUAL_PROVIDERS,
    cluster_size,
    has_database,
    node_names,
)
from testyard.lab.cluster.deployer.settings import Settings
from testyard.lab.cluster.deployer.state_file import State, read_state, set_status, write_state
from testyard.lab.cluster.deployer.states import IN_PROGRESS, Operation, Status, refusal

if TYPE_CHECKING:
    from testyard.lab.cluster.deployer.examination import Examination
    from testyard.lab.cluster.deployer.files import Node

STATE_VERSION: Final = state_file.VERSION
INIT: Final = "init"
NOTHING_TO_MEASURE: Final = frozenset({Status.INITIALIZED, Status.DESTROYED})
RUNNING: Final = "running"


class Console(Protocol):
    """Where the deployer writes."""

    def show(self, text: str) -> None:
        """Write a line of the verb's answer."""

    def tell(self, text: str) -> None:
        """Write a line that is no answer: a note or a refusal."""


class Deployment:
    """One deployment, by its directory.

    Args:
        directory: Of the deployment.
        settings: How long to wait.
        console: Where to write.
    """

    def __init__(self, directory: Path, settings: Settings, console: Console) -> None:
        self.directory = directory
        self.settings = settings
        self.console = console

    def init(self, parameters: Mapping[str, Any]) -> None:
        """Write the state file of a new deployment; the directory is made when it is missing.

        Args:
            parameters: ``cloud_provider``, ``cluster_size``... by the names of the JSON.

        Raises:
            UserError: The directory has a deployment that is not destroyed, or cannot be made.
        """
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            message = f"{self.directory} cannot be a deployment's directory: {problem.strerror}"
            raise UserError(message) from None
        with held(self.directory, INIT, self.settings.lock_interval, self.console.tell):
            if state_file.exists(self.directory):
                status = read_state(self.directory).status
                if status is not Status.DESTROYED:
                    message = f"{self.directory} already has a deployment, in state '{status}'; destroy it first"
                    raise UserError(message)
            created = state_file.now()
            kept = dict(parameters)
            provider = str(kept.pop("cloud_provider"))
            state = State(
                version=STATE_VERSION,
                status=Status.INITIALIZED,
                db_version=str(kept.get("db_version", DEFAULT_DATABASE_VERSION)),
                architecture=str(kept.get("architecture", os.uname().machine)),
                cloud_provider=provider,
                created_at=created,
                updated_at=created,
                deployment_id=f"deployment-{os.urandom(4).hex()}",
                parameters={"cluster_size": cluster_size(kept), **kept},
            )
            write_state(self.directory, state)
        self.console.show(f"initialized {state.deployment_id}: {provider}, nodes {_joined(self._names(state))}")

    def status(self) -> None:
        """Show the state file's content; its status is ``<operation>_in_progress`` while an operation runs."""
        state = read_state(self.directory)
        holder = holder_of(self.directory)
        if holder and not holder.lives:
            self.console.tell(f"the lock is stale ({holder}); the next operation removes it")
        shown = state._replace(status=self._status_now(state))
        self.console.show(json.dumps(shown._asdict(), indent=2))

    def deploy(self, owner: int) -> None:
        """Create the nodes and the database, and write the directory's files.

        Args:
            owner: The process whose end ends the datacentre, when the environment names none.

        Raises:
            UserError: Refused, or failed; the state is then ``deployment_failed``.
        """
        from testyard.lab.cluster.deployer import datacentre_process as datacentres
        from testyard.lab.cluster.deployer import files

        with self._operation(Operation.DEPLOY) as state, ExitStack() as undo:
            chosen = datacentres.of_environment()
            self._remove_nodes(state)
            starting = None if chosen else datacentres.StartingDatacentre(owner)
            if starting:
                undo.callback(starting.end)
            # Importing what makes keys takes as long as making a datacentre begin.
            from testyard.lab.cluster.deployer.keys import new_key_pair

            keys = new_key_pair(state.deployment_id)
            files.write_private_key(self.directory, keys.private)
            datacentre = starting.ready() if starting else chosen
            assert datacentre is not None
            datacentres.remember(self.directory, datacentre)
            control = datacentre.control(self.settings.control)
            created = control.call(
                "POST",
                "/deployments",
                {
                    "id": state.deployment_id,
                    "provider": state.cloud_provider,
                    "nodes": self._names(state),
                    "database": has_database(state.parameters),
                    "sysrq": state.parameters.get("sysrq", True),
                    "authorized_key": keys.public,
                    "timings": state.parameters.get("timings", {}),
                },
            )
            nodes = files.write_deployment(self.directory, created)
            status = self._status_of_new(control.call("GET", f"/deployments/{state.deployment_id}"), state)
            set_status(self.directory, status)
            undo.pop_all()
        for node in nodes:
            self.console.show(f"{node.name}: {node.user}@{node.host}:{node.ssh_port}, instance {node.instance_id}")
        self.console.show(f"{state.deployment_id}: {status}")

    def stop(self, *, services_only: bool) -> None:
        """Stop the database and the admin UI of each node in an orderly way, then the nodes.

        Args:
            services_only: Leave the nodes running, and the state ``stop_in_progress``: the caller powers them off.

        Raises:
            UserError: Refused, or failed; the state is then ``stop_failed``.
        """
        from testyard.lab.cluster.deployer import files

        with self._operation(Operation.STOP) as state:
            nodes = files.read_nodes(self.directory)
            self._for_each_node(state, nodes, "services-stop", off_too=False)
            if services_only:
                self.console.show(f"{state.deployment_id}: services stopped; the nodes are for the caller to stop")
                return
            import asyncio

            from testyard.core.deadline import Deadline
            from testyard.lab.cluster.deployer.nodes import Nodes

            login = files.read_login(self.directory)
            deadline = Deadline(self.settings.stop)
            asyncio.run(Nodes(self.directory, nodes, login, self.settings.check).shut_down(deadline))
            set_status(self.directory, Status.STOPPED)
        self.console.show(f"{state.deployment_id}: {Status.STOPPED}")

    def start(self, *, wait: bool) -> None:
        """Power the nodes on, or say how a person does it, and wait until the database is ready.

        Args:
            wait: False: check that it may be started, say what is to be done by hand, and leave the rest to the
                caller; the state is then ``started``.

        Raises:
            UserError: Refused, or failed; the state is then ``start_failed``, or ``stopped`` where a person was to
                power the nodes on and did not.
        """
        from testyard.lab.cluster.deployer import files

        with self._operation(Operation.START) as state:
            nodes = files.read_nodes(self.directory)
            by_hand = state.cloud_provider in MANUAL_PROVIDERS
            if by_hand:
                from testyard.lab.cluster.deployer.instructions import power_on_instructions

                for line in power_on_instructions(state.cloud_provider, nodes):
                    self.console.show(line)
            if by_hand or not wait:
                set_status(self.directory, Status.STARTED)
            else:
                self._for_each_node(state, nodes, "boot", off_too=True)
                self._examination().wait_until_complete(self.settings.ready)
                set_status(self.directory, Status.DATABASE_READY)
        if by_hand and wait:
            self._examination().wait_for(Status.DATABASE_READY, self.settings.ready, update=True)
        self.console.show(f"{state.deployment_id}: {read_state(self.directory).status}")

    def destroy(self) -> None:
        """End the nodes, and the datacentre when it is the deployment's own; remove the keys and credentials.

        Raises:
            UserError: Refused, or failed; the state is then ``destroy_failed``.
        """
        from testyard.lab.cluster.deployer import files

        with self._operation(Operation.DESTROY) as state:
            self._remove_nodes(state)
            files.remove_deployment(self.directory)
            set_status(self.directory, Status.DESTROYED)
        self.console.show(f"{state.deployment_id}: {Status.DESTROYED}")

    def update_status(self, derive: Callable[[Status], Status]) -> None:
        """Correct the state file by what was measured, unless an operation runs.

        Args:
            derive: Gives the state by the one of the file.
        """
        try:
            with held(
                self.directory, SHORT_OPERATION, self.settings.lock_interval, self.console.tell
            ) as stale_lock_of:
                state = read_state(self.directory)
                if stale_lock_of:
                    state = self._settle(state)
                status = derive(state.status)
                if status is not state.status:
                    set_status(self.directory, status)
        except LockedError as problem:
            self.console.tell(f"the status is not updated: {problem.holder.operation} is in progress")

    def status_now(self) -> Status:
        """The status of the state file, or of the operation that runs."""
        return self._status_now(read_state(self.directory))

    @contextmanager
    def _operation(self, operation: Operation) -> Iterator[State]:
        """Hold the lock, in state ``<operation>_in_progress``; a failure leaves the operation's failed state."""
        read_state(self.directory)
        with held(self.directory, operation, self.settings.lock_interval, self.console.tell):
            state = self._settle(read_state(self.directory))
            reason = refusal(operation, state.status)
            if reason:
                raise UserError(reason)
            set_status(self.directory, operation.in_progress)
            try:
                yield state
            except BaseException:
                set_status(self.directory, operation.failed)
                raise

    def _settle(self, state: State) -> State:
        """The state; an operation that ended without finishing counts as failed. The lock must be held."""
        operation = IN_PROGRESS.get(state.status)
        if operation is None:
            return state
        self.console.tell(f"the {operation} before this did not finish: the state is now '{operation.failed}'")
        return set_status(self.directory, operation.failed)

    def _status_now(self, state: State) -> Status:
        holder: Holder | None = holder_of(self.directory)
        if holder and holder.lives:
            with suppress(ValueError):
                return Operation(holder.operation).in_progress
        return state.status

    def _remove_nodes(self, state: State) -> None:
        """Remove what the datacentre of the directory may have of this deployment; end it when it is its own."""
        from testyard.lab.cluster.deployer import datacentre_process as datacentres
        from testyard.lab.cluster.deployer.control import DatacentreError, DatacentreGoneError

        datacentre = datacentres.remembered(self.directory)
        if datacentre is None:
            return
        try:
            datacentre.control(self.settings.control).call("DELETE", f"/deployments/{state.deployment_id}")
        except DatacentreGoneError as problem:
            self.console.tell(str(problem))
        except DatacentreError as problem:
            if problem.status != 404:
                raise
        datacentres.end_own(datacentre)

    def _for_each_node(self, state: State, nodes: Sequence[Node], action: str, *, off_too: bool) -> None:
        """Have the datacentre do something with each node, or with each that has booted."""
        from testyard.lab.cluster.deployer import datacentre_process as datacentres

        datacentre = datacentres.remembered(self.directory)
        if datacentre is None:
            message = f"{self.directory} does not say in which datacentre the nodes are"
            raise UserError(message)
        control = datacentre.control(self.settings.control)
        path = f"/deployments/{state.deployment_id}"
        seen = control.call("GET", path)["nodes"]
        missing = [node.name for node in nodes if node.name not in seen]
        if missing:
            message = f"the inventory names {_joined(missing)}, of which the datacentre knows nothing"
            raise UserError(message)
        chosen = [node.name for node in nodes if off_too or seen[node.name]["boot_id"]]
        control.call_all("POST", [f"{path}/nodes/{name}/{action}" for name in chosen])

    def _status_of_new(self, seen: Mapping[str, Any], state: State) -> Status:
        """What a deployment is that the datacentre has just created."""
        off = [name for name in self._names(state) if seen["nodes"][name]["state"] != RUNNING]
        if off:
            message = f"{_joined(off)} did not start"
            raise UserError(message)
        if has_database(state.parameters) and not seen["database"]["primary"]:
            return Status.DATABASE_CONNECTION_FAILED
        return Status.DATABASE_READY

    def _examination(self) -> Examination:
        from testyard.lab.cluster.deployer.examination import Examination

        return Examination(self)

    def _names(self, state: State) -> list[str]:
        return node_names(cluster_size(state.parameters))


def _joined(names: Sequence[str]) -> str:
    return ", ".join(names)
