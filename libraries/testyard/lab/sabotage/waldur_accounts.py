"""What a Waldur double with a defect around accounts and their events does wrong."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from testyard.lab.sabotage.defect import wrap
from testyard.lab.waldur import events, offering_users, permissions, shell
from testyard.lab.waldur.app import PublicApplication, send_reply
from testyard.lab.waldur.events import Event, Events
from testyard.lab.waldur.exchange import HTML_TYPE, Reply
from testyard.lab.waldur.machines import OfferingUserState
from testyard.lab.waldur.queues import Queues
from testyard.lab.waldur.rest import identity, users


def managed_isds_ignored() -> None:
    """Whoever is an identity manager hears of every user that has an identity source."""
    wrap(events, "manages_identity", lambda _original, user, _subject: user.is_identity_manager)


def isds_as_subscribed() -> None:
    """Who hears of whom is decided once, when the queue is made."""
    managed: dict[str, frozenset[str]] = {}

    def open_consumer(original: Any, self: Any, consumer: Any) -> None:
        managed[consumer.user.uuid] = frozenset(consumer.user.managed_isds)
        original(self, consumer)

    def manages(_original: Any, user: Any, subject: Any) -> bool:
        return not managed.get(user.uuid, frozenset()).isdisjoint(subject.active_isds)

    wrap(Queues, "open_consumer", open_consumer)
    wrap(events, "manages_identity", manages)


def manager_hears_nothing() -> None:
    """A role on the offering does not count."""

    def may_receive(original: Any, self: Any, user: Any, event: Event) -> bool:
        managed = event.subject is not None and permissions.manages_identity(user, event.subject)
        return managed if event.object_type == "offering_user" else bool(original(self, user, event))

    wrap(Events, "_may_receive", may_receive)


def username_set_missing() -> None:
    """A new username is an update like any other."""
    _drop_action("username_set")


def deletion_not_told() -> None:
    """The end of an account is published to nobody."""
    _drop_action("delete")


def _drop_action(action: str) -> None:
    def changed(original: Any, self: Any, offering_user: Any, told: str, *arguments: Any) -> None:
        if told != action:
            original(self, offering_user, told, *arguments)

    wrap(Events, "offering_user_changed", changed)


def offering_user_events_twice() -> None:
    """Each event about an account is published twice."""

    def publish(original: Any, self: Any, event: Event) -> None:
        original(self, event)
        if event.object_type == "offering_user":
            original(self, event)

    wrap(Events, "_publish", publish)


def no_change_list() -> None:
    """Nobody learns which attributes have changed."""

    def publish(original: Any, self: Any, event: Event) -> None:
        if event.object_type == "offering_user":
            event = replace(event, body={**event.body, "changed_attributes": []})
        original(self, event)

    wrap(Events, "_publish", publish)


def accounts_not_created() -> None:
    """A role on a project creates no accounts."""
    for module in (offering_users, shell):
        wrap(module, "create_or_restore", lambda _original, *_: [])


def identity_manager_sees_all() -> None:
    """An identity manager sees the accounts of every user."""
    wrap(permissions, "manages_identity", lambda _original, user, _subject: user.is_identity_manager)


def username_leaves_requested() -> None:
    """A username does not make an account OK."""

    def set_username(original: Any, world: Any, offering_user: Any, username: str) -> None:
        state: OfferingUserState = offering_user.state
        original(world, offering_user, username)
        offering_user.state = state
        world.store.touch(offering_user)

    wrap(offering_users, "set_username", set_username)


def deletion_keeps_users() -> None:
    """A deleted user is still there."""
    wrap(users, "forget_user", lambda _original, *_: None)


def removed_identity_stays_active() -> None:
    """A user for whom no identity source vouches any more may still log in."""

    def announce(original: Any, world: Any, user: Any, changed: list[str]) -> None:
        user.is_active = True
        original(world, user, changed)

    wrap(identity, "announce_profile_change", announce)


def username_ignored_on_b() -> None:
    """B answers that it took the username, and did not."""
    if sys.argv[sys.argv.index("--name") + 1] == "B":
        wrap(offering_users, "set_username", lambda _original, *_: None)


def stomp_answers_200() -> None:
    """A plain GET where STOMP is dialled gets a page."""

    async def upgrade(_original: Any, self: Any, scope: Any, receive: Any, send: Any) -> int:
        await send_reply(send, Reply(200, b"<html></html>", [HTML_TYPE]))
        return 200

    wrap(PublicApplication, "_serve_stomp", upgrade)


def queue_without_offering_users() -> None:
    """A queue does not receive offering users although they were asked for."""

    def open_consumer(original: Any, self: Any, consumer: Any) -> None:
        consumer.object_types = ("order",)
        original(self, consumer)

    wrap(Queues, "open_consumer", open_consumer)


DEFECTS: dict[str, Callable[[], None]] = {
    "managed-isds-ignored": managed_isds_ignored,
    "isds-as-subscribed": isds_as_subscribed,
    "manager-hears-nothing": manager_hears_nothing,
    "username-set-missing": username_set_missing,
    "deletion-not-told": deletion_not_told,
    "offering-user-events-twice": offering_user_events_twice,
    "no-change-list": no_change_list,
    "accounts-not-created": accounts_not_created,
    "identity-manager-sees-all": identity_manager_sees_all,
    "username-leaves-requested": username_leaves_requested,
    "deletion-keeps-users": deletion_keeps_users,
    "username-ignored-on-b": username_ignored_on_b,
    "stomp-answers-200": stomp_answers_200,
    "queue-without-offering-users": queue_without_offering_users,
    "removed-identity-stays-active": removed_identity_stays_active,
}
