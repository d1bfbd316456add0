"""What the real agent does besides orders, each one as its own modes do it, once.

The agent keeps most problems to itself: it logs them and goes on. Whether a duty succeeded shows on the two
Waldurs, in its REST calls, and in its warnings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from testyard.waldur.agent import SiteAgent
from testyard.waldur.calls import Call


@dataclass(frozen=True)
class Done:
    """What a duty came to.

    Attributes:
        calls: The agent's REST calls, oldest first.
        answer: What the agent's function returned; None where it returns nothing.
    """

    calls: list[Call]
    answer: object = None


def perform(agent: SiteAgent, duty: Callable[..., Any], *arguments: Any, **options: Any) -> Done:
    """Call one of the agent's functions at the agent's pace and record its REST calls."""
    with agent.working() as calls:
        answer = duty(*arguments, **options)
    return Done(calls, answer)


def sync_usernames(agent: SiteAgent) -> Done:
    """Take over the usernames that B gave to offering users (document 001, suite 1, test 4).

    Returns:
        Answers whether any username was changed; False also when something failed.
    """
    return perform(agent, agent.backend.sync_offering_user_usernames, agent.offering.uuid, agent.client)


def reconcile_usernames(agent: SiteAgent) -> Done:
    """Do what the agent does every hour for usernames (document 001, suite 3, test 4)."""
    return perform(agent, agent.modules.event_utils.run_periodic_username_reconciliation, [agent.offering])


def reconcile_orders(agent: SiteAgent, stuck_for: timedelta) -> Done:
    """Do what the agent does every hour for orders that nobody touched for some time.

    Args:
        agent: The agent.
        stuck_for: Orders changed later than that are left alone; whole minutes, the agent's own are 30.
    """
    minutes = int(stuck_for.total_seconds() // 60)
    duty = agent.modules.event_utils.run_periodic_order_reconciliation
    return perform(agent, duty, [agent.offering], stuck_threshold_minutes=minutes)
