"""Keeps a lab's processes from suite to suite, so that a run starts them once."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from testyard.core.errors import UserError
from testyard.lab.children import LabError
from testyard.lab.environment import Environment
from testyard.lab.supervisor.waldurs import Supervisor

if TYPE_CHECKING:
    from testyard.lab.supervisor.clusters import ClusterLab
    from testyard.lab.supervisor.event_bus import EventBusLab
    from testyard.lab.supervisor.event_bus_options import EventBusOptions
    from testyard.lab.supervisor.pipelines import PipelineLab

SUITE_DIRECTORY = "suite"


class Lab(Protocol):
    """Some processes that can be emptied as if they had just been started."""

    def renew(self) -> None:
        """Empty it; raises ``UserError`` when something does not answer any more."""

    def stop(self) -> None:
        """End every process; safe to call again."""


Kept = TypeVar("Kept", bound=Lab)


class Keeper(Generic[Kept]):
    """Takes a lab back from a suite, empties it, and ends it with the run.

    Attributes:
        lab: What is handed out; None while no suite uses the lab.
    """

    def __init__(self) -> None:
        self.lab: Kept | None = None
        self._waiting: Kept | None = None

    def _hand_out(self, make_ready: Callable[[Kept], bool], start: Callable[[], Kept]) -> Kept:
        """Take the lab that waits, or start one when it cannot be made ready or there is none."""
        lab = self._waiting
        if lab is not None and not make_ready(lab):
            lab.stop()
            lab = None
        # Not before: what is interrupted meanwhile is still to be stopped.
        self._waiting = None
        self.lab = lab or start()
        return self.lab

    def take_back(self) -> None:
        """Empty the lab and keep it for the next suite; stop it when it does not answer any more."""
        lab, self.lab = self.lab, None
        if lab is None:
            return
        if _succeeds(lab.renew):
            self._waiting = lab
        else:
            lab.stop()

    def stop(self) -> None:
        """End every process."""
        for lab in (self.lab, self._waiting):
            if lab is not None:
                lab.stop()
        self.lab = self._waiting = None


def _succeeds(renew: Callable[[], None]) -> bool:
    """Empty a lab; whether it answers still."""
    try:
        renew()
    except UserError:
        return False
    return True


class LabKeeper(Keeper[Supervisor]):
    """Keeps Waldur A and Waldur B."""

    def hand_out(self, *, port: int, within: timedelta) -> Supervisor:
        """Start the lab, or take the one that waits; it is as empty as a new one.

        Args:
            port: The TCP port of both Waldurs; 0 takes a free one.
            within: Give up after this time.

        Raises:
            LabError: The port is taken, or a process did not become ready; nothing is left running.
        """

        def start() -> Supervisor:
            lab = Supervisor()
            lab.start_waldurs(port=port, ready_within=within)
            return lab

        return self._hand_out(lambda lab: lab.serves(port), start)

    def take_back(self) -> None:
        """Also remove what the suite wrote into its directory."""
        if self.lab is not None:
            shutil.rmtree(self.directory, ignore_errors=True)
        super().take_back()

    @property
    def directory(self) -> Path:
        """A directory for what must not outlive the suite; it also ends with the lab's first process.

        Raises:
            LabError: No suite uses the lab.
        """
        if self.lab is None:
            message = "The lab is not running, so it has no directory."
            raise LabError(message)
        directory = next(iter(self.lab.instances.values())).directory / SUITE_DIRECTORY
        directory.mkdir(mode=0o700, exist_ok=True)
        return directory


class PipelineKeeper(Keeper["PipelineLab"]):
    """Keeps the pipeline service and its PostgreSQL."""

    def hand_out(self, *, breakable: bool, within: timedelta) -> PipelineLab:
        """Start the service, or take the one that waits; it is as empty as a new one.

        Args:
            breakable: Whether the network between the service and PostgreSQL is to be broken.
            within: Give up after this time.

        Raises:
            LabError: A process did not become ready; nothing is left running.
        """
        # Only the suites that need it pay for importing it, or need what it is made of.
        from testyard.lab.supervisor.pipelines import PipelineLab

        def start() -> PipelineLab:
            lab = PipelineLab(breakable=breakable)
            lab.start(within)
            return lab

        lab = self._hand_out(lambda lab: lab.lives(), start)
        lab.make_breakable(breakable, within)
        return lab


class ClusterKeeper(Keeper["ClusterLab"]):
    """Keeps the datacentre, without anything in it."""

    def hand_out(self, *, within: timedelta) -> ClusterLab:
        """Start the datacentre, or take the one that waits.

        Args:
            within: Give up after this time.

        Raises:
            LabError: It did not become ready; nothing is left running.
        """
        from testyard.lab.supervisor.clusters import ClusterLab

        def start() -> ClusterLab:
            lab = ClusterLab()
            lab.start(within)
            return lab

        return self._hand_out(lambda lab: lab.lives(), start)


class EventBusKeeper(Keeper["EventBusLab"]):
    """Keeps the event bus: Kafka, PostgreSQL and the services.

    It is emptied when a suite takes it, who says what is wanted of it: that starts all services anew.

    Args:
        environment: Where the suites run: says which Kafka is taken.
    """

    def __init__(self, environment: Environment) -> None:
        super().__init__()
        self._environment = environment

    def hand_out(self, wanted: EventBusOptions, *, within: timedelta) -> EventBusLab:
        """Start the event bus, or take the one that waits; it is as empty as a new one.

        Args:
            wanted: What a suite wants of it.
            within: Give up after this time.

        Raises:
            LabError: A process did not become ready; nothing is left running.
        """
        from testyard.lab.supervisor.event_bus import EventBusLab

        def make_ready(lab: EventBusLab) -> bool:
            return lab.can_become(wanted) and _succeeds(partial(lab.renew, wanted, within))

        def start() -> EventBusLab:
            lab = EventBusLab(wanted, self._environment)
            lab.start(within)
            return lab

        return self._hand_out(make_ready, start)

    def take_back(self) -> None:
        """Keep the lab for the next suite."""
        if self.lab is not None:
            self._waiting, self.lab = self.lab, None
