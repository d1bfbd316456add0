"""What the library's keywords share: where the run is, what runs, and how to undo what was broken."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING

from testyard.core.errors import UserError
from testyard.lab.environment import Environment
from testyard.lab.supervisor import ClusterKeeper, EventBusKeeper, LabKeeper, PipelineKeeper, WaldurInstance

if TYPE_CHECKING:
    from testyard.lab.supervisor.clusters import ClusterLab
    from testyard.lab.supervisor.event_bus import EventBusLab
    from testyard.lab.supervisor.pipelines import PipelineLab, WebhookReceiver
    from testyard.lab.supervisor.second_region import SecondRegion


class World:
    """One robot process's lab.

    Args:
        environment: Where the run is.

    Attributes:
        keeper: Has the Waldurs.
        pipelines: Has the pipeline service.
        clusters: Has the datacentre.
        event_buses: Has the event bus.
        region: The event bus's second region; None while there is none.
    """

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.keeper = LabKeeper()
        self.pipelines = PipelineKeeper()
        self.clusters = ClusterKeeper()
        self.event_buses = EventBusKeeper(environment)
        self.region: SecondRegion | None = None
        self._undos: dict[Hashable, Callable[[], object]] = {}

    def waldurs(self) -> list[WaldurInstance]:
        """The Waldurs of the lab; none while it is not running."""
        return list(self.keeper.lab.instances.values()) if self.keeper.lab else []

    def waldur(self, name: str) -> WaldurInstance:
        """One Waldur of the lab.

        Raises:
            UserError: There is no lab, or no such Waldur in it.
        """
        self._refuse_own_systems()
        if self.keeper.lab is None:
            message = "The lab is not running: 'Start The Lab' first."
            raise UserError(message)
        instances = self.keeper.lab.instances
        if name not in instances:
            message = f"The lab has no Waldur {name!r}, expected one of {', '.join(instances)}."
            raise UserError(message)
        return instances[name]

    def pipeline_lab(self) -> PipelineLab:
        """The pipeline service of the lab.

        Raises:
            UserError: The run uses the user's own, or it is not running.
        """
        self._refuse_own_systems()
        if self.pipelines.lab is None:
            message = "The pipeline service is not running: 'Start The Pipeline Service' first."
            raise UserError(message)
        return self.pipelines.lab

    def cluster_lab(self) -> ClusterLab:
        """The datacentre of the lab.

        Raises:
            UserError: The run uses the user's own systems, or it is not running.
        """
        self._refuse_own_systems()
        if self.clusters.lab is None:
            message = "The datacentre is not running: 'Start The Datacentre' first."
            raise UserError(message)
        return self.clusters.lab

    def event_bus_lab(self) -> EventBusLab:
        """The event bus of the lab.

        Raises:
            UserError: The run uses the user's own systems, or it is not running.
        """
        self._refuse_own_systems()
        if self.event_buses.lab is None:
            message = "The event bus is not running: 'Start The Event Bus' first."
            raise UserError(message)
        return self.event_buses.lab

    def second_region(self) -> SecondRegion:
        """The second region of the event bus.

        Raises:
            UserError: There is none.
        """
        if self.region is None:
            message = "There is no second region: 'Start Second Region' first."
            raise UserError(message)
        return self.region

    def database_lab(self) -> EventBusLab | PipelineLab:
        """What has a PostgreSQL that services use, whichever runs.

        Raises:
            UserError: The run uses the user's own systems, or neither runs.
        """
        return self.pipeline_lab() if self.event_buses.lab is None else self.event_buses.lab

    def webhooks(self) -> WebhookReceiver:
        """Who is called by the systems of the lab, whichever runs.

        Raises:
            UserError: The run uses the user's own systems, or none runs.
        """
        return self.pipeline_lab().webhooks if self.clusters.lab is None else self.clusters.lab.webhooks

    def _refuse_own_systems(self) -> None:
        if self.environment is Environment.OWN:
            message = "This keyword needs the embedded lab; the run uses your own systems."
            raise UserError(message)

    def will_undo(self, fault: Hashable, undo: Callable[[], object]) -> None:
        """Register how a fault ends, before it acts, so that it cannot be left behind."""
        self._undos[fault] = undo

    def undo(self, fault: Hashable) -> None:
        """End one fault; nothing when it is not in force."""
        undo = self._undos.pop(fault, None)
        if undo is not None:
            undo()

    def heal(self) -> None:
        """End every fault, the last one first."""
        while self._undos:
            self.undo(next(reversed(self._undos)))

    def stop(self) -> None:
        """End every process."""
        self.keeper.stop()
        self.pipelines.stop()
        self.clusters.stop()
        self.event_buses.stop()
