"""The life of an order: how it is created, what each operation does to it and to its resource."""

from typing import Any

from testyard.lab.waldur.exchange import ApiError, wrong_state
from testyard.lab.waldur.faults import Fault
from testyard.lab.waldur.identifiers import new_identifier, timestamp
from testyard.lab.waldur.machines import (
    ENDED_ORDER_STATES,
    ORDER_TRANSITIONS,
    PENDING_ORDER_STATES,
    RESOURCE_EFFECTS,
    RESOURCE_SOURCES,
    OfferingState,
    OrderAction,
    OrderState,
    OrderType,
    ResourceAction,
    ResourceState,
)
from testyard.lab.waldur.model import BillingType, Offering, Order, Plan, Project, Resource, Review, User
from testyard.lab.waldur.offering_users import create_or_restore
from testyard.lab.waldur.payload import Payload
from testyard.lab.waldur.world import World

CANCELABLE_OFFERING_TYPES = frozenset({"Marketplace.Basic", "Support.OfferingTemplate"})


def check_limits(offering: Offering, limits: dict[str, Any]) -> None:
    """Refuse limits of components that take none; negative ones pass (sample ``order_create_accepted_*``)."""
    wrong = sorted(
        name
        for name in limits
        if name not in offering.components or offering.components[name].billing_type is not BillingType.LIMIT
    )
    if wrong:
        raise ApiError(400, {"limits": [f"Invalid types: {', '.join(wrong)}"]})
    for name, value in limits.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ApiError(400, {"limits": {name: ["A valid integer is required."]}})


def place_creation(
    world: World,
    user: User,
    *,
    offering: Offering,
    project: Project,
    plan: Plan,
    attributes: dict[str, Any],
    limits: dict[str, Any],
) -> Order:
    """Create a resource in state Creating and the order for it.

    Raises:
        ApiError: The offering takes no orders, or a limit is of a component that takes none.
    """
    if offering.state is not OfferingState.ACTIVE:
        raise ApiError(400, ["Offering is not available."])
    check_limits(offering, limits)
    payload = Payload(attributes)
    name, end_date = payload.text("name"), payload.date("end_date")
    payload.check()
    resource = world.store.resources.add(
        Resource(
            name=name,
            slug=world.store.slug("resource", name),
            offering=offering,
            project=project,
            plan=plan,
            attributes=attributes,
            limits=dict(limits),
            end_date=end_date,
        )
    )
    return _place(world, user, resource, OrderType.CREATE, plan=plan, attributes=attributes, limits=limits)


def place_update(world: World, user: User, resource: Resource, limits: dict[str, Any]) -> Order:
    """Order new limits; the resource keeps the old ones until the order is done.

    Raises:
        ApiError: Wrong state, another order is pending, or a limit is of a component that takes none.
    """
    _check_orderable(world, resource, ResourceAction.UPDATE_LIMITS)
    check_limits(resource.offering, limits)
    attributes = {"old_limits": dict(resource.limits)}
    target = _shadow(world, resource) if Fault.SHADOW_RESOURCE in world.faults else resource
    return _place(world, user, target, OrderType.UPDATE, plan=resource.plan, attributes=attributes, limits=limits)


def place_termination(world: World, user: User, resource: Resource, attributes: dict[str, Any]) -> Order:
    """Order the end of a resource.

    Raises:
        ApiError: Wrong state, or another order is pending.
    """
    _check_orderable(world, resource, ResourceAction.TERMINATE)
    target = _shadow(world, resource) if Fault.SHADOW_RESOURCE in world.faults else resource
    return _place(world, user, target, OrderType.TERMINATE, plan=None, attributes=attributes, limits={})


def check_action(order: Order, action: OrderAction) -> None:
    """Refuse with 409 an operation that the order's state does not allow."""
    sources = ORDER_TRANSITIONS[action].sources
    if action is OrderAction.SET_STATE_ERRED:
        # Recorded: accepted while pending, when it only leaves the message (order_get_after_set_state_erred_*).
        sources = (OrderState.PENDING_CONSUMER, OrderState.PENDING_PROVIDER, *sources, OrderState.ERRED)
    if order.state not in sources:
        raise wrong_state(sources)


def approve_by_consumer(world: World, order: Order, user: User) -> None:
    """The consumer's side agrees."""
    check_action(order, OrderAction.APPROVE_BY_CONSUMER)
    order.consumer_review = Review(user=user, moment=timestamp())
    _enter(world, order, OrderState.PENDING_PROVIDER)


