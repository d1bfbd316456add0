"""Usage: how much of each component a resource used in a month, in all and by user, and how A learns it from B."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta

from testyard.core.identifiers import hexadecimal
from testyard.waldur.agent import SiteAgent
from testyard.waldur.api import Waldur
from testyard.waldur.duties import Done, perform

USAGES = "marketplace-component-usages"
USER_USAGES = "marketplace-component-user-usages"

Amounts = dict[str, float]


def billing_month(months_ago: int = 0, today: date | None = None) -> date:
    """The first day of this month (UTC), or of an earlier one.

    Args:
        months_ago: 0 is this month, 1 the one before.
        today: Instead of the clock's.

    Example:
        >>> billing_month(2, date(2026, 1, 31))
        datetime.date(2025, 11, 1)
    """
    first = (today or datetime.now(UTC).date()).replace(day=1)
    for _ in range(months_ago):
        first = (first - timedelta(days=1)).replace(day=1)
    return first


def set_usage(waldur: Waldur, resource: str, amounts: Mapping[str, float], month: date) -> None:
    """Report what a resource used in a month, as its provider; a later report of that month replaces this one.

    Args:
        waldur: As a user who may report usage of the offering.
        resource: The resource's UUID.
        amounts: Amount per component.
        month: Any day of the month.
    """
    usages = [{"type": component, "amount": f"{amount:.2f}"} for component, amount in amounts.items()]
    body = {"resource": hexadecimal(resource), "date": _start(month), "usages": usages}
    waldur.post(f"{USAGES}/set_usage", body)


def set_user_usage(
    waldur: Waldur, resource: str, username: str, amounts: Mapping[str, float], month: date
) -> None:
    """Report which part of a reported usage one username caused.

    Args:
        waldur: As a user who may report usage of the offering.
        resource: The resource's UUID.
        username: The name on the offering's system.
        amounts: Amount per component; each component's total must have been reported.
        month: Any day of the month.

    Raises:
        LookupError: Nothing was reported of a component in that month.
    """
    reported = {found["type"]: found["uuid"] for found in waldur.all(USAGES, **_of(resource, month))}
    for component, amount in amounts.items():
        if component not in reported:
            message = f"No usage of {component} was reported for {month:%B %Y}, so no user's part can be."
            raise LookupError(message)
        part = {"username": username, "usage": f"{amount:.2f}", "date": _start(month)}
        waldur.post(f"{USAGES}/{reported[component]}/set_user_usages", {"usages": [part]})


def usage_of(waldur: Waldur, resource: str, month: date) -> Amounts:
    """What a resource used in a month by component; nothing reported is no component, not zero."""
    amounts: Amounts = {}
    for found in waldur.all(USAGES, **_of(resource, month)):
        amounts[found["type"]] = amounts.get(found["type"], 0) + float(found["usage"])
    return amounts


def user_usage_of(waldur: Waldur, resource: str, component: str, month: date) -> tuple[Amounts, dict[str, str]]:
    """Which part of a resource's usage of a component each username caused.

    Returns:
        The amounts by username, and the UUIDs of the offering users to whom Waldur ascribes them, by username.
    """
    period = month.replace(day=1).isoformat()
    query = {"resource_uuid": hexadecimal(resource), "component_usage__billing_period": period}
    amounts: Amounts = {}
    accounts: dict[str, str] = {}
    for found in waldur.all(USER_USAGES, **query):
        if found["component_type"] != component:
            continue
        username = found["username"]
        amounts[username] = amounts.get(username, 0) + float(found["usage"])
        if found.get("user"):
            accounts[username] = found["user"].rstrip("/").rpartition("/")[2]
    return amounts, accounts


def report_usage(agent: SiteAgent, months: int) -> Done:
    """Do what the agent does every half hour in its mode ``report``: tell A the usage that B has recorded.

    Args:
        agent: The agent.
        months: How many months back from now, this one included; the agent's own are 2
            (``reporting_periods`` of its configuration).
    """
    if agent.processor is None:
        agent.start()

    def report() -> None:
        agent.modules.processors.OfferingReportProcessor(
            agent.offering,
            agent.client,
            agent.processor.timezone,
            resource_backend=agent.backend,
            reporting_periods=months,
        ).process_offering()

    return perform(agent, report)


def _of(resource: str, month: date) -> dict[str, str]:
    return {"resource_uuid": hexadecimal(resource), "billing_period": month.replace(day=1).isoformat()}


def _start(month: date) -> str:
    return datetime(month.year, month.month, 1, tzinfo=UTC).isoformat()
