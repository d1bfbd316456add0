"""A Waldur double with one defect: ``python -m testyard.lab.sabotage.waldur`` instead of ``testyard.lab.waldur``.

The defect's name comes in the environment variable TESTYARD_DEFECT, as arguments are the double's own.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import uuid4

from testyard.lab.sabotage import waldur_accounts
from testyard.lab.sabotage.defect import DEFECT_VARIABLE, wrap
from testyard.lab.waldur import orders
from testyard.lab.waldur.__main__ import main
from testyard.lab.waldur.events import Event, Events
from testyard.lab.waldur.machines import OrderState
from testyard.lab.waldur.queues import Queues

LATE_SECONDS = 60


def _change_order_events(change: Callable[[Event], Event]) -> None:
    def publish(original: Any, self: Any, event: Event) -> None:
        original(self, change(event) if event.object_type == "order" else event)

    wrap(Events, "_publish", publish)


def order_events_missing() -> None:
    """No order event leaves."""

    def publish(original: Any, self: Any, event: Event) -> None:
        if event.object_type != "order":
            original(self, event)

    wrap(Events, "_publish", publish)


def order_events_late() -> None:
    """Order events leave a minute after they should."""

    def publish(original: Any, self: Any, event: Event) -> None:
        if event.object_type == "order":
            asyncio.get_running_loop().call_later(LATE_SECONDS, original, self, event)
        else:
            original(self, event)

    wrap(Events, "_publish", publish)


def order_events_untyped() -> None:
    """Order events do not say what they are about."""
    typed: property = vars(Event)["unified_body"]

    def untyped(self: Event) -> dict[str, Any]:
        body: dict[str, Any] = typed.__get__(self)
        return {key: value for key, value in body.items() if key != "object_type"}

    Event.unified_body = property(untyped)  # type: ignore[method-assign, assignment] # that is the defect


def order_events_of_another() -> None:
    """Order events name an order that does not exist."""
    _change_order_events(lambda event: replace(event, body={**event.body, "order_uuid": uuid4().hex}))


def order_events_wrong_state() -> None:
    """A new order is told as if its customer had approved it already."""

    def change(event: Event) -> Event:
        if event.body["order_state"] != OrderState.PENDING_CONSUMER:
            return event
        return replace(event, body={**event.body, "order_state": str(OrderState.PENDING_PROVIDER)})

    _change_order_events(change)


def queue_of_orders_only() -> None:
    """A queue is bound to orders whatever was asked for."""

    def open_consumer(original: Any, self: Any, consumer: Any) -> None:
        consumer.object_types = ("order",)
        original(self, consumer)

    wrap(Queues, "open_consumer", open_consumer)


def limits_applied_before_done() -> None:
    """New limits are in force as soon as they are ordered."""

    def place(original: Any, world: Any, user: Any, resource: Any, limits: Any) -> Any:
        order = original(world, user, resource, limits)
        resource.limits = dict(limits)
        world.store.touch(resource)
        return order

    wrap(orders, "place_update", place)


def shadow_resource_resolved() -> None:
    """Orders name the real resource also where shadow resources were asked for."""
    wrap(orders, "_shadow", lambda _original, _world, resource: resource)


DEFECTS: dict[str, Callable[[], None]] = {
    "order-events-missing": order_events_missing,
    "order-events-late": order_events_late,
    "order-events-untyped": order_events_untyped,
    "order-events-of-another": order_events_of_another,
    "order-events-wrong-state": order_events_wrong_state,
    "queue-of-orders-only": queue_of_orders_only,
    "limits-applied-before-done": limits_applied_before_done,
    "shadow-resource-resolved": shadow_resource_resolved,
    **waldur_accounts.DEFECTS,
}

if __name__ == "__main__":
    DEFECTS[os.environ[DEFECT_VARIABLE]]()
    sys.exit(main())
