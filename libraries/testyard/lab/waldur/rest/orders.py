"""Orders (``/api/marketplace-orders/``)."""

from collections.abc import Iterable, Sequence
from typing import Any

from testyard.lab.waldur import orders
from testyard.lab.waldur.exchange import ApiError, Reply, Request, created, empty, json_reply, to_json
from testyard.lab.waldur.faults import Fault
from testyard.lab.waldur.identifiers import timestamp
from testyard.lab.waldur.machines import OrderAction, OrderState
from testyard.lab.waldur.model import Offering, Order, Plan, Project
from testyard.lab.waldur.pagination import listing, selected
from testyard.lab.waldur.payload import NULL, REQUIRED, Payload
from testyard.lab.waldur.permissions import sees_everything
from testyard.lab.waldur.represent.orders import order_created, order_details
from testyard.lab.waldur.rest.lookup import find_order, narrowed
from testyard.lab.waldur.routing import Endpoint
from testyard.lab.waldur.world import World

APPROVED_DETAIL = "Order has been approved."
"""The recorded body is empty; waldur-api-client 8.1.2 requires ``detail``."""

REJECTED_DETAIL = "Order has been rejected."


def list_orders(world: World, request: Request) -> Reply:
    """GET marketplace-orders/."""

    def details(order: Order) -> dict[str, Any]:
        return order_details(request, order)

    def serialise(rows: Sequence[Order]) -> list[bytes]:
        return world.store.fragments("order", request.base, rows, lambda order: to_json(details(order)))

    return listing(request, _chosen(world, request), details, serialise)


def create_order(world: World, request: Request) -> Reply:
    """POST marketplace-orders/ (samples ``order_create_*``)."""
    payload = Payload(request.body)
    caller = request.caller
    store = world.store
    project = payload.linked("project", ("projects",), lambda uuid: _visible_project(world, request, uuid))
    offering = payload.linked(
        "offering",
        ("marketplace-public-offerings", "marketplace-provider-offerings"),
        lambda uuid: _visible_offering(world, request, uuid),
    )
    plan_link = payload.link("plan", "plans", "marketplace-plans", required=False)
    attributes = payload.mapping("attributes")
    limits = payload.mapping("limits")
    callback_url = payload.optional_text("callback_url")
    request_comment = payload.optional_text("request_comment")
    if "plan" in payload and plan_link is None and payload.raw("plan") is None:
        payload.fail("plan", NULL)
    payload.check()
    if offering is None or project is None:
        raise AssertionError("check() refuses a body without offering or project")
    plan = _plan(offering, plan_link)
    order = orders.place_creation(
        world, caller, offering=offering, project=project, plan=plan, attributes=attributes, limits=limits
    )
    order.callback_url, order.request_comment = callback_url, request_comment
    store.touch(order)
    return created(order_created(request, order))


def get_order(world: World, request: Request) -> Reply:
    """GET marketplace-orders/{uuid}/."""
    order = find_order(world, request)
    return json_reply(selected(request, order_details(request, order)))


def delete_order(world: World, request: Request) -> Reply:
    """DELETE marketplace-orders/{uuid}/ while the consumer has not approved."""
    order = find_order(world, request)
    world.permissions.require(request.caller, "ORDER.DESTROY", order.project, order.project.customer)
    if order.state is not OrderState.PENDING_CONSUMER:
        raise ApiError(409, {"detail": f"Valid states for operation: {OrderState.PENDING_CONSUMER}."})
    world.store.orders.remove(order)
    world.store.forget_fragments()
    return empty(204)


def approve_by_consumer(world: World, request: Request) -> Reply:
    """POST .../approve_by_consumer/."""
    order = _as_consumer(world, request, "ORDER.APPROVE")
    orders.approve_by_consumer(world, order, request.caller)
    return json_reply({"detail": APPROVED_DETAIL})


def reject_by_consumer(world: World, request: Request) -> Reply:
    """POST .../reject_by_consumer/."""
    order = _as_consumer(world, request, "ORDER.REJECT")
    comment = _comment(request, "consumer_rejection_comment")
    orders.reject_by_consumer(world, order, request.caller, comment)
    return json_reply({"detail": REJECTED_DETAIL})


def approve_by_provider(world: World, request: Request) -> Reply:
    """POST .../approve_by_provider/."""
    order = _as_provider(world, request, "ORDER.APPROVE")
    orders.approve_by_provider(world, order, request.caller)
    return json_reply({"detail": APPROVED_DETAIL})


def reject_by_provider(world: World, request: Request) -> Reply:
    """POST .../reject_by_provider/."""
    order = _as_provider(world, request, "ORDER.REJECT")
    comment = _comment(request, "provider_rejection_comment")
    orders.reject_by_provider(world, order, request.caller, comment)
    return json_reply({"detail": REJECTED_DETAIL})


def cancel(world: World, request: Request) -> Reply:
    """POST .../cancel/."""
    orders.cancel(world, _as_consumer(world, request, "ORDER.CANCEL"))
    return empty()


def set_state_executing(world: World, request: Request) -> Reply:
    """POST .../set_state_executing/: also starts an erred order again (recorded)."""
    order = _as_provider(world, request, "ORDER.APPROVE")
    orders.check_action(order, OrderAction.SET_STATE_EXECUTING)
    orders.execute(world, order)
    return empty()


