"""Prepare one side of a federation from nothing, over REST (document 000, steps 1 and 2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from testyard.core.identifiers import hexadecimal
from testyard.core.redact import secrets_in_use
from testyard.waldur.api import Waldur
from testyard.waldur.offering_users import create_offering_user, offering_user_of, set_username
from testyard.waldur.states import OfferingState, Role

OFFERING_TYPE = "Marketplace.Slurm"

# What a run prepares as staff, in the order to delete it, and which attribute starts with the run's id; what hangs
# off these objects goes with them.
PREPARED_COLLECTIONS = {
    "users": "username",
    "projects": "name",
    "marketplace-provider-offerings": "name",
    "marketplace-service-providers": "customer_name",
    "customers": "name",
    "marketplace-categories": "title",
}

ROLE_COLLECTIONS = {
    "CUSTOMER": "customers",
    "OFFERING": "marketplace-provider-offerings",
    "PROJECT": "projects",
}


class Provisioner:
    """Creates what a federation needs on one Waldur, as its staff user.

    Every object's name starts with the run's id, so that a run can be told from others and cleaned up.

    Args:
        waldur: The instance, with a token that may create organisations and users.
        run: The run's id.
    """

    def __init__(self, waldur: Waldur, run: str) -> None:
        self.waldur = waldur
        self._run = run
        self._prepared: list[tuple[str, str]] = []

    def _named(self, name: str) -> str:
        return f"{self._run} {name}"

    def username(self, name: str) -> str:
        """A username of this run."""
        return f"{self._run}-{name}"

    def create_organisation(self, name: str) -> str:
        """Create an organisation; returns its UUID."""
        return self._created("customers", {"name": self._named(name)})

    def make_service_provider(self, organisation: str) -> str:
        """Let an organisation provide offerings; returns the service provider's UUID."""
        return self._created(
            "marketplace-service-providers", {"customer": self.waldur.link("customers", organisation)}
        )

    def create_category(self, title: str) -> str:
        """Create a category of offerings; returns its UUID."""
        return self._created("marketplace-categories", {"title": self._named(title)})

    def create_offering(self, name: str, category: str, organisation: str, kind: str = OFFERING_TYPE) -> str:
        """Create a shared offering in state Draft; returns its UUID.

        Args:
            name: The offering's name.
            category: UUID of its category.
            organisation: UUID of the organisation that provides it.
            kind: Its type; the site agent needs ``Marketplace.Slurm``.
        """
        return self._created(
            "marketplace-provider-offerings",
            {
                "name": self._named(name),
                "category": self.waldur.link("marketplace-categories", category),
                "customer": self.waldur.link("customers", organisation),
                "type": kind,
                "shared": True,
                "plugin_options": {"service_provider_can_create_offering_user": True},
            },
        )

    def add_component(self, offering: str, component: str, unit: str, billing: str = "limit") -> None:
        """Add a component to an offering; its type is what configurations and limits name."""
        self.waldur.post(
            f"marketplace-provider-offerings/{hexadecimal(offering)}/create_offering_component",
            {"type": component, "name": component, "measured_unit": unit, "billing_type": billing},
        )

    def add_plan(self, offering: str, name: str) -> str:
        """Add a plan without prices to an offering; returns its UUID."""
        return self._created(
            "marketplace-plans",
            {"name": name, "offering": self.waldur.link("marketplace-provider-offerings", offering)},
        )

    def set_offering_state(self, offering: str, state: OfferingState) -> None:
        """Move an offering to another state."""
        action = {
            OfferingState.ACTIVE: "activate",
            OfferingState.DRAFT: "draft",
            OfferingState.PAUSED: "pause",
            OfferingState.ARCHIVED: "archive",
        }[state]
        self.waldur.post(f"marketplace-provider-offerings/{hexadecimal(offering)}/{action}")

    def create_project(self, name: str, organisation: str) -> str:
        """Create a project in an organisation; returns its UUID."""
        return self._created(
            "projects",
            {"name": self._named(name), "customer": self.waldur.link("customers", organisation)},
        )

    def create_user(self, username: str, full_name: str = "", email: str = "") -> str:
        """Create a user; returns its UUID.

        Args:
            username: Prefixed with the run's id.
            full_name: First and last name; the username when empty.
            email: The address; made from the username when empty.
        """
        username = self.username(username)
        first, _, last = (full_name or username).partition(" ")
        address = email or f"{username.replace('@', '-at-')}@example.org"
        return self._created(
            "users",
            {
                "username": username,
                "email": address,
                "first_name": first,
                "last_name": last,
                "full_name": full_name or username,
            },
        )

    def create_token(self, user: str) -> str:
        """Make a new API token for a user; the value is masked in every log from now on."""
        token = str(self.waldur.post(f"users/{hexadecimal(user)}/refresh_token")["token"])
        secrets_in_use.add(token)
        return token

    def grant_role(self, role: Role, user: str, scope: str) -> None:
        """Give a user a role on an organisation, an offering or a project.

        Args:
            role: The role; its first word says what ``scope`` is.
            user: UUID of the user.
            scope: UUID of the organisation, offering or project.
        """
        collection = ROLE_COLLECTIONS[role.value.split(".")[0]]
        self.waldur.post(
            f"{collection}/{hexadecimal(scope)}/add_user",
            {"role": self._role_uuid(role), "user": hexadecimal(user)},
        )

    def name_offering_user(self, offering: str, user: str, username: str) -> None:
        """Give a user the name they have on an offering's system; creates the offering user when missing."""
        known = offering_user_of(self.waldur, offering, user)
        if known is None:
            create_offering_user(self.waldur, offering, user, username)
        else:
            set_username(self.waldur, known.uuid, username)

    def push_identity(self, username: str, source: str) -> str:
        """Create or update a user over the identity bridge, as an identity source (ISD) does; returns its UUID."""
        name = self.username(username)
        pushed = self.waldur.post("identity-bridge", {"username": name, "source": source})
        return self._remember("users", str(pushed["uuid"]))

    def change_user(self, user: str, **attributes: Any) -> None:
        """Change attributes of a user."""
        self.waldur.patch(f"users/{hexadecimal(user)}", attributes)

    def add_identity_source(self, user: str, source: str) -> None:
        """Say that a user's identity comes from a source (ISD); its managers then see the user."""
        self.change_user(user, active_isds=[source])

    def make_identity_manager(self, user: str, managed_isds: Sequence[str]) -> None:
        """Let a user manage the identities of some identity sources (ISDs)."""
        self.change_user(user, is_identity_manager=True, managed_isds=list(managed_isds))

    def delete_all(self) -> int:
        """Delete whatever was prepared, the newest first; returns how many objects."""
        prepared = [
            (collection, uuid) for collection, uuid in self._prepared if collection in PREPARED_COLLECTIONS
        ]
        for collection, uuid in reversed(prepared):
            self.waldur.delete(f"{collection}/{uuid}")
        return len(prepared)

    def left(self) -> list[str]:
        """The objects that were prepared and still exist, as ``collection/uuid``."""
        paths = [f"{collection}/{uuid}" for collection, uuid in self._prepared]
        return [path for path in paths if self.waldur.find(path) is not None]

    def _role_uuid(self, role: Role) -> str:
        # Waldur's name filter matches nothing or everything on some versions, so the name is compared here.
        for candidate in self.waldur.all("roles", name=role.value):
            if candidate["name"] == role.value:
                return str(candidate["uuid"])
        message = f"{self.waldur.name} knows no role {role.value}."
        raise LookupError(message)

    def _created(self, collection: str, body: dict[str, Any]) -> str:
        return self._remember(collection, str(self.waldur.post(collection, body)["uuid"]))

    def _remember(self, collection: str, uuid: str) -> str:
        if (collection, uuid) not in self._prepared:
            self._prepared.append((collection, uuid))
        return uuid
