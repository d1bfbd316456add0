"""``add_user``, ``delete_user``, ``update_user`` and ``list_users`` of organisations, projects and offerings."""

from collections.abc import Callable

from testyard.lab.waldur.exchange import ApiError, Reply, Request, empty, json_reply
from testyard.lab.waldur.identifiers import parse_identifier
from testyard.lab.waldur.model import Customer, Grant, Offering, Role, ScopeKind, User
from testyard.lab.waldur.offering_users import revoke, role_granted
from testyard.lab.waldur.pagination import listing
from testyard.lab.waldur.payload import Payload
from testyard.lab.waldur.permissions import Scope, check_role_fits
from testyard.lab.waldur.represent.structure import role_member
from testyard.lab.waldur.routing import Handler, Methods
from testyard.lab.waldur.world import World

FindScope = Callable[[World, Request], Scope]


def membership_actions(kind: ScopeKind, find: FindScope) -> dict[str, Methods]:
    """The membership endpoints of one kind of scope.

    Args:
        kind: The kind.
        find: Finds the scope that the path names, among those that the caller may see.
    """
    prefix = kind.name

    def add_user(world: World, request: Request) -> Reply:
        scope = find(world, request)
        world.permissions.require(request.caller, f"{prefix}.CREATE_PERMISSION", *_levels(scope))
        user, role = _subject(world, request)
        check_role_fits(role, kind)
        if _held(world, scope, user, role):
            raise ApiError(400, {"non_field_errors": ["User has already the same role in this scope."]})
        expiration = _expiration(request)
        grant = world.store.grants.add(
            Grant(user=user, role=role, scope=scope, created_by=request.caller, expiration_time=expiration)
        )
        world.store.touch(grant)
        role_granted(world, grant)
        return json_reply({"expiration_time": expiration}, 201)

    def delete_user(world: World, request: Request) -> Reply:
        scope = find(world, request)
        world.permissions.require(request.caller, f"{prefix}.DELETE_PERMISSION", *_levels(scope))
        user, role = _subject(world, request)
        for grant in _held(world, scope, user, role):
            revoke(world, grant)
        return empty()

    def update_user(world: World, request: Request) -> Reply:
        scope = find(world, request)
        world.permissions.require(request.caller, f"{prefix}.UPDATE_PERMISSION", *_levels(scope))
        user, role = _subject(world, request)
        expiration = _expiration(request)
        grants = _held(world, scope, user, role)
        if not grants:
            raise ApiError(400, {"non_field_errors": ["User has no role in this scope."]})
        for grant in grants:
            grant.expiration_time = expiration
            world.store.touch(grant)
        return json_reply({"expiration_time": expiration})

    def list_users(world: World, request: Request) -> Reply:
        scope = find(world, request)
        grants = list(world.store.grants.where("scope", scope.uuid).values())
        users = request.identifiers("user")
        if users is not None:
            grants = [grant for grant in grants if grant.user.uuid in users]
        roles = {parse_identifier(role) or role for role in request.parameters("role")}
        if roles:
            grants = [grant for grant in grants if grant.role.uuid in roles or grant.role.name in roles]
        username = request.parameter("username")
        if username is not None:
            grants = [grant for grant in grants if grant.user.username == username]
        return listing(request, grants, role_member)

    handlers: dict[str, tuple[str, Handler]] = {
        "add_user": ("POST", add_user),
        "delete_user": ("POST", delete_user),
        "update_user": ("POST", update_user),
        "list_users": ("GET", list_users),
    }
    return {name: {method: handler} for name, (method, handler) in handlers.items()}


def _expiration(request: Request) -> str | None:
    payload = Payload(request.body)
    end = payload.moment("expiration_time")
    payload.check()
    return end.strftime("%Y-%m-%dT%H:%M:%SZ") if end else None


def _levels(scope: Scope) -> tuple[Scope, ...]:
    return (scope,) if isinstance(scope, Customer) else (scope, scope.customer)


def _subject(world: World, request: Request) -> tuple[User, Role]:
    """The user and the role in a body; each by UUID, the role also by name."""
    payload = Payload(request.body)
    user_text = payload.text("user", required=True, blank=False)
    role_text = payload.text("role", required=True, blank=False)
    payload.check()
    user = world.store.users.get(parse_identifier(user_text.rstrip("/").rpartition("/")[2]))
    role = world.store.roles.get(parse_identifier(role_text)) or world.store.role_named(role_text)
    if user is None:
        payload.fail("user", "User is not found.")
    if role is None:
        payload.fail("role", "Role is not found.")
    payload.check()
    if user is None or role is None:
        raise AssertionError("check() refuses what was not found")
    return user, role


def _held(world: World, scope: Customer | Offering | Scope, user: User, role: Role) -> list[Grant]:
    return [
        grant
        for grant in world.store.grants.where("scope", scope.uuid).values()
        if grant.user is user and grant.role is role
    ]
