"""Members, identities and end dates: what the agent carries between two Waldurs besides orders and usernames.

The agent's part runs as its ``membership_sync`` and ``event_process`` modes run it; the rest is what people do on
one of the Waldurs, and what is true there afterwards.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import date
from enum import Enum
from typing import Any

from pydantic import BaseModel

from testyard.core.errors import UserError
from testyard.core.identifiers import hexadecimal, same_identifier
from testyard.waldur.agent import SiteAgent
from testyard.waldur.api import Waldur
from testyard.waldur.calls import Call
from testyard.waldur.duties import Done, perform
from testyard.waldur.provisioning import ROLE_COLLECTIONS
from testyard.waldur.states import Role, Side

IDENTIFIER = re.compile(r"[0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Activity(Enum):
    """Whether a user may log in."""

    ACTIVE = "active"
    INACTIVE = "inactive"


class Member(BaseModel):
    """A role that somebody holds.

    Attributes:
        user_uuid: Whose it is.
        user_username: How they are called in Waldur.
        role_name: The role, such as ``PROJECT.MEMBER``.
        role_uuid: The role's UUID on this Waldur.
    """

    user_uuid: str
    user_username: str
    role_name: str
    role_uuid: str


class Identity(BaseModel):
    """A user as identity sources (ISDs) know it.

    Attributes:
        uuid: The user's UUID.
        username: How they are called; the same on both sides of a federation.
        full_name: First and last name.
        email: The address.
        is_active: Whether they may log in.
        active_isds: The identity sources that vouch for them.
    """

    uuid: str
    username: str
    full_name: str = ""
    email: str = ""
    is_active: bool = True
    active_isds: list[str] = []


class EndDates(BaseModel):
    """When a resource and its project end; None where they do not."""

    end_date: date | None = None
    project_end_date: date | None = None

    def __str__(self) -> str:
        return f"resource {self.end_date or 'never'}, project {self.project_end_date or 'never'}"


# What the agent does.


def sync_members(agent: SiteAgent) -> Done:
    """Run one cycle of the agent's ``membership_sync`` mode: it makes a backend for each cycle, as here."""
    offering = agent.offering

    def cycle() -> None:
        backend, backend_version = agent.modules.utils.get_backend_for_offering(
            offering, "membership_sync_backend"
        )
        try:
            _membership_processor(agent, backend, backend_version).process_offering()
        finally:
            backend.client._api_client.get_httpx_client().close()

    return perform(agent, cycle)


def tell_of_role(agent: SiteAgent, user: str, project: str, role: Role, *, granted: bool) -> Done:
    """Let the agent do what it does when A tells it of a role, over STOMP or otherwise.

    Args:
        agent: The agent.
        user: UUID of the user on A.
        project: UUID of the project on A.
        role: The role that was granted or revoked.
        granted: Which of the two.
    """

    def handle() -> None:
        processor = _membership_processor(agent, agent.backend, "")
        processor.process_user_role_changed(hexadecimal(user), hexadecimal(project), granted, role.value)

    return perform(agent, handle)


class IdentityBridge:
    """The agent's username backend ``waldur-identity-bridge``, kept from one sync to the next.

    It knows who is stale only from its own last sync. The agent makes a new one for each cycle.

    Args:
        agent: The agent, whose configuration names that backend.
    """

    def __init__(self, agent: SiteAgent) -> None:
        self._agent = agent
        self._backend, _ = agent.modules.utils.get_username_management_backend(agent.offering)

    def sync(self) -> Done:
        """Push the offering users of A to B, and let those go who were there the last time."""
        processor = _membership_processor(self._agent, self._agent.backend, "")
        return perform(
            self._agent, lambda: self._backend.sync_user_profiles(processor._get_waldur_offering_users())
        )


def _membership_processor(agent: SiteAgent, backend: Any, backend_version: str) -> Any:
    return agent.modules.processors.OfferingMembershipProcessor(
        agent.offering, agent.client, resource_backend=backend, resource_backend_version=backend_version
    )


def changes(calls: Iterable[Call], side: Side) -> list[str]:
    """The calls that are to change something on one side, as ``POST projects/add_user``."""
    return [_without_identifiers(call) for call in calls if call.side is side and call.method != "GET"]


def _without_identifiers(call: Call) -> str:
    parts = call.path.partition("?")[0].removeprefix("/api/").strip("/").split("/")
    return f"{call.method} {'/'.join(part for part in parts if not IDENTIFIER.fullmatch(part))}"


# What people do, and what is true afterwards.


def members(waldur: Waldur, scope: str, kind: str = "projects") -> list[Member]:
    """Who holds a role on a project, or on another kind of scope."""
    found = waldur.all(f"{kind}/{hexadecimal(scope)}/list_users")
    return [Member.model_validate(member) for member in found]


def revoke_role(waldur: Waldur, role: Role, user: str, scope: str) -> None:
    """Take a role away from a user.

    Raises:
        UserError: The user does not hold it.
    """
    kind = ROLE_COLLECTIONS[role.value.split(".")[0]]
    for member in members(waldur, scope, kind):
        if member.role_name == role.value and same_identifier(member.user_uuid, user):
            body = {"role": member.role_uuid, "user": hexadecimal(user)}
            waldur.post(f"{kind}/{hexadecimal(scope)}/delete_user", body)
            return
    message = f"User {user} does not hold {role.value} on {scope}."
    raise UserError(message)


def restrict_members(waldur: Waldur, resource: str, *, restricted: bool) -> None:
    """Say whether a project's members may use its resource, as the resource's provider."""
    path = f"marketplace-provider-resources/{hexadecimal(resource)}/set_restrict_member_access"
    waldur.post(path, {"restrict_member_access": restricted})


def identity_named(waldur: Waldur, username: str) -> Identity | None:
    """The user of a name, or None."""
    found = [Identity.model_validate(user) for user in waldur.all("users", username=username)]
    return next((identity for identity in found if identity.username == username), None)


def identities_from(waldur: Waldur, source: str) -> list[Identity]:
    """The users that an identity source vouches for, of those that the caller sees."""
    found = (Identity.model_validate(user) for user in waldur.all("users"))
    return [identity for identity in found if source in identity.active_isds]


def rename_user(waldur: Waldur, user: str, full_name: str) -> None:
    """Give a user another first and last name."""
    first, _, last = full_name.partition(" ")
    waldur.patch(f"users/{hexadecimal(user)}", {"first_name": first, "last_name": last})


def end_dates(waldur: Waldur, resource: str) -> EndDates:
    """When a resource and its project end."""
    return EndDates.model_validate(waldur.get(f"marketplace-resources/{hexadecimal(resource)}"))


def set_end_dates(waldur: Waldur, resource: str, project: str, dates: EndDates) -> None:
    """Say when a resource and its project end."""
    told = dates.model_dump(mode="json")
    waldur.post(f"marketplace-resources/{hexadecimal(resource)}/set_end_date", {"end_date": told["end_date"]})
    waldur.patch(f"projects/{hexadecimal(project)}", {"end_date": told["project_end_date"]})
