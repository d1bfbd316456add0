"""Defects around members, identities and end dates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from testyard.lab.sabotage.defect import Defect, agent_backend, defect, double_with_defect, wrap

MEMBERS = "USR-X3"
END_DATES = "USR-X5"
IDENTITIES = "USR-X6"


def _client() -> Any:
    from waldur_site_agent_waldur.client import WaldurClient

    return WaldurClient


def _processor() -> Any:
    from waldur_site_agent.common.processors import OfferingMembershipProcessor

    return OfferingMembershipProcessor


def _bridge() -> Any:
    from waldur_site_agent_waldur.username_backend import WaldurIdentityBridgeUsernameBackend

    return WaldurIdentityBridgeUsernameBackend


# Members: the agent's.


@defect("removed-member-keeps-access", "who left A's project stays in B's", MEMBERS, IDENTITIES)
def removed_member_keeps_access() -> None:
    wrap(agent_backend(), "remove_users_from_resource", lambda _original, _self, *_, **__: [])


@defect("role-mapping-ignored", "members get the role on B that they have on A", MEMBERS)
def role_mapping_ignored() -> None:
    wrap(agent_backend(), "_map_role", lambda _original, _self, role: role)


@defect("changed-role-not-carried", "a member keeps the role on B that they had on A before", MEMBERS)
def changed_role_not_carried() -> None:
    wrap(agent_backend(), "reconcile_existing_user_roles", lambda _original, _self, *_: None)


@defect("old-role-kept", "a member whose role changed has both roles on B", MEMBERS)
def old_role_kept() -> None:
    def reconcile(original: Any, self: Any, *arguments: Any) -> None:
        self.client.remove_user_from_project = lambda **_: None
        original(self, *arguments)
        del self.client.remove_user_from_project

    wrap(agent_backend(), "reconcile_existing_user_roles", reconcile)


@defect("members-added-again", "every cycle adds the members who are there already", MEMBERS)
def members_added_again() -> None:
    def add(original: Any, self: Any, resource: Any, _new: Any, **options: Any) -> Any:
        return original(self, resource, set(options["user_cuids"]), **options)

    wrap(agent_backend(), "add_users_to_resource", add)


@defect("restriction-ignored", "a restricted resource keeps its members on B", MEMBERS)
def restriction_ignored() -> None:
    def sync(original: Any, self: Any, resource: Any, *arguments: Any) -> Any:
        resource.restrict_member_access = False
        return original(self, resource, *arguments)

    wrap(_processor(), "_sync_resource_users", sync)


@defect("role-event-ignored", "the agent does nothing when it is told of a role", MEMBERS)
def role_event_ignored() -> None:
    wrap(_processor(), "process_user_role_changed", lambda _original, _self, *_, **__: None)


@defect("revocation-taken-for-grant", "the agent takes a revoked role for a granted one", MEMBERS)
def revocation_taken_for_grant() -> None:
    def changed(original: Any, self: Any, user: str, project: str, _granted: bool, role: str) -> None:
        original(self, user, project, True, role)

    wrap(_processor(), "process_user_role_changed", changed)


@defect("all-roles-read", "the agent reads the roles of a large project: the known issue is fixed", MEMBERS)
def all_roles_read() -> None:
    from waldur_api_client.api.projects import projects_list_users_list

    def read(_original: Any, self: Any, project: Any) -> Any:
        return projects_list_users_list.sync_all(uuid=project, client=self._api_client)

    wrap(_client(), "list_project_users", read)


@defect(
    "strangers-not-claimed", "the agent finds a stranger without pushing them: the known issue is fixed", MEMBERS
)
def strangers_not_claimed() -> None:
    def remove(original: Any, self: Any, *arguments: Any, **options: Any) -> Any:
        self.user_resolve_method, kept = "user_field", self.user_resolve_method
        try:
            return original(self, *arguments, **options)
        finally:
            self.user_resolve_method = kept

    wrap(agent_backend(), "remove_users_from_resource", remove)


# Identities: the agent's and Waldur's.


@defect("identity-pushed-twice", "each user is pushed twice in one sync", IDENTITIES)
def identity_pushed_twice() -> None:
    def push(original: Any, self: Any, account: Any) -> None:
        original(self, account)
        original(self, account)

    wrap(_bridge(), "_push_user_to_identity_bridge", push)


@defect("another-identity-pushed", "the bridge pushes users under another name", IDENTITIES)
def another_identity_pushed() -> None:
    def build(original: Any, self: Any, username: str, attributes: Any) -> Any:
        return original(self, f"{username}-twin", attributes)

    wrap(_bridge(), "_build_request", build)


@defect("profile-not-pushed", "users are pushed without name and address", IDENTITIES)
def profile_not_pushed() -> None:
    from waldur_site_agent_waldur import username_backend

    wrap(username_backend, "_extract_attributes", lambda _original, _account: {})


@defect("stale-users-stay", "nobody is removed from A's source", IDENTITIES)
def stale_users_stay() -> None:
    wrap(_bridge(), "deactivate_users", lambda _original, _self, _names: None)


@defect("everybody-let-go", "one stale user takes all others along", IDENTITIES)
def everybody_let_go() -> None:
    def sync(original: Any, self: Any, accounts: Any) -> None:
        known = self._previous_offering_usernames
        original(self, accounts)
        if known and known - self._previous_offering_usernames:
            self.deactivate_users(known & self._previous_offering_usernames)

    wrap(_bridge(), "sync_user_profiles", sync)


@defect("failed-push-kept-quiet", "the agent does not say that B refuses identities", IDENTITIES)
def failed_push_kept_quiet() -> None:
    from waldur_site_agent_waldur import username_backend

    wrap(username_backend.logger, "exception", lambda _original, *_, **__: None)


@defect("bridge-remembers", "cycles know who was there before: the known issue is fixed", IDENTITIES)
def bridge_remembers() -> None:
    from waldur_site_agent.common import utils

    kept: dict[int, Any] = {}

    def backend(original: Any, offering: Any) -> Any:
        return kept.setdefault(id(offering), original(offering))

    wrap(utils, "get_username_management_backend", backend)


removed_identity_stays_active = defect(
    "removed-identity-stays-active", "Waldur does not deactivate whom no source knows", IDENTITIES
)(double_with_defect)


# End dates: the agent's.


def _decide(change: Callable[[Any, Any, Any], bool | None]) -> None:
    """Let a function of backend, days and the agent's own decision decide which side wins."""

    def decide(original: Any, self: Any, *days: Any) -> bool | None:
        return change(self, days, original(self, *days))

    wrap(agent_backend(), "_decide_end_date_sync_direction", decide)


