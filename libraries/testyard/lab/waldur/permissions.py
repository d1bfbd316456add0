"""Who sees what, and who may do what.

A user reaches the scopes on which a role was granted and what lies below them: an organisation's projects and
offerings, a project's orders and resources, an offering's orders, resources and users. Identity managers also
reach what concerns users whose active ISDs they manage (document 001).
"""

from dataclasses import dataclass
from datetime import UTC, datetime

from testyard.lab.waldur.exchange import ApiError, forbidden
from testyard.lab.waldur.machines import OfferingState
from testyard.lab.waldur.model import (
    AgentIdentity,
    Customer,
    Grant,
    Offering,
    OfferingUser,
    Order,
    Project,
    Resource,
    Role,
    ScopeKind,
    User,
)
from testyard.lab.waldur.store import Store

Scope = Customer | Project | Offering

PUBLISHED = frozenset({OfferingState.ACTIVE, OfferingState.PAUSED})
ISD_OFFERING_STATES = frozenset({OfferingState.ACTIVE, OfferingState.PAUSED, OfferingState.UNAVAILABLE})
"""An identity manager may register an agent for offerings in these states (not Draft, not Archived)."""


@dataclass(frozen=True, slots=True)
class Reach:
    """The scopes on which a user holds a role, by UUID."""

    customers: frozenset[str]
    projects: frozenset[str]
    offerings: frozenset[str]
    project_customers: frozenset[str]
    """Organisations of the projects: visible, but nothing below them is."""


