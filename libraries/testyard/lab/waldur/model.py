"""What a Waldur instance holds: users, organisations, offerings, orders, resources and their details."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from testyard.lab.waldur.identifiers import new_identifier, timestamp
from testyard.lab.waldur.machines import (
    OfferingState,
    OfferingUserState,
    OrderState,
    OrderType,
    ResourceState,
)


class ScopeKind(StrEnum):
    """What a role can be granted on (``scope_type`` of a permission)."""

    CUSTOMER = "customer"
    PROJECT = "project"
    OFFERING = "offering"


class BillingType(StrEnum):
    """How a component is accounted for."""

    FIXED = "fixed"
    USAGE = "usage"
    LIMIT = "limit"
    ONE = "one"
    FEW = "few"


DEFAULT_EXPOSED_FIELDS = ("username", "full_name", "email", "organization", "affiliations", "active_isds")
"""What an offering sees of its users unless its provider chooses."""


@dataclass(slots=True, kw_only=True, eq=False)
class Entity:
    """Anything with a UUID and two timestamps."""

    uuid: str = field(default_factory=new_identifier)
    created: str = field(default_factory=timestamp)
    modified: str = ""

    def __post_init__(self) -> None:
        if not self.modified:
            self.modified = self.created


@dataclass(slots=True, kw_only=True, eq=False)
class User(Entity):
    """An account.

    ``details`` holds the profile attributes that the double only stores and shows, ``attribute_sources`` which
    identity source (ISD) pushed which attribute.
    """

    username: str
    slug: str
    first_name: str = ""
    last_name: str = ""
    email: str = ""
    is_staff: bool = False
    is_support: bool = False
    is_active: bool = True
    is_identity_manager: bool = False
    managed_isds: list[str] = field(default_factory=list)
    active_isds: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
    attribute_sources: dict[str, str] = field(default_factory=dict)
    token: str = ""
    password_digest: str = ""

    @property
    def full_name(self) -> str:
        """First and last name, as Waldur joins them."""
        return f"{self.first_name} {self.last_name}".strip()


@dataclass(slots=True, kw_only=True, eq=False)
class Role(Entity):
    """A named set of permissions on one kind of scope."""

    name: str
    description: str
    scope_kind: str
    permissions: frozenset[str]


@dataclass(slots=True, kw_only=True, eq=False)
class Customer(Entity):
    """An organisation."""

    name: str
    slug: str
    details: dict[str, Any] = field(default_factory=dict)
    is_service_provider: bool = False


@dataclass(slots=True, kw_only=True, eq=False)
class Project(Entity):
    """A project of an organisation."""

    customer: Customer
    name: str
    slug: str
    description: str = ""
    backend_id: str = ""
    start_date: str | None = None
    end_date: str | None = None
    end_date_updated_at: str | None = None
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True, eq=False)
class Category(Entity):
    """A marketplace category."""

    title: str
    description: str = ""


@dataclass(slots=True, kw_only=True, eq=False)
class ServiceProvider(Entity):
    """The mark that an organisation may publish offerings."""

    customer: Customer
    description: str = ""


@dataclass(slots=True, kw_only=True, eq=False)
class Component(Entity):
    """One accounted quantity of an offering."""

    type: str
    name: str
    billing_type: BillingType
    measured_unit: str = ""
    description: str = ""
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True, eq=False)
class Plan(Entity):
    """A price list of an offering."""

    name: str
    unit: str = "month"
    description: str = ""
    prices: dict[str, float] = field(default_factory=dict)
    quotas: dict[str, int] = field(default_factory=dict)
    backend_id: str = ""
    archived: bool = False


@dataclass(slots=True, kw_only=True, eq=False)
class Offering(Entity):
    """Something that can be ordered."""

    name: str
    slug: str
    type: str
    customer: Customer
    category: Category
    description: str = ""
    state: OfferingState = OfferingState.DRAFT
    shared: bool = True
    billable: bool = True
    components: dict[str, Component] = field(default_factory=dict)
    plans: dict[str, Plan] = field(default_factory=dict)
    plugin_options: dict[str, Any] = field(default_factory=dict)
    secret_options: dict[str, Any] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    chosen_fields: list[str] | None = None

    @property
    def exposed_fields(self) -> list[str]:
        """The attributes of its users that it may see."""
        return list(DEFAULT_EXPOSED_FIELDS) if self.chosen_fields is None else self.chosen_fields


@dataclass(slots=True, kw_only=True, eq=False)
class Resource(Entity):
    """What an order created."""

    name: str
    slug: str
    offering: Offering
    project: Project
    plan: Plan | None
    state: ResourceState = ResourceState.CREATING
    attributes: dict[str, Any] = field(default_factory=dict)
    limits: dict[str, Any] = field(default_factory=dict)
    backend_id: str = ""
    effective_id: str = ""
    backend_metadata: dict[str, Any] = field(default_factory=dict)
    scope_uuid: str | None = None
    end_date: str | None = None
    end_date_updated_at: str | None = None
    error_message: str = ""
    error_traceback: str = ""
    paused: bool = False
    downscaled: bool = False
    restrict_member_access: bool = False
    last_sync: str = ""


@dataclass(slots=True, kw_only=True, eq=False)
class Review:
    """Who decided on an order, and when."""

    user: User
    moment: str


@dataclass(slots=True, kw_only=True, eq=False)
class Order(Entity):
    """A request to create, change or end a resource."""

    type: OrderType
    resource: Resource
    created_by: User
    slug: str
    state: OrderState = OrderState.PENDING_CONSUMER
    plan: Plan | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    limits: dict[str, Any] = field(default_factory=dict)
    backend_id: str = ""
    error_message: str = ""
    error_traceback: str = ""
    output: str = ""
    callback_url: str | None = None
    request_comment: str | None = None
    consumer_review: Review | None = None
    provider_review: Review | None = None
    consumer_rejection_comment: str = ""
    provider_rejection_comment: str = ""
    termination_comment: str | None = None
    completed: str | None = None

    @property
    def offering(self) -> Offering:
        """The offering of the ordered resource."""
        return self.resource.offering

    @property
    def project(self) -> Project:
        """The project of the ordered resource."""
        return self.resource.project


@dataclass(slots=True, kw_only=True, eq=False)
class Grant(Entity):
    """A role that a user holds on a scope."""

    user: User
    role: Role
    scope: Customer | Project | Offering
    created_by: User | None
    expiration_time: str | None = None

    @property
    def scope_kind(self) -> ScopeKind:
        """The kind of the scope."""
        return ScopeKind(type(self.scope).__name__.lower())


@dataclass(slots=True, kw_only=True, eq=False)
class OfferingUser(Entity):
    """The account of a user at an offering."""

    offering: Offering
    user: User
    username: str = ""
    state: OfferingUserState = OfferingUserState.REQUESTED
    is_restricted: bool = False
    runtime_state: str = ""
    service_provider_comment: str = ""
    service_provider_comment_url: str = ""


@dataclass(slots=True, kw_only=True, eq=False)
class ComponentUsage(Entity):
    """How much of a component a resource used in one month."""

    resource: Resource
    component: Component
    billing_period: str
    date: str
    usage: str = "0.00"
    description: str = ""
    recurring: bool = False
    modified_by: User | None = None


@dataclass(slots=True, kw_only=True, eq=False)
class ComponentUserUsage(Entity):
    """The part of a component usage that one user name caused."""

    component_usage: ComponentUsage
    username: str
    usage: str
    user: OfferingUser | None = None
    description: str = ""
    date: str = ""


@dataclass(slots=True, kw_only=True, eq=False)
class ComponentUserUsageLimit(Entity):
    """How much of a component one user of a resource may use."""

    resource: Resource
    component: Component
    user: OfferingUser
    limit: str


@dataclass(slots=True, kw_only=True, eq=False)
class AgentProcessor(Entity):
    """A processor that a site agent's service reported."""

    name: str
    backend_type: str
    backend_version: str = ""
    last_run: str = ""