def set_state_done(world: World, request: Request) -> Reply:
    """POST .../set_state_done/; the fault ``order_set_state_done_error`` answers 500 and changes nothing."""
    order = _as_provider(world, request, "ORDER.APPROVE")
    if world.faults.consume(Fault.ORDER_SET_STATE_DONE_ERROR):
        return Reply(500, b"<h1>Server Error (500)</h1>", [(b"content-type", b"text/html; charset=utf-8")])
    orders.complete(world, order)
    return empty()


def set_state_erred(world: World, request: Request) -> Reply:
    """POST .../set_state_erred/ {error_message, error_traceback}."""
    order = _as_provider(world, request, "ORDER.APPROVE")
    payload = Payload(request.body)
    message, traceback = payload.text("error_message"), payload.text("error_traceback")
    payload.check()
    orders.fail(world, order, message, traceback)
    return empty()


def set_backend_id(world: World, request: Request) -> Reply:
    """POST .../set_backend_id/ {backend_id}: an opaque text, kept as it is."""
    order = _as_provider(world, request, "ORDER.APPROVE")
    payload = Payload(request.body)
    backend_id = payload.text("backend_id", required=True)
    payload.check()
    order.backend_id = backend_id
    world.store.touch(order)
    return json_reply({"status": "Order backend_id has been changed."})


def _comment(request: Request, name: str) -> str:
    payload = Payload(request.body)
    comment = payload.text(name)
    payload.check()
    return comment


def _chosen(world: World, request: Request) -> list[Order]:
    """The orders that the caller may see and the filters ask for, in order of creation."""
    candidates = _candidates(world, request)
    caller = request.caller
    if not sees_everything(caller):
        reach = world.permissions.reach(caller)
        mine, projects, managed = reach.customers, reach.projects, reach.offerings
        candidates = [
            order
            for order in candidates
            if (offering := order.resource.offering).uuid in managed
            or offering.customer.uuid in mine
            or (project := order.resource.project).uuid in projects
            or project.customer.uuid in mine
        ]
    states = frozenset(request.parameters("state"))
    if states:
        _check_states(states)
        candidates = [order for order in candidates if order.state in states]
    kinds = frozenset(request.parameters("type"))
    if kinds:
        candidates = [order for order in candidates if order.type in kinds]
    customers = request.identifiers("customer_uuid")
    if customers is not None:
        candidates = [order for order in candidates if order.project.customer.uuid in customers]
    before = request.moment("modified_before")
    if before is not None:
        latest = timestamp(before)
        candidates = [order for order in candidates if order.modified <= latest]
    return candidates if isinstance(candidates, list) else list(candidates)


def _candidates(world: World, request: Request) -> Iterable[Order]:
    """The smallest set that an index offers for the filters."""
    table = world.store.orders
    filters = {
        "resource": request.identifiers("resource_uuid"),
        "project": request.identifiers("project_uuid"),
        "offering": request.identifiers("offering_uuid"),
    }
    asked = [(name, keys) for name, keys in filters.items() if keys is not None]
    if not asked:
        return table
    (index, keys), *others = asked
    rows = narrowed(table, index, keys)
    for name, wanted in others:
        rows = [order for order in rows if getattr(order, name).uuid in wanted]
    return rows


def _check_states(states: frozenset[str]) -> None:
    unknown = sorted(states.difference(OrderState))
    if unknown:
        message = f"Select a valid choice. {unknown[0]} is not one of the available choices."
        raise ApiError(400, {"state": [message]})


def _as_consumer(world: World, request: Request, permission: str) -> Order:
    order = find_order(world, request)
    world.permissions.require(request.caller, permission, order.project, order.project.customer)
    return order


def _as_provider(world: World, request: Request, permission: str) -> Order:
    order = find_order(world, request)
    world.permissions.require(request.caller, permission, order.offering, order.offering.customer)
    return order


def _visible_project(world: World, request: Request, identifier: str) -> Project | None:
    project = world.store.projects.get(identifier)
    return project if project and world.permissions.sees_project(request.caller, project) else None


def _visible_offering(world: World, request: Request, identifier: str) -> Offering | None:
    offering = world.store.offerings.get(identifier)
    return offering if offering and world.permissions.sees_public_offering(request.caller, offering) else None


def _plan(offering: Offering, identifier: str | None) -> Plan:
    if identifier is None:
        raise ApiError(400, {"plan": [REQUIRED]})
    plan = offering.plans.get(identifier)
    if plan is None or plan.archived:
        raise ApiError(400, {"plan": ["This plan is not available for selected offering."]})
    return plan


ENDPOINTS = {
    "marketplace-orders": Endpoint(
        "Order",
        collection={"GET": list_orders, "POST": create_order},
        item={"GET": get_order, "DELETE": delete_order},
        item_actions={
            "approve_by_consumer": {"POST": approve_by_consumer},
            "reject_by_consumer": {"POST": reject_by_consumer},
            "approve_by_provider": {"POST": approve_by_provider},
            "reject_by_provider": {"POST": reject_by_provider},
            "cancel": {"POST": cancel},
            "set_state_executing": {"POST": set_state_executing},
            "set_state_done": {"POST": set_state_done},
            "set_state_erred": {"POST": set_state_erred},
            "set_backend_id": {"POST": set_backend_id},
        },
    ),
}