@defect("end-date-in-wrong-direction", "the side that should take over decides", END_DATES)
def end_date_in_wrong_direction() -> None:
    _decide(lambda _self, _days, decision: None if decision is None else not decision)


@defect("end-date-although-off", "end dates are carried although that is switched off", END_DATES)
def end_date_although_off() -> None:
    from waldur_site_agent_waldur.enums import EndDateSyncDirection

    def build(original: Any, self: Any, *arguments: Any, **options: Any) -> None:
        original(self, *arguments, **options)
        if self.end_date_sync_direction is EndDateSyncDirection.DISABLED:
            self.end_date_sync_direction = EndDateSyncDirection.A_TO_B

    wrap(agent_backend(), "__init__", build)


@defect("equal-end-dates-sent", "end dates are sent although both sides agree", END_DATES)
def equal_end_dates_sent() -> None:
    _decide(lambda _self, days, decision: True if days[0] == days[1] else decision)


@defect("last-change-ignored", "A decides, whoever changed the end date last", END_DATES)
def last_change_ignored() -> None:
    from waldur_site_agent_waldur.enums import EndDateSyncDirection

    def change(self: Any, _days: Any, decision: bool | None) -> bool | None:
        both = self.end_date_sync_direction is EndDateSyncDirection.BIDIRECTIONAL
        return True if both and decision is not None else decision

    _decide(change)


@defect("project-end-date-forgotten", "only the resource's end date is carried", END_DATES)
def project_end_date_forgotten() -> None:
    wrap(agent_backend(), "sync_project_end_date", lambda _original, _self, *_: None)


@defect("end-date-never-taken-back", "an end date that was removed stays on the other side", END_DATES)
def end_date_never_taken_back() -> None:
    def carry(original: Any, self: Any, uuid: Any, day: Any) -> None:
        if day is not None:
            original(self, uuid, day)

    wrap(_client(), "set_resource_end_date", carry)
    wrap(_client(), "set_project_end_date", carry)


# testyard's own.


@defect("changes-unseen", "the list of what the agent changed is always empty", MEMBERS, IDENTITIES, END_DATES)
def changes_unseen() -> None:
    from testyard.waldur import membership

    wrap(membership, "changes", lambda _original, _calls, _side: [])


@defect("members-unseen", "the list of members is always empty", "FED-S5", MEMBERS, IDENTITIES)
def members_unseen() -> None:
    from testyard.waldur import membership

    def members(original: Any, waldur: Any, scope: str, kind: str = "projects") -> Any:
        # Roles are taken away with the same list.
        return [] if waldur.name == "Waldur B" else original(waldur, scope, kind)

    wrap(membership, "members", members)


MEMBERSHIP_DEFECTS: tuple[Defect, ...] = tuple(
    value for value in dict(globals()).values() if isinstance(value, Defect)
)
