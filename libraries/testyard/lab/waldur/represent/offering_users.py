"""Offering users and teams in JSON (samples ``offering_user_*``, ``provider_resource_team``)."""

from typing import Any

from testyard.lab.waldur.exchange import Request
from testyard.lab.waldur.model import Grant, Offering, OfferingUser, Resource
from testyard.lab.waldur.offering_users import of_user
from testyard.lab.waldur.represent.structure import PROFILE, profile_value
from testyard.lab.waldur.world import World

_USER_ATTRIBUTES = tuple(
    name
    for name in PROFILE
    if name not in ("native_name", "description", "preferred_language", "deactivation_reason")
)


def offering_user_details(request: Request, offering_user: OfferingUser) -> dict[str, Any]:
    """An offering user."""
    offering, user = offering_user.offering, offering_user.user
    return {
        "url": request.url("marketplace-offering-users", offering_user.uuid),
        "uuid": offering_user.uuid,
        "user": request.url("users", user.uuid),
        "offering": request.url("marketplace-provider-offerings", offering.uuid),
        "username": offering_user.username,
        "offering_uuid": offering.uuid,
        "offering_name": offering.name,
        "user_uuid": user.uuid,
        "user_username": user.username,
        "user_full_name": user.full_name,
        "user_first_name": user.first_name,
        "user_last_name": user.last_name,
        "user_email": user.email,
        "user_active_isds": user.active_isds,
        **{f"user_{name}": profile_value(user, name) for name in _USER_ATTRIBUTES},
        "created": offering_user.created,
        "modified": offering_user.modified,
        "propagation_date": None,
        "customer_uuid": offering.customer.uuid,
        "customer_name": offering.customer.name,
        "is_restricted": offering_user.is_restricted,
        "state": str(offering_user.state),
        "service_provider_comment": offering_user.service_provider_comment,
        "service_provider_comment_url": offering_user.service_provider_comment_url,
        "has_consent": False,
        "requires_reconsent": False,
        "offering_has_active_tos": False,
        "has_compliance_checklist": False,
        "consent_data": None,
        "is_profile_complete": True,
        "missing_profile_attributes": [],
    }


def team_member(world: World, request: Request, resource: Resource, grant: Grant) -> dict[str, Any]:
    """A member of a resource's project; ``role`` is the role's full name for today's client.

    Sample ``provider_resource_team`` has the short names ``manager`` and ``member``; the agent 1.0.7 maps roles by
    full name (``role_mapping`` of the backend settings, e.g. ``PROJECT.MEMBER``).
    """
    user = grant.user
    offering_user = of_user(world, resource.offering, user)
    return {
        "url": request.url("users", user.uuid),
        "uuid": user.uuid,
        "username": user.username,
        "full_name": user.full_name,
        "email": user.email,
        "role": grant.role.name,
        "expiration_time": grant.expiration_time,
        "offering_user_username": offering_user.username if offering_user else None,
        "offering_user_state": str(offering_user.state) if offering_user else None,
    }


def attribute_config(offering: Offering) -> dict[str, Any]:
    """Which attributes of its users an offering shows (``OfferingUserAttributeConfig`` of the client)."""
    exposed = offering.exposed_fields
    names = ("full_name", "email", "username", "active_isds", *_USER_ATTRIBUTES)
    return {
        "uuid": offering.uuid,
        "created": offering.created,
        "modified": offering.modified,
        "exposed_fields": exposed,
        "is_default": offering.chosen_fields is None,
        "offering_uuid": offering.uuid,
        "offering_name": offering.name,
        **{f"expose_{name}": name in exposed for name in names},
    }
