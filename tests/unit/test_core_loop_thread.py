"""One loop in a thread of its own: it runs from its first use until it is stopped, and leaves nothing."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError

import pytest
from testyard.core.errors import UserError
from testyard.core.loop_thread import LoopThread


@pytest.fixture
def loop() -> Iterator[LoopThread]:
    """A loop that is stopped at the end."""
    thread = LoopThread("under test")
    yield thread
    thread.stop()


async def name_of_thread() -> str:
    """Where this runs."""
    return threading.current_thread().name


async def for_ever(ended: threading.Event, started: threading.Event | None = None) -> None:
    """Wait until it is cancelled."""
    if started:
        started.set()
    try:
        await asyncio.get_running_loop().create_future()
    finally:
        ended.set()


def test_it_runs_in_its_own_thread_from_the_first_use(loop: LoopThread) -> None:
    assert not loop.is_running
    assert loop.run(name_of_thread()) == "under test"
    assert loop.is_running
    assert loop.run(name_of_thread()) == "under test"


def test_what_was_started_goes_on_between_two_uses(loop: LoopThread) -> None:
    started, ended = threading.Event(), threading.Event()
    future = loop.spawn(for_ever(ended, started))
    assert started.wait(5)
    loop.run(name_of_thread())
    assert not future.done()
    assert not ended.is_set()


def test_a_problem_reaches_the_caller(loop: LoopThread) -> None:
    async def fail() -> None:
        raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        loop.run(fail())


def test_stopping_cancels_what_runs_and_ends_the_thread(loop: LoopThread) -> None:
    before = threading.active_count()
    started, ended = threading.Event(), threading.Event()
    future = loop.spawn(for_ever(ended, started))
    assert started.wait(5)
    loop.stop()
    loop.stop()
    assert ended.is_set()
    assert threading.active_count() == before
    with pytest.raises(CancelledError):
        future.result(5)
    assert not loop.is_running


def test_it_can_be_used_again_after_it_was_stopped(loop: LoopThread) -> None:
    loop.run(name_of_thread())
    loop.stop()
    assert loop.run(name_of_thread()) == "under test"


def test_an_interrupted_wait_cancels_what_was_waited_for(loop: LoopThread) -> None:
    started, ended = threading.Event(), threading.Event()
    main = threading.get_ident()

    def interrupt() -> None:
        started.wait(5)
        signal.pthread_kill(main, signal.SIGINT)

    interrupter = threading.Thread(target=interrupt)
    interrupter.start()
    with pytest.raises(KeyboardInterrupt):
        loop.run(for_ever(ended, started))
    interrupter.join()
    assert ended.wait(5)


def test_its_own_thread_cannot_wait_for_it(loop: LoopThread) -> None:
    async def inside() -> None:
        with pytest.raises(UserError, match="The loop of under test cannot wait for itself"):
            loop.run(name_of_thread())

    loop.run(inside())


def test_a_loop_that_nobody_stops_does_not_hold_its_process_up() -> None:
    code = """
        import asyncio
        from testyard.core.loop_thread import LoopThread
        async def for_ever():
            await asyncio.get_running_loop().create_future()
        LoopThread("left").spawn(for_ever())
        print("done")
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    assert subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout == "done\n"
