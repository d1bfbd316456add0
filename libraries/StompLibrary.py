"""Capture events that Waldur publishes over STOMP-over-WebSocket."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from operator import attrgetter
from typing import Any

from robot.api import logger
from robot.api.deco import keyword, library
from robot.api.types import Secret
from testyard import __version__
from testyard.core.deadline import Deadline, never_within, wait_until
from testyard.core.errors import NotMetError, UserError
from testyard.core.identifiers import same_identifier
from testyard.core.journal import Journal
from testyard.core.listening import MaskingListener
from testyard.core.settings import Scope, ScopedSetting
from testyard.core.tables import html_table
from testyard.stomp.capture import Event, EventCapture
from testyard.stomp.channel import Channel, open_channel
from testyard.stomp.routing import Route, RoutingTable
from testyard.waldur.states import OrderState

EVENT_COLUMNS = ("arrived (UTC)", "channel", "type", "body")


@library(scope="GLOBAL", version=__version__, listener="SELF", doc_format="MARKDOWN")
class StompLibrary(MaskingListener):
    """Capture events that Waldur publishes over STOMP-over-WebSocket, and wait for them.

    A *channel* is a named STOMP connection whose events are kept: one that you open, or one of the site
    agent's own (`Connect The Agent To Events` of the WaldurLibrary returns them for `Watch Channels`).
    """

    def __init__(self, *, within: timedelta = timedelta(seconds=30)) -> None:
        """Choose how long waits last.

        Args:
            within: Waits give up after this time, unless a keyword or `Set Event Timeout` says otherwise.
        """
        super().__init__()
        self._within = ScopedSetting(within)
        self._journal = Journal()
        self._channels: dict[str, Channel] = {}

    # What Robot Framework calls as it runs.

    def start_suite(self, data: Any, result: Any) -> None:
        """What the suite sets lasts until its end."""
        self._within.enter(Scope.SUITE)

    def end_suite(self, data: Any, result: Any) -> None:
        """Undo what the suite set."""
        self._within.leave()
        super().end_suite(data, result)

    def start_test(self, data: Any, result: Any) -> None:
        """What the test sets lasts until its end."""
        self._within.enter(Scope.TEST)

    def end_test(self, data: Any, result: Any) -> None:
        """Undo what the test set."""
        self._within.leave()
        super().end_test(data, result)

    def close(self) -> None:
        """Disconnect whatever the run left open."""
        self.close_channels()

    def _deadline(self, within: timedelta | None) -> Deadline:
        return Deadline(self._within.value if within is None else within)

    @keyword(tags=["Config"])
    def set_event_timeout(self, within: timedelta, scope: Scope = Scope.TEST) -> timedelta:
        """Say how long waits of this library last when they are not told otherwise.

        Args:
            within: The time.
            scope: How long this lasts: `TEST`, `SUITE` or `GLOBAL`.

        Returns:
            What it was, for restoring.

        Example:
            | ${before} = | Set Event Timeout | 5s | SUITE |
        """
        return self._within.set(within, scope)

    @keyword(tags=["Setup"])
    def open_channel(
        self,
        name: str,
        *,
        host: str,
        port: int,
        vhost: str,
        login: str,
        passcode: Secret,
        queue: str,
        path: str = "/rmqws-stomp",
        use_tls: bool = False,
        within: timedelta | None = None,
    ) -> None:
        """Connect to a queue of your own and capture what arrives.

        Args:
            name: How the connection is called from now on.
            host: The server.
            port: Its TCP port.
            vhost: The virtual host: on Waldur, the owning user's UUID.
            login: On Waldur, the `rmq_username` of the registered queue.
            passcode: On Waldur, the user's API token.
            queue: The queue's name.
            path: The WebSocket's path.
            use_tls: Whether to dial `wss`.
            within: Give up after this time; `Set Event Timeout` says the default.

        Raises:
            UserError: Nothing answers, or the credentials are refused.

        Example:
            | Open Channel | mine | host=${host} | port=443 | vhost=${user} | login=${login} | passcode=${token} |
            | ... | queue=${queue} | use_tls=True |
        """
        self._register(
            open_channel(
                name,
                self._journal,
                host=host,
                port=port,
                path=path,
                vhost=vhost,
                login=login,
                passcode=passcode.value,
                queue=queue,
                use_tls=use_tls,
                within=self._within.value if within is None else within,
            )
        )

    @keyword(tags=["Setup"])
    def new_channel(self, name: str) -> Channel:
        """Prepare a channel for a connection that somebody else opens, such as the site agent.

        Args:
            name: How the connection is called from now on.

        Returns:
            The channel, for the keyword that opens the connection.

        Example:
            | ${source} = | New Channel | source |
        """
        channel = Channel(name, EventCapture(name, self._journal), lent=True)
        self._register(channel)
        return channel

    @keyword(tags=["Getter"])
    def channel_called(self, name: str) -> Channel:
        """The channel of that name, for keywords of other libraries.

        Args:
            name: The channel.

        Example:
            | ${manager} = | Channel Called | manager |
        """
        return self._channel(name)

    @keyword(tags=["Setup"])
    def close_channels(self) -> None:
        """Forget every channel, and disconnect those that `Open Channel` opened.

        Example:
            | Close Channels |
        """
        for channel in self._channels.values():
            channel.close()
        self._channels.clear()

    @keyword(tags=["Assertion", "Wait"])
    def channel_should_be_connected(self, name: str, *, within: timedelta | None = None) -> int:
        """Wait until a channel is connected, and nothing is left of a connection that it had before.

        Args:
            name: The channel.
            within: Give up after this time; `Set Event Timeout` says the default.

        Returns:
            The number of the connection, for `Channel Should Be Disconnected`.

        Raises:
            NotMetError: It is not connected in time.

        Example:
            | ${connection} = | Channel Should Be Connected | source |
        """
        return self._channel(name).wait_until_connected(self._deadline(within))

    @keyword(tags=["Assertion", "Wait"])
    def channel_should_be_disconnected(
        self, name: str, connection: int | None = None, *, within: timedelta | None = None
    ) -> None:
        """Wait until a channel has noticed that its connection is gone, even if it has another one by now.

        Args:
            name: The channel.
            connection: Its number, from `Channel Should Be Connected`; the present one when not given.
            within: Give up after this time; `Set Event Timeout` says the default.

        Raises:
            NotMetError: It is still connected.

        Example:
            | Channel Should Be Disconnected | source | ${connection} | within=5s |
        """
        self._channel(name).wait_until_disconnected(self._deadline(within), connection)

    @keyword(tags=["Assertion"])
    def channel_should_carry(self, name: str, *object_types: str) -> None:
        """Check that a channel's queue receives at least these types of events.

        Args:
            name: The channel.
            object_types: `order`, `user_role`, `resource`…

        Raises:
            NotMetError: Names the missing types and those it carries.

        Example:
            | Channel Should Carry | source | order | user_role |
        """
        carried = self._channel(name).object_types
        missing = [wanted for wanted in object_types if wanted not in carried]
        if missing:
            message = f"{name} does not carry {', '.join(missing)}; it carries {', '.join(carried) or 'nothing'}."
            raise NotMetError(message)

    @keyword(tags=["Assertion", "Wait"])
    def order_event_should_arrive(
        self,
        order: str,
        state: OrderState | None = None,
        *,
        channel: str = "source",
        within: timedelta | None = None,
    ) -> dict[str, Any]:
        """Wait until an event about an order has been captured; an earlier one counts too.

        Args:
            order: UUID of the order, hex or dashed.
            state: Accept only an event that carries this state of the order.
            channel: Where it must arrive.
            within: Give up after this time; `Set Event Timeout` says the default.

        Returns:
            The event's body.

        Raises:
            NotMetError: No such event in time; lists what did arrive.

        Example:
            | Order Event Should Arrive | ${order} | pending-consumer | within=30s |
        """
        return self.event_should_arrive(
            "order", order, channel=channel, within=within, order_state=state.value if state else None
        )

    @keyword(tags=["Assertion", "Wait"])
    def event_should_arrive(
        self,
        object_type: str,
        uuid: str,
        *,
        channel: str = "source",
        within: timedelta | None = None,
        **content: Any,
    ) -> dict[str, Any]:
        """Wait until an event of a type about an object has been captured; an earlier one counts too.

        Args:
            object_type: `order`, `offering_user`, `resource`…
            uuid: UUID of the object, hex or dashed.
            channel: Where it must arrive.
            within: Give up after this time; `Set Event Timeout` says the default.
            content: Values that the event's body must have.

        Returns:
            The event's body.

        Raises:
            NotMetError: No such event in time; lists what did arrive.

        Example:
            | Event Should Arrive | offering_user | ${user} | action=username_set |
        """
        wanted = {key: value for key, value in content.items() if value is not None}

        def accepts(event: Event) -> bool:
            return (
                event.object_type == object_type
                and event.is_about(uuid)
                and all(str(event.body.get(key)) == str(value) for key, value in wanted.items())
            )

        details = "".join(f", {key} {value}" for key, value in wanted.items())
        what = f"An event of type {object_type} about {uuid}{details}"
        event = self._channel(channel).capture.wait_for(accepts, self._deadline(within), what)
        logger.info(f"Arrived: {event}")
        return event.body

    @keyword(tags=["Assertion", "Wait"])
    def no_order_event_should_arrive(
        self, order: str, state: OrderState, *, channel: str = "source", within: timedelta
    ) -> None:
        """Check for a while that no event with this state of an order is captured.

        Args:
            order: UUID of the order, hex or dashed.
            state: The state that must not be told.
            channel: Where it must not arrive.
            within: How long to look.

        Raises:
            NotMetError: It arrived; says when.

        Example:
            | No Order Event Should Arrive | ${order} | done | within=1s |
        """
        capture = self._channel(channel).capture

        def told() -> list[str]:
            return [
                str(event)
                for event in capture.events
                if event.is_about(order) and event.body.get("order_state") == state.value
            ]

        what = f"An event about order {order} in state {state.value} on {channel}"
        never_within(told, bool, Deadline(within), what)

    @keyword(tags=["Assertion", "Wait"])
    def no_published_event_should_be_lost(
        self, published: list[dict[str, Any]], *, channel: str = "source", within: timedelta | None = None
    ) -> None:
        """Wait until everything that was published for a channel has arrived there.

        Args:
            published: What the server published, each with `body` and `queues`.
            channel: Where it must arrive.
            within: Give up after this time; `Set Event Timeout` says the default.

        Raises:
            NotMetError: Events are missing; draws them as a table.

        Example:
            | ${published} = | Events Published By Waldur | A |
            | No Published Event Should Be Lost | ${published} |
        """
        target = self._channel(channel)
        if not any(target.queue in event["queues"] for event in published):
            message = f"Nothing was published for {channel}, so nothing could have been lost."
            raise NotMetError(message)
        try:
            wait_until(
                lambda: target.lost(published),
                lambda lost: not lost,
                self._deadline(within),
                "no event to be lost",
            )
        except NotMetError:
            lost = self._show_lost(target, published)
            message = f"{len(lost)} events published for {channel} did not arrive in time."
            raise NotMetError(message) from None

    @keyword(tags=["Assertion"])
    def order_event_should_be_reported_lost(
        self, published: list[dict[str, Any]], order: str, state: OrderState, *, channel: str = "source"
    ) -> None:
        """Check that the list of lost events is exactly one: about this order, in this state.

        Args:
            published: What the server should have published, each with `body` and `queues`.
            order: UUID of the order, hex or dashed.
            state: The state that the lost event told.
            channel: Where it did not arrive.

        Raises:
            NotMetError: Another number of events is missing, or another one.

        Example:
            | Order Event Should Be Reported Lost | ${published} | ${order} | pending-consumer |
        """
        lost = self._show_lost(self._channel(channel), published)
        named = [
            body
            for body in lost
            if same_identifier(str(body.get("order_uuid")), order) and body.get("order_state") == state.value
        ]
        if len(lost) != 1 or len(named) != 1:
            message = f"Exactly the event {state.value} of order {order} should be lost, but lost are: {lost}."
            raise NotMetError(message)

    def _show_lost(self, channel: Channel, published: list[dict[str, Any]]) -> list[dict[str, Any]]:
        lost = channel.lost(published)
        rows = [(body.get("object_type", ""), body) for body in lost]
        logger.info(html_table(f"Lost events of {channel.name}: {len(rows)}", ("type", "body"), rows), html=True)
        return lost

    @keyword(tags=["Assertion", "Wait"])
    def events_should_have_been_routed(self, subject: str, *routes: str, within: timedelta | None = None) -> None:
        """Draw who received which event about a subject, and check every cell (document 001, suite 2).

        Waits until everything has arrived that must. That something did *not* arrive is certain only when a later
        event did: end the list with one that reaches every channel.

        Args:
            subject: UUID of what the events are about, hex or dashed.
            routes: The messages in the order they were published, each with the channels that must receive it
                exactly once: `action: channel, channel`, `action username: channel`, or `action: nobody`.
            within: Give up after this time; `Set Event Timeout` says the default.

        Raises:
            NotMetError: A cell differs, a message came that is not listed, or the order differs.

        Example:
            | Events Should Have Been Routed | ${account} | create: manager, identity manager |
            | ... | update no-isd: manager | username_set no-isd: manager |
        """
        expected = [Route.parse(route, self._channels) for route in routes]

        def table() -> RoutingTable:
            captured = {name: channel.capture.events for name, channel in self._channels.items()}
            about = {name: [it for it in events if it.is_about(subject)] for name, events in captured.items()}
            return RoutingTable(expected, about)

        with suppress(NotMetError):
            wait_until(table, attrgetter("is_complete"), self._deadline(within), "every event to arrive")
        seen = table()
        logger.info(
            html_table(f"Who received which of {len(expected)} messages", seen.header, seen.rows), html=True
        )
        if seen.mistakes:
            message = f"The events about {subject} went another way: {'; '.join(seen.mistakes)}."
            raise NotMetError(message)

    @keyword(tags=["Getter", "Evidence"])
    def captured_events(self, channel: str) -> list[dict[str, Any]]:
        """Draw a table of everything a channel has captured.

        Args:
            channel: The channel.

        Returns:
            The events' bodies, oldest first.

        Example:
            | ${events} = | Captured Events | source |
        """
        events = self._channel(channel).capture.events
        rows = [(f"{it.arrived:%H:%M:%S.%f}", it.channel, it.object_type, it.body) for it in events]
        logger.info(html_table(f"Events on {channel}: {len(rows)}", EVENT_COLUMNS, rows), html=True)
        return [event.body for event in events]

    @keyword(tags=["Fault"])
    def drop_channel(self, name: str) -> None:
        """Close a channel's socket from the client's side, without saying goodbye.

        Args:
            name: The channel.

        Example:
            | Drop Channel | source |
        """
        channel = self._channel(name)
        if not channel.is_connected:
            message = f"{name} is not connected, so it cannot be dropped."
            raise UserError(message)
        channel.connection.transport.disconnect_socket()

    def _register(self, channel: Channel) -> None:
        previous = self._channels.get(channel.name)
        if previous is not None and previous.is_connected:
            channel.close()
            message = f"There is an open channel called {channel.name} already: 'Close Channels' first."
            raise UserError(message)
        self._channels[channel.name] = channel

    def _channel(self, name: str) -> Channel:
        if name not in self._channels:
            known = ", ".join(self._channels) or "none"
            message = f"There is no channel called {name!r}; open channels: {known}."
            raise UserError(message)
        return self._channels[name]
