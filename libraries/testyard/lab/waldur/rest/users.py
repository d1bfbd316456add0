"""Users, tokens and passwords (``/api/users/``, ``/api-auth/password/``) and ``/api/version/``."""

import secrets
from typing import Any

from testyard.lab.waldur.exchange import ApiError, Reply, Request, created, empty, forbidden, json_reply
from testyard.lab.waldur.model import User
from testyard.lab.waldur.offering_users import announce_profile_change, forget_user
from testyard.lab.waldur.pagination import listing, selected
from testyard.lab.waldur.payload import Payload
from testyard.lab.waldur.permissions import require_staff
from testyard.lab.waldur.represent.structure import (
    PROFILE,
    PROFILE_LISTS,
    own_details,
    profile_value,
    user_details,
)
from testyard.lab.waldur.rest.lookup import find_user
from testyard.lab.waldur.routing import Endpoint
from testyard.lab.waldur.users import new_token, password_digest
from testyard.lab.waldur.world import World

_NAMES = ("first_name", "last_name", "email")
_STAFF_FLAGS = ("is_staff", "is_support", "is_active", "is_identity_manager")
_STAFF_LISTS = ("managed_isds", "active_isds")


def list_users(world: World, request: Request) -> Reply:
    """GET users/ with the exact filters that clients use."""
    users = [user for user in world.store.users if world.permissions.sees_user(request.caller, user)]
    for name in ("username", "email", "first_name", "last_name", "civil_number"):
        wanted = request.parameter(name)
        if wanted is not None:
            users = [user for user in users if _attribute(user, name).lower() == wanted.lower()]
    query = (request.parameter("query") or request.parameter("user_keyword") or "").lower()
    if query:
        users = [
            user
            for user in users
            if query in user.username.lower() or query in user.full_name.lower() or query in user.email.lower()
        ]
    return listing(request, users, lambda user: user_details(world, request, user))


def create_user(world: World, request: Request) -> Reply:
    """POST users/ by staff."""
    require_staff(request.caller)
    payload = Payload(request.body)
    username = payload.text("username", required=True, blank=False)
    if username and world.store.users.where("username", username.lower()):
        payload.fail("username", "This field must be unique.")
    user = User(username=username, slug="", token=new_token())
    _read(payload, user, staff=True)
    payload.check()
    user.slug = world.store.slug("user", username)
    world.store.users.add(user)
    world.store.touch(user)
    return created(user_details(world, request, user))


def get_user(world: World, request: Request) -> Reply:
    """GET users/{uuid}/."""
    return json_reply(selected(request, user_details(world, request, find_user(world, request))))


def get_me(world: World, request: Request) -> Reply:
    """GET users/me/."""
    return json_reply(selected(request, own_details(world, request, request.caller)))


def change_user(world: World, request: Request) -> Reply:
    """PATCH or PUT users/{uuid}/ by staff, or by the user for what is not a right."""
    user = find_user(world, request)
    caller = request.caller
    if not caller.is_staff and caller is not user:
        raise forbidden()
    payload = Payload(request.body)
    before = _profile(user)
    _read(payload, user, staff=caller.is_staff)
    payload.check()
    after = _profile(user)
    world.store.touch(user)
    announce_profile_change(world, user, [name for name in before if before[name] != after[name]])
    return json_reply(user_details(world, request, user))


def delete_user(world: World, request: Request) -> Reply:
    """DELETE users/{uuid}/ by staff: with the user go its roles, offering users, agents and queues."""
    require_staff(request.caller)
    forget_user(world, find_user(world, request))
    return empty(204)


def set_password(world: World, request: Request) -> Reply:
    """POST users/{uuid}/set_password/ (also ``password/``) by staff or by the user."""
    user = _self_or_staff(world, request)
    payload = Payload(request.body)
    field = "password" if "password" in payload else "new_password"
    password = payload.text(field, required=True, blank=False)
    payload.check()
    user.password_digest = password_digest(password, user.uuid)
    world.store.touch(user)
    return json_reply({"detail": "Password has been successfully updated."})


def get_token(world: World, request: Request) -> Reply:
    """GET users/{uuid}/token/ by staff or by the user."""
    return json_reply(_token(world, request))


def refresh_token(world: World, request: Request) -> Reply:
    """POST users/{uuid}/refresh_token/ by staff or by the user: the old token stops working."""
    user = _self_or_staff(world, request)
    user.token = new_token()
    world.store.users.reindex(user)
    world.store.touch(user)
    return json_reply(_token(world, request), 201)


def log_in(world: World, request: Request) -> Reply:
    """POST /api-auth/password/ {username, password}: the user's token."""
    payload = Payload(request.body)
    username = payload.text("username", required=True, blank=False)
    password = payload.text("password", required=True, blank=False)
    payload.check()
    user = next(iter(world.store.users.where("username", username.lower()).values()), None)
    if (
        user is None
        or not user.is_active
        or not user.password_digest
        or not secrets.compare_digest(user.password_digest, password_digest(password, user.uuid))
    ):
        raise ApiError(401, {"detail": "Invalid username/password."})
    return json_reply({"token": user.token})


def get_version(_world: World, _request: Request) -> Reply:
    """GET version/ (sample ``version``)."""
    return json_reply({"version": "testyard double of 7.0.7"})


def _self_or_staff(world: World, request: Request) -> User:
    user = find_user(world, request)
    if not request.caller.is_staff and request.caller is not user:
        raise forbidden()
    return user


def _token(world: World, request: Request) -> dict[str, Any]:
    user = _self_or_staff(world, request)
    return {
        "token": user.token,
        "created": user.modified,
        "user_first_name": user.first_name,
        "user_last_name": user.last_name,
        "user_username": user.username,
        "user_is_active": user.is_active,
        "user_token_lifetime": None,
    }


def _attribute(user: User, name: str) -> str:
    return str(getattr(user, name) if hasattr(user, name) else profile_value(user, name) or "")


def _read(payload: Payload, user: User, *, staff: bool) -> None:
    """Take over the attributes in a body when it is checked."""
    for name in _NAMES:
        if name in payload:
            payload.assign(user, name, payload.text(name))
    if "full_name" in payload and "first_name" not in payload:
        first, _, last = payload.text("full_name").partition(" ")
        payload.assign(user, "first_name", first)
        payload.assign(user, "last_name", last)
    for name in PROFILE:
        if name in payload:
            payload.put(user.details, name, payload.texts(name) if name in PROFILE_LISTS else payload.raw(name))
    if staff:
        for name in _STAFF_FLAGS:
            if name in payload:
                payload.assign(user, name, payload.flag(name))
        for name in _STAFF_LISTS:
            if name in payload:
                payload.assign(user, name, payload.texts(name))


def _profile(user: User) -> dict[str, str]:
    """What offerings may be shown of a user, to find out what changed."""
    names = (*_NAMES, "active_isds", *PROFILE)
    return {name: _attribute(user, name) for name in names}


ENDPOINTS = {
    "users": Endpoint(
        "User",
        collection={"GET": list_users, "POST": create_user},
        item={"GET": get_user, "PUT": change_user, "PATCH": change_user, "DELETE": delete_user},
        collection_actions={"me": {"GET": get_me}},
        item_actions={
            "set_password": {"POST": set_password},
            "password": {"POST": set_password},
            "token": {"GET": get_token},
            "refresh_token": {"POST": refresh_token},
        },
    ),
    "version": Endpoint("Version", collection={"GET": get_version}, public=True),
}
