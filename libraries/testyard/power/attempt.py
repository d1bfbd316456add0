"""One row of the transition table, done to one node.

Always in this order, so that nothing passes by accident: look; refuse what does not start from here; refuse the
machine that the tests run on; register the undo; act; wait until the node has moved; wait until it has reached the
end; prove it (suite practices "absorb" 1 and 2: openbmc's boot table and boot-id check).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from testyard.core.deadline import Deadline, never_within, wait_until
from testyard.core.errors import NotMetError
from testyard.power.deadlines import Deadlines
from testyard.power.planning import API_CALLS, call_of
from testyard.power.problems import AbandonedError, ProtectedMachineError, WrongStateError
from testyard.power.protocol import PowerState
from testyard.power.readings import Api, Machine, Reading
from testyard.power.results import Outcome, PowerResult, StateSeen
from testyard.power.shell import CRASH, REBOOT, SHUTDOWN, Reach, SshAnswer
from testyard.power.transitions import Method, Transition
from testyard.power.undo import UndoEntry, UndoJournal

if TYPE_CHECKING:
    from testyard.power.deployment import Deployment
    from testyard.power.protocol import Instance

STARTING_METHODS = frozenset({Method.API_START, Method.OPERATOR})


@dataclass(frozen=True)
class Circumstances:
    """What all attempts of one control share.

    Attributes:
        deployment: Whose nodes.
        deadlines: Durations by name.
        journal: Where undos are registered.
        controller: The boot id of the machine that the tests run on; empty where it has none.
        boot_ids: The last boot id seen of each node.
    """

    deployment: Deployment
    deadlines: Deadlines
    journal: UndoJournal
    controller: str
    boot_ids: MutableMapping[str, str]


class Attempt:
    """One operation on one node.

    Args:
        row: The table's row.
        machine: The node.
        circumstances: Deadlines, journal and so on.
        abandoned: Set when the others, and hence this one, are given up.
    """

    def __init__(
        self, row: Transition, machine: Machine, circumstances: Circumstances, abandoned: threading.Event
    ) -> None:
        self.machine = machine
        self._row = row
        self._circumstances = circumstances
        self.abandoned = abandoned
        self._deadlines = circumstances.deadlines
        self._clock = Deadline(timedelta())
        self._seen: list[StateSeen] = []
        self._before = Reading(SshAnswer(Reach.DEAD, reason="not looked at yet"), None)
        self._said: Callable[[], str] = str

    @property
    def is_there(self) -> bool:
        """Whether the node was where the operation is to end; only a part of a cluster may be."""
        return self._row.operation.of_cluster and self._starting_state in self._row.end

    def begin(self) -> None:
        """Look at the node, and refuse what must not be done; nothing is touched yet.

        Raises:
            WrongStateError: The operation does not start from the node's state.
            ProtectedMachineError: The node is, or may be, the machine that the tests run on.
        """
        self._clock = Deadline(timedelta())
        self._before = self._look()
        if self._starting_state not in self._row.start:
            wanted = " or ".join(sorted(state.value for state in self._row.start))
            message = (
                f"{self._row.operation.value} starts from {wanted}, but node {self.machine.name} is "
                f"{self._starting_state.value}: {self._before}."
            )
            raise WrongStateError(message)
        if not self.is_there:
            self._guard()

    def carry_out(self) -> PowerResult:
        """Do it, after `begin`, and wait until it is proven.

        Returns:
            What was done and how that is known.

        Raises:
            NotMetError: The node did not move, did not reach the end, or the proof is missing.
            UserError: The provider refused, the node was lost before the command was sent...
        """
        if self.is_there:
            return self._result(Outcome.UNCHANGED, self._before, f"Node {self.machine.name}: {self._before}.")
        if self._row.method not in STARTING_METHODS:
            self._register()
        outcome, reading, proof = self._do()
        if reading.is_on:
            self._resolve()
        return self._result(outcome, reading, proof)

    # ---- before

    @property
    def _starting_state(self) -> PowerState:
        """What the operation starts from: for a call of the API the API's word, even when SSH is dead."""
        api = self._before.api
        return api if self._row.method.by_api and api is not None else self._before.state

    def _guard(self) -> None:
        """Never the controller: a boot id that is the same means the same running kernel."""
        if self._row.method in STARTING_METHODS:
            return
        boot_id, controller = self._before.boot_id, self._circumstances.controller
        if boot_id is not None and boot_id == controller:
            message = (
                f"{self._row.operation.value} on node {self.machine.name} is refused: its boot id {boot_id} is "
                "that of the machine that the tests run on."
            )
            raise ProtectedMachineError(message)
        # Without a boot id only the deployment's tag, which the provider reads again, says whose machine it is.
        if boot_id is None and not (self._row.method.by_api and self.machine.instance):
            message = (
                f"{self._row.operation.value} on node {self.machine.name} is refused: its boot id cannot be read "
                f"({self._before.ssh}), so that it may be the machine that the tests run on."
            )
            raise ProtectedMachineError(message)

    def _register(self) -> None:
        deployment = self._circumstances.deployment
        self._circumstances.journal.register(
            UndoEntry(
                directory=deployment.directory,
                deployment=deployment.state.deployment_id,
                node=self.machine.node.name,
                operation=self._row.operation.value,
                boot_id=self._before.boot_id,
            )
        )

    def _resolve(self) -> None:
        journal, deployment = self._circumstances.journal, self._circumstances.deployment
        settled = [
            entry
            for entry in journal.pending()
            if (entry.directory, entry.node) == (deployment.directory, self.machine.node.name)
        ]
        journal.resolve(*settled)

    # ---- acting

    def _do(self) -> tuple[Outcome, Reading, str]:
        ways: Mapping[Method, Callable[[], tuple[Outcome, Reading, str]]] = {
            Method.API_STOP: lambda: self._stop(self._by_api(Api.stop)),
            Method.API_CRASH: lambda: self._stop(self._by_api(Api.crash)),
            Method.SSH_SHUTDOWN: lambda: self._stop(self._by_ssh(SHUTDOWN)),
            Method.API_START: lambda: self._start(self._by_api(Api.start)),
            Method.OPERATOR: lambda: self._start(lambda: None),
            Method.API_STOP_AND_START: self._stop_and_start,
            Method.SSH_REBOOT: self._reboot,
            Method.SSH_CRASH: self._crash,
        }
        return ways[self._row.method]()

    def _stop(self, act: Callable[[], None]) -> tuple[Outcome, Reading, str]:
        deadline = Deadline(self._deadlines.named(self._row.deadline))
        act()
        self._wait(self._has_left, deadline, f"node {self.machine.name} to begin to stop")
        reading = self._wait(lambda it: it.is_off, deadline, f"node {self.machine.name} to be off")
        return Outcome.STOPPED, reading, f"Node {self.machine.name} is off: {reading}."

    def _start(self, act: Callable[[], None]) -> tuple[Outcome, Reading, str]:
        previous = self._circumstances.boot_ids.get(self.machine.node.name)
        deadline = Deadline(self._deadlines.boot)
        act()
        self._wait(_has_appeared, deadline, f"node {self.machine.name} to begin to start")
        reading = self._wait(
            lambda it: it.is_on and it.boot_id != previous, deadline, f"node {self.machine.name} to be on"
        )
        return Outcome.STARTED, reading, f"Node {self.machine.name} is on: {reading}."

    def _stop_and_start(self) -> tuple[Outcome, Reading, str]:
        self._stop(self._by_api(Api.stop))
        never_within(
            self._look,
            lambda it: not it.is_off,
            Deadline(self._deadlines.graceful_pause),
            f"Node {self.machine.name} starting by itself before the pause of a graceful restart is over",
            interval=self._deadlines.poll,
        )
        _, reading, _ = self._start(self._by_api(Api.start))
        return Outcome.CAME_BACK, reading, self._rebooted(reading)

    def _reboot(self) -> tuple[Outcome, Reading, str]:
        deadline = Deadline(self._deadlines.named(self._row.deadline))
        self._by_ssh(REBOOT)()
        self._wait(self._has_left, deadline, f"node {self.machine.name} to begin to reboot")
        reading = self._wait(self._is_back, deadline, f"node {self.machine.name} to answer with a new boot id")
        return Outcome.CAME_BACK, reading, self._rebooted(reading)

    def _crash(self) -> tuple[Outcome, Reading, str]:
        self._by_ssh(CRASH)()
        gone = Deadline(self._deadlines.named(self._row.deadline))
        self._wait(self._has_left, gone, f"node {self.machine.name} to crash")
        back = Deadline(self._deadlines.boot)
        down: list[Deadline] = []

        def stayed_down(reading: Reading) -> bool:
            """Off for a while, where the API says so, else for as long as a boot may take."""
            if not reading.is_off:
                down.clear()
            elif not down:
                down.append(Deadline(self._deadlines.stays_down if reading.api is not None else back.within))
            return bool(down) and (down[0].expired or back.expired)

        reading = self._wait(
            lambda it: self._is_back(it) or stayed_down(it),
            # One look more: when the time to come back is over, the node may have stayed down.
            Deadline(back.within + self._deadlines.poll),
            f"node {self.machine.name} to come back with a new boot id, or to stay down",
        )
        if reading.is_on:
            return Outcome.CAME_BACK, reading, f"Crashed and came back. {self._rebooted(reading)}"
        return (
            Outcome.STAYED_DOWN,
            reading,
            f"Crashed and stayed down. Node {self.machine.name} is off: {reading}.",
        )

    def _by_api(self, call: Callable[[Api, Instance], None]) -> Callable[[], None]:
        api, instance = self.machine.api, self.machine.instance
        if api is None or instance is None:
            message = f"Node {self.machine.name} has no provider's API, which {self._row.operation.value} needs."
            raise WrongStateError(message)
        return lambda: call(api, instance)

    def _by_ssh(self, command: str) -> Callable[[], None]:
        def send() -> None:
            fired = self.machine.shell.fire(command)
            self._said = lambda: f" The command {command!r}: {fired.said()}."

        return send

    # ---- waiting

    def _has_left(self, reading: Reading) -> bool:
        """Whether the node is no longer what it was: the boot before, running."""
        return (
            reading.api not in {None, self._before.api}
            or reading.ssh.reach is not self._before.ssh.reach
            or reading.boot_id != self._before.boot_id
        )

    def _is_back(self, reading: Reading) -> bool:
        return reading.is_on and reading.boot_id != self._before.boot_id

    def _rebooted(self, reading: Reading) -> str:
        return (
            f"Node {self.machine.name} has booted: boot id {reading.boot_id}, before it was "
            f"{self._before.boot_id or 'unreadable'}."
        )

    def _wait(self, accepts: Callable[[Reading], bool], deadline: Deadline, what: str) -> Reading:
        with self._what_was_said():
            return wait_until(self._look, accepts, deadline, what, interval=self._deadlines.poll)

    @contextmanager
    def _what_was_said(self) -> Iterator[None]:
        try:
            yield
        except NotMetError as problem:
            before = f" Before: {self._before}."
            raise NotMetError(f"{problem}{before}{self._said()}") from None

    def _look(self) -> Reading:
        if self.abandoned.is_set():
            message = (
                f"{self._row.operation.value} on node {self.machine.name} was given up; its undo is registered."
            )
            raise AbandonedError(message)
        reading = self.machine.look()
        if reading.boot_id:
            self._circumstances.boot_ids[self.machine.node.name] = reading.boot_id
        if not self._seen or self._seen[-1].state is not reading.state:
            self._seen.append(StateSeen(datetime.now(UTC), reading.state, str(reading)))
        return reading

    def _result(self, outcome: Outcome, reading: Reading, proof: str) -> PowerResult:
        row = self._row
        calls = self.machine.api.calls if self.machine.api else API_CALLS[row.provider]
        return PowerResult(
            row.provider,
            row.operation,
            self.machine.node.name,
            call_of(row, calls),
            outcome,
            tuple(self._seen),
            self._before.boot_id,
            reading.boot_id,
            proof,
            self._clock.elapsed,
        )


def _has_appeared(reading: Reading) -> bool:
    return reading.api not in {None, PowerState.STOPPED} or reading.ssh.reach is not Reach.DEAD
