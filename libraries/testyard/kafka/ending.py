"""Ending clients whose brokers may be away."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import KafkaError

CLOSE_TIMEOUT = timedelta(seconds=3)


async def end_client(client: AIOKafkaProducer | AIOKafkaConsumer) -> None:
    """Stop a client; one that still waits for brokers which are away is ended without them.

    Args:
        client: A producer or consumer of aiokafka, started or not.
    """
    stopping = asyncio.ensure_future(client.stop())
    # A consumer that is cut off may say that it was cancelled, though nobody cancelled it.
    done, _ = await asyncio.wait([stopping], timeout=CLOSE_TIMEOUT.total_seconds())
    if not done:
        stopping.cancel()
        await asyncio.wait([stopping], timeout=CLOSE_TIMEOUT.total_seconds())
    with suppress(asyncio.CancelledError, asyncio.InvalidStateError, KafkaError, OSError):
        stopping.result()
    if isinstance(client, AIOKafkaProducer) and not done:
        await client.client.close()
