"""Keywords that configure the agent, check the preflight, order, and let the agent work."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

from robot.api import logger
from robot.api.deco import keyword
from robot.api.types import Secret
from testyard.core.deadline import Deadline
from testyard.core.errors import ConfigurationError, NotMetError, UserError
from testyard.core.tables import html_table
from testyard.stomp.channel import Channel
from testyard.waldur.agent import Pace
from testyard.waldur.api import limits_text
from testyard.waldur.calls import Call
from testyard.waldur.configuration import configuration_in_memory, write_configuration
from testyard.waldur.federation import open_federation, open_own_federation
from testyard.waldur.preflight import (
    REQUIREMENT_COLUMNS,
    Preflight,
    Requirement,
    StompEndpoint,
    probe_stomp,
    requirement_row,
    unmet,
)
from testyard.waldur.states import OrderState, Side

from WaldurLibrary.session import Session
from WaldurLibrary.showing import say, show_calls


class DrivingKeywords:
    """The agent's configuration, its preflight, and its work."""

    _session: Session

    @keyword(tags=["Setup"])
    def write_agent_configuration(self, directory: str | None, content: dict[str, Any]) -> str:
        """Write a configuration file for the site agent that only this user can read.

        Args:
            directory: Where to write it; it holds tokens, so it should not outlive the run. None keeps it in
                this process's memory.
            content: The file's content; Secret values are written as they are.

        Returns:
            The file's path.

        Example:
            | ${path} = | Write Agent Configuration | ${directory} | ${content} |
        """
        if directory is None:
            return str(configuration_in_memory(_revealed(content)))
        path = Path(directory) / f"agent-{len(list(Path(directory).glob('agent-*.yaml'))) + 1}.yaml"
        write_configuration(path, _revealed(content))
        return str(path)

    @keyword(tags=["Setup"])
    def join_federation(
        self,
        configuration: str,
        *,
        project: str,
        customer_token: Secret | None = None,
        provider_token: Secret | None = None,
        retry_delay: timedelta | None = None,
        heart_beat: timedelta | None = None,
    ) -> None:
        """Load an agent configuration and prepare everybody who takes part: customer, agent, provider.

        Args:
            configuration: The agent's YAML file.
            project: UUID of the project on A that orders.
            customer_token: Who orders on A; the agent's own token when not given.
            provider_token: Who completes orders on B, as B's provider; the agent's token there when not given.
            retry_delay: Shortens the agent's pause between two attempts (its own: 5 s); only for a lab.
            heart_beat: Shortens the agent's STOMP heart-beat (its own: 10 s); only for a lab.

        Raises:
            ConfigurationError: The file is missing, no YAML, or has a wrong key; ends the run.

        Example:
            | Join Federation | agent.yaml | project=${project} |
        """
        path = Path(configuration)
        # Before the next agent: two of them would both hold the agent's loggers.
        self._session.leave_federation()
        federation = open_federation(
            path,
            project,
            self._session.journal,
            customer_token=customer_token.value if customer_token else None,
            provider_token=provider_token.value if provider_token else None,
            pace=Pace(retry_delay, heart_beat),
        )
        self._session.join_federation(federation)
        logger.info(f"Site agent {federation.agent.version} with {path}: {federation.agent.pace}")

    @keyword(tags=["Setup"])
    def join_own_federation(self) -> None:
        """Use the Waldurs that document 000's environment variables name.

        `WALDUR_E2E_CONFIG` is the agent's configuration, `WALDUR_E2E_PROJECT_A_UUID` the project that orders.
        Orders on B are completed with `WALDUR_E2E_PROVIDER_B_TOKEN`, or else with the configuration's own token.

        Raises:
            ConfigurationError: A variable is missing, the configuration is wrong, or the Waldurs lack what it
                names; ends the run.

        Example:
            | Join Own Federation |
        """
        self._session.leave_federation()
        federation = open_own_federation(os.environ, self._session.journal)
        self._session.join_federation(federation)
        plan = (
            f"This run orders, updates and terminates resources named '{self._session.run} …' in project "
            f"{federation.project} on {federation.source.url}; the agent creates their project and resources "
            f"on {federation.target.url}. What a killed run leaves is ended by "
            f"'testyard cleanup --run {self._session.run}'."
        )
        logger.info(plan, also_console=True)
        missing = unmet(it for it in self.show_preflight() if it.step in {"FED-S1", "FED-S2", "FED-S3"})
        if missing:
            message = "Your Waldurs do not have what the configuration needs:\n" + "\n".join(map(str, missing))
            raise ConfigurationError(message)

    @keyword(tags=["Setup"])
    def leave_federation(self) -> None:
        """Disconnect the agent and every client; does nothing when there is no federation.

        Example:
            | Leave Federation |
        """
        self._session.leave_federation()
        self._session.disconnect()

    @keyword(tags=["Getter"])
    def federated_offering(self, side: Side) -> str:
        """The offering that the federation uses on one side.

        Args:
            side: `A` or `B`.

        Returns:
            Its UUID.

        Example:
            | ${offering} = | Federated Offering | B |
        """
        return self._session.federation.offering_on(side)

    # Preflight.

    @keyword(tags=["Getter", "Evidence"])
    def show_preflight(self) -> list[Requirement]:
        """Check everything the federation needs and draw it as a table, found against expected.

        Returns:
            The requirements, each with step, side, name, expected, found, met.

        Example:
            | Show Preflight |
        """
        federation = self._session.federation
        requirements = Preflight(federation.configuration, federation.project, federation.source).run()
        rows = [requirement_row(requirement) for requirement in requirements]
        met = sum(requirement.met for requirement in requirements)
        title = f"Preflight: {met} of {len(rows)} requirements are met"
        logger.info(html_table(title, REQUIREMENT_COLUMNS, rows), html=True)
        if self._session.report:
            self._session.report.line(title)
            self._session.report.table(REQUIREMENT_COLUMNS, rows)
        return requirements

    @keyword(tags=["Assertion"])
    def preflight_should_pass(self, step: str | None = None) -> None:
        """Check that everything the federation needs is there.

        Args:
            step: Only the requirements of one set-up step: `FED-S1` … `FED-S5`.

        Raises:
            NotMetError: Names each requirement that is not met, with what was expected and found.

        Example:
            | Preflight Should Pass |
            | Preflight Should Pass | FED-S1 |
        """
        chosen = [it for it in self.show_preflight() if step in {None, it.step}]
        if not chosen:
            message = f"There is no requirement of step {step!r}; expected FED-S1 to FED-S5."
            raise UserError(message)
        missing = unmet(chosen)
        if missing:
            message = "The preflight found:\n" + "\n".join(map(str, missing))
            raise NotMetError(message)

    @keyword(tags=["Assertion"])
    def preflight_should_name(self, *parts: str) -> str:
        """Check that the preflight finds one thing missing, and says so.

        Args:
            parts: Texts that the requirement's line must contain, such as `Waldur B` and `state`.

        Returns:
            The line.

        Raises:
            NotMetError: No unmet requirement has such a line; lists the unmet ones.

        Example:
            | Preflight Should Name | Waldur B | the offering's state | Paused |
        """
        lines = [str(requirement) for requirement in self.show_preflight() if not requirement.met]
        for line in lines:
            if all(part in line for part in parts):
                logger.info(line)
                return line
        found = "\n".join(lines) or "everything is met"
        message = f"The preflight names no missing requirement with {', '.join(parts)}. It found:\n{found}"
        raise NotMetError(message)

    @keyword(tags=["Getter"])
    def stomp_endpoint_of(self, side: Side) -> StompEndpoint:
        """What a plain GET answers where the agent would dial STOMP over WebSocket.

        Args:
            side: `A` or `B`.

        Returns:
            The endpoint, with `url`, `status`, `content_type` and `available`.

        Example:
            | ${endpoint} = | STOMP Endpoint Of | B |
        """
        return probe_stomp(self._session.federation.configuration, side)

    @keyword(tags=["Getter"])
    def why_the_target_offers_no_events(self) -> str:
        """Why the agent cannot listen to B's events here.

        Returns:
            The reason; empty when it can.

        Example:
            | ${reason} = | Why The Target Offers No Events |
        """
        configuration = self._session.federation.configuration
        if not configuration.backend_settings.target_stomp_enabled:
            return "The configuration does not set backend_settings.target_stomp_enabled."
        endpoint = probe_stomp(configuration, Side.B)
        return "" if endpoint.available else f"Waldur B has no STOMP at {endpoint.url}: {endpoint}."

    # Orders.

    @keyword(tags=["Action"])
    def order_a_resource_on_a(self, name: str = "resource", **limits: float) -> str:
        """Order a resource on A, as the customer.

        Args:
            name: The resource's name; prefixed with the run's id.
            limits: Amount per component.

        Returns:
            UUID of the order.

        Example:
            | ${order} = | Order A Resource On A | node_hours=2 |
        """
        order = self._session.federation.order(limits, f"{self._session.run} {name}")
        self._session.use_resource(order.marketplace_resource_uuid)
        say(self._session, f"Ordered on A: {limits_text(limits)}, order {order.uuid}")
        return order.uuid

    @keyword(tags=["Action"])
    def order_other_limits_on_a(self, resource: str | None = None, **limits: float) -> str:
        """Order other limits for a resource on A, as the customer.

        Args:
            resource: UUID of the resource on A; the last one ordered when not given.
            limits: The new amount per component.

        Returns:
            UUID of the order.

        Example:
            | ${order} = | Order Other Limits On A | node_hours=5 |
        """
        uuid = self._session.resource_on_a(resource).uuid
        order = self._session.federation.source.update_limits(uuid, limits)
        say(self._session, f"Ordered other limits on A: {limits_text(limits)}, order {order}")
        return order

    @keyword(tags=["Action"])
    def order_termination_on_a(self, resource: str | None = None) -> str:
        """Order the end of a resource on A, as the customer.

        Args:
            resource: UUID of the resource on A; the last one ordered when not given.

        Returns:
            UUID of the order.

        Example:
            | ${order} = | Order Termination On A |
        """
        uuid = self._session.resource_on_a(resource).uuid
        order = self._session.federation.source.terminate(uuid)
        say(self._session, f"Ordered the termination on A: order {order}")
        return order

    # The agent's work.

    @keyword(tags=["Action"])
    def start_the_agent(self) -> None:
        """Initialise the agent's order processor: it looks up its user, offering and service provider.

        Example:
            | Start The Agent |
        """
        mark = self._session.journal.mark()
        agent = self._session.federation.agent
        agent.start()
        show_calls(self._session, "The agent's start", agent.calls(mark))

    @keyword(tags=["Action"])
    def run_agent_cycle(self) -> list[Call]:
        """Let the agent look for orders on A and process them, once; its REST calls are drawn as a table.

        Returns:
            The calls, with side, method, path, status and took.

        Example:
            | Run Agent Cycle |
        """
        calls = self._session.federation.agent.run_cycle()
        show_calls(self._session, "One cycle of the agent", calls)
        return calls

    @keyword(tags=["Action"])
    def let_the_agent_work(
        self,
        order: str,
        *,
        cycles: int = 15,
        delay: timedelta = timedelta(),
        approve: bool = True,
    ) -> OrderState:
        """Run cycles of the agent until an order on A has ended; B's provider completes the orders on B.

        Does not fail because of the state the order ends in (document 000, known issue 1).

        Args:
            order: UUID of the order on A.
            cycles: How many cycles at most.
            delay: Pause between two cycles.
            approve: Whether B's provider accepts and completes what the agent orders on B.

        Returns:
            The order's last state.

        Example:
            | ${state} = | Let The Agent Work | ${order} | cycles=15 | delay=3s |
        """
        state = self._session.federation.work_until_ended(
            order, cycles=cycles, delay=delay, approve=approve, after_cycle=self._after_cycle
        )
        say(self._session, f"Order {order} is {state.value}")
        return state

    @keyword(tags=["Action"])
    def connect_the_agent_to_events(
        self, source: Channel, target: Channel, *, within: timedelta = timedelta(seconds=30)
    ) -> list[Channel]:
        """Open the agent's STOMP connections and capture what arrives over them.

        The agent's handling of source events is replaced by the capture, so that only cycles process orders;
        its handling of target events still runs (document 000, MessageCapture).

        Args:
            source: Captures A's events.
            target: Captures B's events, when the configuration enables them.
            within: Give up after this time.

        Returns:
            The channels that are open: the source, and the target when enabled.

        Raises:
            UserError: An enabled endpoint does not exist; the agent would dial it for ever.
            NotMetError: The agent did not connect.

        Example:
            | Connect The Agent To Events | ${source} | ${target} |
        """
        federation = self._session.federation
        enabled = [Side.A]
        if federation.configuration.backend_settings.target_stomp_enabled:
            enabled.append(Side.B)
        for side in enabled:
            endpoint = probe_stomp(federation.configuration, side)
            if not endpoint.available:
                message = f"Waldur {side.value} offers no STOMP over WebSocket at {endpoint.url}: {endpoint}."
                raise UserError(message)
        channels = {Side.A: source, Side.B: target}
        subscriptions = federation.agent.subscribe(source.handler(), target.wrapping, Deadline(within))
        for subscription in subscriptions:
            channel = channels[subscription.side]
            channel.connection = subscription.connection
            channel.queue = subscription.queue
            channel.object_types = subscription.object_types
            logger.info(
                f"{channel.name}: queue {subscription.queue} on vhost {subscription.vhost} carries "
                f"{', '.join(subscription.object_types)}"
            )
        return [channels[subscription.side] for subscription in subscriptions]

    def _after_cycle(self, number: int, calls: list[Call], state: OrderState) -> None:
        show_calls(self._session, f"Cycle {number}: the order is {state.value}", calls)


def _revealed(content: Any) -> Any:
    """The content with every Secret replaced by its value."""
    match content:
        case Secret():
            return content.value
        case dict():
            return {str(key): _revealed(value) for key, value in content.items()}
        case list() | tuple():
            return [_revealed(value) for value in content]
        case _:
            return content
