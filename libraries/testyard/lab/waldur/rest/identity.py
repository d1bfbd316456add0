"""The identity bridge and the eduTEAMS look-up: accounts that other identity providers push or name.

Status codes and texts follow upstream's ``IdentityBridgeView`` and ``RemoteEduteamsView``.
"""

import re

from testyard.lab.waldur.exchange import ApiError, Reply, Request, json_reply
from testyard.lab.waldur.model import User
from testyard.lab.waldur.offering_users import announce_profile_change
from testyard.lab.waldur.payload import Payload
from testyard.lab.waldur.represent.structure import PROFILE_LISTS
from testyard.lab.waldur.routing import Endpoint
from testyard.lab.waldur.users import new_token
from testyard.lab.waldur.world import World

_SOURCE = re.compile(r"[a-z]+:[a-zA-Z0-9._-]+")
_OWN_FIELDS = ("first_name", "last_name", "email")
ALLOWED_FIELDS = (
    *_OWN_FIELDS,
    "organization",
    "affiliations",
    "civil_number",
    "phone_number",
    "identity_source",
    "gender",
    "personal_title",
    "birth_date",
    "place_of_birth",
    "address",
    "country_of_residence",
    "nationality",
    "nationalities",
    "organization_country",
    "organization_type",
    "eduperson_assurance",
)
"""What may be pushed (``IdentityBridgeRequestRequest`` of the client)."""
_REFUSED_FIELDS = frozenset(
    {
        "organization_registry_code",
        "organization_vat_code",
        "organization_address",
        "uid_number",
        "primary_gid",
    }
)
"""What upstream's serialiser knows and the configuration does not allow. What it does not know, such as the
``full_name`` that agent 1.0.7 sends, it passes over."""


def push(world: World, request: Request) -> Reply:
    """POST identity-bridge/ {username, source, ...}: creates or updates the user; again, it changes nothing.

    A user who was deactivated does not come back this way.
    """
    _require_bridge(world, request)
    username, source = _username_and_source(request)
    payload = Payload(request.body)
    refused = sorted(_REFUSED_FIELDS & request.body.keys())
    if refused:
        fields = ", ".join(refused)
        raise ApiError(
            400, {"non_field_errors": [f"Fields not allowed by Identity Bridge configuration: {fields}"]}
        )
    known = _user_named(world, username)
    if known is not None and not known.is_active:
        raise ApiError(400, {"detail": f"User {username} is deactivated."})
    user = known or User(username=username, slug="", token=new_token())
    changed = _take_over(payload, user, source)
    payload.check()
    if known is None:
        user.slug = world.store.slug("user", username)
        world.store.users.add(user)
    if source not in user.active_isds:
        user.active_isds = [*user.active_isds, source]
        changed.append("active_isds")
    for name in _pushed(payload, user, source):
        user.attribute_sources[name] = source
    if changed or known is None:
        world.store.touch(user)
        announce_profile_change(world, user, changed)
    return json_reply({"uuid": user.uuid, "created": known is None, "updated_fields": sorted(changed)})


def remove(world: World, request: Request) -> Reply:
    """POST identity-bridge/remove/ {username, source}: without an ISD left, the user is deactivated.

    What the source had pushed goes with it. (Upstream's policy ``all_isds_removed``.)
    """
    _require_bridge(world, request)
    username, source = _username_and_source(request)
    user = _user_named(world, username)
    if user is None:
        raise ApiError(404, {"detail": f"User {username} not found."})
    cleared = [name for name, owner in user.attribute_sources.items() if owner == source]
    for name in cleared:
        del user.attribute_sources[name]
        if name in _OWN_FIELDS:
            setattr(user, name, "")
        else:
            user.details.pop(name, None)
    user.active_isds = [isd for isd in user.active_isds if isd != source]
    user.is_active = bool(user.active_isds)
    world.store.touch(user)
    announce_profile_change(world, user, ["active_isds", *cleared])
    return json_reply({"uuid": user.uuid, "deactivated": not user.is_active})


def list_allowed_fields(world: World, request: Request) -> Reply:
    """GET identity-bridge/allowed-fields/."""
    _require_bridge(world, request)
    return json_reply({"allowed_fields": sorted(ALLOWED_FIELDS)})


def look_up_eduteams(world: World, request: Request) -> Reply:
    """POST remote-eduteams/ {cuid}: the user whose username is the CUID.

    A real server asks eduTEAMS for a CUID that it does not know; the double knows its own users only.
    """
    caller = request.caller
    if not (caller.is_staff or caller.is_identity_manager):
        raise ApiError(403, "Only staff and identity manager are allowed to sync remote users.")
    payload = Payload(request.body)
    cuid = payload.text("cuid", required=True, blank=False)
    payload.check()
    user = _user_named(world, cuid)
    if user is None:
        raise ApiError(404, {"detail": f"User {cuid} has not been found"})
    return json_reply({"uuid": user.uuid})


def _require_bridge(world: World, request: Request) -> None:
    caller = request.caller
    if not world.store.federated_identity_sync:
        raise ApiError(403, "Identity Bridge is disabled.")
    if not (caller.is_staff or caller.is_identity_manager):
        raise ApiError(403, "Only staff and identity managers are allowed to use the Identity Bridge.")


def _username_and_source(request: Request) -> tuple[str, str]:
    payload = Payload(request.body)
    username = payload.text("username", required=True, blank=False)
    source = payload.text("source", required=True, blank=False)
    if source and not _SOURCE.fullmatch(source):
        payload.fail("source", "Source must match the format 'type:name' (e.g. 'isd:puhuri').")
    payload.check()
    caller = request.caller
    if not caller.is_staff and source not in caller.managed_isds:
        raise ApiError(403, f"Source '{source}' is not in your managed ISDs.")
    return username, source


def _user_named(world: World, username: str) -> User | None:
    return next(iter(world.store.users.where("username", username.lower()).values()), None)


def _pushed(payload: Payload, user: User, source: str) -> list[str]:
    """The attributes in a body that a source may set: it may not empty what another source has set."""
    return [
        name
        for name in ALLOWED_FIELDS
        if name in payload and (payload.raw(name) or user.attribute_sources.get(name, source) == source)
    ]


def _take_over(payload: Payload, user: User, source: str) -> list[str]:
    """Take over the attributes in a body when it is checked; gives the names of those that change."""
    changed = []
    for name in _pushed(payload, user, source):
        if name in _OWN_FIELDS:
            text = payload.text(name)
            if getattr(user, name) != text:
                payload.assign(user, name, text)
                changed.append(name)
            continue
        value = payload.texts(name) if name in PROFILE_LISTS else payload.raw(name)
        if user.details.get(name) != value:
            payload.put(user.details, name, value)
            changed.append(name)
    return changed


ENDPOINTS = {
    "identity-bridge": Endpoint(
        "User",
        collection={"POST": push},
        collection_actions={"remove": {"POST": remove}, "allowed-fields": {"GET": list_allowed_fields}},
    ),
    "remote-eduteams": Endpoint("User", collection={"POST": look_up_eduteams}),
}
