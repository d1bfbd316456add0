"""Two Waldurs and the agent between them, as the tests of document 000 see them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta

from testyard.core.deadline import Deadline
from testyard.waldur.agent import SiteAgent
from testyard.waldur.api import Order, Resource, Waldur
from testyard.waldur.approval import ApprovingProvider
from testyard.waldur.calls import Call
from testyard.waldur.configuration import OfferingConfiguration
from testyard.waldur.states import OrderState


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

    def order(self, limits: Mapping[str, float], name: str) -> Order:
        """Order a resource on A."""
        return self.source.place_order(self.configuration.waldur_offering_uuid, self.project, limits, name)

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
        state = self.source.order(order).state
        for number in range(1, cycles + 1):
            calls = self.agent.run_cycle()
            current = self.source.order(order)
            state = current.state
            after_cycle(number, calls, state)
            if state.has_ended:
                break
            if approve and current.backend_id:
                self.provider.complete(current.backend_id)
            Deadline(delay).pause(delay)
        return state

    def resource_of(self, order: str) -> Resource:
        """The resource on A that an order is about."""
        return self.source.resource(self.source.order(order).marketplace_resource_uuid)

    def close(self) -> None:
        """Close every connection."""
        self.agent.close()
        self.source.close()
        self.target.close()
