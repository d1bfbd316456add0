"""Keywords about what lasts longer or reaches further around the event bus: outages, chance, another region."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from robot.api import logger
from robot.api.deco import keyword
from testyard.core.deadline import Deadline, never_within, seconds, wait_until
from testyard.lab.supervisor import BridgeService, Route

from LabLibrary.world import World


class EventBusChaosKeywords:
    """What lasts longer or reaches further."""

    _world: World

    @keyword(tags=["Fault", "Wait"])
    def kafka_should_stay_away(self, duration: timedelta) -> None:
        """Check for a while that no broker answers, as `Take Kafka Down` has promised.

        Args:
            duration: How long.

        Raises:
            NotMetError: One does.

        Example:
            | Take Kafka Down |
            | Kafka Should Stay Away | 12s |
            | Bring Kafka Up |
        """
        lab = self._world.event_bus_lab()
        never_within(lab.kafka_answers, bool, Deadline(duration), "An answer of a broker")
        logger.info(f"No broker has answered for {seconds(duration)}")

    @keyword(tags=["Fault"])
    def let_services_fail_at_random(self, times: int, *, seed: int) -> list[str]:
        """Kill services and start them again, or let them stand still for a moment, one after the other.

        Args:
            times: How often.
            seed: Says which services, and how: the same ones for the same seed.

        Returns:
            What has happened, such as `reducer killed`.

        Example:
            | Let Services Fail At Random | 6 | seed=1 |
        """
        lab = self._world.event_bus_lab()
        happened = []
        for planned in lab.planned_failures(seed, times):
            self._world.will_undo(("chance", planned.service), lambda it=planned: lab.make_run(it.service))
            planned.happen(lab)
            self._world.undo(("chance", planned.service))
            happened.append(f"{planned.service.value} {planned.failure.value}")
        logger.info(f"Seed {seed}: {', '.join(happened)}")
        return happened

    @keyword(tags=["Setup"])
    def start_second_region(self, *events: Route) -> str:
        """Start brokers of a second region; what one region has is mirrored to the other, until the test ends.

        Args:
            events: Whose topics are mirrored.

        Returns:
            Where clients connect to them first.

        Example:
            | ${away} = | Start Second Region | STATE_TRANSITION |
            | Connect To Kafka | ${away} | alias=away |
        """
        lab = self._world.event_bus_lab()
        region = lab.second_region([lab.topic_of(event) for event in events])
        self._world.will_undo("second region", region.stop)
        region.start()
        self._world.region = region
        servers = region.kafka.bootstrap_servers
        logger.info(f"Kafka of the second region: {servers}")
        return servers

    @keyword(tags=["Fault"])
    def cut_the_regions_off(self) -> None:
        """Let nothing pass between the regions, until the test ends or `Connect The Regions`.

        Example:
            | Cut The Regions Off |
        """
        region = self._world.second_region()
        self._world.will_undo("cut between the regions", region.mend)
        region.cut()
        logger.info("Nothing passes between the regions any more")

    @keyword(tags=["Fault"])
    def connect_the_regions(self) -> None:
        """End `Cut The Regions Off` before the test does.

        Example:
            | Connect The Regions |
        """
        self._world.undo("cut between the regions")
        logger.info("The regions are connected again")

    @keyword(tags=["Assertion", "Wait"])
    def the_regions_should_be_level(self, *, within: timedelta = timedelta(seconds=10)) -> None:
        """Wait until each region has what the other one has.

        Args:
            within: Give up after this time.

        Raises:
            NotMetError: Something is missing all the time; tells how much.

        Example:
            | The Regions Should Be Level |
        """
        self._world.second_region().wait_until_level(within)

    @keyword(tags=["Getter", "Wait"])
    def spans_at_the_collector(
        self, trace_id: str, *, at_least: int = 1, within: timedelta = timedelta(seconds=5)
    ) -> list[dict[str, Any]]:
        """Wait until the collector was sent so many spans of a trace (OTLP over HTTP).

        Args:
            trace_id: 32 hexadecimal digits.
            at_least: How many.
            within: Give up after this time.

        Returns:
            The spans.

        Raises:
            NotMetError: There are fewer.

        Example:
            | ${spans} = | Spans At The Collector | ${caller.trace_id} | at_least=10 |
        """
        collector = self._world.event_bus_lab().collector
        what = f"{at_least} spans of the trace {trace_id} at the collector"
        wait_until(lambda: len(collector.spans(trace_id)), lambda it: it >= at_least, Deadline(within), what)
        return collector.spans(trace_id)

    @keyword(tags=["Getter"])
    def process_of_service(self, service: BridgeService) -> int:
        """The process id of a service of the lab.

        Args:
            service: Which one.

        Example:
            | ${pid} = | Process Of Service | ORCHESTRATOR |
        """
        return self._world.event_bus_lab().pid_of(service)
