"""Two Waldurs and the agent between them, as the tests of document 000 see them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from testyard.core.deadline import Deadline
from testyard.core.errors import ConfigurationError
from testyard.core.journal import Journal
from testyard.waldur.agent import Pace, SiteAgent
from testyard.waldur.api import Order, Resource, Waldur
from testyard.waldur.approval import ApprovingProvider
from testyard.waldur.calls import Call
from testyard.waldur.configuration import OfferingConfiguration, load_configuration
from testyard.waldur.states import OrderState, Side

# The variables of document 000, and one of our own for a B whose agent's user may not approve orders.
CONFIGURATION_VARIABLE = "WALDUR_E2E_CONFIG"
PROJECT_VARIABLE = "WALDUR_E2E_PROJECT_A_UUID"
PROVIDER_TOKEN_VARIABLE = "WALDUR_E2E_PROVIDER_B_TOKEN"


@dataclass
class Federation:
    """One federated offering.

    Attributes:
        configuration: What the agent was told.
        project: UUID of the project on A that orders.
        source: Waldur A as the customer who orders.
        target: Waldur B as the agent's user there.
        provider: The provider of B's offering.
        agent: The real agent.
    """

    configuration: OfferingConfiguration
    project: str
    source: Waldur
    target: Waldur
    provider: ApprovingProvider
    agent: SiteAgent

    def offering_on(self, side: Side) -> str:
        """The UUID of the offering that is federated, on one side."""
        if side is Side.A:
            return self.configuration.waldur_offering_uuid
        return self.configuration.backend_settings.target_offering_uuid

    def order(self, limits: Mapping[str, float], name: str) -> Order:
        """Order a resource on A."""
        return self.source.place_order(self.offering_on(Side.A), self.project, limits, name)

    def work_until_ended(
        self,
        order: str,
        *,
        cycles: int,
        delay: timedelta,
        approve: bool = True,
        after_cycle: Callable[[int, list[Call], OrderState], None] = lambda *_: None,
    ) -> OrderState:
        """Let the agent work until an order on A has ended, or for a number of cycles.

        Never fails because of the state an order ends in: the caller asserts it (document 000, known issue 1).

        Args:
            order: UUID of the order on A.
            cycles: How many cycles at most.
            delay: Pause between two cycles.
            approve: Complete the agent's orders on B, as B's provider would.
            after_cycle: Told each cycle's number, calls, and the order's state after it.

        Returns:
            The order's last state.
        """
        if cycles < 1:
            return self.source.order(order).state
        for number in range(1, cycles + 1):
            calls = self.agent.run_cycle()
            current = self.source.order(order)
            state = current.state
            after_cycle(number, calls, state)
            if state.has_ended:
                break
            if approve and current.backend_id:
                self.provider.complete(current.backend_id)
            if delay and number < cycles:
                Deadline(delay).pause(delay)
        return state

    def resource_of(self, order: str) -> Resource:
        """The resource on A that an order is about."""
        return self.source.resource(self.source.order(order).marketplace_resource_uuid)

    def close(self) -> None:
        """Close every connection."""
        self.agent.close()
        self.provider.close()
        self.source.close()
        self.target.close()


def open_federation(
    path: Path,
    project: str,
    journal: Journal,
    *,
    customer_token: str | None = None,
    provider_token: str | None = None,
    pace: Pace | None = None,
) -> Federation:
    """Load an agent configuration and prepare everybody who takes part.

    Args:
        path: The agent's YAML file.
        project: UUID of the project on A that orders.
        journal: Receives the agent's calls and complaints.
        customer_token: Who orders on A; the agent's own token when not given.
        provider_token: Who completes orders on B; the agent's token there when not given.
        pace: Shortens the agent's own waits; only for a lab.

    Raises:
        ConfigurationError: The file is missing, no YAML, or has a wrong key.
    """
    offering = load_configuration(path).offering
    settings = offering.backend_settings
    provider = provider_token or settings.target_api_token
    return Federation(
        offering,
        project,
        Waldur(offering.waldur_api_url, customer_token or offering.waldur_api_token, name="Waldur A"),
        Waldur(settings.target_api_url, settings.target_api_token, name="Waldur B"),
        ApprovingProvider(Waldur(settings.target_api_url, provider, name="Waldur B")),
        SiteAgent(path, journal, pace or Pace()),
    )


def open_own_federation(environment: Mapping[str, str], journal: Journal) -> Federation:
    """The federation that document 000's environment variables name.

    Args:
        environment: The process's environment.
        journal: Receives the agent's calls and complaints.

    Raises:
        ConfigurationError: A variable is missing, or the configuration is wrong.
    """
    missing = [name for name in (CONFIGURATION_VARIABLE, PROJECT_VARIABLE) if not environment.get(name)]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        message = f"To use your own Waldurs, {' and '.join(missing)} must be set, but {verb} not."
        raise ConfigurationError(message)
    return open_federation(
        Path(environment[CONFIGURATION_VARIABLE]),
        environment[PROJECT_VARIABLE],
        journal,
        provider_token=environment.get(PROVIDER_TOKEN_VARIABLE),
    )
