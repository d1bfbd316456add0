"""Keywords about the event bus of the lab: where its parts are, and what goes wrong with them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from robot.api import logger
from robot.api.deco import keyword
from robot.api.types import Secret
from testyard.core.redact import secrets_in_use
from testyard.core.tables import html_table
from testyard.lab.environment import Environment
from testyard.lab.supervisor import BridgeService, EventBusOptions, GivesWay, Route

from LabLibrary.world import World


class EventBusKeywords:
    """The event bus of the lab."""

    _world: World

    @keyword(tags=["Setup"])
    def start_the_event_bus(
        self,
        *,
        breakable: bool = False,
        with_consul: bool = False,
        with_traces: bool = False,
        partitions: int = 3,
        gives_way: GivesWay = GivesWay.NOTHING,
        settings: Mapping[str, Any] | None = None,
        within: timedelta = timedelta(seconds=30),
    ) -> None:
        """Start Kafka, PostgreSQL and the services between them, and wait until all of them answer.

        Takes the processes that an earlier suite of the run left behind, as empty as new ones. Does nothing when
        it runs already, and nothing on your own systems.

        Args:
            breakable: Whether `Break The Database Connection` is going to be used: the services then reach their
                database through a proxy.
            with_consul: Whether services find each other by Consul.
            with_traces: Whether the services keep traces, and send them to a collector.
            partitions: Of each topic.
            gives_way: What leaves the processors to whatever else runs on this machine: ``STORING``, the reducer
                and the adapter, so that what is stored afterwards slows no answer down; ``EVERYTHING``, services
                and PostgreSQL, as a load does that others should not suffer from.
            settings: Settings of the services that differ from the lab's, section by section.
            within: Give up after this time.

        Raises:
            LabError: A process did not become ready; nothing is left running.

        Example:
            | Start The Event Bus |
            | Start The Event Bus | breakable=True |
        """
        if self._world.environment is Environment.OWN or self._world.event_buses.lab is not None:
            return
        wanted = EventBusOptions(
            breakable=breakable,
            with_consul=with_consul,
            with_traces=with_traces,
            partitions=partitions,
            gives_way=gives_way,
            overrides=settings or {},
        )
        lab = self._world.event_buses.hand_out(wanted, within=within)
        logger.info(f"Event bus of the lab: Kafka {lab.kafka.bootstrap_servers}, environment {lab.environment}")

    @keyword(tags=["Setup"])
    def stop_the_event_bus(self) -> None:
        """Undo every fault, and leave the event bus to the next suite of the run, which finds it empty.

        Its processes end with the run.

        Example:
            | Stop The Event Bus |
        """
        try:
            self._world.heal()
        finally:
            self._world.event_buses.take_back()

    @keyword(tags=["Getter", "Evidence"])
    def event_bus_settings(self) -> dict[str, Any]:
        """Draw a table of the waits of the lab's services beside the documented ones, which are their defaults.

        Returns:
            The settings of the lab.

        Example:
            | ${settings} = | Event Bus Settings |
        """
        lab = self._world.event_bus_lab()
        documented = lab.documented.model_dump(mode="json")
        rows = [
            (section, name, value, documented[section].get(name))
            for section, values in lab.settings.items()
            if isinstance(values, Mapping)
            for name, value in values.items()
            if documented[section].get(name) != value
        ]
        title = "Settings of the lab that differ from the documented ones; durations in seconds"
        logger.info(html_table(title, ("section", "setting", "lab", "documented"), rows), html=True)
        return lab.settings

    @keyword(tags=["Getter"])
    def documented_event_bus_settings(self) -> dict[str, Any]:
        """The documented settings, which are the services' defaults; durations in ISO 8601.

        Example:
            | ${settings} = | Documented Event Bus Settings |
        """
        return self._world.event_bus_lab().documented.model_dump(mode="json")

    @keyword(tags=["Getter"])
    def address_of_service(self, service: BridgeService) -> str:
        """Where a service's API is: the lab's, or `EVENT_BUS_<SERVICE>_URL` on your own systems.

        Args:
            service: `ORCHESTRATOR`, `REDUCER`, `STAMPING`, `ONEXTREE`, `ADAPTER` or `DISCOVERY`.

        Example:
            | ${url} = | Address Of Service | STAMPING |
        """
        return self._named(f"EVENT_BUS_{service.name}_URL") or self._world.event_bus_lab().url_of(service)

    @keyword(tags=["Getter"])
    def kafka_of_the_event_bus(self) -> str:
        """Where clients connect to Kafka first: the lab's, or `KAFKA_BOOTSTRAP_SERVERS` on your own systems.

        Example:
            | ${servers} = | Kafka Of The Event Bus |
        """
        return self._named("KAFKA_BOOTSTRAP_SERVERS") or self._world.event_bus_lab().kafka.bootstrap_servers

    @keyword(tags=["Getter"])
    def database_of_the_event_bus(self) -> Secret:
        """The URL of the services' database: the lab's, or `EVENT_BUS_DATABASE_URL` on your own systems.

        Example:
            | ${database} = | Database Of The Event Bus |
        """
        named = self._named("EVENT_BUS_DATABASE_URL", secret=True)
        return Secret(named or self._world.event_bus_lab().database_url)

    @keyword(tags=["Getter"])
    def topic_of(self, event: Route) -> str:
        """The topic that an event is published to.

        Args:
            event: `WORKFLOW_STARTED`, `STATE_TRANSITION`, `STEP_COMPLETED`, `WORKFLOW_COMPLETED`,
                `WORKFLOW_FAILED`, `METADATA_STAMPED`, `STATE_AGGREGATION_COMPLETED`…

        Example:
            | ${topic} = | Topic Of | WORKFLOW_STARTED |
        """
        return event.topic(self._named("EVENT_BUS_ENVIRONMENT") or self._world.event_bus_lab().environment)

    def _named(self, variable: str, *, secret: bool = False) -> str:
        if self._world.environment is not Environment.OWN:
            return ""
        value = os.environ.get(variable, "")
        if secret:
            secrets_in_use.add(value)
        return value

    # Faults.

    @keyword(tags=["Fault"])
    def kill_service(self, service: BridgeService) -> None:
        """Kill a service as a crash would (SIGKILL); at the end of the test at the latest it is started again.

        Args:
            service: Which one.

        Example:
            | Kill Service | REDUCER |
        """
        lab = self._world.event_bus_lab()
        self._world.will_undo(("killed", service), lambda: lab.start_again(service))
        logger.info(f"The {service.value}, process {lab.kill(service)}, killed")

    @keyword(tags=["Setup"])
    def start_service_again(self, service: BridgeService) -> None:
        """Start a service that was killed, at the same address, and wait until it answers.

        Args:
            service: Which one.

        Example:
            | Start Service Again | REDUCER |
        """
        self._world.undo(("killed", service))
        logger.info(f"The {service.value} runs again: process {self._world.event_bus_lab().pid_of(service)}")

    @keyword(tags=["Setup"])
    def start_second_adapter(self) -> None:
        """Start another database adapter, which shares the partitions with the first one, until the test ends.

        Example:
            | Start Second Adapter |
        """
        lab = self._world.event_bus_lab()
        self._world.will_undo("second adapter", lab.stop_second_adapter)
        lab.start_second_adapter()

    @keyword(tags=["Setup"])
    def stop_second_adapter(self) -> None:
        """Let the second database adapter finish, and leave its partitions to the first one.

        Example:
            | Stop Second Adapter |
        """
        self._world.undo("second adapter")

    @keyword(tags=["Fault"])
    def pause_service(self, service: BridgeService) -> None:
        """Let a service stand still: it takes connections and answers nothing, until the test ends or it goes on.

        Args:
            service: Which one.

        Example:
            | Pause Service | ONEXTREE |
        """
        lab = self._world.event_bus_lab()
        self._world.will_undo(("paused", service), lambda: lab.resume(service))
        lab.pause(service)
        logger.info(f"The {service.value}, process {lab.pid_of(service)}, stands still")

    @keyword(tags=["Fault"])
    def let_service_go_on(self, service: BridgeService) -> None:
        """End `Pause Service` before the test does.

        Args:
            service: Which one.

        Example:
            | Let Service Go On | ONEXTREE |
        """
        self._world.undo(("paused", service))
        logger.info(f"The {service.value} goes on")

    @keyword(tags=["Fault"])
    def take_consul_down(self) -> None:
        """Let Consul answer no more, until the test ends; what was registered is forgotten.

        Example:
            | Take Consul Down |
        """
        consul = self._world.event_bus_lab().consul
        self._world.will_undo("consul", consul.start)
        consul.stop()
        logger.info("Consul does not answer any more")

    @keyword(tags=["Fault"])
    def take_broker_down(self, broker: int) -> None:
        """Take one broker away: by a kill where it is a process; until the test ends or `Bring Broker Up`.

        Args:
            broker: Its number, from 1.

        Example:
            | Take Broker Down | 2 |
        """
        kafka = self._world.event_bus_lab().breakable_kafka
        self._world.will_undo(("broker", broker), lambda: kafka.bring_broker_up(broker))
        kafka.take_broker_down(broker)
        logger.info(f"Broker {broker} does not answer any more")

    @keyword(tags=["Fault"])
    def bring_broker_up(self, broker: int) -> None:
        """End `Take Broker Down` before the test does; returns when the broker serves.

        Args:
            broker: Its number, from 1.

        Example:
            | Bring Broker Up | 2 |
        """
        self._world.undo(("broker", broker))
        logger.info(f"Broker {broker} answers again")

    @keyword(tags=["Fault"])
    def take_kafka_down(self) -> None:
        """Let no broker answer any more, until the test ends or `Bring Kafka Up`; what they have they keep.

        Example:
            | Take Kafka Down |
        """
        lab = self._world.event_bus_lab()
        kafka = lab.breakable_kafka
        self._world.will_undo("kafka", kafka.up)
        kafka.down()
        logger.info("No broker answers any more")

    @keyword(tags=["Fault"])
    def bring_kafka_up(self) -> None:
        """End `Take Kafka Down` before the test does.

        Example:
            | Bring Kafka Up |
        """
        self._world.undo("kafka")
        logger.info("The brokers answer again")
