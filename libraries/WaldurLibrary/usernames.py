"""Keywords about offering users, their usernames, and how the agent carries these from B to A (document 001)."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from robot.api import logger
from robot.api.deco import keyword
from robot.api.types import Secret
from testyard.core.deadline import Deadline, wait_until
from testyard.core.errors import NotMetError, UserError
from testyard.core.tables import html_table
from testyard.stomp.channel import Channel
from testyard.stomp.latency import measure_latency
from testyard.waldur import duties
from testyard.waldur.api import Waldur
from testyard.waldur.offering_users import (
    OfferingUserState,
    create_offering_user,
    delete_offering_user,
    offering_user,
    offering_user_of,
    offering_users,
    set_username,
)
from testyard.waldur.preflight import probe_stomp
from testyard.waldur.states import Side
from testyard.waldur.subscriber import Subscriber, subscribe

from WaldurLibrary.session import Session
from WaldurLibrary.showing import say, show_calls

OFFERING_USER = "offering_user"


class UsernameKeywords:
    """Offering users and their usernames."""

    _session: Session

    @keyword(tags=["Setup"])
    def remember_on(self, side: Side, **prepared: Any) -> None:
        """Keep what was prepared on a side until the next suite starts, for `Place On`.

        Args:
            side: `A` or `B`.
            prepared: UUIDs and tokens by what they are, such as `offering` and `subject`.

        Example:
            | Remember On | A | offering=${offering} | subject=${subject} |
        """
        self._session.places.setdefault(side, {}).update(prepared)

    @keyword(tags=["Getter"])
    def place_on(self, side: Side) -> dict[str, Any]:
        """What was prepared on a side, as `Remember On` was told.

        Args:
            side: `A` or `B`.

        Raises:
            UserError: Nothing was.

        Example:
            | ${place} = | Place On | B |
        """
        if side not in self._session.places:
            message = f"Nothing was prepared on {side.value}: 'Remember On' first."
            raise UserError(message)
        return self._session.places[side]

    @keyword(tags=["Setup"])
    def create_offering_user(self, side: Side, offering: str, user: str) -> str:
        """Create the account of a user at an offering by hand, without a username.

        Args:
            side: `A` or `B`.
            offering: UUID of the offering.
            user: UUID of the user.

        Returns:
            The offering user's UUID.

        Example:
            | ${account} = | Create Offering User | B | ${offering} | ${user} |
        """
        return create_offering_user(self._session.staff(side), offering, user)

    @keyword(tags=["Getter", "Wait"])
    def offering_user_of(
        self, side: Side, offering: str, user: str, *, within: timedelta = timedelta(seconds=30)
    ) -> str:
        """Wait until a user has an account at an offering; Waldur creates it after a role was granted.

        Args:
            side: `A` or `B`.
            offering: UUID of the offering.
            user: UUID of the user.
            within: Give up after this time.

        Returns:
            The offering user's UUID.

        Raises:
            NotMetError: There is none in time.

        Example:
            | ${account} = | Offering User Of | B | ${offering} | ${user} |
        """
        waldur = self._session.staff(side)
        what = f"user {user} to have an account at offering {offering} on {side.value}"
        found = wait_until(
            lambda: offering_user_of(waldur, offering, user),
            lambda account: account is not None,
            Deadline(within),
            what,
        )
        assert found is not None
        return found.uuid

    @keyword(tags=["Action"])
    def set_username(self, side: Side, account: str, username: str) -> None:
        """Say how an offering user is called on the offering's system.

        Args:
            side: `A` or `B`.
            account: UUID of the offering user.
            username: The username there.

        Example:
            | Set Username | B | ${account} | jdoe42 |
        """
        set_username(self._session.staff(side), account, username)

    @keyword(tags=["Action"])
    def delete_offering_user(self, side: Side, account: str) -> None:
        """Delete the account of a user at an offering.

        Args:
            side: `A` or `B`.
            account: UUID of the offering user.

        Example:
            | Delete Offering User | B | ${account} |
        """
        delete_offering_user(self._session.staff(side), account)

    @keyword(tags=["Assertion"])
    def offering_user_should_be(
        self, side: Side, account: str, state: OfferingUserState, *, username: str | None = None
    ) -> None:
        """Check the state, and if asked the username, of an offering user.

        Args:
            side: `A` or `B`.
            account: UUID of the offering user.
            state: The expected state.
            username: The expected username; not compared when not given.

        Raises:
            NotMetError: It is in another state, or named otherwise.

        Example:
            | Offering User Should Be | A | ${account} | OK | username=jdoe42 |
        """
        found = offering_user(self._session.staff(side), account)
        if found.state is not state or (username is not None and (found.username or "") != username):
            expected = state.value if username is None else f"{state.value} and called {username or '(nothing)'}"
            message = f"The offering user on {side.value} should be {expected}, but is {found}."
            raise NotMetError(message)

    @keyword(tags=["Assertion"])
    def token_should_show_offering_users(self, side: Side, token: Secret, offering: str, *users: str) -> None:
        """Check which accounts of an offering the owner of a token sees: these users' and no others.

        Args:
            side: `A` or `B`.
            token: Who looks.
            offering: UUID of the offering.
            users: UUIDs of the users whose accounts they should see; none when left out.

        Raises:
            NotMetError: They see others, or not all of these; draws both.

        Example:
            | Token Should Show Offering Users | B | ${manager_token} | ${offering} | ${user} |
        """
        with Waldur(self._session.staff(side).url, token.value, name=f"Waldur {side.value}") as waldur:
            seen = list(offering_users(waldur, offering))
        rows = [(account.user_username, account.username, account.state.value) for account in seen]
        title = f"Offering users seen on {side.value}: {len(rows)}"
        logger.info(html_table(title, ("user", "username", "state"), rows), html=True)
        if sorted(account.user_uuid for account in seen) != sorted(users):
            shown = ", ".join(map(str, seen)) or "none"
            message = (
                f"On {side.value} the token should show {len(users)} offering users of that offering: {shown}."
            )
            raise NotMetError(message)

    @keyword(tags=["Action"])
    def sync_usernames(self) -> bool:
        """Let the agent take over the usernames that B has given (document 001, suite 1, test 4).

        Returns:
            Whether the agent says that it changed any; it also says no when something failed.

        Example:
            | ${changed} = | Sync Usernames |
        """
        done = duties.sync_usernames(self._session.federation.agent)
        show_calls(self._session, "The agent syncs usernames", done.calls)
        say(self._session, f"The agent says that it changed {'some' if done.answer else 'no'} usernames.")
        return bool(done.answer)

    @keyword(tags=["Action"])
    def reconcile_usernames(self) -> None:
        """Let the agent do what it does every hour for usernames (document 001, suite 3, test 4).

        Example:
            | Reconcile Usernames |
        """
        done = duties.reconcile_usernames(self._session.federation.agent)
        show_calls(self._session, "The agent reconciles usernames", done.calls)

    @keyword(tags=["Setup"])
    def listen_to_offering_users(
        self, side: Side, channel: Channel, *, token: Secret, offering: str, name: str
    ) -> None:
        """Register a queue for the offering users of an offering and capture its events (document 001, suite 2).

        Args:
            side: `A` or `B`.
            channel: Captures the events.
            token: Who listens: what their roles do not allow does not arrive.
            offering: UUID of the offering.
            name: How the listener is called on Waldur; unique for the offering.

        Raises:
            UserError: Waldur offers no STOMP there.
            NotMetError: The connection was not made.

        Example:
            | ${manager} = | New Channel | manager |
            | Listen To Offering Users | B | ${manager} | token=${token} | offering=${offering} | name=inttest-ua |
        """
        federation = self._session.federation
        endpoint = probe_stomp(federation.configuration, side)
        if not endpoint.available:
            message = f"Waldur {side.value} offers no STOMP over WebSocket at {endpoint.url}: {endpoint}."
            raise UserError(message)
        subscriber = Subscriber(side, self._session.staff(side).url, token.value, offering, name)
        subscription = subscribe(federation.agent, subscriber, [OFFERING_USER], channel.handler())
        channel.connection = subscription.connection
        channel.queue = subscription.queue
        channel.object_types = subscription.object_types
        logger.info(f"{channel.name}: queue {subscription.queue} on vhost {subscription.vhost}")

    @keyword(tags=["Getter", "Evidence"])
    def event_latency(
        self,
        side: Side,
        account: str,
        channel: Channel,
        *,
        samples: int = 200,
        within: timedelta = timedelta(seconds=30),
    ) -> timedelta:
        """Measure how long it takes from changing a username until the event about it is captured.

        Args:
            side: `A` or `B`.
            account: UUID of the offering user whose username is changed; it has another one afterwards.
            channel: Where the events arrive.
            samples: How many times, at least 2.
            within: Give up on one event after this time.

        Returns:
            The 95th percentile: 19 of 20 events were captured faster.

        Raises:
            NotMetError: An event did not arrive in time.

        Example:
            | ${p95} = | Event Latency | B | ${account} | ${channel} |
        """
        waldur = self._session.staff(side)
        latency = measure_latency(
            lambda username: set_username(waldur, account, username),
            channel.capture,
            lambda event, username: event.is_about(account) and event.body.get("username") == username,
            samples=samples,
            within=within,
        )
        say(self._session, f"From PATCH to captured event on {side.value}: {latency}")
        return timedelta(milliseconds=latency.ninety_fifth_percentile)

    @keyword(tags=["Assertion"])
    def agent_should_have_made_only(self, *calls: str) -> None:
        """Check that the agent made exactly these REST calls in this test, in this order.

        Args:
            calls: Each as `side method collection`, such as `A PATCH marketplace-offering-users`; none when
                the agent should have kept quiet.

        Raises:
            NotMetError: It made others, or in another order; quotes them.

        Example:
            | Agent Should Have Made Only | B GET marketplace-offering-users | A GET marketplace-offering-users |
        """
        made = [
            f"{call.side.value} {call.method} {call.path.removeprefix('/api/').partition('/')[0]}"
            for call in self._session.calls_of_test()
        ]
        if made != list(calls):
            message = f"The agent should have called {list(calls) or 'nothing'}, but called {made or 'nothing'}."
            raise NotMetError(message)
