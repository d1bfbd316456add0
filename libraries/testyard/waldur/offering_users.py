"""Offering users: the accounts that users have at an offering (document 001)."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum

from pydantic import BaseModel

from testyard.core.identifiers import hexadecimal
from testyard.waldur.api import Waldur

COLLECTION = "marketplace-offering-users"


class OfferingUserState(Enum):
    """States of an offering user; a username makes it OK."""

    REQUESTED = "Requested"
    CREATING = "Creating"
    PENDING_ACCOUNT_LINKING = "Pending account linking"
    PENDING_ADDITIONAL_VALIDATION = "Pending additional validation"
    OK = "OK"
    REQUESTED_DELETION = "Requested deletion"
    DELETING = "Deleting"
    DELETED = "Deleted"
    ERROR_CREATING = "Error creating"
    ERROR_DELETING = "Error deleting"


class OfferingUser(BaseModel):
    """A user's account at an offering.

    Attributes:
        uuid: Its UUID.
        user_uuid: Whose it is.
        user_username: How that user is called in Waldur, on both sides of a federation.
        username: How they are called on the offering's system; empty until somebody says.
        state: What has become of the account.
    """

    uuid: str
    user_uuid: str
    user_username: str
    username: str | None = ""
    state: OfferingUserState

    def __str__(self) -> str:
        return f"{self.user_username} ({self.username or 'no username'}, {self.state.value})"


def offering_users(waldur: Waldur, offering: str) -> Iterator[OfferingUser]:
    """The accounts at an offering that a user may see."""
    found = waldur.all(COLLECTION, offering_uuid=hexadecimal(offering))
    return map(OfferingUser.model_validate, found)


def offering_user_of(waldur: Waldur, offering: str, user: str) -> OfferingUser | None:
    """The account of one user at an offering, or None."""
    query = {"offering_uuid": hexadecimal(offering), "user_uuid": hexadecimal(user)}
    return next((OfferingUser.model_validate(found) for found in waldur.all(COLLECTION, **query)), None)


def offering_user(waldur: Waldur, uuid: str) -> OfferingUser:
    """One account, whatever form its UUID has."""
    return OfferingUser.model_validate(waldur.get(f"{COLLECTION}/{hexadecimal(uuid)}"))


def create_offering_user(waldur: Waldur, offering: str, user: str, username: str = "") -> str:
    """Create an account by hand; returns its UUID."""
    body = {
        "offering": waldur.link("marketplace-provider-offerings", offering),
        "user": waldur.link("users", user),
    }
    if username:
        body["username"] = username
    return str(waldur.post(COLLECTION, body)["uuid"])


def set_username(waldur: Waldur, uuid: str, username: str) -> None:
    """Say how the user is called on the offering's system: an account that was requested becomes OK."""
    waldur.patch(f"{COLLECTION}/{hexadecimal(uuid)}", {"username": username})


def delete_offering_user(waldur: Waldur, uuid: str) -> None:
    """Delete an account."""
    waldur.delete(f"{COLLECTION}/{hexadecimal(uuid)}")
