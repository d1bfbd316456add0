"""Finding the object that a path names, among those that the caller may see."""

from collections.abc import Callable, Iterable

from testyard.lab.waldur.exchange import Request, not_found
from testyard.lab.waldur.model import Customer, Offering, Order, Project, Resource, User
from testyard.lab.waldur.store import EntityT, Table
from testyard.lab.waldur.world import World


def find(request: Request, table: Table[EntityT], visible: Callable[[EntityT], bool]) -> EntityT:
    """The object named by the path.

    Raises:
        ApiError: 404 if it does not exist or the caller may not see it.
    """
    entity = table.get(request.identifier)
    if entity is None or not visible(entity):
        raise not_found(table.name)
    return entity


def find_user(world: World, request: Request) -> User:
    """The user named by the path."""
    return find(request, world.store.users, lambda user: world.permissions.sees_user(request.caller, user))


def find_customer(world: World, request: Request) -> Customer:
    """The organisation named by the path."""
    return find(
        request,
        world.store.customers,
        lambda customer: world.permissions.sees_customer(request.caller, customer),
    )


def find_project(world: World, request: Request) -> Project:
    """The project named by the path."""
    return find(
        request, world.store.projects, lambda project: world.permissions.sees_project(request.caller, project)
    )


def find_provided_offering(world: World, request: Request) -> Offering:
    """The offering named by the path, for its provider."""
    return find(
        request, world.store.offerings, lambda offering: world.permissions.provides(request.caller, offering)
    )


def find_order(world: World, request: Request) -> Order:
    """The order named by the path."""
    return find(request, world.store.orders, lambda order: world.permissions.sees_order(request.caller, order))


def find_resource(world: World, request: Request) -> Resource:
    """The resource named by the path, for either side."""
    return find(
        request,
        world.store.resources,
        lambda resource: world.permissions.sees_resource(request.caller, resource),
    )


def find_provided_resource(world: World, request: Request) -> Resource:
    """The resource named by the path, for the provider's side."""
    return find(
        request,
        world.store.resources,
        lambda resource: world.permissions.provides(request.caller, resource.offering),
    )


def narrowed(
    table: Table[EntityT], index: str, keys: Iterable[str] | None, fallback: Iterable[EntityT] | None = None
) -> Iterable[EntityT]:
    """The rows whose index has one of the keys, or all rows when there is no such filter."""
    if keys is None:
        return table if fallback is None else fallback
    return [row for key in sorted(keys) for row in table.where(index, key).values()]
