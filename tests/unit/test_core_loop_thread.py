"""One loop in a thread of its own: it runs from its first use until it is stopped, and leaves nothing."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import CancelledError, Future
from typing import Any, TypeVar

import pytest
from testyard.core.errors import UserError
from testyard.core.loop_thread import LoopThread

Result = TypeVar("Result")


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


class InterruptedAtOnce(LoopThread):
    """Interrupted when the work has been handed over, and the loop has or has not begun it."""

    begins: threading.Event | None = None

    def spawn(self, work: Coroutine[Any, Any, Result]) -> Future[Result]:
        super().spawn(work)
        if self.begins:
            assert self.begins.wait(5)
        raise KeyboardInterrupt


def test_an_interrupt_while_the_work_is_handed_over_cancels_it() -> None:
    loop = InterruptedAtOnce("under test")
    loop.begins, ended = threading.Event(), threading.Event()
    try:
        with pytest.raises(KeyboardInterrupt):
            loop.run(for_ever(ended, loop.begins))
        assert ended.wait(5)
    finally:
        loop.stop()


@pytest.mark.filterwarnings("error")
def test_what_has_not_begun_when_it_is_interrupted_never_begins() -> None:
    loop = InterruptedAtOnce("under test")
    begun, ended = threading.Event(), threading.Event()
    goes_on = threading.Event()

    async def hold_the_loop_up() -> None:
        goes_on.wait(5)

    try:
        with pytest.raises(KeyboardInterrupt):
            loop.spawn(hold_the_loop_up())
        with pytest.raises(KeyboardInterrupt):
            loop.run(for_ever(ended, begun))
        goes_on.set()
        LoopThread.spawn(loop, name_of_thread()).result(5)
        assert not begun.is_set()
    finally:
        goes_on.set()
        loop.stop()


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
