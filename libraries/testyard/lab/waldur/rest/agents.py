"""Site agents: identities, services, processors and their queues (``/api/marketplace-site-agent-*``).

``register_queue`` gives the one queue of agents from 1.0.6 on; ``register_event_subscription`` and
``event-subscriptions/{uuid}/create_queue/`` the queues per object type of older ones. Who may register is decided
by ``Permissions.manages_agent``.
"""

from typing import Any

from testyard.lab.waldur.events import AGENT_OFFERING_TYPES, OBJECT_TYPES
from testyard.lab.waldur.exchange import ApiError, Reply, Request, created, empty, forbidden, json_reply
from testyard.lab.waldur.identifiers import timestamp
from testyard.lab.waldur.model import (
    AgentIdentity,
    AgentProcessor,
    AgentService,
    EventConsumer,
    EventSubscription,
    Offering,
    SubscriptionQueue,
)
from testyard.lab.waldur.pagination import listing, selected
from testyard.lab.waldur.payload import REQUIRED, Payload
from testyard.lab.waldur.removal import remove_agent_identity
from testyard.lab.waldur.represent.agents import (
    identity_details,
    processor_details,
    queue_registration,
    service_details,
    subscription_details,
    subscription_queue_details,
)
from testyard.lab.waldur.rest.lookup import find
from testyard.lab.waldur.routing import Endpoint
from testyard.lab.waldur.world import World

_ANOTHER_USER = "Agent identity is already registered by a different user."


def list_identities(world: World, request: Request) -> Reply:
    """GET marketplace-site-agent-identities/; ``name`` is exact."""
    offerings, name = request.identifiers("offering_uuid"), request.parameter("name")
    rows = [
        identity
        for identity in world.store.agent_identities
        if world.permissions.sees_agent_identity(request.caller, identity)
        and (offerings is None or identity.offering.uuid in offerings)
        and (name is None or identity.name == name)
    ]
    return listing(request, rows, lambda identity: identity_details(request, identity))


def create_identity(world: World, request: Request) -> Reply:
    """POST marketplace-site-agent-identities/ {offering, name, version?, ...}."""
    payload = Payload(request.body)
    offering = _offering(world, payload)
    name = payload.text("name", required=True, blank=False)
    payload.check()
    if offering is None:
        raise ApiError(400, {"offering": [REQUIRED]})
    if not world.permissions.manages_agent(request.caller, offering):
        raise forbidden()
    taken = world.store.agent_identities.where("offering", offering.uuid).values()
    if any(identity.name == name for identity in taken):
        raise ApiError(400, {"non_field_errors": ["The fields offering, name must make a unique set."]})
    identity = AgentIdentity(offering=offering, name=name, created_by=request.caller)
    _read_identity(payload, identity)
    payload.check()
    world.store.agent_identities.add(identity)
    return created(identity_details(request, identity))


def get_identity(world: World, request: Request) -> Reply:
    """GET marketplace-site-agent-identities/{uuid}/."""
    return json_reply(selected(request, identity_details(request, _find_identity(world, request))))


def change_identity(world: World, request: Request) -> Reply:
    """PUT marketplace-site-agent-identities/{uuid}/: an agent that has restarted."""
    identity = _find_managed_identity(world, request)
    payload = Payload(request.body)
    payload.assign(identity, "name", payload.text("name", required=True, blank=False))
    _read_identity(payload, identity)
    payload.check()
    world.store.touch(identity)
    return json_reply(identity_details(request, identity))


def delete_identity(world: World, request: Request) -> Reply:
    """DELETE marketplace-site-agent-identities/{uuid}/, with its queue."""
    remove_agent_identity(world, _find_managed_identity(world, request))
    return empty(204)


def register_queue(world: World, request: Request) -> Reply:
    """POST .../register_queue/ {object_types?}: 201, then 200; empty means all types, absent keeps them.

    A queue belongs to one user at a time: another is refused (sample ``hybrid_register_queue_conflict``).
    """
    identity = _find_managed_identity(world, request)
    consumer = identity.consumer
    if consumer is not None and consumer.user is not request.caller:
        raise ApiError(409, {"detail": _ANOTHER_USER})
    payload = Payload(request.body)
    object_types = payload.texts("object_types")
    for unknown in sorted(set(object_types).difference(OBJECT_TYPES)):
        payload.fail("object_types", f'"{unknown}" is not a valid choice.')
    payload.check()
    is_new = consumer is None
    if consumer is None:
        consumer = world.store.event_consumers.add(EventConsumer(user=request.caller, offering=identity.offering))
        identity.consumer = consumer
    if "object_types" in payload:
        consumer.object_types = tuple(object_types)
    world.queues.open_consumer(consumer)
    return json_reply(queue_registration(consumer), 201 if is_new else 200)


