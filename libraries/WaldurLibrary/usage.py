"""Keywords about orders that B refuses, stuck orders, long lists and usage reports."""

from __future__ import annotations

import re
from collections import Counter
from datetime import timedelta

from robot.api.deco import keyword
from testyard.core.errors import NotMetError, UserError
from testyard.core.identifiers import hexadecimal
from testyard.waldur import duties, usage
from testyard.waldur.api import limits_text
from testyard.waldur.offering_users import offering_users
from testyard.waldur.states import OrderState, Side

from WaldurLibrary.session import Session
from WaldurLibrary.showing import say, show_calls


class UsageKeywords:
    """Orders that B refuses, stuck orders, long lists and usage reports."""

    _session: Session

    # Orders that B refuses.

    @keyword(tags=["Action"])
    def reject_order_on_b(self, order: str, comment: str) -> None:
        """Refuse a pending order on B, as B's provider.

        Args:
            order: UUID of the order on B.
            comment: Why.

        Example:
            | Reject Order On B | ${target_order} | no capacity |
        """
        self._session.federation.provider.reject(order, comment)
        say(self._session, f"B's provider rejected order {order}: {comment}")

    @keyword(tags=["Assertion"])
    def order_on_b_should_have_been_rejected(self, order: str, *, because: str) -> None:
        """Check that an order on B was rejected with a comment that B shows to the agent's user.

        Args:
            order: UUID of the order on B.
            because: The comment.

        Raises:
            NotMetError: It is in another state, or carries another comment.

        Example:
            | Order On B Should Have Been Rejected | ${target_order} | because=no capacity |
        """
        found = self._session.federation.target.get(f"marketplace-orders/{hexadecimal(order)}")
        comment = found.get("provider_rejection_comment", "")
        if found["state"] != OrderState.REJECTED.value or comment != because:
            message = (
                f"Order {order} on B should be rejected because of {because!r}, but is {found['state']} "
                f"with the comment {comment!r}."
            )
            raise NotMetError(message)

    # Usage reports.

    @keyword(tags=["Action"])
    def set_usage_on_b(self, *, months_ago: int = 0, resource: str | None = None, **amounts: float) -> None:
        """Report what the resource on B used in a month, as B's provider.

        Args:
            months_ago: 0 for this month, 1 for the one before.
            resource: UUID of the resource on A; the last one ordered when not given.
            amounts: Amount per component of B.

        Example:
            | Set Usage On B | cpu_k_hours=256 | gpu_hours=8 |
        """
        found = self._session.resource_on_b(resource)
        month = usage.billing_month(months_ago)
        usage.set_usage(self._session.staff(Side.B), found.uuid, amounts, month)
        say(self._session, f"Used on B in {month:%B %Y}: {limits_text(amounts)}")

    @keyword(tags=["Action"])
    def set_user_usage_on_b(
        self, username: str, *, months_ago: int = 0, resource: str | None = None, **amounts: float
    ) -> None:
        """Report which part of the usage on B one username caused, as B's provider.

        Args:
            username: The name on B's system.
            months_ago: 0 for this month, 1 for the one before.
            resource: UUID of the resource on A; the last one ordered when not given.
            amounts: Amount per component of B; its total must have been reported.

        Example:
            | Set User Usage On B | mia | cpu_k_hours=192 |
        """
        found = self._session.resource_on_b(resource)
        month = usage.billing_month(months_ago)
        waldur = self._session.staff(Side.B)
        try:
            usage.set_user_usage(waldur, found.uuid, username, amounts, month)
        except LookupError as problem:
            raise UserError(problem.args[0]) from None
        say(self._session, f"Used on B by {username} in {month:%B %Y}: {limits_text(amounts)}")

    @keyword(tags=["Action"])
    def report_usage(self, *, months: int = 1) -> None:
        """Let the agent tell A what B has recorded, once, as its mode `report` does every half hour.

        Args:
            months: How many months back, this one included; the agent's own are 2 (`reporting_periods`).

        Example:
            | Report Usage |
            | Report Usage | months=2 |
        """
        done = usage.report_usage(self._session.federation.agent, months)
        show_calls(self._session, "The agent reports usage", done.calls)

    @keyword(tags=["Assertion"])
    def usage_should_be(
        self, side: Side, *, months_ago: int = 0, resource: str | None = None, **amounts: float
    ) -> None:
        """Check that a resource used exactly this in a month: these components and no others.

        Args:
            side: On which Waldur.
            months_ago: 0 for this month, 1 for the one before.
            resource: UUID of the resource on A; the last one ordered when not given.
            amounts: Amount per component; none when nothing should have been reported.

        Raises:
            NotMetError: The usage differs.

        Example:
            | Usage Should Be | A | node_hours=6 |
            | Usage Should Be | A | months_ago=2 |
        """
        month = usage.billing_month(months_ago)
        found = usage.usage_of(self._session.waldur(side), self._session.resource_on(side, resource).uuid, month)
        if found != amounts:
            message = (
                f"The usage on {side.value} in {month:%B %Y} should be {limits_text(amounts)}, "
                f"but is {limits_text(found)}."
            )
            raise NotMetError(message)

    @keyword(tags=["Assertion"])
    def user_usage_should_be(
        self, side: Side, component: str, *, months_ago: int = 0, resource: str | None = None, **amounts: float
    ) -> None:
        """Check which part of a usage each username caused: these and no others.

        Args:
            side: On which Waldur.
            component: The component, as that side calls it.
            months_ago: 0 for this month, 1 for the one before.
            resource: UUID of the resource on A; the last one ordered when not given.
            amounts: Amount per username; none when nobody's part should have been reported.

        Raises:
            NotMetError: The parts differ.

        Example:
            | User Usage Should Be | A | node_hours | mia=3.5 | max=2.5 |
        """
        month = usage.billing_month(months_ago)
        uuid = self._session.resource_on(side, resource).uuid
        found, _ = usage.user_usage_of(self._session.waldur(side), uuid, component, month)
        if found != amounts:
            message = (
                f"The usage of {component} on {side.value} in {month:%B %Y} by user should be "
                f"{limits_text(amounts)}, but is {limits_text(found)}."
            )
            raise NotMetError(message)

    @keyword(tags=["Assertion"])
    def user_usage_should_belong_to(
        self, side: Side, component: str, *, resource: str | None = None, **accounts: str
    ) -> None:
        """Check to which offering users a side ascribes this month's usage, by username: to these and no others.

        Args:
            side: On which Waldur.
            component: The component, as that side calls it.
            resource: UUID of the resource on A; the last one ordered when not given.
            accounts: UUID of the offering user per username.

        Raises:
            NotMetError: It belongs to others.

        Example:
            | User Usage Should Belong To | A | node_hours | mia=${account} |
        """
        uuid = self._session.resource_on(side, resource).uuid
        _, found = usage.user_usage_of(self._session.waldur(side), uuid, component, usage.billing_month())
        expected = {username: hexadecimal(account) for username, account in accounts.items()}
        if found != expected:
            message = (
                f"The usage of {component} on {side.value} should belong to the offering users "
                f"{expected or 'of nobody'}, but belongs to {found or 'nobody'}."
            )
            raise NotMetError(message)

    # Stuck orders.

    @keyword(tags=["Action"])
    def reconcile_orders(self, *, stuck_for: timedelta = timedelta(minutes=30)) -> None:
        """Let the agent process the open orders that nobody has touched for some time, as it does every hour.

        Args:
            stuck_for: Orders changed later than that are left alone; whole minutes, the agent's own are 30.

        Example:
            | Reconcile Orders |
            | Reconcile Orders | stuck_for=0s |
        """
        done = duties.reconcile_orders(self._session.federation.agent, stuck_for)
        show_calls(self._session, "The agent looks for stuck orders", done.calls)

    @keyword(tags=["Assertion"])
    def agent_should_not_have_called_about(self, uuid: str) -> None:
        """Check that no REST call of the agent in this test named an object.

        Args:
            uuid: The object's UUID, hex or dashed.

        Raises:
            NotMetError: A call did; quotes the calls.

        Example:
            | Agent Should Not Have Called About | ${order} |
        """
        made = [call for call in self._session.calls_of_test() if hexadecimal(uuid) in call.path.replace("-", "")]
        if made:
            calls = ", ".join(f"{call.side.value} {call.method} {call.path}" for call in made)
            message = f"The agent should have left {uuid} alone, but called {calls}."
            raise NotMetError(message)

    # Long lists.

    @keyword(tags=["Getter"])
    def organisation_of_the_agent_on_b(self) -> str:
        """The organisation on B for which the agent orders, as its configuration says.

        Returns:
            Its UUID.

        Example:
            | ${organisation} = | Organisation Of The Agent On B |
        """
        return self._session.federation.configuration.backend_settings.target_customer_uuid

    @keyword(tags=["Assertion"])
    def agent_should_have_called_once_for_each(self, side: Side, method: str, path: str, *uuids: str) -> None:
        """Check that the agent made one kind of call in this test for these objects, once for each, and no others.

        Args:
            side: Which Waldur.
            method: GET, POST, PATCH…
            path: The path, with `*` where the object's UUID stands; a query is not compared.
            uuids: The objects, hex or dashed; none when there should have been no such call.

        Raises:
            NotMetError: Calls are missing, or there were others; counts both and names the first of them.

        Example:
            | Agent Should Have Called Once For Each | B | GET | /api/marketplace-orders/*/ | @{orders} |
        """
        before, _, after = path.partition("*")
        pattern = re.compile(re.escape(before) + "([0-9a-f-]{32,36})" + re.escape(after))
        called = Counter(
            hexadecimal(found[1])
            for call in self._session.calls_of_test()
            if call.side is side
            and call.method == method
            and (found := pattern.fullmatch(call.path.partition("?")[0]))
        )
        expected = Counter(map(hexadecimal, uuids))
        differences = {"missing": expected - called, "too many": called - expected}
        if called != expected:
            told = "; ".join(
                f"{sum(calls.values())} {kind}, such as the one for {min(calls)}"
                for kind, calls in differences.items()
                if calls
            )
            message = f"The agent should have called {method} {path} on {side.value} {len(uuids)} times: {told}."
            raise NotMetError(message)

    @keyword(tags=["Assertion"])
    def usernames_should_agree(self, number: int) -> None:
        """Check that both sides have so many offering users and call each of them by the same username.

        Args:
            number: How many on each side.

        Raises:
            NotMetError: There are more or fewer, or names differ; names the first of these.

        Example:
            | Usernames Should Agree | 250 |
        """
        federation = self._session.federation
        names = {
            side: {
                account.user_username: account.username
                for account in offering_users(self._session.staff(side), federation.offering_on(side))
            }
            for side in Side
        }
        found = {side: len(known) for side, known in names.items()}
        if set(found.values()) != {number}:
            told = " and ".join(f"{count} on {side.value}" for side, count in found.items())
            message = f"Each side should have {number} offering users, but there are {told}."
            raise NotMetError(message)
        differing = sorted(user for user, name in names[Side.A].items() if names[Side.B].get(user) != name)
        if differing:
            first = differing[0]
            message = (
                f"{len(differing)} usernames differ, such as {first}: {names[Side.A][first]} on A, "
                f"{names[Side.B].get(first)} on B."
            )
            raise NotMetError(message)

    @keyword(tags=["Assertion"])
    def orders_should_be(self, side: Side, **numbers: int) -> None:
        """Check how many orders of the federated offering are in each state, over all pages of the list.

        Args:
            side: On which Waldur.
            numbers: How many, by state; a state that is not named has none.

        Raises:
            NotMetError: The numbers differ.

        Example:
            | Orders Should Be | A | done=6 | executing=244 |
        """
        offering = hexadecimal(self._session.federation.offering_on(side))
        orders = self._session.staff(side).all("marketplace-orders", offering_uuid=offering, field="state")
        found = Counter(order["state"] for order in orders)
        if found != numbers:
            message = f"The orders on {side.value} should be {limits_text(numbers)}, but are {limits_text(found)}."
            raise NotMetError(message)
