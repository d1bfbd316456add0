"""Machines in memory for the power engine's tests: what is done to them is written down, in order.

Each machine follows a script: one step per look, so that a test sees every state that the engine saw and nothing
depends on time. What a deployer writes is written here as it would.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from testyard.core.errors import UserError
from testyard.power.deadlines import Deadlines
from testyard.power.deployment import Deployment, Node
from testyard.power.engine import PowerControl
from testyard.power.planning import API_CALLS, Instruction
from testyard.power.problems import NodeUnreachableError
from testyard.power.protocol import Instance, PowerState, ProviderName
from testyard.power.shell import CRASH, REBOOT, SHUTDOWN, Reach, SshAnswer
from testyard.power.transitions import PowerApi
from testyard.power.undo import JOURNAL, UndoEntry, UndoJournal

NODES = ("n11", "n12", "n13")
DEPLOYMENT = "basic-1"
CONTROLLER = "c0ffee00-0000-4000-8000-000000000000"
# Failing waits end at once: the scripted machines never need longer than a few looks.
SHORT = Deadlines(
    stop=timedelta(seconds=0.2),
    boot=timedelta(seconds=0.2),
    crash=timedelta(seconds=0.2),
    reboot=timedelta(seconds=0.2),
    stays_down=timedelta(seconds=0.02),
    graceful_pause=timedelta(),
    poll=timedelta(milliseconds=2),
)


def write_deployment(
    directory: Path,
    provider: str = "aws",
    *,
    nodes: Sequence[str] = NODES,
    parameters: Mapping[str, Any] | None = None,
    inventory: str | None = None,
    **state: Any,
) -> Path:
    """What a deployer leaves in a deployment directory."""
    directory.mkdir(parents=True, exist_ok=True)
    lines = [
        f"{node} ansible_host=127.0.0.1 ansible_port={port} ansible_user=admin instance_id=i-{node} region=eu-1"
        for port, node in enumerate(nodes, 40001)
    ]
    text = "\n".join(["[exasol_nodes]", *lines]) if inventory is None else inventory
    (directory / "inventory.ini").write_text(text, encoding="utf-8")
    content = {
        "version": "1.0",
        "status": "database_ready",
        "cloud_provider": provider,
        "deployment_id": DEPLOYMENT,
        "parameters": dict(parameters or {}),
        **state,
    }
    (directory / ".exasol.json").write_text(json.dumps(content), encoding="utf-8")
    return directory


@dataclass(frozen=True)
class Look:
    """What one look at a scripted machine shows."""

    api: PowerState
    boot_id: str | None

    @property
    def ssh(self) -> SshAnswer:
        """What SSH does."""
        return SshAnswer(Reach.ANSWERS, self.boot_id) if self.boot_id else SshAnswer(Reach.DEAD, reason="refused")


@dataclass
class ScriptedMachine:
    """A machine whose looks are scripted.

    Attributes:
        now: What the present look shows.
        coming: What the next looks show; the last one stays.
        boots: How often it has booted.
        answers_sysrq: Whether SysRq b works, so that a crash comes back.
        ignores: Whether it does nothing of what it is told.
    """

    name: str
    now: Look
    coming: deque[Look] = field(default_factory=deque)
    boots: int = 1
    answers_sysrq: bool = True
    ignores: bool = False

    def look(self) -> Look:
        """The present look; the next one is the script's next step."""
        seen = self.now
        if self.coming:
            self.now = self.coming.popleft()
        return seen

    def script(self, *looks: Look) -> None:
        """What the looks after the present one show."""
        if not self.ignores:
            self.coming = deque(looks)

    def new_boot(self) -> str:
        """The next boot's id."""
        self.boots += 1
        return f"{self.name}-boot-{self.boots}"

    def go_off(self, *, hard: bool = False) -> None:
        """Stop, by way of the intermediate states."""
        stopping = () if hard else (Look(PowerState.STOPPING, self.now.boot_id), Look(PowerState.STOPPING, None))
        self.script(*stopping, Look(PowerState.STOPPED, None))

    def go_on(self) -> None:
        """Start, by way of the intermediate states."""
        self.script(
            Look(PowerState.STARTING, None),
            Look(PowerState.RUNNING, None),
            Look(PowerState.RUNNING, self.new_boot()),
        )

    def boot_again(self) -> None:
        """Reboot: the API says running all the time."""
        self.script(
            Look(PowerState.RUNNING, self.now.boot_id),
            Look(PowerState.RUNNING, None),
            Look(PowerState.RUNNING, self.new_boot()),
        )

    def power_off(self) -> None:
        """`poweroff -f`."""
        self.script(Look(PowerState.RUNNING, None), Look(PowerState.STOPPED, None))


