"""End what a killed run left on the user's own Waldurs."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from testyard.core.errors import UserError
from testyard.core.identifiers import hexadecimal
from testyard.core.leftover import Leftover
from testyard.waldur.api import Order, Resource, Waldur
from testyard.waldur.federation import Federation
from testyard.waldur.provisioning import PREPARED_COLLECTIONS
from testyard.waldur.states import ResourceState


def end_leftovers(federation: Federation, run: str, *, cycles: int, delay: timedelta) -> Iterator[Leftover]:
    """Terminate every resource of a run: first let the orders end that are still under way.

    Only resources of the federation's project whose name starts with the run's id are touched. A resource that
    cannot be ended does not keep the others from it.

    Args:
        federation: The user's own.
        run: The run's id.
        cycles: How many cycles of the agent for one order at most.
        delay: Pause between two cycles.

    Yields:
        Each resource, as soon as it is dealt with.
    """
    for resource in _unfinished(federation, run):
        try:
            _end(federation, resource, cycles, delay)
            outcome = federation.source.resource(resource.uuid).state
        except UserError as problem:
            yield Leftover(resource.name, str(problem), ended=False)
        else:
            yield Leftover(resource.name, outcome.value, ended=outcome is ResourceState.TERMINATED)


def delete_prepared(waldur: Waldur, run: str) -> Iterator[Leftover]:
    """Delete what a run prepared as a Waldur's staff (document 001): all that its id marks, and what hangs off it.

    Args:
        waldur: The instance, as its staff.
        run: The run's id.

    Yields:
        Each object, as soon as it is deleted.
    """
    for collection, attribute in PREPARED_COLLECTIONS.items():
        prepared = [it for it in waldur.all(collection) if str(it[attribute]).startswith((f"{run} ", f"{run}-"))]
        for found in prepared:
            name = f"{collection} {found[attribute]} on {waldur.name}"
            try:
                waldur.delete(f"{collection}/{found['uuid']}")
            except UserError as problem:
                yield Leftover(name, str(problem), ended=False)
            else:
                yield Leftover(name, "deleted", ended=True)


def _unfinished(federation: Federation, run: str) -> list[Resource]:
    resources = map(
        Resource.model_validate,
        federation.source.all("marketplace-resources", project_uuid=hexadecimal(federation.project)),
    )
    return [
        resource
        for resource in resources
        if resource.name.startswith(f"{run} ") and resource.state is not ResourceState.TERMINATED
    ]


def _end(federation: Federation, resource: Resource, cycles: int, delay: timedelta) -> None:
    orders = map(Order.model_validate, federation.source.all("marketplace-orders", resource_uuid=resource.uuid))
    for order in orders:
        if not order.state.has_ended:
            federation.work_until_ended(order.uuid, cycles=cycles, delay=delay)
    if federation.source.resource(resource.uuid).state is not ResourceState.TERMINATED:
        order_uuid = federation.source.terminate(resource.uuid)
        federation.work_until_ended(order_uuid, cycles=cycles, delay=delay)
