"""Two things that are waited for at the same time are both waited for."""

from __future__ import annotations

import asyncio

import pytest
from testyard.lab.waiting import both


async def do(done: list[str], what: str, after: asyncio.Event | None = None, *, fails: bool = False) -> None:
    """Something that takes until an event, and may fail."""
    if after is not None:
        await after.wait()
    done.append(what)
    if fails:
        raise ValueError(what)


async def with_the_other(done: list[str], event: asyncio.Event) -> None:
    """Something that the other waits for."""
    done.append("second")
    event.set()


def test_both_are_done_at_the_same_time() -> None:
    done: list[str] = []

    async def scenario() -> None:
        event = asyncio.Event()
        await both(do(done, "first", event), with_the_other(done, event))

    asyncio.run(asyncio.wait_for(scenario(), 5))
    assert done == ["second", "first"]


def test_the_other_is_waited_for_when_one_fails() -> None:
    done: list[str] = []

    async def scenario() -> None:
        event = asyncio.Event()
        asyncio.get_running_loop().call_soon(event.set)
        await both(do(done, "fails", fails=True), do(done, "late", event))

    with pytest.raises(ValueError, match="fails"):
        asyncio.run(asyncio.wait_for(scenario(), 5))
    assert done == ["fails", "late"]


def test_whoever_is_cancelled_cancels_both() -> None:
    done: list[str] = []

    async def scenario() -> None:
        never = asyncio.Event()
        async with asyncio.timeout(0.05):
            await both(do(done, "first", never), do(done, "second", never))

    with pytest.raises(TimeoutError):
        asyncio.run(scenario())
    assert done == []
