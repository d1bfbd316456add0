"""How long what may take: deadlines by name, with the documented durations as defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import timedelta
from enum import StrEnum

from testyard.core.deadline import seconds
from testyard.core.errors import UserError


class DeadlineName(StrEnum):
    """The deadlines that a transition can name."""

    STOP = "stop"
    BOOT = "boot"
    CRASH = "crash"
    REBOOT = "reboot"


@dataclass(frozen=True)
class Deadlines:
    """Durations of one environment.

    Attributes:
        stop: Until a machine that was told to stop has stopped (600 s: contract "cluster" 2.1, stop_cluster).
        boot: Until a machine that was told to start answers over SSH (600 s: 2.1, start_cluster).
        crash: Until a crashed machine is gone (60 s).
        reboot: Until a rebooted machine answers with a new boot id (300 s: 2.5, wait_uptime_under).
        ssh: Until an SSH connection is made (10 s: 2.1, ConnectTimeout).
        command: Until a command over SSH has ended (30 s: 2.1).
        stays_down: How long a crashed machine must be off, as its provider says, to have stayed down (5 s).
        graceful_pause: How long a machine is off before a graceful restart starts it again (5 s: 2.1); with zero
            it is started as soon as it is off.
        poll: Between two looks at a machine, at most (1 s); the first ones follow faster.

    Example:
        >>> Deadlines.of({"boot": 5, "poll": 0.05}).boot
        datetime.timedelta(seconds=5)
    """

    stop: timedelta = timedelta(seconds=600)
    boot: timedelta = timedelta(seconds=600)
    crash: timedelta = timedelta(seconds=60)
    reboot: timedelta = timedelta(seconds=300)
    ssh: timedelta = timedelta(seconds=10)
    command: timedelta = timedelta(seconds=30)
    stays_down: timedelta = timedelta(seconds=5)
    graceful_pause: timedelta = timedelta(seconds=5)
    poll: timedelta = timedelta(seconds=1)

    @classmethod
    def of(cls, durations: Mapping[str, timedelta | float]) -> Deadlines:
        """The documented deadlines, with some of them replaced.

        Args:
            durations: By name; numbers are seconds.

        Raises:
            UserError: There is no deadline of that name, or the duration is negative.
        """
        known = [field.name for field in fields(cls)]
        chosen = {}
        for name, duration in durations.items():
            if name not in known:
                message = f"There is no power deadline {name!r}; there are {', '.join(known)}."
                raise UserError(message)
            chosen[name] = duration if isinstance(duration, timedelta) else timedelta(seconds=duration)
            if chosen[name] < timedelta():
                message = f"The power deadline {name!r} must not be negative, got {duration}."
                raise UserError(message)
        return cls(**chosen)

    def named(self, name: DeadlineName) -> timedelta:
        """The duration of a transition's deadline."""
        return {
            DeadlineName.STOP: self.stop,
            DeadlineName.BOOT: self.boot,
            DeadlineName.CRASH: self.crash,
            DeadlineName.REBOOT: self.reboot,
        }[name]

    def __str__(self) -> str:
        """All of them on a line, for logs."""
        return ", ".join(f"{field.name} {seconds(getattr(self, field.name))}" for field in fields(self))