def register_service(world: World, request: Request) -> Reply:
    """POST .../register_service/ {name, mode}: 201, then 200."""
    identity = _find_managed_identity(world, request)
    payload = Payload(request.body)
    name = payload.text("name", required=True, blank=False)
    mode = payload.optional_text("mode")
    payload.check()
    service = next((each for each in identity.services.values() if each.name == name), None)
    is_new = service is None
    if service is None:
        service = world.store.agent_services.add(AgentService(identity=identity, name=name))
        identity.services[service.uuid] = service
    service.mode, service.state = mode, "Active"
    world.store.touch(service)
    return json_reply(service_details(request, service), 201 if is_new else 200)


def register_processor(world: World, request: Request) -> Reply:
    """POST marketplace-site-agent-services/{uuid}/register_processor/ {name, backend_type}: 201, then 200."""
    service = _find_service(world, request)
    payload = Payload(request.body)
    name = payload.text("name", required=True, blank=False)
    backend_type = payload.text("backend_type", required=True, blank=False)
    backend_version = payload.optional_text("backend_version") or ""
    payload.check()
    processor = next((each for each in service.processors.values() if each.name == name), None)
    is_new = processor is None
    if processor is None:
        processor = AgentProcessor(name=name, backend_type=backend_type)
        service.processors[processor.uuid] = processor
    processor.backend_type, processor.backend_version = backend_type, backend_version
    processor.last_run = timestamp()
    world.store.touch(service)
    return json_reply(processor_details(request, service, processor), 201 if is_new else 200)


def list_services(world: World, request: Request) -> Reply:
    """GET marketplace-site-agent-services/."""
    rows = [
        service
        for service in world.store.agent_services
        if world.permissions.sees_agent_identity(request.caller, service.identity)
    ]
    return listing(request, rows, lambda service: service_details(request, service))


def get_service(world: World, request: Request) -> Reply:
    """GET marketplace-site-agent-services/{uuid}/."""
    return json_reply(service_details(request, _find_service(world, request)))


def set_statistics(world: World, request: Request) -> Reply:
    """POST marketplace-site-agent-services/{uuid}/set_statistics/ {statistics}."""
    service = _find_service(world, request)
    payload = Payload(request.body)
    payload.assign(service, "statistics", payload.mapping("statistics"))
    payload.check()
    world.store.touch(service)
    return empty()


def register_event_subscription(world: World, request: Request) -> Reply:
    """POST .../register_event_subscription/ {observable_object_type}: 201, then 200 with the same one."""
    identity = _find_managed_identity(world, request)
    payload = Payload(request.body)
    object_type = payload.text("observable_object_type", required=True, blank=False)
    if object_type and object_type not in OBJECT_TYPES:
        payload.fail("observable_object_type", f'"{object_type}" is not a valid choice.')
    description = payload.text("description", f"Event subscription for {object_type} ({identity.name})")
    payload.check()
    wanted: list[dict[str, Any]] = [{"object_type": object_type}]
    mine = world.store.event_subscriptions.where("user", request.caller.uuid).values()
    found = next((each for each in mine if each.observable_objects == wanted), None)
    subscription = found or _subscribe(world, request, wanted, description)
    return json_reply(subscription_details(request, subscription), 200 if found else 201)


def list_subscriptions(world: World, request: Request) -> Reply:
    """GET event-subscriptions/: one's own, all for staff."""
    rows = [
        subscription
        for subscription in world.store.event_subscriptions
        if request.caller.is_staff or subscription.user is request.caller
    ]
    return listing(request, rows, lambda subscription: subscription_details(request, subscription))


def create_subscription(world: World, request: Request) -> Reply:
    """POST event-subscriptions/ {observable_objects} (sample ``hybrid_event_subscription_create``)."""
    payload = Payload(request.body)
    payload.raw("observable_objects", required=True)
    objects = payload.mappings("observable_objects")
    if any(each.get("object_type") not in OBJECT_TYPES for each in objects):
        payload.fail("observable_objects", f"Invalid object_type. Must be one of: {', '.join(OBJECT_TYPES)}")
    description = payload.text("description")
    payload.check()
    subscription = _subscribe(world, request, objects, description)
    return created(subscription_details(request, subscription))


def get_subscription(world: World, request: Request) -> Reply:
    """GET event-subscriptions/{uuid}/."""
    return json_reply(subscription_details(request, _find_subscription(world, request)))


