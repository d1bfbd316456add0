"""Listen to a Waldur's events as a user of one's own, with the agent's classes (document 001, suite 2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from testyard.core.errors import NotMetError
from testyard.waldur.agent import SiteAgent, Subscription
from testyard.waldur.states import Side

ATTEMPTS = 5


@dataclass(frozen=True)
class Subscriber:
    """Who listens, where.

    Attributes:
        side: Which Waldur.
        url: Its address.
        token: The user's token.
        offering: UUID of the offering whose events are wanted.
        name: How the agent identity is called there; unique for the offering.
    """

    side: Side
    url: str
    token: str
    offering: str
    name: str


def subscribe(
    agent: SiteAgent, subscriber: Subscriber, object_types: Sequence[str], handler: Callable[..., None]
) -> Subscription:
    """Register an agent identity with a queue of its own and connect to it.

    The agent closes the connection when it is closed.

    Args:
        agent: Whose classes and STOMP settings are used.
        subscriber: Who listens, where.
        object_types: What the queue shall receive.
        handler: Called with each message.

    Raises:
        NotMetError: The connection was not made after five attempts.
    """
    modules = agent.modules
    offering = agent.offering.model_copy(
        update={
            "waldur_api_url": f"{subscriber.url}/api/",
            "waldur_api_token": subscriber.token,
            "waldur_offering_uuid": subscriber.offering,
        }
    )
    with agent.working():
        identities = modules.identities.AgentIdentityManager(
            offering, modules.utils.get_client_for_offering(offering)
        )
        identity = identities.register_identity(subscriber.name)
        queue = identities.register_queue(identity, list(map(modules.object_type, object_types)))
        manager = modules.subscriptions.EventSubscriptionManager(offering, None, handler)
        connection = manager.setup_stomp_connection(
            queue, offering.stomp_ws_host, offering.stomp_ws_port, offering.stomp_ws_path
        )
        try:
            modules.connect(connection, queue.rmq_username, subscriber.token, max_retries=ATTEMPTS)
        except modules.stomp_problems:
            message = f"{subscriber.name} could not connect to the events of Waldur {subscriber.side.value}."
            raise NotMetError(message) from None
    subscription = Subscription(
        subscriber.side, connection, queue.queue_name, queue.vhost, tuple(queue.observable_object_types)
    )
    agent.adopt(subscription)
    return subscription
