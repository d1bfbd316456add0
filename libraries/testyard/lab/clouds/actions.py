"""The actions of the providers whose API answers a power call with one: DigitalOcean and Hetzner.

An action changes the power of the machine itself, and has ended when that is shown in the state the action was
for, or in another one that lasts: then it has failed.
"""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum

from testyard.lab.clouds.machines import CloudAccount, Machines, MachineState, ShownMachines

# How often a machine is looked at while an action waits for it.
LOOK_SECONDS = 0.01
# None is the state of a machine that is gone.
LASTING = frozenset({MachineState.RUNNING, MachineState.STOPPED, None})


class ActionKind(StrEnum):
    """What an action does to a machine."""

    POWER_ON = "power on"
    POWER_OFF = "power off"
    SHUTDOWN = "shutdown"
    REBOOT = "reboot"
    RESET = "reset"


WANTED = {
    ActionKind.POWER_ON: MachineState.RUNNING,
    ActionKind.POWER_OFF: MachineState.STOPPED,
    ActionKind.SHUTDOWN: MachineState.STOPPED,
    ActionKind.REBOOT: MachineState.RUNNING,
    ActionKind.RESET: MachineState.RUNNING,
}


class ActionState(StrEnum):
    """How far an action is."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass
class Action:
    """One action.

    Args:
        identifier: Its number, counted up for each double.
        kind: What it does.
        instance_id: The machine it is done to.
        region: Where that is.
        wanted: The state that the machine comes to; None when the action does not wait for the machine.
        started: When it was begun (UTC).
        finished: When it was seen to have ended (UTC); None while it runs.
        state: How far it is.
    """

    identifier: int
    kind: ActionKind
    instance_id: str
    region: str
    wanted: MachineState | None
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    finished: datetime | None = None
    state: ActionState = ActionState.RUNNING

    def end(self, *, done: bool) -> None:
        """It has ended now."""
        self.state = ActionState.DONE if done else ActionState.FAILED
        self.finished = datetime.now(UTC)


class Actions:
    """The actions of one account.

    Args:
        provider: ``digitalocean`` or ``hetzner``.
        machines: The lab's machines.
        account: Says how long intermediate states last at least.
        waits_for_shutdown: Whether a shutdown's action ends when the machine is off, as DigitalOcean's, or when
            the request has been sent, as Hetzner's.
    """

    def __init__(
        self, provider: str, machines: Machines, account: CloudAccount, *, waits_for_shutdown: bool
    ) -> None:
        self.shown = ShownMachines(provider, machines, account)
        self._account = account
        self._waits_for_shutdown = waits_for_shutdown
        self._numbers = itertools.count(1_000_000)
        self._actions: dict[int, Action] = {}
        # Machines that are to be switched on again, by the number of the action.
        self._restarts: dict[int, asyncio.Task[None]] = {}

    def find(self, identifier: int) -> Action | None:
        """The action of this number, as it is now."""
        action = self._actions.get(identifier)
        if action is not None:
            self._look_at(action)
        return action

    def running_on(self, instance_id: str) -> Action | None:
        """The action that still runs on a machine."""
        for action in self._actions.values():
            if action.instance_id == instance_id:
                self._look_at(action)
                if action.state is ActionState.RUNNING:
                    return action
        return None

    async def begin(self, kind: ActionKind, instance_id: str, region: str) -> Action:
        """Begin an action; the machine shows its intermediate state when this returns.

        One that has nothing to change, such as the start of a machine that runs, is done after a while.
        """
        machine = self.shown.find(instance_id)
        off = machine is None or machine.state is MachineState.STOPPED
        sent_only = kind is ActionKind.SHUTDOWN and not self._waits_for_shutdown
        needless = off is not (kind is ActionKind.POWER_ON)
        wanted = None if needless or sent_only else WANTED[kind]
        action = Action(next(self._numbers), kind, instance_id, region, wanted)
        self._actions[action.identifier] = action
        if needless:
            return action
        match kind:
            case ActionKind.POWER_ON:
                await self.shown.start(instance_id)
            case ActionKind.POWER_OFF | ActionKind.RESET:
                await self.shown.crash(instance_id)
            case ActionKind.SHUTDOWN | ActionKind.REBOOT:
                await self.shown.stop(instance_id)
        if kind in {ActionKind.REBOOT, ActionKind.RESET}:
            self._restarts[action.identifier] = asyncio.create_task(self._restart(action))
        return action

    def close(self) -> None:
        """Give up the restarts that are under way."""
        for task in self._restarts.values():
            task.cancel()

    async def _restart(self, action: Action) -> None:
        """Switch a machine on again when it is off."""
        while (state := self._state(action)) not in LASTING:
            await asyncio.sleep(LOOK_SECONDS)
        if state is MachineState.STOPPED:
            await self.shown.start(action.instance_id)
        else:
            action.end(done=False)
        del self._restarts[action.identifier]

    def _look_at(self, action: Action) -> None:
        """End the action when its machine has come to rest."""
        if action.state is not ActionState.RUNNING or action.identifier in self._restarts:
            return
        if action.wanted is None:
            if datetime.now(UTC) - action.started >= self._account.delay:
                action.end(done=True)
        elif (state := self._state(action)) in LASTING:
            action.end(done=state is action.wanted)

    def _state(self, action: Action) -> MachineState | None:
        machine = self.shown.find(action.instance_id)
        return machine.state if machine else None