def delete_subscription(world: World, request: Request) -> Reply:
    """DELETE event-subscriptions/{uuid}/, with its queues."""
    subscription = _find_subscription(world, request)
    for queue in list(world.store.subscription_queues.where("subscription", subscription.uuid).values()):
        world.store.subscription_queues.remove(queue)
        world.queues.delete(subscription.user, queue.queue_name)
    world.store.event_subscriptions.remove(subscription)
    world.queues.close_subscription(subscription)
    return empty(204)


def create_queue(world: World, request: Request) -> Reply:
    """POST event-subscriptions/{uuid}/create_queue/ {offering_uuid, object_type}: again gives the same queue."""
    subscription = _find_subscription(world, request)
    payload = Payload(request.body)
    offering = payload.linked("offering_uuid", (), world.store.offerings.get)
    object_type = payload.text("object_type", required=True, blank=False)
    observed = {each.get("object_type") for each in subscription.observable_objects}
    if object_type and object_type not in observed:
        payload.fail("object_type", "Object type is not observed by this subscription.")
    payload.check()
    if offering is None:
        raise ApiError(400, {"offering_uuid": [REQUIRED]})
    if not world.permissions.manages_agent(request.caller, offering):
        raise forbidden()
    existing = world.store.subscription_queues.where("subscription", subscription.uuid).values()
    queue = next(
        (each for each in existing if each.offering is offering and each.object_type == object_type), None
    ) or world.store.subscription_queues.add(
        SubscriptionQueue(subscription=subscription, offering=offering, object_type=object_type)
    )
    world.queues.declare(subscription.user, queue.queue_name)
    return created(subscription_queue_details(request, queue))


def _offering(world: World, payload: Payload) -> Offering | None:
    """The offering that an agent is for, by UUID; only of a type that has agents."""
    text = str(payload.raw("offering", required=True, nullable=False) or "")
    identifier = payload.link("offering", "marketplace-provider-offerings") if text else None
    offering = world.store.offerings.get(identifier)
    if identifier is not None and (offering is None or offering.type not in AGENT_OFFERING_TYPES):
        payload.fail("offering", f"Object with uuid={text} does not exist.")
    return offering


def _read_identity(payload: Payload, identity: AgentIdentity) -> None:
    if "version" in payload:
        payload.assign(identity, "version", payload.optional_text("version"))
    if "dependencies" in payload:
        payload.assign(identity, "dependencies", payload.mappings("dependencies"))
    for name in ("config_file_path", "config_file_content"):
        if name in payload:
            payload.assign(identity, name, payload.optional_text(name, ""))
    payload.assign(identity, "last_restarted", payload.optional_text("last_restarted") or timestamp())


def _find_identity(world: World, request: Request) -> AgentIdentity:
    return find(
        request,
        world.store.agent_identities,
        lambda identity: world.permissions.sees_agent_identity(request.caller, identity),
    )


def _find_managed_identity(world: World, request: Request) -> AgentIdentity:
    identity = _find_identity(world, request)
    if not world.permissions.manages_agent(request.caller, identity.offering, identity):
        raise forbidden()
    return identity


def _find_service(world: World, request: Request) -> AgentService:
    return find(
        request,
        world.store.agent_services,
        lambda service: world.permissions.manages_agent(
            request.caller, service.identity.offering, service.identity
        ),
    )


def _find_subscription(world: World, request: Request) -> EventSubscription:
    return find(
        request,
        world.store.event_subscriptions,
        lambda subscription: request.caller.is_staff or subscription.user is request.caller,
    )


def _subscribe(
    world: World, request: Request, objects: list[dict[str, Any]], description: str
) -> EventSubscription:
    subscription = world.store.event_subscriptions.add(
        EventSubscription(
            user=request.caller,
            observable_objects=objects,
            description=description,
            source_ip=request.remote_address,
        )
    )
    world.queues.open_subscription(subscription)
    return subscription


ENDPOINTS = {
    "marketplace-site-agent-identities": Endpoint(
        "AgentIdentity",
        collection={"GET": list_identities, "POST": create_identity},
        item={"GET": get_identity, "PUT": change_identity, "DELETE": delete_identity},
        item_actions={
            "register_queue": {"POST": register_queue},
            "register_service": {"POST": register_service},
            "register_event_subscription": {"POST": register_event_subscription},
        },
    ),
    "marketplace-site-agent-services": Endpoint(
        "AgentService",
        collection={"GET": list_services},
        item={"GET": get_service},
        item_actions={
            "register_processor": {"POST": register_processor},
            "set_statistics": {"POST": set_statistics},
        },
    ),
    "event-subscriptions": Endpoint(
        "EventSubscription",
        collection={"GET": list_subscriptions, "POST": create_subscription},
        item={"GET": get_subscription, "DELETE": delete_subscription},
        item_actions={"create_queue": {"POST": create_queue}},
    ),
}
