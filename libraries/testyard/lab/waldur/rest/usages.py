"""Usage reports and limits per user (``/api/marketplace-component-usages/`` and its relatives)."""

from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple, TypeVar

from testyard.lab.waldur.exchange import ApiError, Reply, Request, created, empty, json_reply
from testyard.lab.waldur.identifiers import timestamp
from testyard.lab.waldur.model import (
    ComponentUsage,
    ComponentUserUsage,
    ComponentUserUsageLimit,
    OfferingUser,
    Resource,
)
from testyard.lab.waldur.pagination import listing, selected
from testyard.lab.waldur.payload import REQUIRED, Payload
from testyard.lab.waldur.represent.usages import usage_details, user_limit_details, user_usage_details
from testyard.lab.waldur.rest.lookup import find, narrowed
from testyard.lab.waldur.routing import Endpoint
from testyard.lab.waldur.world import World

UsageT = TypeVar("UsageT", ComponentUsage, ComponentUserUsage)


def list_usages(world: World, request: Request) -> Reply:
    """GET marketplace-component-usages/."""
    rows = [
        usage
        for usage in narrowed(world.store.component_usages, "resource", request.identifiers("resource_uuid"))
        if world.permissions.sees_resource(request.caller, usage.resource) and _asked_for(request, usage, usage)
    ]
    reporters = _numbers(world)
    return listing(request, rows, lambda usage: usage_details(usage, reporters))


def get_usage(world: World, request: Request) -> Reply:
    """GET marketplace-component-usages/{uuid}/."""
    return json_reply(selected(request, usage_details(_find_usage(world, request), _numbers(world))))


def set_usage(world: World, request: Request) -> Reply:
    """POST marketplace-component-usages/set_usage/ {resource | plan_period, usages, date?} (sample ``set_usage``).

    Reports of one month replace each other. The double's plan periods have the UUID of their resource.
    """
    payload = Payload(request.body)
    field = "resource" if "resource" in payload else "plan_period"
    resource = payload.linked(field, ("marketplace-resources",), world.store.resources.get)
    items = payload.mappings("usages")
    moment = _moment(payload)
    payload.check()
    if resource is None:
        raise ApiError(400, {field: [REQUIRED]})
    offering = resource.offering
    world.permissions.require(request.caller, "RESOURCE.SET_USAGE", offering, offering.customer)
    unknown = sorted({str(item.get("type")) for item in items} - offering.components.keys())
    if unknown:
        raise ApiError(400, [f"Components are not found: {', '.join(unknown)}."])
    amounts = [_amount(item, "amount") for item in items]
    for item, amount in zip(items, amounts, strict=True):
        usage = _monthly(world, resource, item["type"], moment)
        usage.usage = amount
        usage.description = str(item.get("description", ""))
        usage.recurring = bool(item.get("recurring", False))
        usage.date = timestamp(moment)
        usage.modified_by = request.caller
        world.store.touch(usage)
    return empty(201)


def set_user_usage(world: World, request: Request) -> Reply:
    """POST .../set_user_usage/ {username, usage, user?} (sample ``set_user_usage``)."""
    usage = _find_reportable_usage(world, request)
    _store_report(world, usage, _read_report(world, request.body))
    return empty(201)


def set_user_usages(world: World, request: Request) -> Reply:
    """POST .../set_user_usages/ {usages: [{username, usage, user?, date?}]}."""
    usage = _find_reportable_usage(world, request)
    payload = Payload(request.body)
    payload.raw("usages", required=True)
    items = payload.mappings("usages")
    payload.check()
    for report in [_read_report(world, item) for item in items]:
        _store_report(world, usage, report)
    return empty(201)


def list_user_usages(world: World, request: Request) -> Reply:
    """GET marketplace-component-user-usages/; ``component_usage__billing_period`` has two underscores twice."""
    username = request.parameter("username")
    rows = [
        user_usage
        for user_usage in narrowed(
            world.store.component_user_usages, "resource", request.identifiers("resource_uuid")
        )
        if world.permissions.sees_resource(request.caller, user_usage.component_usage.resource)
        and (username is None or user_usage.username == username)
        and _asked_for(request, user_usage.component_usage, user_usage)
    ]
    return listing(request, rows, lambda user_usage: user_usage_details(request, user_usage))


def list_user_limits(world: World, request: Request) -> Reply:
    """GET component-user-usage-limits/."""
    username, component = request.parameter("username"), request.parameter("component_type")
    rows = [
        limit
        for limit in narrowed(
            world.store.component_user_usage_limits, "resource", request.identifiers("resource_uuid")
        )
        if world.permissions.sees_resource(request.caller, limit.resource)
        and (username is None or limit.user.username == username)
        and (component is None or limit.component.type == component)
    ]
    return listing(request, rows, lambda limit: user_limit_details(request, limit))


def create_user_limit(world: World, request: Request) -> Reply:
    """POST component-user-usage-limits/ {resource, component, user, limit}: UUIDs or links."""
    payload = Payload(request.body)
    resource = payload.linked(
        "resource",
        ("marketplace-resources", "marketplace-provider-resources"),
        world.store.resources.get,
    )
    user = payload.linked("user", ("marketplace-offering-users",), world.store.offering_users.get)
    component_identifier = payload.link("component", "component")
    amount = payload.number("limit", required=True)
    payload.check()
    if resource is None or user is None or amount is None:
        raise ApiError(400, {"resource": [REQUIRED]})
    world.permissions.require(request.caller, "RESOURCE.SET_LIMITS", resource.project, resource.project.customer)
    component = next(
        (item for item in resource.offering.components.values() if item.uuid == component_identifier), None
    )
    if component is None:
        raise ApiError(400, {"component": ["Component does not exist."]})
    limit = world.store.component_user_usage_limits.add(
        ComponentUserUsageLimit(resource=resource, component=component, user=user, limit=f"{amount:.2f}")
    )
    return created(user_limit_details(request, limit))


