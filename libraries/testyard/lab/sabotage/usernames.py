"""Defects around usernames and their events (document 001)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from testyard.lab.sabotage.defect import Defect, agent_backend, defect, double_with_defect, wrap

SYNCS = ("USR-1.4", "USR-3.4")
REPEATS = ("USR-1.5", "USR-3.5")


# The agent's.


@defect("wrong-user-patched", "the sync gives the username to another account", *SYNCS)
def wrong_user_patched() -> None:
    _change_patch(lambda arguments: {**arguments, "uuid": "0" * 32})


@defect("wrong-username-patched", "the sync writes the user's own name instead of B's", *SYNCS)
def wrong_username_patched() -> None:
    def other(arguments: dict[str, Any]) -> dict[str, Any]:
        arguments["body"].username = "somebody-else"
        return arguments

    _change_patch(other)


def _change_patch(change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    from waldur_api_client.api.marketplace_offering_users import marketplace_offering_users_partial_update

    wrap(
        marketplace_offering_users_partial_update,
        "sync",
        lambda original, **arguments: original(**change(arguments)),
    )


@defect("patched-when-equal", "the sync patches accounts that agree already", *REPEATS)
def patched_when_equal() -> None:
    from waldur_api_client.api.marketplace_offering_users import (
        marketplace_offering_users_list,
        marketplace_offering_users_partial_update,
    )
    from waldur_api_client.models.patched_offering_user_request import PatchedOfferingUserRequest

    def sync(original: Any, self: Any, offering: str, client: Any) -> bool:
        changed = bool(original(self, offering, client))
        if not changed:
            for account in marketplace_offering_users_list.sync_all(client=client, offering_uuid=[offering]):
                body = PatchedOfferingUserRequest(username=account.username)
                marketplace_offering_users_partial_update.sync(uuid=account.uuid, client=client, body=body)
        return changed

    wrap(agent_backend(), "sync_offering_user_usernames", sync)


@defect("sync-does-nothing", "the sync says that it changed usernames and changes none", *SYNCS)
def sync_does_nothing() -> None:
    wrap(agent_backend(), "sync_offering_user_usernames", lambda _original, _self, *_: True)


@defect("sync-from-a-to-b", "the sync carries A's usernames to B", *SYNCS)
def sync_from_a_to_b() -> None:
    from uuid import UUID

    from waldur_api_client.api.marketplace_offering_users import (
        marketplace_offering_users_list,
        marketplace_offering_users_partial_update,
    )
    from waldur_api_client.models.patched_offering_user_request import PatchedOfferingUserRequest

    def sync(_original: Any, self: Any, offering: str, client: Any) -> bool:
        target = self.client._api_client
        names = {
            account.user_username: account.username
            for account in marketplace_offering_users_list.sync_all(client=client, offering_uuid=[UUID(offering)])
        }
        for account in self.client.list_offering_users(offering_uuid=self.target_offering_uuid):
            body = PatchedOfferingUserRequest(username=names[account.user_username])
            marketplace_offering_users_partial_update.sync(uuid=account.uuid, client=target, body=body)
        return True

    wrap(agent_backend(), "sync_offering_user_usernames", sync)


@defect("flag-ignored", "the reconciliation runs on an offering that did not ask for it", "USR-3.6")
def flag_ignored() -> None:
    from waldur_site_agent.event_processing import utils

    def reconcile(original: Any, offerings: list[Any], *arguments: Any) -> None:
        asked = {"username_reconciliation_enabled": True}
        original([each.model_copy(update=asked) for each in offerings], *arguments)

    wrap(utils, "run_periodic_username_reconciliation", reconcile)


@defect("backend-ignored", "the reconciliation runs on an offering without a backend for members", "USR-3.6")
def backend_ignored() -> None:
    from waldur_site_agent.event_processing import utils

    def reconcile(original: Any, offerings: list[Any], *arguments: Any) -> None:
        asked = {"membership_sync_backend": "waldur"}
        original([each.model_copy(update=asked) for each in offerings], *arguments)

    wrap(utils, "run_periodic_username_reconciliation", reconcile)


# Waldur's.

EVENTS = ("USR-2.3", "USR-X4")

isds_ignored = defect(
    "managed-isds-ignored", "an identity manager hears of every user after its sources were cleared", "USR-2.4"
)(double_with_defect)
isds_from_subscription = defect(
    "isds-as-subscribed", "what an identity manager may hear is decided when it subscribes", "USR-2.4"
)(double_with_defect)
manager_hears_nothing = defect("manager-hears-nothing", "events do not reach the offering's manager", *EVENTS)(
    double_with_defect
)
username_set_missing = defect("username-set-missing", "a new username is not told as username_set", *EVENTS)(
    double_with_defect
)
offering_user_events_twice = defect("offering-user-events-twice", "each event is published twice", "USR-2.3")(
    double_with_defect
)
no_change_list = defect("no-change-list", "attribute_update does not say what has changed", "USR-X4")(
    double_with_defect
)
deletion_not_told = defect("deletion-not-told", "the end of an account is told to nobody", "USR-X4")(
    double_with_defect
)
accounts_not_created = defect("accounts-not-created", "a role creates no accounts", "USR-1.1")(double_with_defect)
identity_manager_sees_all = defect(
    "identity-manager-sees-all",
    "an identity manager sees the accounts of every identity source",
    *("USR-1.1", "USR-3.1"),
)(double_with_defect)
username_leaves_requested = defect(
    "username-leaves-requested", "a username does not make an account OK", "USR-1.2", "USR-3.2"
)(double_with_defect)
deletion_keeps_users = defect(
    "deletion-keeps-users", "users are said to be deleted and stay", "USR-1.6", "USR-2.5", "USR-3.7"
)(double_with_defect)


username_ignored_on_b = defect("username-ignored-on-b", "B takes a username and forgets it", "USR-1.3", "USR-3.3")(
    double_with_defect
)
stomp_answers_200 = defect("stomp-answers-200", "Waldur answers with a page where STOMP is dialled", "USR-2.1")(
    double_with_defect
)
queue_without_offering_users = defect(
    "queue-without-offering-users", "a queue lacks the type that was asked for", "USR-2.2"
)(double_with_defect)


USERNAME_DEFECTS: tuple[Defect, ...] = tuple(
    value for value in dict(globals()).values() if isinstance(value, Defect)
)