class ScriptedShell:
    """The shell of a scripted machine."""

    def __init__(self, machine: ScriptedMachine, events: list[str]) -> None:
        self._machine = machine
        self._events = events

    def answer(self) -> SshAnswer:
        """See `testyard.power.shell.Shell`."""
        answer = self._machine.look().ssh
        self._events.append(f"look {self._machine.name} {answer.reach.value}")
        return answer

    def fire(self, command: str) -> ScriptedShell:
        """See `testyard.power.shell.Shell`."""
        if not self._machine.now.boot_id:
            raise NodeUnreachableError(self._machine.name)
        names = {REBOOT: "reboot", SHUTDOWN: "shutdown", CRASH: "crash"}
        self._events.append(f"ssh {names[command]} {self._machine.name}")
        match command:
            case _ if command == SHUTDOWN:
                self._machine.go_off()
            case _ if command == CRASH and not self._machine.answers_sysrq:
                self._machine.power_off()
            case _:
                self._machine.boot_again()
        return self

    def said(self) -> str:
        """See `testyard.power.shell.Fired`."""
        return "exit status 1: sudo: a password is required"

    def close(self) -> None:
        """See `testyard.power.shell.Shell`."""


class ScriptedProvider:
    """A provider of scripted machines.

    Attributes:
        hits: Which machine an action on a node really reaches; a provider that mixes nodes up has others.
        refuses: What every call raises, when set.
    """

    def __init__(self, name: ProviderName, machines: Mapping[str, ScriptedMachine], events: list[str]) -> None:
        self.name = name
        self.calls = API_CALLS[name]
        self.hits = dict(machines)
        self.refuses: UserError | None = None
        self.listed = [Instance(f"i-{node}", node, "eu-1", name) for node in machines]
        self._machines = machines
        self._events = events

    def instances(self) -> Sequence[Instance]:
        """See `testyard.power.protocol.PowerProvider`."""
        self._may_refuse()
        return self.listed

    def state(self, instance: Instance) -> PowerState:
        """See `testyard.power.protocol.PowerProvider`."""
        self._may_refuse()
        return self._machines[instance.node].now.api

    def start(self, instance: Instance) -> None:
        """See `testyard.power.protocol.PowerProvider`."""
        self._events.append(f"api start {instance.node}")
        self.hits[instance.node].go_on()

    def stop(self, instance: Instance) -> None:
        """See `testyard.power.protocol.PowerProvider`."""
        self._events.append(f"api stop {instance.node}")
        self.hits[instance.node].go_off()

    def crash(self, instance: Instance) -> None:
        """See `testyard.power.protocol.PowerProvider`."""
        self._events.append(f"api crash {instance.node}")
        self.hits[instance.node].go_off(hard=True)

    def close(self) -> None:
        """See `testyard.power.protocol.PowerProvider`."""
        self._events.append("close")

    def _may_refuse(self) -> None:
        if self.refuses:
            raise self.refuses


class WatchedJournal(UndoJournal):
    """A journal that writes down what it is told, among the other events."""

    def __init__(self, path: Path, events: list[str]) -> None:
        super().__init__(path)
        self._events = events

    def register(self, entry: UndoEntry) -> UndoEntry:
        """See `testyard.power.undo.UndoJournal`; the entry is on disk when this returns."""
        registered = super().register(entry)
        assert registered in self.pending()
        self._events.append(f"register {entry.node}")
        return registered


class World:
    """A deployment of scripted machines.

    Attributes:
        events: What was done, in order: looks, registrations, calls and commands.
        told: What the operator was told.
    """

    def __init__(
        self, directory: Path, provider: ProviderName = ProviderName.AWS, *, asks_api: bool = True, **state: Any
    ) -> None:
        self.events: list[str] = []
        self.told: list[Instruction] = []
        self.directory = write_deployment(directory, provider, **state)
        self.machines = {node: ScriptedMachine(node, Look(PowerState.RUNNING, f"{node}-boot-1")) for node in NODES}
        self.provider = ScriptedProvider(provider, self.machines, self.events)
        self.journal = WatchedJournal(directory / JOURNAL, self.events)
        self._asks_api = asks_api

    def control(
        self,
        *,
        deadlines: Deadlines = SHORT,
        power_api: PowerApi | None = None,
        operator: Callable[[Instruction], None] | None = None,
        controller: str | None = CONTROLLER,
        **changed: float,
    ) -> PowerControl:
        """The engine on these machines."""
        return PowerControl(
            Deployment.read(self.directory),
            deadlines=replace(deadlines, **{name: timedelta(seconds=it) for name, it in changed.items()}),
            power_api=power_api,
            operator=operator or self.play_operator,
            environment={},
            journal=self.journal,
            provider=(lambda: self.provider) if self._asks_api else None,
            shell=self.shell,
            controller=controller,
        )

    def shell(self, node: Node) -> ScriptedShell:
        """A node's shell."""
        return ScriptedShell(self.machines[node.name], self.events)

    def play_operator(self, instruction: Instruction) -> None:
        """Power on what an operator is told to."""
        self.told.append(instruction)
        for node in instruction.nodes:
            self.machines[node].go_on()

    def switch_off(self, *nodes: str) -> None:
        """Have machines be off already."""
        for node in nodes:
            self.machines[node].now = Look(PowerState.STOPPED, None)

    @property
    def done(self) -> list[str]:
        """The events without the looks."""
        return [event for event in self.events if not event.startswith("look")]
