"""What needs a Django shell on a real Waldur (document 001), as operations of the control API.

Each takes a JSON object and gives one. References are UUIDs, hexadecimal or dashed.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

from testyard.lab.waldur.identifiers import timestamp
from testyard.lab.waldur.machines import OfferingUserState, OrderState, OrderType, ResourceState
from testyard.lab.waldur.model import OfferingUser, Order, Resource, User
from testyard.lab.waldur.offering_users import create_or_restore
from testyard.lab.waldur.payload import Payload
from testyard.lab.waldur.store import EntityT, Table
from testyard.lab.waldur.users import STAFF_USERNAME
from testyard.lab.waldur.world import World

Operation = Callable[[World, dict[str, Any]], dict[str, Any]]


def set_plugin_options(world: World, body: dict[str, Any]) -> dict[str, Any]:
    """``{offering, plugin_options}``: add to or change the offering's plugin options."""
    payload = Payload(body)
    offering = _find(payload, "offering", world.store.offerings)
    options = payload.mapping("plugin_options")
    payload.check()
    offering.plugin_options = {**offering.plugin_options, **options}
    world.store.touch(offering)
    return {"plugin_options": offering.plugin_options}


def create_resource(world: World, body: dict[str, Any]) -> dict[str, Any]:
    """``{offering, project, name?, state?, backend_id?, limits?, plan?}``: a resource without an order."""
    payload = Payload(body)
    offering = _find(payload, "offering", world.store.offerings)
    project = _find(payload, "project", world.store.projects)
    name = payload.text("name", "resource")
    state = ResourceState(payload.choice("state", list(ResourceState), ResourceState.OK))
    limits, backend_id = payload.mapping("limits"), payload.text("backend_id")
    plan = payload.link("plan", "plans", "marketplace-plans", required=False)
    payload.check()
    resource = world.store.resources.add(
        Resource(
            name=name,
            slug=world.store.slug("resource", name),
            offering=offering,
            project=project,
            plan=offering.plans.get(plan) if plan else next(iter(offering.plans.values()), None),
            state=state,
            backend_id=backend_id,
            limits=limits,
        )
    )
    return {"uuid": resource.uuid}


def set_resource(world: World, body: dict[str, Any]) -> dict[str, Any]:
    """``{resource, state?, backend_id?}``: change a resource without an order and without an event."""
    payload = Payload(body)
    resource = _find(payload, "resource", world.store.resources)
    payload.assign(resource, "state", ResourceState(payload.choice("state", list(ResourceState), resource.state)))
    payload.assign(resource, "backend_id", payload.text("backend_id", resource.backend_id))
    payload.check()
    world.store.resources.reindex(resource)
    world.store.touch(resource)
    return {"uuid": resource.uuid, "state": str(resource.state), "backend_id": resource.backend_id}


def set_order_age(world: World, body: dict[str, Any]) -> dict[str, Any]:
    """``{order, seconds}``: the order was changed that long ago; the next change counts as usual."""
    payload = Payload(body)
    order = _find(payload, "order", world.store.orders)
    age = payload.number("seconds", required=True)
    payload.check()
    order.modified = timestamp(datetime.now(UTC) - timedelta(seconds=age or 0))
    world.store.forget_fragments()
    return {"modified": order.modified}


def create_offering_users(world: World, body: dict[str, Any]) -> dict[str, Any]:
    """``{offering, number, active_isds?}``: so many users, ``user-001`` and on, each with an account of that name.

    As with Django's ``bulk_create`` nothing is told of them. Gives the accounts' UUIDs by name.
    """
    payload = Payload(body)
    offering = _find(payload, "offering", world.store.offerings)
    number, sources = payload.number("number", required=True), payload.texts("active_isds")
    payload.check()
    accounts = {}
    for name in _numbered("user", number):
        user = world.store.users.add(User(username=name, slug=world.store.slug("user", name), active_isds=sources))
        account = OfferingUser(offering=offering, user=user, username=name, state=OfferingUserState.OK)
        accounts[name] = world.store.offering_users.add(account).uuid
    return {"offering_users": accounts}


def create_executing_orders(world: World, body: dict[str, Any]) -> dict[str, Any]:
    """``{offering, project, number, targets?}``: so many resources in creation, ``resource-001`` and on, and their
    orders.

    As with Django's ``bulk_create`` nothing is told of them. Gives their UUIDs, ``{orders, resources}`` by name;
    ``targets`` is what was given on another instance, to be the backend ids of these.
    """
    payload = Payload(body)
    offering = _find(payload, "offering", world.store.offerings)
    project = _find(payload, "project", world.store.projects)
    number, targets = payload.number("number", required=True), payload.mapping("targets")
    payload.check()
    staff = next(iter(world.store.users.where("username", STAFF_USERNAME).values()))
    made: dict[str, dict[str, str]] = {"orders": {}, "resources": {}}
    for name in _numbered("resource", number):
        resource = Resource(
            name=name,
            slug=world.store.slug("resource", name),
            offering=offering,
            project=project,
            plan=None,
            backend_id=targets.get("resources", {}).get(name, ""),
        )
        order = Order(
            type=OrderType.CREATE,
            resource=world.store.resources.add(resource),
            created_by=staff,
            slug=world.store.slug("order", name),
            state=OrderState.EXECUTING,
            backend_id=targets.get("orders", {}).get(name, ""),
        )
        made["orders"][name] = world.store.orders.add(order).uuid
        made["resources"][name] = resource.uuid
    return made


def _numbered(stem: str, number: float | None) -> list[str]:
    return [f"{stem}-{position:03}" for position in range(1, int(number or 0) + 1)]


def create_or_restore_offering_users_for_user(world: World, body: dict[str, Any]) -> dict[str, Any]:
    """``{user, project}``: run upstream's task of that name; gives the UUIDs of what it created or restored."""
    payload = Payload(body)
    user = _find(payload, "user", world.store.users)
    project = _find(payload, "project", world.store.projects)
    return {"offering_users": [each.uuid for each in create_or_restore(world, user, project)]}


def set_federated_identity_sync(world: World, body: dict[str, Any]) -> dict[str, Any]:
    """``{enabled}``: the setting FEDERATED_IDENTITY_SYNC_ENABLED, without which the identity bridge refuses."""
    payload = Payload(body)
    enabled = payload.flag("enabled", default=True)
    payload.check()
    world.store.federated_identity_sync = enabled
    return {"enabled": world.store.federated_identity_sync}


def _find(payload: Payload, name: str, table: Table[EntityT]) -> EntityT:
    entity = payload.linked(name, (), table.get)
    payload.check()
    if entity is None:
        raise AssertionError("check() refuses what was not found")
    return entity


OPERATIONS: Mapping[str, Operation] = MappingProxyType(
    {
        operation.__name__: operation
        for operation in (
            set_plugin_options,
            create_resource,
            set_resource,
            set_order_age,
            create_offering_users,
            create_executing_orders,
            create_or_restore_offering_users_for_user,
            set_federated_identity_sync,
        )
    }
)
