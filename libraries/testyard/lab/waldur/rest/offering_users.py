"""Offering users (``/api/marketplace-offering-users/``) and what offerings show of them."""

from testyard.lab.waldur import offering_users
from testyard.lab.waldur.exchange import ApiError, Reply, Request, created, empty, json_reply
from testyard.lab.waldur.machines import OfferingUserAction, OfferingUserState
from testyard.lab.waldur.model import Offering, OfferingUser
from testyard.lab.waldur.pagination import listing, selected
from testyard.lab.waldur.payload import REQUIRED, Payload
from testyard.lab.waldur.permissions import manages_identity
from testyard.lab.waldur.represent.offering_users import attribute_config, offering_user_details
from testyard.lab.waldur.represent.structure import PROFILE
from testyard.lab.waldur.rest.lookup import find, find_provided_offering, narrowed
from testyard.lab.waldur.routing import Endpoint, Handler
from testyard.lab.waldur.world import World

_EXPOSABLE = frozenset({"username", "full_name", "email", "active_isds", *PROFILE})


def list_offering_users(world: World, request: Request) -> Reply:
    """GET marketplace-offering-users/, by username as recorded."""
    offerings = request.identifiers("offering_uuid")
    rows = [
        offering_user
        for offering_user in narrowed(world.store.offering_users, "offering", offerings)
        if world.permissions.sees_offering_user(request.caller, offering_user)
    ]
    rows.sort(key=lambda offering_user: offering_user.username)
    return listing(
        request,
        _filtered(request, rows),
        lambda offering_user: offering_user_details(request, offering_user),
    )


def create_offering_user(world: World, request: Request) -> Reply:
    """POST marketplace-offering-users/ {offering | offering_uuid, user | user_uuid, username?}.

    A second one for the same user is refused with 400 (sample ``offering_user_create_duplicate``).
    """
    payload = Payload(request.body)
    offering_field = "offering" if "offering" in payload else "offering_uuid"
    user_field = "user" if "user" in payload else "user_uuid"
    offering = payload.linked(
        offering_field,
        ("marketplace-provider-offerings", "marketplace-public-offerings"),
        world.store.offerings.get,
    )
    user = payload.linked(user_field, ("users",), world.store.users.get)
    username = payload.optional_text("username") or ""
    payload.check()
    if offering is None or user is None:
        raise ApiError(400, {"offering": [REQUIRED]})
    _require_manager(world, request, "OFFERING.CREATE_USER", offering)
    if offering_users.of_user(world, offering, user) is not None:
        raise ApiError(400, {"non_field_errors": ["The fields offering, user must make a unique set."]})
    offering_user = offering_users.add(world, offering, user, username)
    return created(offering_user_details(request, offering_user))


def get_offering_user(world: World, request: Request) -> Reply:
    """GET marketplace-offering-users/{uuid}/."""
    offering_user = _find(world, request)
    return json_reply(selected(request, offering_user_details(request, offering_user)))


def change_offering_user(world: World, request: Request) -> Reply:
    """PATCH or PUT marketplace-offering-users/{uuid}/ {username}: being created, it becomes OK."""
    offering_user = _find(world, request)
    _require_manager(world, request, "OFFERING.UPDATE_USER", offering_user.offering, offering_user)
    payload = Payload(request.body)
    username = payload.optional_text("username") or "" if "username" in payload else offering_user.username
    restricted = payload.flag("is_restricted", offering_user.is_restricted)
    payload.check()
    offering_users.set_username(world, offering_user, username)
    _restrict(world, offering_user, restricted)
    return json_reply(offering_user_details(request, offering_user))


def delete_offering_user(world: World, request: Request) -> Reply:
    """DELETE marketplace-offering-users/{uuid}/."""
    offering_user = _find(world, request)
    _require_manager(world, request, "OFFERING.DELETE_USER", offering_user.offering)
    offering_users.remove(world, offering_user)
    return empty(204)


