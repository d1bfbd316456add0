"""Events: what is published when something changes, to which queues, and what the faults make of it.

Bodies and headers: samples ``hybrid_stomp_unified_frames``, ``hybrid_stomp_legacy_frames`` and
``_upstream_event_shapes``. A queue belongs to a user and is bound to one offering. An event about that offering
reaches it if, at the moment of publishing, the queue asks for the type and its owner

* is staff or support, or
* holds a role on the offering or on its provider, or
* for events with a project (orders, resources, roles): holds a role on that project or its organisation. So the
  target's token of document 000, owner of the ordering organisation, receives its own orders; or
* for offering users: is an identity manager with a managed ISD that is active for the user (document 001).

Offering users have no project, so ownership of an organisation alone gives no access to them: when the managed
ISDs of document 001's ``user_b`` are cleared, nothing reaches it any more. As upstream, a user who received an
event on a unified queue does not get it again on a legacy one.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from testyard.lab.waldur.faults import Fault, Faults
from testyard.lab.waldur.identifiers import new_identifier
from testyard.lab.waldur.journal import Journal
from testyard.lab.waldur.machines import OFFERING_USER_STATE_NUMBERS, ResourceState
from testyard.lab.waldur.model import Grant, Offering, OfferingUser, Order, Project, Resource, User
from testyard.lab.waldur.permissions import Permissions, Scope, manages_identity, sees_everything
from testyard.lab.waldur.store import Store

OBJECT_TYPES = (
    "order",
    "user_role",
    "resource",
    "offering_user",
    "importable_resources",
    "service_account",
    "course_account",
    "resource_periodic_limits",
    "offering_resources_sync",
    "resource_api_key_rotation",
    "resource_end_date_change_request",
    "user_lifecycle",
    "user_profile",
    "user_ssh_key",
)
"""What a queue can observe (contract, section 2)."""

AGENT_OFFERING_TYPES = frozenset(
    {"Marketplace.Slurm", "Marketplace.Script", "Marketplace.Basic", "OpenStack.Tenant"}
)
"""Types of offerings that a site agent can register for and that publish events (upstream's list)."""

HEADERS: Mapping[str, str] = {
    "durable": "true",
    "auto-delete": "false",
    "persistent": "true",
    "content-type": "application/json",
}


class Publisher(Protocol):
    """What of the broker publishing needs."""

    def publish(self, vhost: str, queue: str, body: str, headers: Mapping[str, str]) -> object:
        """Put a message into a queue of a virtual host."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to an object of an offering.

    Args:
        object_type: One of ``OBJECT_TYPES``.
        offering: The offering whose queues may receive it.
        body: What legacy queues get.
        details: What unified queues get in addition.
        state: What the fault parameter ``state`` is compared with: an order's state, an offering user's action.
        project: The project concerned, whose members and owners may receive it.
        subject: The user concerned, whose identity managers may receive it.
    """

    object_type: str
    offering: Offering
    body: Mapping[str, Any]
    details: Mapping[str, Any]
    state: str | None = None
    project: Project | None = None
    subject: User | None = None

    @property
    def unified_body(self) -> dict[str, Any]:
        """The body for unified queues, which carry every type and so name theirs."""
        return {**self.body, "object_type": self.object_type, **self.details, "schema_version": 1}


@dataclass(frozen=True, slots=True)
class _Delivery:
    vhost: str
    queue: str
    body: str


class Events:
    """Publishes events to the broker and journals each, also those that nobody receives."""

    def __init__(
        self, store: Store, permissions: Permissions, faults: Faults, journal: Journal, publisher: Publisher
    ) -> None:
        self._store = store
        self._permissions = permissions
        self._faults = faults
        self._journal = journal
        self._publisher = publisher
        self._held: tuple[Event, list[_Delivery]] | None = None
        self._resource_sequence = 0

    def order_changed(self, order: Order) -> None:
        """An order was created or changed its state."""
        plan = {"plan_uuid": order.plan.uuid} if order.plan else {}
        self._publish(
            Event(
                "order",
                order.offering,
                {
                    "order_uuid": order.uuid,
                    "order_state": str(order.state),
                    "offering_uuid": order.offering.uuid,
                },
                {
                    "order_type": str(order.type),
                    "resource_uuid": order.resource.uuid,
                    "resource_backend_id": order.resource.backend_id,
                    "resource_name": order.resource.name,
                    "project_uuid": order.project.uuid,
                    "project_name": order.project.name,
                    "attributes": order.attributes,
                    "limits": order.limits,
                    **plan,
                },
                state=str(order.state),
                project=order.project,
            )
        )

    def resource_changed(self, resource: Resource, **change: Any) -> None:
        """A resource was paused, restricted or downscaled, or its end date changed.

        Args:
            resource: The resource.
            **change: What to add to the body, e.g. ``action="end_date_updated"``.
        """
        self._resource_sequence += 1
        self._publish(
            Event(
                "resource",
                resource.offering,
                {
                    "resource_uuid": resource.uuid,
                    "resource_backend_id": resource.backend_id,
                    "downscaled": resource.downscaled,
                    "restrict_member_access": resource.restrict_member_access,
                    "paused": resource.paused,
                    "sequence_number": self._resource_sequence,
                    "offering_uuid": resource.offering.uuid,
                    **change,
                },
                {
                    "resource_name": resource.name,
                    "resource_state": str(resource.state),
                    "project_uuid": resource.project.uuid,
                    "project_name": resource.project.name,
                    "limits": resource.limits,
                },
                project=resource.project,
            )
        )

    def role_changed(self, grant: Grant, *, granted: bool) -> None:
        """A role on a project was granted or revoked: one event per offering with a live resource there."""
        project = grant.scope
        if not isinstance(project, Project):
            return
        offerings = {
            resource.offering.uuid: resource.offering
            for resource in self._store.resources.where("project", project.uuid).values()
            if resource.state is ResourceState.OK
        }
        for offering in offerings.values():
            self._publish(
                Event(
                    "user_role",
                    offering,
                    {
                        "user_uuid": grant.user.uuid,
                        "user_username": grant.user.username,
                        "project_uuid": project.uuid,
                        "project_name": project.name,
                        "role_name": grant.role.name,
                        "granted": granted,
                        "offering_uuid": offering.uuid,
                    },
                    {"user_email": grant.user.email, "user_full_name": grant.user.full_name},
                    project=project,
                )
            )

    def offering_user_changed(
        self, offering_user: OfferingUser, action: str, changed_attributes: list[str] | None = None
    ) -> None:
        """An offering user was created, updated or deleted, got a username, or its user's profile changed.

        Args:
            offering_user: The offering user.
            action: ``create``, ``update``, ``delete``, ``attribute_update`` or ``username_set``.
            changed_attributes: Names of the profile attributes that changed.
        """
        user = offering_user.user
        exposed = offering_user.offering.exposed_fields
        attributes = {} if action == "delete" else _exposed_attributes(user, exposed)
        self._publish(
            Event(
                "offering_user",
                offering_user.offering,
                {
                    "username": offering_user.username,
                    "offering_user_uuid": offering_user.uuid,
                    "user_uuid": user.uuid,
                    "state": OFFERING_USER_STATE_NUMBERS[offering_user.state],
                    "action": action,
                    "resource_backend_ids": self._backend_ids(offering_user),
                    "offering_uuid": offering_user.offering.uuid,
                    "attributes": attributes,
                    "changed_attributes": changed_attributes or [],
                },
                {},
                state=action,
                subject=user,
            )
        )

    def release_held(self) -> None:
        """Deliver the event that ``reorder_events`` holds back, if there is one."""
        if self._held is not None:
            event, deliveries = self._held
            self._held = None
            self._deliver(event, deliveries, "released")

    def _publish(self, event: Event) -> None:
        if event.offering.type not in AGENT_OFFERING_TYPES:
            return
        deliveries = list(self._deliveries(event))
        if self._faults.consume_for_event(Fault.DROP_EVENT, event.object_type, event.state):
            # The queues it was due to, so that a tester can tell a lost event from one for nobody.
            self._note(event, [delivery.queue for delivery in deliveries], "dropped")
        elif Fault.REORDER_EVENTS in self._faults and self._held is None:
            self._held = (event, deliveries)
            self._note(event, [], "held")
        else:
            self._deliver(event, deliveries, "published")
            if self._faults.consume_for_event(Fault.DUPLICATE_EVENT, event.object_type, event.state):
                self._deliver(event, deliveries, "duplicated")
            self.release_held()

    def _deliver(self, event: Event, deliveries: list[_Delivery], outcome: str) -> None:
        self._note(event, [delivery.queue for delivery in deliveries], outcome)
        for delivery in deliveries:
            headers = {"x-message-id": new_identifier(), **HEADERS}
            self._publisher.publish(delivery.vhost, delivery.queue, delivery.body, headers)

    def _note(self, event: Event, queues: list[str], outcome: str) -> None:
        self._journal.append(
            object_type=event.object_type, body=event.unified_body, queues=queues, outcome=outcome
        )

    def _deliveries(self, event: Event) -> Iterator[_Delivery]:
        served: set[str] = set()
        unified = json.dumps(event.unified_body)
        for consumer in self._store.event_consumers.where("offering", event.offering.uuid).values():
            wanted = not consumer.object_types or event.object_type in consumer.object_types
            if wanted and self._may_receive(consumer.user, event):
                served.add(consumer.user.uuid)
                yield _Delivery(consumer.user.uuid, consumer.queue_name, unified)
        for queue in self._store.subscription_queues.where("offering", event.offering.uuid).values():
            owner = queue.subscription.user
            if owner.uuid in served or queue.object_type != event.object_type:
                continue
            if self._may_receive(owner, event):
                yield _Delivery(owner.uuid, queue.queue_name, json.dumps(dict(event.body)))

    def _may_receive(self, user: User, event: Event) -> bool:
        if not user.is_active:
            return False
        scopes: list[Scope] = [event.offering, event.offering.customer]
        if event.project is not None:
            scopes += [event.project, event.project.customer]
        return (
            sees_everything(user)
            or self._permissions.holds_role(user, *scopes)
            or (event.subject is not None and manages_identity(user, event.subject))
        )

    def _backend_ids(self, offering_user: OfferingUser) -> list[str]:
        return [
            resource.backend_id
            for resource in self._store.resources.where("offering", offering_user.offering.uuid).values()
            if resource.backend_id
            and resource.state is not ResourceState.TERMINATED
            and self._permissions.holds_role(offering_user.user, resource.project, resource.project.customer)
        ]


def _exposed_attributes(user: User, exposed: list[str]) -> dict[str, Any]:
    own = {
        "username": user.username,
        "full_name": user.full_name,
        "email": user.email,
        "active_isds": user.active_isds,
    }
    return {name: own[name] if name in own else user.details.get(name) for name in exposed}
