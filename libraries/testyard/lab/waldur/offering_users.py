"""Offering users: how they come to be, change and go, and what is announced of it."""

from testyard.lab.waldur.exchange import wrong_state
from testyard.lab.waldur.machines import (
    OFFERING_USER_TRANSITIONS,
    OfferingState,
    OfferingUserAction,
    OfferingUserState,
    ResourceState,
)
from testyard.lab.waldur.model import Grant, Offering, OfferingUser, Project, User
from testyard.lab.waldur.world import World

_LIVE = frozenset({ResourceState.OK, ResourceState.UPDATING, ResourceState.TERMINATING})


def of_user(world: World, offering: Offering, user: User) -> OfferingUser | None:
    """The account of a user at an offering, if there is one."""
    return next(
        (
            offering_user
            for offering_user in world.store.offering_users.where("user", user.uuid).values()
            if offering_user.offering is offering
        ),
        None,
    )


def add(world: World, offering: Offering, user: User, username: str = "") -> OfferingUser:
    """Create an offering user: Requested, or OK if it has a username from the start."""
    offering_user = world.store.offering_users.add(
        OfferingUser(
            offering=offering,
            user=user,
            username=username,
            state=OfferingUserState.OK if username else OfferingUserState.REQUESTED,
        )
    )
    world.events.offering_user_changed(offering_user, "create")
    if username:
        world.events.offering_user_changed(offering_user, "username_set")
    return offering_user


def set_username(world: World, offering_user: OfferingUser, username: str) -> None:
    """Give a username; one that is being created becomes OK."""
    if username == offering_user.username:
        return
    offering_user.username = username
    transition = OFFERING_USER_TRANSITIONS[OfferingUserAction.SET_USERNAME]
    if username and offering_user.state in transition.sources:
        offering_user.state = transition.target
    world.store.touch(offering_user)
    world.events.offering_user_changed(offering_user, "update", ["username"])
    if username:
        world.events.offering_user_changed(offering_user, "username_set")


def check_action(offering_user: OfferingUser, action: OfferingUserAction) -> None:
    """Refuse with 409 an operation that the state does not allow."""
    sources = OFFERING_USER_TRANSITIONS[action].sources
    if offering_user.state not in sources:
        raise wrong_state(sources)


def enter(world: World, offering_user: OfferingUser, action: OfferingUserAction) -> None:
    """Change the state.

    Raises:
        ApiError: 409 in a state that does not allow it.
    """
    check_action(offering_user, action)
    offering_user.state = OFFERING_USER_TRANSITIONS[action].target
    world.store.touch(offering_user)
    world.events.offering_user_changed(offering_user, "update", ["state"])


def remove(world: World, offering_user: OfferingUser) -> None:
    """Delete an offering user."""
    world.store.offering_users.remove(offering_user)
    world.events.offering_user_changed(offering_user, "delete")


def create_or_restore(world: World, user: User, project: Project) -> list[OfferingUser]:
    """Create the offering users that a member of a project is due, as upstream's task of that name does.

    One per offering with a live resource in the project, if the offering lets its provider create users
    (``plugin_options.service_provider_can_create_offering_user``); a deleted one is requested again.
    """
    offerings = {
        resource.offering.uuid: resource.offering
        for resource in world.store.resources.where("project", project.uuid).values()
        if resource.state in _LIVE and resource.offering.state is not OfferingState.ARCHIVED
    }
    touched = []
    for offering in offerings.values():
        if not offering.plugin_options.get("service_provider_can_create_offering_user"):
            continue
        existing = of_user(world, offering, user)
        if existing is None:
            touched.append(add(world, offering, user))
        elif existing.state is OfferingUserState.DELETED:
            existing.state = OfferingUserState.REQUESTED
            world.store.touch(existing)
            world.events.offering_user_changed(existing, "update", ["state"])
            touched.append(existing)
    return touched


def role_granted(world: World, grant: Grant) -> None:
    """Announce a new role and create the offering users that come with it."""
    world.events.role_changed(grant, granted=True)
    if isinstance(grant.scope, Project):
        create_or_restore(world, grant.user, grant.scope)


def revoke(world: World, grant: Grant) -> None:
    """Take a role away and announce it."""
    world.store.grants.remove(grant)
    world.store.touch(grant)
    world.events.role_changed(grant, granted=False)


def announce_profile_change(world: World, user: User, changed: list[str]) -> None:
    """Tell the offerings of a user which of the attributes that they may see have changed."""
    names = {"full_name" if name in ("first_name", "last_name") else name for name in changed}
    for offering_user in list(world.store.offering_users.where("user", user.uuid).values()):
        seen = sorted(names.intersection(offering_user.offering.exposed_fields))
        if seen:
            world.events.offering_user_changed(offering_user, "attribute_update", seen)


def forget_user(world: World, user: User) -> None:
    """Delete a user with all that belongs to it."""
    for offering_user in list(world.store.offering_users.where("user", user.uuid).values()):
        remove(world, offering_user)
    for grant in list(world.store.grants.where("user", user.uuid).values()):
        revoke(world, grant)
    world.store.users.remove(user)
    world.store.touch(user)