def delete_user_limit(world: World, request: Request) -> Reply:
    """DELETE component-user-usage-limits/{uuid}/."""
    limit = find(
        request,
        world.store.component_user_usage_limits,
        lambda limit: world.permissions.sees_resource(request.caller, limit.resource),
    )
    world.permissions.require(
        request.caller, "RESOURCE.SET_LIMITS", limit.resource.project, limit.resource.project.customer
    )
    world.store.component_user_usage_limits.remove(limit)
    return empty(204)


def _find_usage(world: World, request: Request) -> ComponentUsage:
    return find(
        request,
        world.store.component_usages,
        lambda usage: world.permissions.sees_resource(request.caller, usage.resource),
    )


def _find_reportable_usage(world: World, request: Request) -> ComponentUsage:
    usage = _find_usage(world, request)
    offering = usage.resource.offering
    world.permissions.require(request.caller, "RESOURCE.SET_USAGE", offering, offering.customer)
    return usage


def _numbers(world: World) -> dict[str, int]:
    return {user.uuid: number for number, user in enumerate(world.store.users, start=1)}


def _moment(payload: Payload) -> datetime:
    moment = payload.moment("date")
    return moment.astimezone(UTC) if moment else datetime.now(UTC)


def _amount(item: dict[str, Any], name: str) -> str:
    """An amount with two decimals, as Waldur keeps it."""
    try:
        amount = Decimal(str(item.get(name, "0")))
    except InvalidOperation:
        raise ApiError(400, {name: ["A valid number is required."]}) from None
    exponent = amount.as_tuple().exponent
    if isinstance(exponent, int) and exponent < -2:
        raise ApiError(400, {name: ["Ensure that there are no more than 2 decimal places."]})
    return f"{amount:.2f}"


def _monthly(world: World, resource: Resource, component_type: str, moment: datetime) -> ComponentUsage:
    period = moment.strftime("%Y-%m-01")
    for usage in world.store.component_usages.where("resource", resource.uuid).values():
        if usage.component.type == component_type and usage.billing_period == period:
            return usage
    return world.store.component_usages.add(
        ComponentUsage(
            resource=resource,
            component=resource.offering.components[component_type],
            billing_period=period,
            date=timestamp(moment),
        )
    )


class _Report(NamedTuple):
    username: str
    amount: str
    user: OfferingUser | None
    moment: datetime


def _read_report(world: World, body: dict[str, Any]) -> _Report:
    payload = Payload(body)
    username = payload.text("username", required=True, blank=False)
    user = payload.linked("user", ("marketplace-offering-users",), world.store.offering_users.get, required=False)
    moment = _moment(payload)
    payload.check()
    return _Report(username, _amount(body, "usage"), user, moment)


def _store_report(world: World, usage: ComponentUsage, report: _Report) -> None:
    existing = world.store.component_user_usages.where("component_usage", usage.uuid).values()
    user_usage = next((each for each in existing if each.username == report.username), None)
    if user_usage is None:
        user_usage = world.store.component_user_usages.add(
            ComponentUserUsage(component_usage=usage, username=report.username, usage=report.amount)
        )
    user_usage.usage, user_usage.date = report.amount, timestamp(report.moment)
    user_usage.user = report.user or user_usage.user
    world.store.touch(user_usage)


def _asked_for(request: Request, usage: ComponentUsage, dated: UsageT) -> bool:
    """Whether a usage passes the filters on period, date and owner."""
    period = request.parameter("billing_period") or request.parameter("component_usage__billing_period")
    year, month = request.number("billing_period_year"), request.number("billing_period_month")
    after, before = request.parameter("date_after"), request.parameter("date_before")
    offerings, projects = request.identifiers("offering_uuid"), request.identifiers("project_uuid")
    customers = request.identifiers("customer_uuid")
    component = request.parameter("type")
    resource = usage.resource
    return (
        (period is None or usage.billing_period == period)
        and (year is None or int(usage.billing_period[:4]) == year)
        and (month is None or int(usage.billing_period[5:7]) == month)
        and (after is None or dated.date[:10] >= after)
        and (before is None or dated.date[:10] <= before)
        and (offerings is None or resource.offering.uuid in offerings)
        and (projects is None or resource.project.uuid in projects)
        and (customers is None or resource.project.customer.uuid in customers)
        and (component is None or usage.component.type == component)
    )


ENDPOINTS = {
    "marketplace-component-usages": Endpoint(
        "ComponentUsage",
        collection={"GET": list_usages},
        item={"GET": get_usage},
        collection_actions={"set_usage": {"POST": set_usage}},
        item_actions={
            "set_user_usage": {"POST": set_user_usage},
            "set_user_usages": {"POST": set_user_usages},
        },
    ),
    "marketplace-component-user-usages": Endpoint("ComponentUserUsage", collection={"GET": list_user_usages}),
    "component-user-usage-limits": Endpoint(
        "ComponentUserUsageLimit",
        collection={"GET": list_user_limits, "POST": create_user_limit},
        item={"DELETE": delete_user_limit},
    ),
}
