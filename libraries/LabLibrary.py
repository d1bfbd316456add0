"""The lab: starts the systems under test, injects faults, decides what an environment lacks."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from enum import Enum
from typing import Any, Literal

from robot.api import logger
from robot.api.deco import keyword, library
from robot.api.types import Secret
from testyard import __version__
from testyard.core.deadline import Deadline, wait_until
from testyard.core.errors import NotMetError, UserError
from testyard.core.listening import MaskingListener
from testyard.core.tables import html_table
from testyard.lab.environment import Environment, chosen_environment, missing_lab, missing_need
from testyard.lab.supervisor import LabKeeper, WaldurInstance

REQUEST_COLUMNS = ("method", "path", "status", "caller", "ms")
NEEDS_PREFIX = "needs:"
FOLLOWS_PREFIX = "follows:"
SLOW_TAG = "slow"


class Fault(Enum):
    """What can be made to go wrong on a Waldur of the lab."""

    SET_DONE_FAILS = "order_set_state_done_error"
    SHADOW_RESOURCES = "shadow_resource"
    NO_STOMP = "no_stomp"
    SILENT_HEART_BEATS = "silent_heartbeat"
    SLOW_ANSWERS = "latency"
    CONNECTIONS_REFUSED = "refuse_connections"
    TOKEN_REVOKED = "revoked_token"
    EVENT_DROPPED = "drop_event"
    EVENT_DUPLICATED = "duplicate_event"
    EVENTS_REORDERED = "reorder_events"


@library(scope="GLOBAL", version=__version__, listener="SELF", doc_format="MARKDOWN")
class LabLibrary(MaskingListener):
    """Start the embedded lab, break it on purpose, and know what an environment lacks.

    By default every suite starts its own lab on loopback addresses; nothing of it survives the run. With
    `WALDUR_E2E_TESTS=true` (or `LAB:none`) no lab is started and the same suites run against your own systems.

    As a listener the library turns a test into SKIP, with the reason, when

    - its tag `needs:…` names something the environment lacks (faults, for one, on your own systems),
    - its tag `follows:ID` names a scenario of the same suite that did not pass,
    - it is tagged `slow` and `SLOW` is not true.
    """

    def __init__(self, *, lab: Literal["embedded", "none"] = "embedded", slow: bool = False) -> None:
        """Choose where the suites run.

        Args:
            lab: `embedded` starts the lab that comes with testyard, `none` uses your own systems.
            slow: Whether tests tagged `slow` run.
        """
        super().__init__()
        self._environment = chosen_environment(lab)
        self._slow = slow
        self._keeper = LabKeeper()
        self._passed: set[str] = set()
        self._not_passed: dict[str, str] = {}
        self._injected: list[tuple[str, Fault]] = []

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
        self._heal()
        super().end_test(data, result)
        for tag in map(str, result.tags):
            if result.passed:
                self._passed.add(tag)
            else:
                self._not_passed[tag] = why_not_passed(tag, result)

    def close(self) -> None:
        """Stop the lab when the run ends, also after Ctrl-C."""
        self._keeper.stop()

    def _reason_to_skip(self, tags: Iterable[str]) -> str:
        return self._reason_not_here(tags) or self._reason_not_now(tags)

    def _reason_not_here(self, tags: Iterable[str]) -> str:
        """Why a test cannot run in this environment, whatever happens before it; empty when it can."""
        reason = missing_lab(self._environment)
        if reason:
            return reason
        for tag in tags:
            if tag.startswith(NEEDS_PREFIX):
                reason = missing_need(self._environment, tag.removeprefix(NEEDS_PREFIX))
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
        if self._environment is Environment.OWN or self._keeper.lab is not None:
            return
        lab = self._keeper.hand_out(port=port, within=within)
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
            if self._keeper.lab is not None:
                self._heal()
                self.lab_should_be_clean()
        finally:
            self._keeper.take_back()

    @keyword(tags=["Assertion"])
    def lab_should_be_clean(self) -> None:
        """Check that no fault is in force on any Waldur of the lab.

        Raises:
            NotMetError: Names each fault and its Waldur.

        Example:
            | Lab Should Be Clean |
        """
        left = [
            f"{fault} on Waldur {instance.name}"
            for instance in self._instances()
            for fault in instance.control.active_faults()
        ]
        if left:
            message = f"The lab is not clean: {', '.join(left)}."
            raise NotMetError(message)

    @keyword(tags=["Getter"])
    def lab_is_embedded(self) -> bool:
        """Whether the suites run on the embedded lab rather than on your own systems.

        Example:
            | ${embedded} = | Lab Is Embedded |
        """
        return self._environment is Environment.EMBEDDED

    @keyword(tags=["Getter"])
    def address_of_waldur(self, waldur: str) -> str:
        """The API address of a Waldur of the lab.

        Args:
            waldur: `A` (source) or `B` (target).

        Example:
            | ${url} = | Address Of Waldur | A |
        """
        return self._instance(waldur).url

    @keyword(tags=["Getter"])
    def port_of_waldur(self, waldur: str) -> int:
        """The TCP port of a Waldur of the lab; STOMP over WebSocket is on the same.

        Args:
            waldur: `A` (source) or `B` (target).

        Example:
            | ${port} = | Port Of Waldur | A |
        """
        return self._instance(waldur).port

    @keyword(tags=["Getter"])
    def staff_token_of_waldur(self, waldur: str) -> Secret:
        """The API token of the staff user of a Waldur of the lab.

        Args:
            waldur: `A` (source) or `B` (target).

        Example:
            | ${token} = | Staff Token Of Waldur | A |
        """
        return Secret(self._instance(waldur).staff_token)

    @keyword(tags=["Getter"])
    def lab_directory(self) -> str | None:
        """A directory for files that must not outlive the suite, such as configurations with tokens.

        `Stop The Lab` removes it, and so does the end of the run, however it ends. None on your own systems.

        Example:
            | ${directory} = | Lab Directory |
        """
        if self._environment is Environment.OWN:
            return None
        self._instance("A")
        return str(self._keeper.directory)

    @keyword(tags=["Setup"])
    def run_shell_operation_on_the_lab(self, waldur: str, operation: str, **arguments: Any) -> dict[str, Any]:
        """Do on a Waldur of the lab what needs a Django shell on a real one (document 001).

        Args:
            waldur: `A` or `B`.
            operation: `set_plugin_options`, `create_resource`, `create_or_restore_offering_users_for_user` or
                `set_federated_identity_sync`.
            arguments: What the operation works on.

        Returns:
            The operation's answer.

        Example:
            | Run Shell Operation On The Lab | B | create_resource | offering=${offering} | project=${project} |
        """
        answer: dict[str, Any] = self._instance(waldur).control.shell(operation, **arguments)
        return answer

    # Faults.

    @keyword(tags=["Fault"])
    def inject_fault(
        self,
        waldur: str,
        fault: Fault,
        *,
        times: int | None = None,
        delay: timedelta | None = None,
        user: str | None = None,
        object_type: str | None = None,
    ) -> None:
        """Make something go wrong on a Waldur of the lab until the test ends or `Undo Fault`.

        Args:
            waldur: `A` or `B`.
            fault: What goes wrong.
            times: How often, for `SET_DONE_FAILS`, `EVENT_DROPPED`, `EVENT_DUPLICATED`; always when not given.
            delay: How late answers come, for `SLOW_ANSWERS`.
            user: UUID of the user, for `TOKEN_REVOKED`.
            object_type: Only events of this type, for `EVENT_DROPPED` and `EVENT_DUPLICATED`.

        Example:
            | Inject Fault | A | SET_DONE_FAILS | times=1 |
        """
        parameters: dict[str, Any] = {
            "times": times,
            "milliseconds": None if delay is None else delay.total_seconds() * 1000,
            "user": user,
            "object_type": object_type,
        }
        given = {name: value for name, value in parameters.items() if value is not None}
        control = self._instance(waldur).control
        # The undo is registered before the fault acts, so that it cannot be left behind.
        self._injected.append((waldur, fault))
        control.set_fault(fault.value, **given)
        if fault.value not in control.active_faults():
            message = f"The fault {fault.name} is not in force on Waldur {waldur} although it was injected."
            raise NotMetError(message)
        logger.info(f"Fault on Waldur {waldur}: {fault.name} {given or ''}")

    @keyword(tags=["Fault"])
    def undo_fault(self, waldur: str, fault: Fault) -> None:
        """End a fault before the test does.

        Args:
            waldur: `A` or `B`.
            fault: The fault.

        Example:
            | Undo Fault | A | SILENT_HEART_BEATS |
        """
        self._instance(waldur).control.clear_fault(fault.value)
        if (waldur, fault) in self._injected:
            self._injected.remove((waldur, fault))
        logger.info(f"Fault on Waldur {waldur} undone: {fault.name}")

    @keyword(tags=["Fault"])
    def drop_stomp_connections(self, waldur: str) -> int:
        """Cut every STOMP connection to a Waldur of the lab, as a failing network would.

        Args:
            waldur: `A` or `B`.

        Returns:
            How many connections were cut.

        Raises:
            NotMetError: There was none to cut.

        Example:
            | ${cut} = | Drop STOMP Connections | A |
        """
        dropped = self._instance(waldur).control.drop_stomp_connections()
        if not dropped:
            message = f"There was no STOMP connection to Waldur {waldur} to cut."
            raise NotMetError(message)
        logger.info(f"{dropped} STOMP connections to Waldur {waldur} cut")
        return dropped

    @keyword(tags=["Assertion", "Wait"])
    def waldur_should_have_subscribers(
        self, waldur: str, count: int, *, within: timedelta = timedelta(seconds=30)
    ) -> None:
        """Wait until so many clients are connected to a Waldur's events and subscribed, as the server sees it.

        A client may have noticed that its connection is gone before the server has: what is published in between
        is lost with the old connection.

        Args:
            waldur: `A` or `B`.
            count: How many.
            within: Give up after this time.

        Raises:
            NotMetError: Another number, all the time.

        Example:
            | Waldur Should Have Subscribers | A | 1 |
        """
        control = self._instance(waldur).control

        def subscribed() -> int:
            return sum(bool(it["subscriptions"]) for it in control.stomp_connections())

        what = f"Waldur {waldur} to have {count} subscribers"
        wait_until(subscribed, lambda found: found == count, Deadline(within), what)

    # What the lab saw.

    @keyword(tags=["Getter", "Evidence"])
    def show_requests_to_waldur(self, waldur: str) -> list[dict[str, Any]]:
        """Draw a table of every request a Waldur of the lab received.

        Args:
            waldur: `A` or `B`.

        Returns:
            The requests as mappings: sequence, utc, method, path, query, status, caller, milliseconds.

        Example:
            | Show Requests To Waldur | A |
        """
        requests = [entry for entry in self._instance(waldur).control.journal() if entry.get("kind") != "marker"]
        rows = [(it["method"], it["path"], it["status"], it["caller"], it["milliseconds"]) for it in requests]
        title = f"Requests to Waldur {waldur}: {len(rows)}"
        logger.info(html_table(title, REQUEST_COLUMNS, rows, folded=True), html=True)
        return requests

    @keyword(tags=["Getter", "Evidence"])
    def events_published_by_waldur(self, waldur: str) -> list[dict[str, Any]]:
        """Draw a table of every event a Waldur of the lab published, also those that went to nobody.

        Args:
            waldur: `A` or `B`.

        Returns:
            The events as mappings: sequence, object_type, body, queues, outcome.

        Example:
            | Events Published By Waldur | A |
        """
        events = self._instance(waldur).control.events()
        rows = [(it["object_type"], it["body"], ", ".join(it["queues"]) or "nobody") for it in events]
        title = f"Events published by Waldur {waldur}: {len(rows)}"
        logger.info(html_table(title, ("type", "body", "to"), rows, folded=True), html=True)
        return events

    @keyword(tags=["Assertion", "Evidence"])
    def event_should_have_reached_nobody(self, waldur: str, subject: str, action: str) -> None:
        """Check that a Waldur of the lab published an event that no queue was due to receive.

        Args:
            waldur: `A` or `B`.
            subject: UUID of what the event is about.
            action: What happened, such as `create`.

        Raises:
            NotMetError: It was not published, or a queue received it; names the queues.

        Example:
            | Event Should Have Reached Nobody | B | ${account} | create |
        """
        about = [
            event
            for event in self.events_published_by_waldur(waldur)
            if event["body"].get("action") == action and subject in event["body"].values()
        ]
        queues = [queue for event in about for queue in event["queues"]]
        if not about or queues:
            found = f"reached {', '.join(queues)}" if about else "was not published"
            message = f"The event {action} about {subject} should have reached nobody, but {found}."
            raise NotMetError(message)

    def _instances(self) -> list[WaldurInstance]:
        return list(self._keeper.lab.instances.values()) if self._keeper.lab else []

    def _instance(self, waldur: str) -> WaldurInstance:
        if self._environment is Environment.OWN:
            message = "This keyword needs the embedded lab; the run uses your own systems."
            raise UserError(message)
        if self._keeper.lab is None:
            message = "The lab is not running: 'Start The Lab' first."
            raise UserError(message)
        instances = self._keeper.lab.instances
        if waldur not in instances:
            message = f"The lab has no Waldur {waldur!r}, expected one of {', '.join(instances)}."
            raise UserError(message)
        return instances[waldur]

    def _heal(self) -> None:
        while self._injected:
            waldur, fault = self._injected.pop()
            if self._keeper.lab is not None:
                self._keeper.lab.instances[waldur].control.clear_fault(fault.value)


def why_not_passed(scenario: str, result: Any) -> str:
    """What to tell those who follow a scenario: what broke first, not how it was passed on."""
    if result.skipped and " must pass first, but " in result.message:
        return str(result.message)
    reason = "; ".join(result.message.splitlines())
    return f"{scenario} must pass first, but {result.name!r} is {result.status}: {reason}"
