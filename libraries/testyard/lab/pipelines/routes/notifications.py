"""How a customer is told of failed runs."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from pydantic import Field

from testyard.lab.pipelines.authentication import OwnIdOrAdmin
from testyard.lab.pipelines.errors import not_found, refusals, with_body
from testyard.lab.pipelines.payloads import ChannelTarget
from testyard.lab.pipelines.records import DeadLetter, NotificationChannel
from testyard.lab.pipelines.routes import PREFIX
from testyard.lab.pipelines.service import Service, ServiceOf
from testyard.lab.pipelines.store import customers, notifications

MOST_CHANNELS = 20

router = APIRouter(prefix=f"{PREFIX}/customers/{{customer_id}}/notifications", tags=["notifications"])


@router.get("", responses=refusals(401, 404))
async def read(service: ServiceOf, customer_id: OwnIdOrAdmin) -> list[NotificationChannel]:
    """Where the customer's notifications go."""
    await _check(service, customer_id)
    return await notifications.channels(service.pool, customer_id)


@router.put("", responses=with_body(401, 404))
async def replace(
    service: ServiceOf,
    customer_id: OwnIdOrAdmin,
    wanted: Annotated[list[ChannelTarget], Field(max_length=MOST_CHANNELS)],
) -> list[NotificationChannel]:
    """Replace where the customer's notifications go; an empty list: nowhere."""
    await _check(service, customer_id)
    channels = [NotificationChannel(each.channel, each.target) for each in wanted]
    await notifications.set_channels(service.pool, customer_id, channels)
    return await notifications.channels(service.pool, customer_id)


@router.get("/dead-letters", responses=refusals(401, 404))
async def dead_letters(service: ServiceOf, customer_id: OwnIdOrAdmin) -> list[DeadLetter]:
    """The notifications that could not be sent."""
    await _check(service, customer_id)
    return await notifications.dead_letters(service.pool, customer_id)


async def _check(service: Service, customer_id: str) -> None:
    if await customers.read(service.pool, customer_id) is None:
        raise not_found("customer", customer_id)