def reject_by_consumer(world: World, order: Order, user: User, comment: str) -> None:
    """The consumer's side refuses."""
    check_action(order, OrderAction.REJECT_BY_CONSUMER)
    order.consumer_review = Review(user=user, moment=timestamp())
    order.consumer_rejection_comment = comment
    _enter(world, order, OrderState.REJECTED)


def approve_by_provider(world: World, order: Order, user: User) -> None:
    """The provider's side agrees: the order is executed by its agent."""
    check_action(order, OrderAction.APPROVE_BY_PROVIDER)
    order.provider_review = Review(user=user, moment=timestamp())
    execute(world, order)


def reject_by_provider(world: World, order: Order, user: User, comment: str) -> None:
    """The provider's side refuses."""
    check_action(order, OrderAction.REJECT_BY_PROVIDER)
    order.provider_review = Review(user=user, moment=timestamp())
    order.provider_rejection_comment = comment
    _enter(world, order, OrderState.REJECTED)


def cancel(world: World, order: Order) -> None:
    """Call the order off; only offerings without an agent support it (sample ``order_cancel_slurm_error``)."""
    check_action(order, OrderAction.CANCEL)
    if order.offering.type not in CANCELABLE_OFFERING_TYPES:
        unsupported = f"The order's offering with {order.offering.type} type does not support this action"
        raise ApiError(405, {"detail": f'Method "{unsupported}" not allowed.'})
    _enter(world, order, OrderState.CANCELED)


def execute(world: World, order: Order) -> None:
    """Start the order, or start it again after an error."""
    resource = order.resource
    if order.type is OrderType.UPDATE and resource.state not in (
        ResourceState.OK,
        ResourceState.ERRED,
        ResourceState.UPDATING,
    ):
        order.error_message = f"Can't switch from state '{resource.state}' using method 'schedule_updating'"
        _enter(world, order, OrderState.ERRED)
        return
    if order.type is OrderType.CREATE and resource.scope_uuid is None:
        resource.scope_uuid = new_identifier()
    _enter(world, order, OrderState.EXECUTING)


def complete(world: World, order: Order) -> None:
    """The order is done: an update's limits take effect now and not before, a new resource gets its users."""
    check_action(order, OrderAction.SET_STATE_DONE)
    if order.type is OrderType.UPDATE:
        order.resource.limits = dict(order.limits)
    _enter(world, order, OrderState.DONE)
    if order.type is OrderType.CREATE:
        for grant in list(world.store.grants.where("scope", order.project.uuid).values()):
            create_or_restore(world, grant.user, order.project)


def fail(world: World, order: Order, message: str, traceback: str) -> None:
    """The order failed; while it is still pending only the message is kept."""
    check_action(order, OrderAction.SET_STATE_ERRED)
    order.error_message = message
    order.error_traceback = traceback
    if order.state is OrderState.EXECUTING:
        _enter(world, order, OrderState.ERRED)
    else:
        world.store.touch(order)


def _place(
    world: World,
    user: User,
    resource: Resource,
    kind: OrderType,
    *,
    plan: Plan | None,
    attributes: dict[str, Any],
    limits: dict[str, Any],
) -> Order:
    order = world.store.orders.add(
        Order(
            type=kind,
            resource=resource,
            created_by=user,
            slug=world.store.slug("order", resource.name),
            plan=plan,
            attributes=attributes,
            limits=limits,
        )
    )
    world.store.touch(order)
    world.events.order_changed(order)
    if world.permissions.allows(user, "ORDER.APPROVE", order.project, order.project.customer):
        approve_by_consumer(world, order, user)
    return order


def _enter(world: World, order: Order, state: OrderState) -> None:
    order.state = state
    if state in ENDED_ORDER_STATES:
        order.completed = timestamp()
    effect = RESOURCE_EFFECTS.get((order.type, state))
    if effect is not None:
        order.resource.state = effect
        world.store.touch(order.resource)
    world.store.touch(order)
    world.events.order_changed(order)


def _check_orderable(world: World, resource: Resource, action: ResourceAction) -> None:
    sources = RESOURCE_SOURCES[action]
    if resource.state not in sources:
        raise wrong_state(sources)
    pending = world.store.orders.where("resource", resource.uuid).values()
    if any(order.state in PENDING_ORDER_STATES for order in pending):
        raise ApiError(400, ["Pending order for resource already exists."])


def _shadow(world: World, resource: Resource) -> Resource:
    """The nameless second resource that some servers create for an update or a termination (known issue 2)."""
    return world.store.resources.add(
        Resource(
            name="",
            slug=world.store.slug("resource", ""),
            offering=resource.offering,
            project=resource.project,
            plan=resource.plan,
            state=resource.state,
            limits=dict(resource.limits),
        )
    )
