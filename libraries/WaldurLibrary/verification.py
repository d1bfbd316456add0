"""Keywords that check orders, resources and limits on both sides."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping

from robot.api import logger
from robot.api.deco import keyword
from testyard.core.errors import NotMetError, UserError
from testyard.core.identifiers import same_identifier
from testyard.waldur import membership
from testyard.waldur.api import Resource, limits_text
from testyard.waldur.states import OrderState, ResourceState, Role, Side

from WaldurLibrary.session import Session


class VerificationKeywords:
    """What is true on A and on B, and what the agent did on the wire."""

    _session: Session

    @keyword(tags=["Getter"])
    def agent_version(self) -> str:
        """The version of the site agent under test.

        Example:
            | ${version} = | Agent Version |
        """
        return self._session.federation.agent.version

    @keyword(tags=["Assertion"])
    def agent_should_have_identified(self) -> None:
        """Check that the started agent knows its user, its offering and its service provider.

        Raises:
            NotMetError: Names what it does not know.

        Example:
            | Agent Should Have Identified |
        """
        agent = self._session.federation.agent
        processor = agent.processor
        if processor is None:
            message = "The agent was not started: 'Start The Agent' first."
            raise UserError(message)
        facts = {
            "its backend": processor.resource_backend is agent.backend,
            "its user": bool(processor.current_user and processor.current_user.uuid),
            "its offering": bool(processor.waldur_offering and processor.waldur_offering.components),
            "its service provider": bool(processor.service_provider and processor.service_provider.uuid),
        }
        unknown = [name for name, known in facts.items() if not known]
        if unknown:
            message = f"The agent does not know {', '.join(unknown)}."
            raise NotMetError(message)
        logger.info(f"The agent is {processor.current_user.username}, processing {agent.offering.name}")

    @keyword(tags=["Assertion"])
    def order_should_be(self, order: str, state: OrderState) -> None:
        """Check the state of an order on A.

        Args:
            order: UUID of the order.
            state: The expected state.

        Raises:
            NotMetError: It is in another state; quotes the order's error message.

        Example:
            | Order Should Be | ${order} | done |
        """
        found = self._session.federation.source.order(order)
        if found.state is not state:
            reason = f" ({found.error_message})" if found.error_message else ""
            message = f"Order {order} on A should be {state.value}, but is {found.state.value}{reason}."
            raise NotMetError(message)

    @keyword(tags=["Getter"])
    def error_of_order(self, order: str) -> str:
        """The error message that an order on A carries.

        Args:
            order: UUID of the order.

        Returns:
            The message; empty when there is none.

        Example:
            | ${message} = | Error Of Order | ${order} |
        """
        return self._session.federation.source.order(order).error_message

    @keyword(tags=["Getter"])
    def order_on_b_of(self, order: str) -> str:
        """The order that the agent placed on B for an order on A.

        Args:
            order: UUID of the order on A.

        Returns:
            UUID of the order on B, as the agent stored it.

        Raises:
            NotMetError: The order on A carries no backend id.

        Example:
            | ${target_order} = | Order On B Of | ${order} |
        """
        backend_id = self._session.federation.source.order(order).backend_id
        if not backend_id:
            message = f"Order {order} on A carries no backend id, so the agent placed no order on B."
            raise NotMetError(message)
        return backend_id

    @keyword(tags=["Action"])
    def complete_order_on_b(self, order: str) -> None:
        """Accept an order on B and report it done, as B's provider.

        Args:
            order: UUID of the order on B.

        Example:
            | Complete Order On B | ${target_order} |
        """
        self._session.federation.provider.complete(order)

    @keyword(tags=["Getter"])
    def resource_on_a(self, resource: str | None = None) -> Resource:
        """A resource as A tells it.

        Args:
            resource: UUID of the resource on A; the last one ordered when not given.

        Returns:
            The resource, with uuid, name, state, backend_id, limits.

        Example:
            | ${resource} = | Resource On A |
        """
        return self._session.resource_on_a(resource)

    @keyword(tags=["Getter"])
    def resource_on_b(self, resource: str | None = None) -> Resource:
        """The resource on B that belongs to a resource on A.

        Args:
            resource: UUID of the resource on A; the last one ordered when not given.

        Returns:
            B's resource, with uuid, name, state, backend_id, limits.

        Example:
            | ${resource} = | Resource On B |
        """
        return self._session.resource_on_b(resource)

    @keyword(tags=["Assertion"])
    def resource_should_be(self, side: Side, state: ResourceState, *, resource: str | None = None) -> None:
        """Check the state of a resource.

        Args:
            side: On which Waldur.
            state: The expected state.
            resource: UUID of the resource on A; the last one ordered when not given.

        Raises:
            NotMetError: It is in another state.

        Example:
            | Resource Should Be | B | Terminated |
        """
        found = self._session.resource_on(side, resource)
        if found.state is not state:
            message = (
                f"Resource {found.name!r} on {side.value} should be {state.value}, but is {found.state.value}."
            )
            raise NotMetError(message)

    @keyword(tags=["Assertion"])
    def backend_id_on_a_should_be_the_resource_on_b(self, resource: str | None = None) -> None:
        """Check that A's resource carries the UUID of a resource that exists on B, in the right project.

        Args:
            resource: UUID of the resource on A; the last one ordered when not given.

        Raises:
            NotMetError: B's resource is another one.

        Example:
            | Backend Id On A Should Be The Resource On B |
        """
        on_a, on_b = self._session.resource_on_a(resource), self._session.resource_on_b(resource)
        if not same_identifier(str(on_a.backend_id), on_b.uuid) or on_a.name != on_b.name:
            message = (
                f"A's resource {on_a.name!r} carries the backend id {on_a.backend_id}, but B answers "
                f"with {on_b.uuid} {on_b.name!r}."
            )
            raise NotMetError(message)

    @keyword(tags=["Assertion"])
    def resource_on_b_should_carry_no_backend_id(self, resource: str | None = None) -> None:
        """Check the key design rule: the agent never sets a backend id on B, nor tried to.

        Args:
            resource: UUID of the resource on A; the last one ordered when not given.

        Raises:
            NotMetError: B's resource carries a backend id, or the agent called B to set one.

        Example:
            | Resource On B Should Carry No Backend Id |
        """
        on_b = self._session.resource_on_b(resource)
        if on_b.backend_id:
            message = f"B's resource {on_b.name!r} should carry no backend id, but has {on_b.backend_id!r}."
            raise NotMetError(message)
        self.agent_should_never_have_called(Side.B, "POST", "*resources/*/set_backend_id/")

    @keyword(tags=["Assertion"])
    def agent_should_never_have_called(self, side: Side, method: str, path: str) -> None:
        """Check, in every REST call recorded so far, that the agent did not make one.

        Args:
            side: Which Waldur.
            method: GET, POST, PATCH…
            path: The path; `*` stands for any text.

        Raises:
            NotMetError: It did; quotes the calls.

        Example:
            | Agent Should Never Have Called | B | POST | *set_backend_id/ |
        """
        made = [
            f"{call.method} {call.path} -> {call.status}"
            for call in self._session.federation.agent.calls()
            if call.side is side and call.method == method and fnmatch.fnmatch(call.path, path)
        ]
        if made:
            message = f"The agent should never call {method} {path} on {side.value}, but did: {', '.join(made)}."
            raise NotMetError(message)

    @keyword(tags=["Assertion"])
    def agent_should_have_been_answered(
        self, side: Side, method: str, path: str, status: int, *, times: int | None = None
    ) -> None:
        """Check what a Waldur answered to calls of the agent in this test.

        Args:
            side: Which Waldur.
            method: GET, POST, PATCH…
            path: The path; `*` stands for any text.
            status: The HTTP status.
            times: Exactly how often; at least once when not given.

        Raises:
            NotMetError: It was answered otherwise; lists the answers to such calls.

        Example:
            | Agent Should Have Been Answered | A | POST | *set_state_done/ | 500 | times=1 |
        """
        answers = [
            call.status
            for call in self._session.calls_of_test()
            if call.side is side and call.method == method and fnmatch.fnmatch(call.path, path)
        ]
        count = answers.count(status)
        if count != times if times is not None else not count:
            wanted = "at least once" if times is None else f"{times} times"
            message = (
                f"{side.value} should have answered {status} to {method} {path} {wanted}, "
                f"but answered: {', '.join(map(str, answers)) or 'nothing'}."
            )
            raise NotMetError(message)

    @keyword(tags=["Assertion"])
    def user_should_be_in_the_project_on_b(
        self, user: str, role: Role | None = None, *, resource: str | None = None
    ) -> None:
        """Check that a user has a role in the project of the resource on B.

        Args:
            user: UUID of the user on B.
            role: The role; any when not given.
            resource: UUID of the resource on A; the last one ordered when not given.

        Raises:
            NotMetError: Not so; lists who is there.

        Example:
            | User Should Be In The Project On B | ${user} | PROJECT_MEMBER |
        """
        project = self._session.resource_on_b(resource).project_uuid
        members = membership.members(self._session.federation.target, project)
        for member in members:
            if same_identifier(member.user_uuid, user) and role in {None, Role(member.role_name)}:
                return
        found = ", ".join(f"{it.user_username} ({it.role_name})" for it in members) or "nobody"
        message = (
            f"User {user} should be in the project on B{f' as {role.value}' if role else ''}; there is {found}."
        )
        raise NotMetError(message)

    @keyword(tags=["Assertion"])
    def limits_should_be(self, side: Side, *, resource: str | None = None, **limits: float) -> None:
        """Check that a resource has exactly these limits and no others.

        Args:
            side: On which Waldur.
            resource: UUID of the resource on A; the last one ordered when not given.
            limits: Amount per component.

        Raises:
            NotMetError: The limits differ.

        Example:
            | Limits Should Be | B | cpu_k_hours=256 |
        """
        self._compare_limits(side, limits, self._session.resource_on(side, resource))

    @keyword(tags=["Assertion"])
    def limits_on_b_should_follow_the_mapping(self, resource: str | None = None, **limits: float) -> None:
        """Check that B's limits are exactly A's amounts times the configuration's factors.

        Args:
            resource: UUID of the resource on A; the last one ordered when not given.
            limits: The amounts on A.

        Raises:
            NotMetError: B's limits differ.

        Example:
            | Limits On B Should Follow The Mapping | node_hours=2 |
        """
        unknown = set(limits) - set(self._session.federation.configuration.backend_components)
        if unknown:
            message = f"The configuration has no component {', '.join(sorted(unknown))}."
            raise UserError(message)
        expected = self._session.federation.configuration.target_limits(limits)
        self._compare_limits(Side.B, expected, self._session.resource_on_b(resource))

    @keyword(tags=["Assertion"])
    def agent_should_have_said(self, text: str) -> None:
        """Check that the agent warned of something in this test, from any of its threads.

        Args:
            text: Part of the warning or error.

        Raises:
            NotMetError: It did not; quotes what it said.

        Example:
            | Agent Should Have Said | Error processing message |
        """
        said = self._session.complaints_of_test()
        if not any(text in line for line in said):
            message = f"The agent did not say {text!r}. It said:\n" + ("\n".join(said) or "nothing")
            raise NotMetError(message)

    @keyword(tags=["Setup"])
    def this_pins_a_known_issue(self, issue: str, *versions: str) -> None:
        """Declare that this test asserts today's wrong outcome of the agent, for the listed versions.

        Any other outcome fails the test and names the issue; so does a version that nobody has reviewed.

        Args:
            issue: What is wrong, in a few words.
            versions: The agent's versions that were seen to have it.

        Raises:
            NotMetError: The agent has another version.

        Example:
            | This Pins A Known Issue | FED-K5 target events are dropped | 1.0.7 |
        """
        self._session.known_issue = issue
        installed = self._session.federation.agent.version
        if installed not in versions:
            message = (
                f"It was seen in agent {', '.join(versions)}; the installed version {installed} has to be "
                "reviewed before this test can say anything."
            )
            raise NotMetError(message)
        self._session.tell(f"Known issue of agent {installed}: {issue}")
        logger.info(f"Known issue of agent {installed}: {issue}")

    @staticmethod
    def _compare_limits(side: Side, expected: Mapping[str, float], resource: Resource) -> None:
        if dict(resource.limits) != dict(expected):
            message = (
                f"Resource {resource.name!r} on {side.value} should have the limits {limits_text(expected)}, "
                f"but has {limits_text(resource.limits)}."
            )
            raise NotMetError(message)
