"""Keywords about the agent as a daemon, and about Waldurs that do not answer."""

from __future__ import annotations

from datetime import timedelta
from functools import cached_property
from pathlib import Path

from robot.api import logger
from robot.api.deco import keyword
from testyard.core.deadline import Deadline, wait_until
from testyard.core.errors import NotMetError, UserError
from testyard.core.identifiers import same_identifier
from testyard.core.tables import html_table
from testyard.waldur import membership
from testyard.waldur.api import limits_text
from testyard.waldur.attempt import Attempt
from testyard.waldur.calls import Call
from testyard.waldur.daemon import AgentDaemon, AgentMode
from testyard.waldur.states import OrderState, Role, Side
from testyard.waldur.usage import billing_month, usage_of

from WaldurLibrary.session import Session
from WaldurLibrary.showing import say, show_calls

# A port that nothing listens on: it belongs to TCPMUX, which no system starts any more.
NOBODY = "http://127.0.0.1:1"
ORDERS = "/marketplace-orders/"


class DaemonKeywords:
    """Keywords about the agent as a daemon, and about Waldurs that do not answer."""

    _session: Session

    # Waldurs that do not answer.

    @keyword(tags=["Getter"])
    def address_where_nobody_answers(self) -> str:
        """An address of this machine at which every connection is refused.

        Example:
            | ${url} = | Address Where Nobody Answers |
        """
        return NOBODY

    @keyword(tags=["Action"])
    def let_the_agent_try(self, *, within: timedelta = timedelta(seconds=30)) -> list[Call]:
        """Let the agent go round once as its mode `order_process` does, which keeps every error to itself.

        Args:
            within: How long the round may take: the agent waits for B without end.

        Returns:
            The REST calls it made, with side, method, path, status and took.

        Raises:
            NotMetError: The agent hangs.

        Example:
            | Let The Agent Try |
        """
        self._start_attempt()
        return self.agent_should_go_on(within=within)

    @keyword(tags=["Assertion", "Wait"])
    def agent_should_hang(self, *, quiet: timedelta) -> None:
        """Start a round of the agent and check that it does not end; `Agent Should Go On` waits for its end.

        Args:
            quiet: For how long.

        Raises:
            NotMetError: The round has ended.

        Example:
            | Agent Should Hang | quiet=400ms |
        """
        say(self._session, self._start_attempt().keep_hanging(Deadline(quiet)))

    @keyword(tags=["Assertion", "Wait"])
    def agent_should_go_on(self, *, within: timedelta = timedelta(seconds=30)) -> list[Call]:
        """Wait until the round that the agent is in has ended.

        Args:
            within: Give up after this time.

        Returns:
            The REST calls of the round.

        Raises:
            NotMetError: It still hangs.

        Example:
            | Agent Should Go On | within=30s |
        """
        if not self._attempts:
            message = "The agent is in no round: 'Let The Agent Try' or 'Agent Should Hang' first."
            raise UserError(message)
        calls = self._attempts[-1].wait(Deadline(within))
        self._attempts.pop()
        show_calls(self._session, "One round of the agent's order_process mode", calls)
        return calls

    @keyword(tags=["Setup"])
    def agent_should_be_at_rest(self, *, within: timedelta = timedelta(seconds=30)) -> None:
        """Wait until no round of the agent is going on; does nothing when there is none.

        Args:
            within: Give up after this time.

        Raises:
            NotMetError: The agent hangs although every fault is over.

        Example:
            | Agent Should Be At Rest |
        """
        while self._attempts:
            self._attempts.pop().wait(Deadline(within))

    # Orders.

    @keyword(tags=["Action"])
    def look_at_resource_of(self, order: str) -> None:
        """Let the keywords about resources mean the one of this order, until the next order.

        Args:
            order: UUID of the order on A.

        Example:
            | Look At Resource Of | ${order} |
            | Resource Should Be | B | OK |
        """
        self._session.use_resource(self._session.federation.source.order(order).marketplace_resource_uuid)

    @keyword(tags=["Assertion"])
    def agent_should_have_left_alone(self, order: str) -> None:
        """Check that in this test the agent did not even look at A's orders, and that this one is untouched.

        Args:
            order: UUID of the order on A.

        Raises:
            NotMetError: The agent called A about orders, or the order's state, backend id or error message is
                not that of an order that nobody has seen.

        Example:
            | Agent Should Have Left Alone | ${order} |
        """
        calls = [it for it in self._session.calls_of_test() if it.side is Side.A and ORDERS in it.path]
        if calls:
            made = ", ".join(f"{call.method} {call.path}" for call in calls)
            message = f"The agent should have left A's orders alone, but called: {made}."
            raise NotMetError(message)
        found = self._session.federation.source.order(order)
        if found.state is not OrderState.PENDING_PROVIDER or found.backend_id or found.error_message:
            message = (
                f"Order {order} on A should be untouched, but is {found.state.value}, with the backend id "
                f"{found.backend_id!r} and the error message {found.error_message!r}."
            )
            raise NotMetError(message)

    @keyword(tags=["Assertion", "Wait"])
    def order_should_become(
        self, order: str, state: OrderState, *, within: timedelta = timedelta(seconds=30)
    ) -> None:
        """Wait until an order on A is in a state.

        Args:
            order: UUID of the order.
            state: The state.
            within: Give up after this time.

        Raises:
            NotMetError: It is in another one all the time.

        Example:
            | Order Should Become | ${order} | done | within=30s |
        """
        source = self._session.federation.source
        what = f"order {order} on A to be {state.value}"
        wait_until(lambda: source.order(order).state.value, lambda it: it == state.value, Deadline(within), what)

    @keyword(tags=["Assertion", "Wait"])
    def order_should_be_placed_on_b(self, order: str, *, within: timedelta = timedelta(seconds=30)) -> str:
        """Wait until the agent has placed an order on B for an order on A.

        Args:
            order: UUID of the order on A.
            within: Give up after this time.

        Returns:
            UUID of the order on B, as the agent stored it.

        Raises:
            NotMetError: The order on A carries no backend id in time.

        Example:
            | ${target_order} = | Order Should Be Placed On B | ${order} |
        """
        source = self._session.federation.source
        what = f"order {order} on A to carry the UUID of an order on B"
        return str(wait_until(lambda: source.order(order).backend_id, bool, Deadline(within), what))

    # What else a daemon brings about.

    @keyword(tags=["Assertion", "Wait"])
    def user_should_join_the_project_on_b(
        self, user: str, role: Role, *, within: timedelta = timedelta(seconds=30)
    ) -> None:
        """Wait until a user has exactly one role in the project of the resource on B.

        Args:
            user: UUID of the user on B.
            role: The role.
            within: Give up after this time.

        Raises:
            NotMetError: The user has no role there, another one, or several.

        Example:
            | User Should Join The Project On B | ${user} | PROJECT_MEMBER |
        """
        project = self._session.resource_on_b().project_uuid
        target = self._session.federation.target

        def roles() -> list[str]:
            members = membership.members(target, project)
            return [it.role_name for it in members if same_identifier(it.user_uuid, user)]

        what = f"user {user} to be in the project on B as {role.value}"
        wait_until(roles, lambda found: found == [role.value], Deadline(within), what)

    @keyword(tags=["Assertion", "Wait"])
    def usage_on_a_should_become(self, *, within: timedelta = timedelta(seconds=30), **amounts: float) -> None:
        """Wait until A knows exactly this usage of the last resource ordered, in this month.

        Args:
            within: Give up after this time.
            amounts: Amount per component of A.

        Raises:
            NotMetError: The usage differs all the time.

        Example:
            | Usage On A Should Become | node_hours=2 | within=30s |
        """
        source, resource = self._session.federation.source, self._session.resource_on_a().uuid
        month = billing_month()
        what = f"the usage on A in {month:%B %Y} to be {limits_text(amounts)}"
        wait_until(lambda: usage_of(source, resource, month), lambda it: it == amounts, Deadline(within), what)

    # The agent as a daemon.

    @keyword(tags=["Action"])
    def start_agent_daemon(self, mode: AgentMode, configuration: str) -> None:
        """Start the agent's own command in one of its modes, as a child process that cannot outlive the run.

        Args:
            mode: `order_process`, `report`, `membership_sync` or `event_process`.
            configuration: The agent's YAML file.

        Raises:
            UserError: A daemon in this mode runs already.

        Example:
            | Start Agent Daemon | order_process | ${configuration} |
        """
        if mode in self._daemons:
            message = f"A daemon in the mode {mode.value} was started already: 'Agent Daemon Should End' first."
            raise UserError(message)
        daemon = AgentDaemon(mode, Path(configuration))
        self._daemons[mode] = daemon
        say(self._session, f"waldur_site_agent -m {mode.value} -c {configuration}: process {daemon.pid}")

    @keyword(tags=["Assertion", "Wait"])
    def agent_daemon_should_say(
        self, mode: AgentMode, text: str, *, within: timedelta = timedelta(seconds=30)
    ) -> None:
        """Wait until a daemon's log contains a text.

        Args:
            mode: Its mode.
            text: Part of a line.
            within: Give up after this time.

        Raises:
            NotMetError: It does not say so, or has ended; quotes what it said last.

        Example:
            | Agent Daemon Should Say | event_process | Signal handlers set |
        """
        self._daemon(mode).wait_until_said(text, Deadline(within))

    @keyword(tags=["Assertion", "Wait"])
    def agent_daemon_should_end(self, mode: AgentMode, *, within: timedelta = timedelta(seconds=30)) -> None:
        """Send SIGTERM to a daemon and check that it ends, as its mode does; its log is drawn as a table.

        `event_process` shuts down gracefully, with status 0; the signal itself ends the other modes.

        Args:
            mode: Its mode.
            within: Give up after this time.

        Raises:
            NotMetError: It had ended already, does not end in time, or ends otherwise.

        Example:
            | Agent Daemon Should End | order_process |
        """
        daemon = self._daemon(mode)
        status = daemon.end(Deadline(within))
        self._put_away(mode)
        if status != mode.status_after_sigterm:
            message = (
                f"The daemon {mode.value} should end on SIGTERM with status {mode.status_after_sigterm}, "
                f"but ended with {status}."
            )
            raise NotMetError(message)

    @keyword(tags=["Setup"])
    def put_agent_daemons_away(self) -> None:
        """End every daemon that still runs and draw its log; does nothing when there is none.

        Example:
            | Put Agent Daemons Away |
        """
        for mode in list(self._daemons):
            self._put_away(mode)

    def _daemon(self, mode: AgentMode) -> AgentDaemon:
        if mode not in self._daemons:
            message = f"There is no daemon in the mode {mode.value}: 'Start Agent Daemon' first."
            raise UserError(message)
        return self._daemons[mode]

    def _put_away(self, mode: AgentMode) -> None:
        daemon = self._daemons.pop(mode)
        rows = [(line.level, line.text) for line in daemon.log()]
        daemon.close()
        title = f"What the daemon {mode.value} said: {len(rows)} lines"
        logger.info(html_table(title, ("level", "text"), rows, folded=True), html=True)

    def _start_attempt(self) -> Attempt:
        self._attempts[:] = [it for it in self._attempts if not it.ended]
        if self._attempts:
            message = "The agent is in a round already: 'Agent Should Go On' first."
            raise UserError(message)
        attempt = Attempt(self._session.federation.agent)
        self._attempts.append(attempt)
        return attempt

    @cached_property
    def _daemons(self) -> dict[AgentMode, AgentDaemon]:
        """The running daemons."""
        return {}

    @cached_property
    def _attempts(self) -> list[Attempt]:
        """The round that the agent is in; one at most."""
        return []
