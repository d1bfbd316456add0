"""The broker's users and queues that registrations create: one virtual host per owning user."""

from collections.abc import Callable
from typing import Protocol

from testyard.lab.waldur.faults import Faults
from testyard.lab.waldur.model import EventConsumer, EventSubscription, User
from testyard.lab.waldur.store import Store


class QueueBroker(Protocol):
    """What of the broker registrations need."""

    def set_user(self, vhost: str, login: str, check_passcode: Callable[[str], bool]) -> None:
        """Let a login into a virtual host if the check takes its passcode."""

    def remove_user(self, vhost: str, login: str) -> None:
        """Take a login away."""

    def declare_queue(self, vhost: str, name: str) -> None:
        """Create a queue if it is not there."""

    def delete_queue(self, vhost: str, name: str) -> None:
        """Delete a queue with what is in it."""


class Queues:
    """Opens and closes queues for their owners.

    The passcode of a connection is the owner's API token, checked at each CONNECT, so that a revoked or renewed
    token keeps a client from coming back.
    """

    def __init__(self, store: Store, faults: Faults, broker: QueueBroker) -> None:
        self._store = store
        self._faults = faults
        self._broker = broker

    def open_consumer(self, consumer: EventConsumer) -> None:
        """Create the unified queue of a consumer and the login that may read it."""
        self._admit(consumer.user, consumer.rmq_username)
        self._broker.declare_queue(consumer.user.uuid, consumer.queue_name)

    def close_consumer(self, consumer: EventConsumer) -> None:
        """Delete the queue and the login of a consumer."""
        self._broker.delete_queue(consumer.user.uuid, consumer.queue_name)
        self._broker.remove_user(consumer.user.uuid, consumer.rmq_username)

    def open_subscription(self, subscription: EventSubscription) -> None:
        """Create the login of a legacy subscription, which is the subscription's UUID."""
        self._admit(subscription.user, subscription.uuid)

    def close_subscription(self, subscription: EventSubscription) -> None:
        """Delete the login of a legacy subscription."""
        self._broker.remove_user(subscription.user.uuid, subscription.uuid)

    def declare(self, user: User, name: str) -> None:
        """Create a queue in a user's virtual host."""
        self._broker.declare_queue(user.uuid, name)

    def delete(self, user: User, name: str) -> None:
        """Delete a queue of a user's virtual host."""
        self._broker.delete_queue(user.uuid, name)

    def _admit(self, user: User, login: str) -> None:
        def passcode_is_token(passcode: str) -> bool:
            return (
                user in self._store.users
                and user.is_active
                and passcode == user.token
                and not self._faults.revokes(user.uuid)
            )

        self._broker.set_user(user.uuid, login, passcode_is_token)