class Permissions:
    """Answers about rights, from the grants in the store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._reach: dict[str, Reach] = {}
        self._revision = -1

    def reach(self, user: User) -> Reach:
        """The scopes on which a user holds a role that has not expired."""
        if self._revision != self._store.roles_revision:
            self._reach.clear()
            self._revision = self._store.roles_revision
        found = self._reach.get(user.uuid)
        if found is None:
            grants = self.grants(user)
            found = Reach(
                customers=_scopes(grants, ScopeKind.CUSTOMER),
                projects=_scopes(grants, ScopeKind.PROJECT),
                offerings=_scopes(grants, ScopeKind.OFFERING),
                project_customers=frozenset(
                    grant.scope.customer.uuid for grant in grants if isinstance(grant.scope, Project)
                ),
            )
            if not any(grant.expiration_time for grant in grants):
                self._reach[user.uuid] = found
        return found

    def grants(self, user: User) -> list[Grant]:
        """The roles that a user holds now."""
        return [grant for grant in self._store.grants.where("user", user.uuid).values() if not expired(grant)]

    def allows(self, user: User, permission: str, *scopes: Scope) -> bool:
        """Whether a user is staff or holds ``permission`` on one of the scopes."""
        if user.is_staff:
            return True
        wanted = {scope.uuid for scope in scopes}
        return any(
            grant.scope.uuid in wanted and permission in grant.role.permissions for grant in self.grants(user)
        )

    def require(self, user: User, permission: str, *scopes: Scope) -> None:
        """Refuse with 403 unless ``allows``."""
        if not self.allows(user, permission, *scopes):
            raise forbidden()

    def holds_role(self, user: User, *scopes: Scope) -> bool:
        """Whether a user holds any role on one of the scopes."""
        reach = self.reach(user)
        return any(
            scope.uuid in reach.customers or scope.uuid in reach.projects or scope.uuid in reach.offerings
            for scope in scopes
        )

    def sees_customer(self, user: User, customer: Customer) -> bool:
        """Members of the organisation or of one of its projects."""
        if sees_everything(user):
            return True
        reach = self.reach(user)
        return customer.uuid in reach.customers or customer.uuid in reach.project_customers

    def sees_project(self, user: User, project: Project) -> bool:
        """Members of the project or its organisation, not the provider (sample ``projects_filter_backend_id``)."""
        if sees_everything(user):
            return True
        reach = self.reach(user)
        return project.uuid in reach.projects or project.customer.uuid in reach.customers

    def provides(self, user: User, offering: Offering) -> bool:
        """Whether a user is on the provider's side of an offering."""
        if sees_everything(user):
            return True
        reach = self.reach(user)
        return offering.uuid in reach.offerings or offering.customer.uuid in reach.customers

    def sees_public_offering(self, user: User, offering: Offering) -> bool:
        """Published shared offerings for everybody, others for the provider's side."""
        return (offering.shared and offering.state in PUBLISHED) or self.provides(user, offering)

    def sees_resource(self, user: User, resource: Resource) -> bool:
        """Both sides: the project's and the provider's."""
        return self.sees_project(user, resource.project) or self.provides(user, resource.offering)

    def sees_order(self, user: User, order: Order) -> bool:
        """As its resource."""
        return self.sees_resource(user, order.resource)

    def sees_user(self, user: User, subject: User) -> bool:
        """Oneself, people with a role below a scope of one's own, and people whose ISD one manages."""
        if sees_everything(user) or user is subject or manages_identity(user, subject):
            return True
        mine = self.reach(user)
        theirs = self.reach(subject)
        return bool(
            mine.customers & (theirs.customers | theirs.project_customers)
            or mine.projects & theirs.projects
            or mine.offerings & theirs.offerings
        )

    def sees_offering_user(self, user: User, offering_user: OfferingUser) -> bool:
        """The user concerned, the provider's side, and identity managers with an ISD in common."""
        return (
            user is offering_user.user
            or self.provides(user, offering_user.offering)
            or manages_identity(user, offering_user.user)
        )

    def sees_agent_identity(self, user: User, identity: AgentIdentity) -> bool:
        """The provider's side, and the identity manager who registered it."""
        return self.provides(user, identity.offering) or self.manages_agent(user, identity.offering, identity)

    def manages_agent(self, user: User, offering: Offering, identity: AgentIdentity | None = None) -> bool:
        """Whether a user may register or change a site agent of an offering.

        Staff, holders of OFFERING.CREATE on the provider or OFFERING.UPDATE on the offering, and identity managers
        with managed ISDs for an offering that is neither draft nor archived; the last may change their own agents
        only. (Upstream's ``resolve_offering_agent_authorization``; the token of document 000, step 1.5, is such an
        identity manager.)
        """
        if self.allows(user, "OFFERING.CREATE", offering.customer) or self.allows(
            user, "OFFERING.UPDATE", offering
        ):
            return True
        if not (user.is_identity_manager and user.managed_isds):
            return False
        return offering.state in ISD_OFFERING_STATES and (identity is None or identity.created_by is user)


def sees_everything(user: User) -> bool:
    """Staff and support see every object."""
    return user.is_staff or user.is_support


def manages_identity(user: User, subject: User) -> bool:
    """Whether a user is an identity manager of an ISD that is active for the subject (document 001)."""
    return user.is_identity_manager and not set(user.managed_isds).isdisjoint(subject.active_isds)


def require_staff(user: User) -> None:
    """Refuse with 403 unless staff."""
    if not user.is_staff:
        raise forbidden()


def check_role_fits(role: Role, kind: ScopeKind) -> None:
    """Refuse a role of another kind of scope (sample ``project_add_user_wrong_role_type``)."""
    if role.scope_kind != kind:
        raise ApiError(400, {"non_field_errors": ["Role is not valid for this scope."]})


def expired(grant: Grant) -> bool:
    """Whether a grant has ended."""
    if grant.expiration_time is None:
        return False
    end = datetime.fromisoformat(grant.expiration_time)
    return (end if end.tzinfo else end.replace(tzinfo=UTC)) <= datetime.now(UTC)


def _scopes(grants: list[Grant], kind: ScopeKind) -> frozenset[str]:
    return frozenset(grant.scope.uuid for grant in grants if grant.scope_kind is kind)
