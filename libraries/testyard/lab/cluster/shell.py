"""The commands of a node: a fixed table, matched on the whole line.

No text ever reaches a shell of the computer that the lab runs on. What is not in the table gets what a shell says
of a command that does not exist; a file outside the node's own directory gets ``Permission denied``.

The lines are those of testyard's power keywords and of the workflow steps (a contract test compares them):

===================================================== ==========================================================
``cat /proc/sys/kernel/random/boot_id``               a UUID, another one after each boot
``cat /proc/uptime``                                  seconds since the boot, twice
``hostname`` · ``true``
``sync``                                              what was written to files survives a loss of power
``ls`` · ``cat NAME`` · ``printf %s TEXT > NAME``     files of the node's own directory
``systemctl is-active database|admin-ui``             ``active`` (0), ``activating``, ``inactive``, ``failed`` (3)
``sudo systemctl start|stop|restart database|admin-ui``
``sudo reboot``                                       orderly; comes back
``sudo shutdown -h now``                              orderly; stays down
``sudo poweroff -f``                                  at once, as a loss of power; stays down
the crash line (``CRASH``)                            answers, then a loss of power; comes back where SysRq works
===================================================== ==========================================================
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from testyard.lab.cluster.files import NodeFiles

CRASH = """sudo sh -c 'nohup sh -c "sleep 0.5; echo b > /proc/sysrq-trigger || poweroff -f" >/dev/null 2>&1 &'"""

NOT_FOUND = 127
# One word as a careful quoter writes it: harmless characters, or quotes around what a shell would not expand.
WORD = r"""(?:[A-Za-z0-9@%+=:,./_-]|'[^']*'|"[^"$`\\]*")+"""
QUOTED = re.compile(r"""'([^']*)'|"([^"]*)"|([^'"]+)""")


class PowerChange(Enum):
    """What a command does to the power of its node after it has answered."""

    REBOOT = "orderly, comes back"
    SHUTDOWN = "orderly, stays down"
    POWER_OFF = "at once, stays down"
    CRASH = "a moment later, comes back where SysRq works"


class ServiceState(Enum):
    """What ``systemctl is-active`` prints."""

    ACTIVE = "active"
    ACTIVATING = "activating"
    INACTIVE = "inactive"
    FAILED = "failed"


class Service(Protocol):
    """A service of a node."""

    @property
    def state(self) -> ServiceState:
        """Whether it runs."""

    async def start(self) -> None:
        """Start it; nothing when it runs."""

    async def stop(self) -> None:
        """Stop it in an orderly way; nothing when it does not run."""


class System(Protocol):
    """What the commands read and change."""

    @property
    def hostname(self) -> str:
        """The node's name."""

    @property
    def boot_id(self) -> str:
        """A UUID of this boot."""

    @property
    def uptime_seconds(self) -> float:
        """Time since this boot."""

    @property
    def files(self) -> NodeFiles:
        """The node's own directory."""

    @property
    def services(self) -> Mapping[str, Service]:
        """Its services by name."""


@dataclass(frozen=True)
class Answer:
    """What a command gives back.

    Args:
        stdout: What it prints.
        stderr: What it complains of.
        status: Exit status.
        change: What becomes of the node then.
    """

    stdout: str = ""
    stderr: str = ""
    status: int = 0
    change: PowerChange | None = None


class Shell:
    """Interprets command lines by the table.

    Args:
        system: The node.
    """

    def __init__(self, system: System) -> None:
        self._system = system
        self._table: tuple[tuple[re.Pattern[str], Callable[..., Answer | Awaitable[Answer]]], ...] = (
            (_line("cat /proc/sys/kernel/random/boot_id"), lambda: Answer(f"{system.boot_id}\n")),
            (_line("cat /proc/uptime"), self._uptime),
            (_line("hostname"), lambda: Answer(f"{system.hostname}\n")),
            (_line("true"), Answer),
            (_line("sync"), self._sync),
            (_line("ls"), lambda: Answer("".join(f"{name}\n" for name in system.files.names()))),
            (re.compile(rf"cat ({WORD})"), self._read),
            (re.compile(rf"printf %s ({WORD}) > ({WORD})", re.DOTALL), self._write),
            (re.compile(r"systemctl is-active ([a-z-]+)"), self._is_active),
            (re.compile(r"sudo systemctl (start|stop|restart) ([a-z-]+)"), self._control),
            (_line("sudo reboot"), lambda: Answer(change=PowerChange.REBOOT)),
            (_line("sudo shutdown -h now"), lambda: Answer(change=PowerChange.SHUTDOWN)),
            (_line("sudo poweroff -f"), lambda: Answer(change=PowerChange.POWER_OFF)),
            (_line(CRASH), lambda: Answer(change=PowerChange.CRASH)),
        )

    async def run(self, line: str) -> Answer:
        """Do what a command line says, when the table has it.

        Args:
            line: The whole line.
        """
        for pattern, command in self._table:
            if found := pattern.fullmatch(line):
                answer = command(*found.groups())
                return answer if isinstance(answer, Answer) else await answer
        words = line.split()
        return Answer(stderr=f"sh: 1: {words[0] if words else line}: command not found\n", status=NOT_FOUND)

    def _uptime(self) -> Answer:
        uptime = self._system.uptime_seconds
        return Answer(f"{uptime:.2f} {uptime:.2f}\n")

    def _sync(self) -> Answer:
        self._system.files.sync()
        return Answer()

    def _read(self, word: str) -> Answer:
        name = _unquoted(word)
        try:
            return Answer(self._system.files.read(name))
        except PermissionError:
            return Answer(stderr=f"cat: {name}: Permission denied\n", status=1)
        except FileNotFoundError:
            return Answer(stderr=f"cat: {name}: No such file or directory\n", status=1)

    def _write(self, text: str, word: str) -> Answer:
        name = _unquoted(word)
        try:
            self._system.files.write(name, _unquoted(text))
        except PermissionError:
            return Answer(stderr=f"sh: 1: cannot create {name}: Permission denied\n", status=2)
        return Answer()

    def _is_active(self, name: str) -> Answer:
        service = self._system.services.get(name)
        state = service.state if service else ServiceState.INACTIVE
        return Answer(f"{state.value}\n", status=0 if state is ServiceState.ACTIVE else 3)

    async def _control(self, verb: str, name: str) -> Answer:
        service = self._system.services.get(name)
        if service is None:
            return Answer(stderr=f"Failed to {verb} {name}.service: Unit {name}.service not found.\n", status=5)
        try:
            if verb in {"stop", "restart"}:
                await service.stop()
            if verb in {"start", "restart"}:
                await service.start()
        except Exception as problem:  # whatever a service meets, its user reads the reason
            return Answer(stderr=f"Job for {name}.service failed: {problem}\n", status=1)
        return Answer()


def _line(text: str) -> re.Pattern[str]:
    return re.compile(re.escape(text))


def _unquoted(word: str) -> str:
    return "".join("".join(parts) for parts in QUOTED.findall(word))
