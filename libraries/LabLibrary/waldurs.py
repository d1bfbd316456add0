"""Keywords about the two Waldurs of the lab: where they are, what goes wrong in them, what they saw."""

from __future__ import annotations

from datetime import timedelta
from enum import Enum
from typing import Any

from robot.api import logger
from robot.api.deco import keyword
from robot.api.types import Secret
from testyard.core.deadline import Deadline, wait_until
from testyard.core.errors import NotMetError
from testyard.core.tables import html_table
from testyard.lab.environment import Environment

from LabLibrary.world import World

REQUEST_COLUMNS = ("method", "path", "status", "caller", "ms")


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


class WaldurKeywords:
    """The two Waldurs of the lab."""

    _world: World

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
            for instance in self._world.waldurs()
            for fault in instance.control.active_faults()
        ]
        if left:
            message = f"The lab is not clean: {', '.join(left)}."
            raise NotMetError(message)

    @keyword(tags=["Getter"])
    def address_of_waldur(self, waldur: str) -> str:
        """The API address of a Waldur of the lab.

        Args:
            waldur: `A` (source) or `B` (target).

        Example:
            | ${url} = | Address Of Waldur | A |
        """
        return self._world.waldur(waldur).url

    @keyword(tags=["Getter"])
    def port_of_waldur(self, waldur: str) -> int:
        """The TCP port of a Waldur of the lab; STOMP over WebSocket is on the same.

        Args:
            waldur: `A` (source) or `B` (target).

        Example:
            | ${port} = | Port Of Waldur | A |
        """
        return self._world.waldur(waldur).port

    @keyword(tags=["Getter"])
    def staff_token_of_waldur(self, waldur: str) -> Secret:
        """The API token of the staff user of a Waldur of the lab.

        Args:
            waldur: `A` (source) or `B` (target).

        Example:
            | ${token} = | Staff Token Of Waldur | A |
        """
        return Secret(self._world.waldur(waldur).staff_token)

    @keyword(tags=["Getter"])
    def lab_directory(self) -> str | None:
        """A directory for files that must not outlive the suite, such as configurations with tokens.

        `Stop The Lab` removes it, and so does the end of the run, however it ends. None on your own systems.

        Example:
            | ${directory} = | Lab Directory |
        """
        if self._world.environment is Environment.OWN:
            return None
        self._world.waldur("A")
        return str(self._world.keeper.directory)

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
        answer: dict[str, Any] = self._world.waldur(waldur).control.shell(operation, **arguments)
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
        control = self._world.waldur(waldur).control
        self._world.will_undo((waldur, fault), lambda: control.clear_fault(fault.value))
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
        self._world.waldur(waldur).control.clear_fault(fault.value)
        self._world.undo((waldur, fault))
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
        dropped = self._world.waldur(waldur).control.drop_stomp_connections()
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
        control = self._world.waldur(waldur).control

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
        requests = [
            entry for entry in self._world.waldur(waldur).control.journal() if entry.get("kind") != "marker"
        ]
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
        events = self._world.waldur(waldur).control.events()
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
