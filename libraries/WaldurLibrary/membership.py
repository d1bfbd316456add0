"""Keywords about members, identities and end dates, and how the agent carries these between A and B."""

from __future__ import annotations

from datetime import date

from robot.api import logger
from robot.api.deco import keyword
from testyard.core.errors import NotMetError
from testyard.core.tables import html_table
from testyard.waldur import membership
from testyard.waldur.membership import Activity, EndDates, Identity, IdentityBridge
from testyard.waldur.states import Role, Side

from WaldurLibrary.session import Session
from WaldurLibrary.showing import show_calls


class MembershipKeywords:
    """Members, identities and end dates."""

    _session: Session

    # What the agent does.

    @keyword(tags=["Action"])
    def sync_members(self) -> None:
        """Let the agent do one cycle of its mode `membership_sync`: members, roles, identities, end dates.

        Example:
            | Sync Members |
        """
        done = membership.sync_members(self._session.federation.agent)
        show_calls(self._session, "The agent syncs members", done.calls)

    @keyword(tags=["Action"])
    def tell_the_agent_of_a_role(self, user: str, role: Role, *, granted: bool = True) -> None:
        """Let the agent do what it does when A tells it that somebody got or lost a role in the project.

        Args:
            user: UUID of the user on A.
            role: `PROJECT_MEMBER`, `PROJECT_ADMIN` or `PROJECT_MANAGER`.
            granted: Whether the role was granted; it was revoked if not.

        Example:
            | Tell The Agent Of A Role | ${user} | PROJECT_MEMBER |
            | Tell The Agent Of A Role | ${user} | PROJECT_MEMBER | granted=${False} |
        """
        federation = self._session.federation
        done = membership.tell_of_role(federation.agent, user, federation.project, role, granted=granted)
        show_calls(self._session, f"The agent hears of {role.value}", done.calls)

    @keyword(tags=["Setup"])
    def open_identity_bridge(self) -> IdentityBridge:
        """Make the agent's username backend `waldur-identity-bridge` and keep it from one sync to the next.

        Returns:
            What `Sync Identities` needs.

        Example:
            | ${bridge} = | Open Identity Bridge |
        """
        return IdentityBridge(self._session.federation.agent)

    @keyword(tags=["Action"])
    def sync_identities(self, bridge: IdentityBridge) -> None:
        """Let the agent push A's offering users over a bridge, and let those go who were there the last time.

        Args:
            bridge: What `Open Identity Bridge` returned.

        Example:
            | Sync Identities | ${bridge} |
        """
        show_calls(self._session, "The agent syncs identities", bridge.sync().calls)

    # What people do.

    @keyword(tags=["Setup"])
    def revoke_role(self, side: Side, role: Role, user: str, scope: str) -> None:
        """Take a role on an organisation, an offering or a project away from a user.

        Args:
            side: `A` or `B`.
            role: `PROJECT_MEMBER`, `CUSTOMER_OWNER`…
            user: UUID of the user.
            scope: UUID of the organisation, offering or project that the role's first word names.

        Raises:
            UserError: The user does not hold the role.

        Example:
            | Revoke Role | A | PROJECT_MEMBER | ${user} | ${project} |
        """
        membership.revoke_role(self._session.staff(side), role, user, scope)

    @keyword(tags=["Action"])
    def restrict_members_on_a(self, *, restricted: bool = True) -> None:
        """Say on A, as its provider, that the members of the project may not use the resource last ordered.

        Args:
            restricted: Whether it is so.

        Example:
            | Restrict Members On A |
            | Restrict Members On A | restricted=${False} |
        """
        resource = self._session.resource_on_a().uuid
        membership.restrict_members(self._session.staff(Side.A), resource, restricted=restricted)

    @keyword(tags=["Action"])
    def rename_user(self, side: Side, user: str, full_name: str) -> None:
        """Give a user another first and last name.

        Args:
            side: `A` or `B`.
            user: UUID of the user.
            full_name: The new name.

        Example:
            | Rename User | A | ${user} | Mia Musterfrau |
        """
        membership.rename_user(self._session.staff(side), user, full_name)

    @keyword(tags=["Action"])
    def set_end_dates(self, side: Side, *, resource: date | None = None, project: date | None = None) -> None:
        """Say on one side when the resource last ordered and its project end.

        Args:
            side: `A` or `B`.
            resource: The resource's last day; none when not given.
            project: The project's last day; none when not given.

        Example:
            | Set End Dates | A | resource=2099-03-01 | project=2099-04-01 |
        """
        found = self._session.resource_on(side)
        dates = EndDates(end_date=resource, project_end_date=project)
        membership.set_end_dates(self._session.staff(side), found.uuid, found.project_uuid, dates)

    @keyword(tags=["Setup"])
    def use_resource(self, resource: str) -> None:
        """Make a resource on A the one that keywords mean when none is named, also after another agent joined.

        Args:
            resource: UUID of the resource on A.

        Example:
            | Use Resource | ${resource.uuid} |
        """
        self._session.use_resource(resource)

    # What is true afterwards.

    @keyword(tags=["Getter"])
    def project_on_b(self) -> str:
        """The project on B of the resource last ordered.

        Returns:
            Its UUID.

        Example:
            | ${project} = | Project On B |
        """
        return self._session.resource_on_b().project_uuid

    @keyword(tags=["Assertion"])
    def members_on_b_should_be(self, **roles: Role) -> None:
        """Check who holds which role in the project on B: these and nobody else.

        Args:
            roles: The role of each user, by the name that `Create User` was given.

        Raises:
            NotMetError: There are others, or other roles; draws them.

        Example:
            | Members On B Should Be | mia=PROJECT_MEMBER | omar=PROJECT_ADMIN |
        """
        found = membership.members(self._session.federation.target, self.project_on_b())
        rows = [(member.user_username, member.role_name) for member in found]
        logger.info(html_table(f"Members on B: {len(rows)}", ("user", "role"), rows), html=True)
        expected = [(self._name(name), role.value) for name, role in roles.items()]
        if sorted(rows) != sorted(expected):
            message = f"The project on B should have {_listed(expected)}, but has {_listed(rows)}."
            raise NotMetError(message)

    @keyword(tags=["Assertion"])
    def agent_should_have_changed_only(self, side: Side, *changes: str, ignoring: str = "") -> None:
        """Check that the agent sent exactly these calls but GET to one side in this test, in this order.

        Args:
            side: `A` or `B`.
            changes: Each as `method path` without UUIDs, such as `POST projects/add_user`; none when the agent
                should have changed nothing there.
            ignoring: Calls that do not matter here, in the same form.

        Raises:
            NotMetError: It sent others, or in another order; quotes them.

        Example:
            | Agent Should Have Changed Only | B | POST identity-bridge | POST projects/add_user |
        """
        sent = membership.changes(self._session.calls_of_test(), side)
        made = [change for change in sent if change != ignoring]
        if made != list(changes):
            message = (
                f"The agent should have sent {list(changes) or 'nothing'} to {side.value}, "
                f"but sent {made or 'nothing'}."
            )
            raise NotMetError(message)

    @keyword(tags=["Getter"])
    def identity_of(self, side: Side, name: str) -> Identity:
        """The user of a name on one side.

        Args:
            side: `A` or `B`.
            name: The name that `Create User` or `Push Identity` was given.

        Returns:
            The identity, with uuid, username, full_name, email, is_active, active_isds.

        Raises:
            NotMetError: There is no such user.

        Example:
            | ${before} = | Identity Of | B | mia |
        """
        username = self._name(name)
        found = membership.identity_named(self._session.staff(side), username)
        if found is None:
            message = f"{side.value} should have a user {username}, but has none."
            raise NotMetError(message)
        return found

    @keyword(tags=["Assertion"])
    def identity_on_b_should_be(
        self, name: str, activity: Activity, *sources: str, full_name: str | None = None
    ) -> None:
        """Check whether a user may log in on B, and which identity sources vouch for them there.

        Args:
            name: The name that `Create User` or `Push Identity` was given.
            activity: `ACTIVE` or `INACTIVE`.
            sources: The identity sources (ISDs), in any order; none when left out.
            full_name: First and last name; not compared when not given.

        Raises:
            NotMetError: There is no such user, or it is otherwise.

        Example:
            | Identity On B Should Be | mia | ACTIVE | isd:testyard |
        """
        found = self.identity_of(Side.B, name)
        seen = Activity.ACTIVE if found.is_active else Activity.INACTIVE
        if seen is not activity or sorted(found.active_isds) != sorted(sources):
            message = (
                f"{found.username} on B should be {activity.value} with {', '.join(sources) or 'no source'}, "
                f"but is {seen.value} with {', '.join(found.active_isds) or 'no source'}."
            )
            raise NotMetError(message)
        if full_name is not None and found.full_name != full_name:
            message = f"{found.username} on B should be called {full_name!r}, but is called {found.full_name!r}."
            raise NotMetError(message)

    @keyword(tags=["Assertion"])
    def identities_on_b_should_be_from(self, source: str, *names: str) -> None:
        """Check for whom an identity source vouches on B, of those whom the agent's user sees there.

        Args:
            source: The identity source (ISD).
            names: The names that `Create User` or `Push Identity` was given; nobody when left out.

        Raises:
            NotMetError: For others; names them.

        Example:
            | Identities On B Should Be From | isd:testyard | mia | omar |
        """
        found = membership.identities_from(self._session.federation.target, source)
        seen = sorted(identity.username for identity in found)
        expected = sorted(self._name(name) for name in names)
        if seen != expected:
            message = f"{source} should vouch for {expected or 'nobody'} on B, but does for {seen or 'nobody'}."
            raise NotMetError(message)

    @keyword(tags=["Assertion"])
    def end_dates_should_be(
        self, side: Side, *, resource: date | None = None, project: date | None = None
    ) -> None:
        """Check when the resource last ordered and its project end on one side.

        Args:
            side: `A` or `B`.
            resource: The resource's last day; it must have none when not given.
            project: The project's last day; it must have none when not given.

        Raises:
            NotMetError: They end on other days.

        Example:
            | End Dates Should Be | B | resource=2099-03-01 | project=2099-04-01 |
        """
        found = self._session.resource_on(side)
        dates = membership.end_dates(self._session.staff(side), found.uuid)
        expected = EndDates(end_date=resource, project_end_date=project)
        if dates != expected:
            message = f"The end dates on {side.value} should be: {expected}; but are: {dates}."
            raise NotMetError(message)

    def _name(self, name: str) -> str:
        return self._session.provisioner(Side.A).username(name)


def _listed(members: list[tuple[str, str]]) -> str:
    return ", ".join(f"{user} ({role})" for user, role in sorted(members)) or "nobody"
