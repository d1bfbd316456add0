"""Keywords that prepare one side of a federation from nothing."""

from __future__ import annotations

from typing import Any

from robot.api import logger
from robot.api.deco import keyword
from robot.api.types import Secret
from testyard.core.errors import NotMetError
from testyard.waldur.api import Waldur
from testyard.waldur.provisioning import OFFERING_TYPE
from testyard.waldur.shell import run_in_shell, shell_command
from testyard.waldur.states import OfferingState, Role, Side

from WaldurLibrary.session import Session


class ProvisioningKeywords:
    """What document 000 asks for in its set-up steps 1 and 2, one keyword each."""

    _session: Session

    @keyword(tags=["Setup"])
    def connect_to_waldur(self, side: Side, url: str, token: Secret) -> None:
        """Connect to a Waldur as a user who may create organisations, offerings and users.

        Args:
            side: `A` (source) or `B` (target).
            url: The instance's address, with or without `/api/`.
            token: The user's API token.

        Raises:
            UserError: Nothing answers, or the token is refused.

        Example:
            | Connect To Waldur | A | ${url} | ${token} |
        """
        waldur = Waldur(url, token.value, name=f"Waldur {side.value}")
        waldur.get("users/me")
        self._session.connect(side, waldur)

    @keyword(tags=["Setup"])
    def create_organisation(self, side: Side, name: str) -> str:
        """Create an organisation; its name is prefixed with the run's id.

        Args:
            side: `A` or `B`.
            name: The organisation's name.

        Returns:
            Its UUID.

        Example:
            | ${organisation} = | Create Organisation | B | Target |
        """
        return self._session.provisioner(side).create_organisation(name)

    @keyword(tags=["Setup"])
    def make_service_provider(self, side: Side, organisation: str) -> str:
        """Let an organisation provide offerings.

        Args:
            side: `A` or `B`.
            organisation: UUID of the organisation.

        Returns:
            The service provider's UUID.

        Example:
            | Make Service Provider | B | ${organisation} |
        """
        return self._session.provisioner(side).make_service_provider(organisation)

    @keyword(tags=["Setup"])
    def create_category(self, side: Side, title: str) -> str:
        """Create a category of offerings.

        Args:
            side: `A` or `B`.
            title: The category's title.

        Returns:
            Its UUID.

        Example:
            | ${category} = | Create Category | B | HPC |
        """
        return self._session.provisioner(side).create_category(title)

    @keyword(tags=["Setup"])
    def create_offering(
        self, side: Side, name: str, *, category: str, organisation: str, kind: str = OFFERING_TYPE
    ) -> str:
        """Create a shared offering, in state Draft.

        Args:
            side: `A` or `B`.
            name: The offering's name.
            category: UUID of its category.
            organisation: UUID of the organisation that provides it.
            kind: Its type; the site agent needs `Marketplace.Slurm`.

        Returns:
            Its UUID.

        Example:
            | ${offering} = | Create Offering | B | HPC | category=${category} | organisation=${organisation} |
        """
        return self._session.provisioner(side).create_offering(name, category, organisation, kind)

    @keyword(tags=["Setup"])
    def add_component(self, side: Side, offering: str, component: str, *, billing: str = "limit") -> None:
        """Add a component to an offering.

        Args:
            side: `A` or `B`.
            offering: UUID of the offering.
            component: Its internal name, as configurations and limits name it.
            billing: `limit` or `usage`.

        Example:
            | Add Component | A | ${offering} | node_hours |
        """
        self._session.provisioner(side).add_component(offering, component, "Hours", billing)

    @keyword(tags=["Setup"])
    def add_plan(self, side: Side, offering: str, name: str = "Default") -> str:
        """Add a plan without prices to an offering.

        Args:
            side: `A` or `B`.
            offering: UUID of the offering.
            name: The plan's name.

        Returns:
            Its UUID.

        Example:
            | Add Plan | A | ${offering} |
        """
        return self._session.provisioner(side).add_plan(offering, name)

    @keyword(tags=["Setup"])
    def set_offering_state(self, side: Side, offering: str, state: OfferingState) -> None:
        """Move an offering to another state; only an active one can be ordered.

        Args:
            side: `A` or `B`.
            offering: UUID of the offering.
            state: `ACTIVE`, `PAUSED`, `ARCHIVED` or `DRAFT`.

        Example:
            | Set Offering State | A | ${offering} | ACTIVE |
        """
        self._session.provisioner(side).set_offering_state(offering, state)

    @keyword(tags=["Setup"])
    def create_project(self, side: Side, name: str, organisation: str) -> str:
        """Create a project in an organisation.

        Args:
            side: `A` or `B`.
            name: The project's name.
            organisation: UUID of the organisation.

        Returns:
            Its UUID.

        Example:
            | ${project} = | Create Project | A | Simulation | ${organisation} |
        """
        return self._session.provisioner(side).create_project(name, organisation)

    @keyword(tags=["Setup"])
    def create_user(self, side: Side, username: str, *, email: str = "") -> str:
        """Create a user; the username is prefixed with the run's id.

        Args:
            side: `A` or `B`.
            username: The username.
            email: The address; made from the username when not given.

        Returns:
            Its UUID.

        Example:
            | ${user} = | Create User | A | agent |
        """
        return self._session.provisioner(side).create_user(username, email=email)

    @keyword(tags=["Setup"])
    def create_token(self, side: Side, user: str) -> Secret:
        """Make a new API token for a user. No log ever shows it.

        Args:
            side: `A` or `B`.
            user: UUID of the user.

        Returns:
            The token.

        Example:
            | ${token} = | Create Token | A | ${user} |
        """
        return Secret(self._session.provisioner(side).create_token(user))

    @keyword(tags=["Setup"])
    def grant_role(self, side: Side, role: Role, user: str, scope: str) -> None:
        """Give a user a role on an organisation, an offering or a project.

        Args:
            side: `A` or `B`.
            role: `CUSTOMER_OWNER`, `OFFERING_MANAGER`, `PROJECT_MEMBER`…
            user: UUID of the user.
            scope: UUID of the organisation, offering or project that the role's first word names.

        Example:
            | Grant Role | A | OFFERING_MANAGER | ${user} | ${offering} |
        """
        self._session.provisioner(side).grant_role(role, user, scope)

    @keyword(tags=["Setup"])
    def make_identity_manager(self, side: Side, user: str, *managed_isds: str) -> None:
        """Let a user manage the identities of some identity sources (ISDs).

        Args:
            side: `A` or `B`.
            user: UUID of the user.
            managed_isds: The identity sources, such as `isd:testyard`.

        Example:
            | Make Identity Manager | B | ${user} | isd:testyard |
        """
        self._session.provisioner(side).make_identity_manager(user, managed_isds)

    @keyword(tags=["Setup"])
    def add_identity_source(self, side: Side, user: str, source: str) -> None:
        """Say that a user's identity comes from a source (ISD); the managers of that source then see the user.

        Args:
            side: `A` or `B`.
            user: UUID of the user.
            source: The identity source, such as `isd:testyard`.

        Example:
            | Add Identity Source | B | ${user} | isd:testyard |
        """
        self._session.provisioner(side).add_identity_source(user, source)

    @keyword(tags=["Setup"])
    def name_offering_user(self, side: Side, offering: str, user: str, username: str) -> None:
        """Give a user the name they have on an offering's system.

        Args:
            side: `A` or `B`.
            offering: UUID of the offering.
            user: UUID of the user.
            username: The name there.

        Example:
            | Name Offering User | A | ${offering} | ${user} | mia01 |
        """
        self._session.provisioner(side).name_offering_user(offering, user, username)

    @keyword(tags=["Getter"])
    def username_in_this_run(self, side: Side, name: str) -> str:
        """The username that `Create User` gives to a user of this name.

        Args:
            side: `A` or `B`.
            name: The name.

        Example:
            | ${username} = | Username In This Run | A | mia |
        """
        return self._session.provisioner(side).username(name)

    @keyword(tags=["Setup"])
    def push_identity(self, side: Side, username: str, source: str) -> str:
        """Create or update a user over the identity bridge, as an identity source (ISD) does.

        Args:
            side: `A` or `B`.
            username: The username; prefixed with the run's id, the same on both sides.
            source: The identity source, such as `isd:example`; its managers then see the user.

        Returns:
            The user's UUID.

        Example:
            | ${subject} = | Push Identity | B | subject | isd:example |
        """
        return self._session.provisioner(side).push_identity(username, source)

    @keyword(tags=["Action"])
    def change_profile(self, side: Side, user: str, **attributes: str) -> None:
        """Change attributes of a user's profile, as staff.

        Args:
            side: `A` or `B`.
            user: UUID of the user.
            attributes: What to change, such as `email`.

        Example:
            | Change Profile | B | ${subject} | email=new@example.org |
        """
        self._session.provisioner(side).change_user(user, **attributes)

    @keyword(tags=["Setup"])
    def delete_everything_prepared(self, side: Side) -> int:
        """Delete what this run prepared on a Waldur, the newest first, and all that hangs off it.

        Args:
            side: `A` or `B`.

        Returns:
            How many objects were deleted.

        Example:
            | Delete Everything Prepared | B |
        """
        return self._session.provisioner(side).delete_all()

    @keyword(tags=["Assertion"])
    def nothing_prepared_should_be_left(self, side: Side) -> None:
        """Check that nothing of what this run prepared on a Waldur exists any more.

        Args:
            side: `A` or `B`.

        Raises:
            NotMetError: Something does; names it.

        Example:
            | Nothing Prepared Should Be Left | B |
        """
        left = self._session.provisioner(side).left()
        if left:
            message = f"On {side.value} nothing of this run should be left, but there is: {', '.join(left)}."
            raise NotMetError(message)

    @keyword(tags=["Setup"])
    def run_shell_operation(
        self, side: Side, operation: str, shell: dict[str, Any], **arguments: Any
    ) -> dict[str, Any]:
        """Do in the Django shell of your own Waldur what no REST call can do (document 001).

        Args:
            side: `A` or `B`.
            operation: `set_plugin_options`, `create_resource`, `create_or_restore_offering_users_for_user` or
                `set_federated_identity_sync`.
            shell: How to reach the shell: `command`, and where needed `host` (over SSH) and `directory`.
            arguments: What the operation works on.

        Returns:
            The operation's answer.

        Raises:
            ConfigurationError: The shell's description has a wrong key; ends the run.
            UserError: The shell did not start, failed, or gave no answer.

        Example:
            | Run Shell Operation | B | set_federated_identity_sync | ${SHELLS}[B] | enabled=${True} |
        """
        command = shell_command(side, shell)
        logger.info(f"In the shell of Waldur {side.value}: {operation} {arguments}")
        return run_in_shell(command, operation, arguments)