@dataclass(slots=True, kw_only=True, eq=False)
class AgentService(Entity):
    """A mode of operation that a site agent reported."""

    identity: "AgentIdentity"
    name: str
    mode: str | None = None
    state: str = "Active"
    statistics: dict[str, Any] = field(default_factory=dict)
    processors: dict[str, AgentProcessor] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True, eq=False)
class EventConsumer(Entity):
    """A unified queue: every event about one offering, in one queue (agent 1.0.7)."""

    user: User
    offering: Offering
    rmq_username: str = field(default_factory=new_identifier)
    object_types: tuple[str, ...] = ()
    """What the queue receives; empty means every type."""

    @property
    def queue_name(self) -> str:
        """The queue's name in the owner's virtual host."""
        return f"consumer_{self.uuid}"


@dataclass(slots=True, kw_only=True, eq=False)
class AgentIdentity(Entity):
    """A site agent that registered itself for an offering."""

    offering: Offering
    name: str
    created_by: User
    version: str | None = None
    dependencies: list[dict[str, Any]] = field(default_factory=list)
    config_file_path: str | None = None
    config_file_content: str | None = None
    last_restarted: str = ""
    services: dict[str, AgentService] = field(default_factory=dict)
    consumer: EventConsumer | None = None


@dataclass(slots=True, kw_only=True, eq=False)
class EventSubscription(Entity):
    """A subscription of agents up to 1.0.5: one object type, with one queue per offering."""

    user: User
    observable_objects: list[dict[str, Any]]
    description: str = ""
    source_ip: str = ""


@dataclass(slots=True, kw_only=True, eq=False)
class SubscriptionQueue(Entity):
    """The queue of a subscription for one offering and one object type."""

    subscription: EventSubscription
    offering: Offering
    object_type: str

    @property
    def queue_name(self) -> str:
        """The queue's name in the owner's virtual host."""
        return f"subscription_{self.subscription.uuid}_offering_{self.offering.uuid}_{self.object_type}"
