"""The double's database: tables in memory with indexes, and a cache of serialised objects."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Generic, TypeVar

from testyard.lab.waldur.identifiers import parse_identifier, slug_stem, timestamp
from testyard.lab.waldur.model import (
    AgentIdentity,
    AgentService,
    Category,
    ComponentUsage,
    ComponentUserUsage,
    ComponentUserUsageLimit,
    Customer,
    Entity,
    EventConsumer,
    EventSubscription,
    Grant,
    Offering,
    OfferingUser,
    Order,
    Project,
    Resource,
    Role,
    ServiceProvider,
    SubscriptionQueue,
    User,
)
from testyard.lab.waldur.roles import ADDED_SINCE, RECORDED_ROLES

EntityT = TypeVar("EntityT", bound=Entity)

_CACHED_FRAGMENTS = 512
_SHOWN_BY_OTHERS = (User, Customer, Project, Category, Offering)
"""A change of one of these may show in any order or resource."""


class Table(Generic[EntityT]):
    """Entities by UUID, in order of creation, with indexes on named keys.

    Args:
        name: What a 404 calls one entity, e.g. ``Order``.
        **keys: Index name to the function that computes an entity's key; blank keys are not indexed.
    """

    def __init__(self, name: str, /, **keys: Callable[[EntityT], str]) -> None:
        self.name = name
        self._keys = keys
        self._rows: dict[str, EntityT] = {}
        self._indexes: dict[str, dict[str, dict[str, EntityT]]] = {key: {} for key in keys}
        self._keys_of: dict[str, tuple[str, ...]] = {}

    def __iter__(self) -> Iterator[EntityT]:
        return iter(self._rows.values())

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, entity: EntityT) -> bool:
        return entity.uuid in self._rows

    def get(self, identifier: str | None) -> EntityT | None:
        """The entity with this UUID (32 hexadecimal digits), or None."""
        return self._rows.get(identifier) if identifier else None

    def where(self, index: str, key: str) -> Mapping[str, EntityT]:
        """Entities by UUID whose ``index`` has this key; do not keep it across changes."""
        return self._indexes[index].get(key) or {}

    def add(self, entity: EntityT) -> EntityT:
        """Store an entity and index it."""
        self._rows[entity.uuid] = entity
        keys = tuple(compute(entity) for compute in self._keys.values())
        self._keys_of[entity.uuid] = keys
        for index, key in zip(self._indexes.values(), keys, strict=True):
            if key:
                index.setdefault(key, {})[entity.uuid] = entity
        return entity

    def remove(self, entity: EntityT) -> None:
        """Forget an entity."""
        del self._rows[entity.uuid]
        self._unindex(entity)

    def reindex(self, entity: EntityT) -> None:
        """Bring the indexes up to date after a key of the entity changed."""
        self._unindex(entity)
        self.add(entity)

    def _unindex(self, entity: EntityT) -> None:
        for index, key in zip(self._indexes.values(), self._keys_of.pop(entity.uuid), strict=True):
            if key:
                rows = index[key]
                del rows[entity.uuid]
                if not rows:
                    del index[key]


class Store:
    """Everything one Waldur instance holds.

    Every change is announced by ``touch``, which also drops the serialised forms that it outdates.
    """

    def __init__(self) -> None:
        self.users: Table[User] = Table(
            "User", token=lambda user: user.token, username=lambda user: user.username.lower()
        )
        self.roles: Table[Role] = Table("Role", name=lambda role: role.name)
        self.grants: Table[Grant] = Table(
            "UserRole", user=lambda grant: grant.user.uuid, scope=lambda grant: grant.scope.uuid
        )
        self.customers: Table[Customer] = Table("Customer")
        self.projects: Table[Project] = Table(
            "Project",
            customer=lambda project: project.customer.uuid,
            backend_id=lambda project: project.backend_id,
        )
        self.categories: Table[Category] = Table("Category")
        self.service_providers: Table[ServiceProvider] = Table(
            "ServiceProvider", customer=lambda provider: provider.customer.uuid
        )
        self.offerings: Table[Offering] = Table("Offering", customer=lambda offering: offering.customer.uuid)
        self.resources: Table[Resource] = Table(
            "Resource",
            offering=lambda resource: resource.offering.uuid,
            project=lambda resource: resource.project.uuid,
            backend_id=lambda resource: normalise_backend_id(resource.backend_id),
        )
        self.orders: Table[Order] = Table(
            "Order",
            offering=lambda order: order.offering.uuid,
            project=lambda order: order.project.uuid,
            resource=lambda order: order.resource.uuid,
        )
        self.offering_users: Table[OfferingUser] = Table(
            "OfferingUser",
            offering=lambda offering_user: offering_user.offering.uuid,
            user=lambda offering_user: offering_user.user.uuid,
        )
        self.component_usages: Table[ComponentUsage] = Table(
            "ComponentUsage", resource=lambda usage: usage.resource.uuid
        )
        self.component_user_usages: Table[ComponentUserUsage] = Table(
            "ComponentUserUsage",
            resource=lambda usage: usage.component_usage.resource.uuid,
            component_usage=lambda usage: usage.component_usage.uuid,
        )
        self.component_user_usage_limits: Table[ComponentUserUsageLimit] = Table(
            "ComponentUserUsageLimit", resource=lambda limit: limit.resource.uuid
        )
        self.agent_identities: Table[AgentIdentity] = Table(
            "AgentIdentity", offering=lambda identity: identity.offering.uuid
        )
        self.agent_services: Table[AgentService] = Table("AgentService")
        self.event_consumers: Table[EventConsumer] = Table(
            "EventConsumer", offering=lambda consumer: consumer.offering.uuid
        )
        self.event_subscriptions: Table[EventSubscription] = Table(
            "EventSubscription", user=lambda subscription: subscription.user.uuid
        )
        self.subscription_queues: Table[SubscriptionQueue] = Table(
            "EventSubscriptionQueue",
            offering=lambda queue: queue.offering.uuid,
            subscription=lambda queue: queue.subscription.uuid,
        )
        self.federated_identity_sync = False
        self.roles_revision = 0
        self._fragments: dict[tuple[str, str], bytes] = {}
        self._fragments_base = ""
        self._slugs: dict[tuple[str, str], int] = {}
        for definition in RECORDED_ROLES:
            self.roles.add(
                Role(
                    name=definition.name,
                    description=definition.description,
                    scope_kind=definition.scope_kind,
                    permissions=frozenset(definition.permissions) | set(ADDED_SINCE.get(definition.name, ())),
                )
            )

    def role_named(self, name: str) -> Role | None:
        """The role with this name, e.g. ``PROJECT.MEMBER``."""
        return next(iter(self.roles.where("name", name).values()), None)

    def slug(self, kind: str, name: str) -> str:
        """A new slug of this kind: the start of the name and a counter, e.g. ``peer-pro-1``."""
        stem = slug_stem(name) or kind
        number = self._slugs.get((kind, stem), 0) + 1
        self._slugs[kind, stem] = number
        return f"{stem}-{number}"

    def fragments(
        self, kind: str, base: str, rows: Sequence[EntityT], render: Callable[[EntityT], bytes]
    ) -> list[bytes]:
        """The serialised forms of objects, from the cache or rendered now.

        Args:
            kind: Which of the objects' representations.
            base: Scheme and host in the objects' links; the cache serves one at a time.
            rows: The objects.
            render: Produces the form of one that is not cached.
        """
        if base != self._fragments_base or len(self._fragments) > _CACHED_FRAGMENTS:
            self._fragments.clear()
            self._fragments_base = base
        cache = self._fragments
        forms = [cache.get((kind, row.uuid)) for row in rows]
        if None in forms:
            for position, row in enumerate(rows):
                if forms[position] is None:
                    forms[position] = cache[kind, row.uuid] = render(row)
        return [form for form in forms if form is not None]

    def touch(self, entity: Entity) -> None:
        """Note that an entity changed: update ``modified`` and drop every cached form that shows it."""
        entity.modified = timestamp()
        if isinstance(entity, Order | ComponentUsage):
            self._forget_resource(entity.resource)
        elif isinstance(entity, Resource):
            self._forget_resource(entity)
        elif isinstance(entity, _SHOWN_BY_OTHERS):
            self._fragments.clear()
        if isinstance(entity, Grant | User):
            self.roles_revision += 1

    def forget_fragments(self) -> None:
        """Drop every cached form."""
        self._fragments.clear()

    def _forget_resource(self, resource: Resource) -> None:
        self._fragments.pop(("resource", resource.uuid), None)
        for identifier in self.orders.where("resource", resource.uuid):
            self._fragments.pop(("order", identifier), None)


def normalise_backend_id(backend_id: str) -> str:
    """The form in which backend ids are compared: a UUID in hexadecimal, anything else as it is.

    The agent stores the dashed form and the target's events carry the hexadecimal one (contract, section 4).
    """
    return parse_identifier(backend_id) or backend_id
