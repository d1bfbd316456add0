"""What is asked of a node's shell, and what it says: the words of `testyard.power.ssh`, without its client.

The command lines are the documented ones (contract "cluster" 2.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from testyard.power.deployment import Node

if TYPE_CHECKING:
    from testyard.power.ssh import NodeShell

BOOT_ID = "cat /proc/sys/kernel/random/boot_id"
UPTIME = "cat /proc/uptime"
REBOOT = "sudo reboot"
SHUTDOWN = "sudo shutdown -h now"
# In the background and a little later, so that the command can answer; SysRq b reboots, poweroff -f does not.
CRASH = "sudo sh -c 'nohup sh -c \"sleep 0.5; echo b > /proc/sysrq-trigger || poweroff -f\" >/dev/null 2>&1 &'"


class Reach(Enum):
    """What a node does with an SSH client."""

    ANSWERS = "answers"
    REFUSES = "lets nobody in"
    DEAD = "dead"


@dataclass(frozen=True)
class SshAnswer:
    """What SSH says about a node.

    Attributes:
        reach: Whether it answers.
        boot_id: The present boot's id when it answers, else None.
        reason: Why it does not answer, for people.
    """

    reach: Reach
    boot_id: str | None = None
    reason: str = ""

    def __str__(self) -> str:
        """For logs: `SSH answers, boot id 1f0e...`."""
        detail = f", boot id {self.boot_id}" if self.boot_id else f" ({self.reason})" if self.reason else ""
        return f"SSH {self.reach.value}{detail}"


@dataclass(frozen=True)
class CommandResult:
    """How a command ended.

    Attributes:
        status: Exit status; -1 when the connection was lost before it came.
        output: Standard output.
        errors: Standard error.
    """

    status: int
    output: str
    errors: str


class Fired(Protocol):
    """A command that was sent and whose end nobody waits for."""

    def said(self) -> str:
        """What is known of it, for the message when nothing happened: `exit status 1: permission denied`."""


class Shell(Protocol):
    """What the engine asks of a node's shell; `testyard.power.ssh.NodeShell` is the real one."""

    def answer(self) -> SshAnswer:
        """Whether the node answers now, and from which boot."""

    def fire(self, command: str) -> Fired:
        """Send a command that takes the machine down, over the connection that answered."""

    def close(self) -> None:
        """End the connection, if there is one."""


def open_shell(
    node: Node, known_hosts: Path, *, connect_timeout: timedelta, command_timeout: timedelta
) -> NodeShell:
    """A node's shell over SSH, which connects when it is first used.

    Args:
        node: Where and who.
        known_hosts: The deployment's known_hosts file.
        connect_timeout: For the connection, and for each step of the handshake.
        command_timeout: For a command's output.

    Example:
        >>> shell = open_shell(node, known_hosts, connect_timeout=soon, command_timeout=soon)  # doctest: +SKIP
    """
    # Takes longer to import than all the rest of the engine: who only imports the libraries does not wait for it.
    from testyard.power.ssh import NodeShell

    return NodeShell(node, known_hosts, connect_timeout=connect_timeout, command_timeout=command_timeout)