def update_restricted(world: World, request: Request) -> Reply:
    """POST .../update_restricted/ {is_restricted} (sample ``offering_user_update_restricted``)."""
    offering_user = _find(world, request)
    _require_manager(world, request, "OFFERINGUSER.UPDATE_RESTRICTION", offering_user.offering)
    payload = Payload(request.body)
    payload.raw("is_restricted", required=True)
    restricted = payload.flag("is_restricted")
    payload.check()
    _restrict(world, offering_user, restricted)
    return empty()


def change_state(action: OfferingUserAction) -> Handler:
    """Make the handler of ``begin_creating``, ``request_deletion`` and so on."""

    def handler(world: World, request: Request) -> Reply:
        offering_user = _find(world, request)
        _require_manager(world, request, "OFFERING.UPDATE_USER", offering_user.offering, offering_user)
        payload = Payload(request.body)
        for name in ("comment", "comment_url"):
            if name in payload:
                payload.assign(offering_user, f"service_provider_{name}", payload.text(name))
        offering_users.check_action(offering_user, action)
        payload.check()
        offering_users.enter(world, offering_user, action)
        return empty()

    return handler


def get_attribute_config(world: World, request: Request) -> Reply:
    """GET marketplace-provider-offerings/{uuid}/user-attribute-config/."""
    return json_reply(attribute_config(find_provided_offering(world, request)))


def set_attribute_config(world: World, request: Request) -> Reply:
    """POST or PUT .../user-attribute-config/ with the flags ``expose_<attribute>``."""
    offering = find_provided_offering(world, request)
    world.permissions.require(request.caller, "OFFERING.UPDATE", offering, offering.customer)
    payload = Payload(request.body)
    exposed = set(offering.exposed_fields)
    for name in sorted(_EXPOSABLE):
        if payload.flag(f"expose_{name}", name in exposed):
            exposed.add(name)
        else:
            exposed.discard(name)
    payload.check()
    offering.chosen_fields = sorted(exposed)
    world.store.touch(offering)
    return json_reply(attribute_config(offering))


def _find(world: World, request: Request) -> OfferingUser:
    return find(
        request,
        world.store.offering_users,
        lambda offering_user: world.permissions.sees_offering_user(request.caller, offering_user),
    )


def _require_manager(
    world: World,
    request: Request,
    permission: str,
    offering: Offering,
    offering_user: OfferingUser | None = None,
) -> None:
    """The provider's side, and for an existing account the identity manager of its user (document 001)."""
    if offering_user is not None and manages_identity(request.caller, offering_user.user):
        return
    world.permissions.require(request.caller, permission, offering, offering.customer)


def _restrict(world: World, offering_user: OfferingUser, restricted: bool) -> None:
    if restricted != offering_user.is_restricted:
        offering_user.is_restricted = restricted
        world.store.touch(offering_user)
        world.events.offering_user_changed(offering_user, "update", ["is_restricted"])


def _filtered(request: Request, rows: list[OfferingUser]) -> list[OfferingUser]:
    states = frozenset(request.parameters("state"))
    unknown = sorted(states.difference(OfferingUserState))
    if unknown:
        message = f"Select a valid choice. {unknown[0]} is not one of the available choices."
        raise ApiError(400, {"state": [message]})
    users = request.identifiers("user_uuid")
    username = request.parameter("user_username")
    restricted = request.parameter("is_restricted")
    query = (request.parameter("query") or "").lower()
    return [
        offering_user
        for offering_user in rows
        if (not states or offering_user.state in states)
        and (users is None or offering_user.user.uuid in users)
        and (username is None or offering_user.user.username == username)
        and (restricted is None or offering_user.is_restricted == (restricted.lower() == "true"))
        and (not query or query in offering_user.username.lower() or query in offering_user.user.full_name.lower())
    ]


ENDPOINTS = {
    "marketplace-offering-users": Endpoint(
        "OfferingUser",
        collection={"GET": list_offering_users, "POST": create_offering_user},
        item={
            "GET": get_offering_user,
            "PUT": change_offering_user,
            "PATCH": change_offering_user,
            "DELETE": delete_offering_user,
        },
        item_actions={
            "update_restricted": {"POST": update_restricted},
            **{
                str(action): {"POST": change_state(action)}
                for action in OfferingUserAction
                if action is not OfferingUserAction.SET_USERNAME
            },
        },
    ),
}
