"""The lab: starts the systems under test, injects faults, decides what an environment lacks."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any, Literal

from robot.api import logger
from robot.api.deco import keyword, library
from testyard import __version__
from testyard.core.listening import MaskingListener
from testyard.lab.environment import Environment, chosen_environment, missing_lab, missing_need

from LabLibrary.datacentre import DatacentreKeywords
from LabLibrary.event_bus import EventBusKeywords
from LabLibrary.event_bus_chaos import EventBusChaosKeywords
from LabLibrary.notices import NoticeKeywords
from LabLibrary.pipelines import PipelineKeywords
from LabLibrary.waldurs import WaldurKeywords
from LabLibrary.world import World

NEEDS_PREFIX = "needs:"
FOLLOWS_PREFIX = "follows:"
SLOW_TAG = "slow"


@library(scope="GLOBAL", version=__version__, listener="SELF", doc_format="MARKDOWN")
class LabLibrary(
    WaldurKeywords,
    PipelineKeywords,
    DatacentreKeywords,
    EventBusKeywords,
    EventBusChaosKeywords,
    NoticeKeywords,
    MaskingListener,
):
    """Start the embedded lab, break it on purpose, and know what an environment lacks.

    By default every suite starts its own lab on loopback addresses; nothing of it survives the run. With
    `LAB:servers` the lab has real servers where it can: Apache Kafka, which `python -m testyard lab install kafka`
    installs. With `WALDUR_E2E_TESTS=true` (or `LAB:none`) no lab is started and the same suites run against your
    own systems.

    As a listener the library turns a test into SKIP, with the reason, when

    - its tag `needs:…` names something the environment lacks (faults, for one, on your own systems),
    - its tag `follows:ID` names a scenario of the same suite that did not pass,
    - it is tagged `slow` and `SLOW` is not true.
    """

    def __init__(self, *, lab: Literal["embedded", "servers", "none"] = "embedded", slow: bool = False) -> None:
        """Choose where the suites run.

        Args:
            lab: `embedded` starts the lab that comes with testyard, `servers` the same with real servers where it
                can, `none` uses your own systems.
            slow: Whether tests tagged `slow` run.
        """
        MaskingListener.__init__(self)
        self._world = World(chosen_environment(lab))
        self._slow = slow
        self._passed: set[str] = set()
        self._not_passed: dict[str, str] = {}

    # What Robot Framework calls as it runs.

    def start_suite(self, data: Any, result: Any) -> None:
        """Forget the scenarios of the suite before; a suite whose tests are all SKIPs needs no lab."""
        self._passed.clear()
        self._not_passed.clear()
        if data.tests and all(self._reason_not_here(test.tags) for test in data.tests):
            data.setup = data.teardown = None

    def start_test(self, data: Any, result: Any) -> None:
        """Turn a test that cannot run here into a SKIP that says why."""
        reason = self._reason_to_skip(result.tags)
        if reason:
            data.setup = data.teardown = None
            data.body.clear()
            data.body.create_keyword("BuiltIn.Skip", args=[reason])

    def end_test(self, data: Any, result: Any) -> None:
        """Undo the test's faults and remember how its scenarios ended."""
        self._world.heal()
        super().end_test(data, result)
        for tag in map(str, result.tags):
            if result.passed:
                self._passed.add(tag)
            else:
                self._not_passed[tag] = why_not_passed(tag, result)

    def close(self) -> None:
        """Stop the lab when the run ends, also after Ctrl-C."""
        self._world.stop()

    def _reason_to_skip(self, tags: Iterable[str]) -> str:
        return self._reason_not_here(tags) or self._reason_not_now(tags)

    def _reason_not_here(self, tags: Iterable[str]) -> str:
        """Why a test cannot run in this environment, whatever happens before it; empty when it can."""
        reason = missing_lab(self._world.environment)
        if reason:
            return reason
        for tag in tags:
            if tag.startswith(NEEDS_PREFIX):
                reason = missing_need(self._world.environment, tag.removeprefix(NEEDS_PREFIX))
                if reason:
                    return reason
            elif tag == SLOW_TAG and not self._slow:
                return "Slow: runs with -v SLOW:True."
        return ""

    def _reason_not_now(self, tags: Iterable[str]) -> str:
        """Which scenario that must pass first did not; empty when none."""
        for tag in tags:
            if tag.startswith(FOLLOWS_PREFIX):
                scenario = tag.removeprefix(FOLLOWS_PREFIX)
                if scenario in self._not_passed:
                    return self._not_passed[scenario]
                if scenario not in self._passed:
                    return f"{scenario} must pass first, but it did not run in this suite."
        return ""

    # The lab's life.

    @keyword(tags=["Setup"])
    def start_the_lab(self, *, port: int = 0, within: timedelta = timedelta(seconds=20)) -> None:
        """Start Waldur A and Waldur B, each a process of its own, and wait until both are ready.

        Takes the processes that an earlier suite of the run left behind, which `Stop The Lab` has emptied. Does
        nothing when the lab runs already, and nothing on your own systems.

        Args:
            port: The TCP port for both, each on its own loopback address; 0 takes a free one.
            within: Give up after this time.

        Raises:
            LabError: The port is taken, or a process did not become ready; nothing is left running.

        Example:
            | Start The Lab |
            | Start The Lab | port=18080 |
        """
        if self._world.environment is Environment.OWN or self._world.keeper.lab is not None:
            return
        lab = self._world.keeper.hand_out(port=port, within=within)
        for instance in lab.instances.values():
            logger.info(f"Waldur {instance.name} of the lab: {instance.url}, process {instance.process.pid}")

    @keyword(tags=["Setup"])
    def stop_the_lab(self) -> None:
        """Undo every fault, check that none is left, and empty the lab as if it had just been started.

        Its processes wait for the next suite of the run and end with the run.

        Raises:
            NotMetError: A fault was still in force.

        Example:
            | Stop The Lab |
        """
        try:
            if self._world.keeper.lab is not None:
                self._world.heal()
                self.lab_should_be_clean()
        finally:
            self._world.keeper.take_back()

    @keyword(tags=["Fault"])
    def undo_every_fault(self) -> None:
        """End all faults that are still in force, the last one first, as the end of the test would.

        Example:
            | Undo Every Fault |
        """
        self._world.heal()

    @keyword(tags=["Getter"])
    def lab_is_embedded(self) -> bool:
        """Whether the suites run on the lab, with or without real servers, rather than on your own systems.

        Example:
            | ${embedded} = | Lab Is Embedded |
        """
        return self._world.environment is not Environment.OWN


def why_not_passed(scenario: str, result: Any) -> str:
    """What to tell those who follow a scenario: what broke first, not how it was passed on."""
    if result.skipped and " must pass first, but " in result.message:
        return str(result.message)
    reason = "; ".join(result.message.splitlines())
    return f"{scenario} must pass first, but {result.name!r} is {result.status}: {reason}"
