"""The power supply of the machines: on, off, the power button, and what happens when a machine reboots itself.

A machine is one process (``node``) and those that it has started. All of them inherit the write end of a pipe, the
lifeline: who holds it belongs to the machine, and when nobody does, the machine is off. Taking the power away is
SIGKILL of every holder. What a machine does to itself, such as a reboot or a crash, does not change its power, as
a provider's API sees it: it stays RUNNING, without a boot id until it answers again.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import IO, Any, Protocol

from testyard.core.errors import UserError
from testyard.lab.children import ChildProcess, LabError, last_line
from testyard.lab.clouds.machines import MachineState
from testyard.lab.cluster import modules
from testyard.lab.cluster.plan import LONGEST_LINE, Command, NodePlan
from testyard.lab.servers.postgresql_launcher import holders_of

START_TIMEOUT = timedelta(seconds=30)
# How long a killed process may take to be gone before the machine's processes are looked for again.
KILL_SECONDS = 0.02


class Forks(Protocol):
    """Starts processes; a ``ForkServer`` does."""

    def fork(
        self,
        module: str,
        *,
        stdin: int,
        stdout: int,
        stderr: int | IO[bytes] = ...,
        descriptors: tuple[int, ...] = ...,
    ) -> ChildProcess:
        """Start a process that runs a module."""


class Machine:
    """One machine and its power.

    Args:
        plan_for_boot: What its process is told at a boot, given the descriptor of the lifeline there.
        forks: Starts its processes.
        log: Where its standard error goes.
    """

    def __init__(self, name: str, plan_for_boot: Callable[[int], NodePlan], forks: Forks, log: Path) -> None:
        self.name = name
        self.state = MachineState.STOPPED
        self.boot_id: str | None = None
        self.pid: int | None = None
        self._plan_for_boot = plan_for_boot
        self._forks = forks
        self._log = log
        self._boot: _Boot | None = None
        self._life: asyncio.Task[None] | None = None
        self._is_off = True
        self._changed = asyncio.Event()
        self._problem = ""

    def power_on(self) -> None:
        """Begin to start it: STARTING, then RUNNING. Nothing when it is on.

        Raises:
            UserError: It is just shutting down.
        """
        if self.state is MachineState.STOPPING:
            message = f"{self.name} is stopping: it can be started when it has stopped."
            raise UserError(message)
        if self.state is MachineState.STOPPED:
            self._is_off = False
            self._problem = ""
            self._become(MachineState.STARTING)
            self._life = asyncio.create_task(self._live())

    async def power_off(self) -> None:
        """Take the power away; STOPPED when this returns."""
        self._is_off = True
        if self._boot:
            await self._boot.kill()
        if self._life:
            await asyncio.wait([self._life])

    def press(self) -> None:
        """Press the power button: an orderly shutdown begins. Nothing when nobody is there to notice."""
        if self._boot and self.boot_id:
            self._become(MachineState.STOPPING)
            self._boot.send(Command.PRESS)

    async def until_running(self, within: timedelta = START_TIMEOUT) -> None:
        """Wait until its SSH server answers.

        Raises:
            LabError: It has stopped instead, with the last line it said, or it takes too long.
        """
        await self._until(lambda: self.boot_id is not None, "running", within)

    async def until_stopped(self, within: timedelta = START_TIMEOUT) -> None:
        """Wait until it is off.

        Raises:
            LabError: It takes too long.
        """
        await self._until(lambda: self.state is MachineState.STOPPED, "stopped", within)

    async def ask(self, command: Command, **content: Any) -> None:
        """Have its process do something, and wait until that is done.

        Raises:
            UserError: It is not running, goes down meanwhile, or cannot do it.
        """
        if self._boot is None or self.boot_id is None:
            message = f"{self.name} is not running."
            raise UserError(message)
        await self._boot.ask(command, **content)

    async def _until(self, holds: Callable[[], bool], what: str, within: timedelta) -> None:
        try:
            async with asyncio.timeout(within.total_seconds()):
                while not holds():
                    if self.state is MachineState.STOPPED:
                        said = self._log.read_bytes() if self._log.exists() else b""
                        message = f"{self.name} stopped instead of starting: {self._problem or last_line(said)}"
                        raise LabError(message)
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            message = f"{self.name} was not {what} after {within.total_seconds():.0f} s, but {self.state.value}."
            raise LabError(message) from None

    def _become(self, state: MachineState) -> None:
        self.state = state
        self._changed.set()

    async def _live(self) -> None:
        """From power on to power off: one boot after the other."""
        try:
            returns = True
            while returns and not self._is_off:
                self._boot = _Boot(self._plan_for_boot, self._forks, self._log)
                returns = await self._follow(self._boot)
        except LabError as problem:
            self._problem = str(problem)
        finally:
            self._boot = None
            self._become(MachineState.STOPPED)

    async def _follow(self, boot: _Boot) -> bool:
        """Follow a boot to its end; whether another one comes after it."""
        try:
            async with aclosing(boot.events()) as events:
                async for event in events:
                    match event["event"]:
                        case "ready":
                            self.boot_id, self.pid = event["boot_id"], event["pid"]
                            self._become(MachineState.RUNNING)
                        case "stopping":
                            self.boot_id = None
                            self._become(self.state if event["returns"] else MachineState.STOPPING)
                        case "end":
                            return bool(event["returns"])
        finally:
            self.boot_id = self.pid = None
            await boot.kill()
            await boot.close()
            self._changed.set()
        return False


class _Boot:
    """The processes of a machine from one boot to its end.

    Args:
        plan_for_boot: What the process is told, given the descriptor of the lifeline there.
        forks: Starts it.
        log: Where its standard error goes.
    """

    def __init__(self, plan_for_boot: Callable[[int], NodePlan], forks: Forks, log: Path) -> None:
        self._numbers = count(1)
        self._killing = asyncio.Lock()
        self._is_closed = False
        self._asked: dict[int, asyncio.Future[None]] = {}
        self._lifeline, inherited = os.pipe()
        os.set_blocking(self._lifeline, False)
        try:
            with log.open("ab") as errors:
                self._process = forks.fork(
                    modules.NODE,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    descriptors=(inherited,),
                )
            self._write(plan_for_boot(inherited).model_dump_json())
        except BaseException:
            os.close(self._lifeline)
            raise
        finally:
            os.close(inherited)

    def send(self, command: Command, **content: Any) -> int:
        """Ask for something; gives the number of the question."""
        number = next(self._numbers)
        self._write(json.dumps({"id": number, "command": command, **content}))
        return number

    async def ask(self, command: Command, **content: Any) -> None:
        """Ask for something and wait until it is done.

        Raises:
            UserError: It could not be done.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._asked[self.send(command, **content)] = done
        await done

    async def events(self) -> AsyncGenerator[dict[str, Any], None]:
        """What the node tells of itself, until its process has ended."""
        reader = asyncio.StreamReader(limit=LONGEST_LINE)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), self._process.stdout
        )
        try:
            while line := await reader.readline():
                said = json.loads(line)
                if "event" in said:
                    yield said
                elif done := self._asked.pop(said["id"], None):
                    _settle(done, said["error"])
        finally:
            transport.close()
            for done in self._asked.values():
                _settle(done, "The node went down meanwhile.")
            self._asked.clear()

    async def kill(self) -> None:
        """Kill every process of the machine, and wait until they are gone."""
        async with self._killing:
            if self._is_closed:
                return
            victims = await asyncio.to_thread(self._main_process)
            while not await self._is_gone():
                for process in victims:
                    with suppress(ProcessLookupError):
                        os.kill(process, signal.SIGKILL)
                if not await self._is_gone(KILL_SECONDS):
                    victims = await asyncio.to_thread(self._holders)

    async def close(self) -> None:
        """Release what is left of a machine that is off."""
        # Not while somebody else still looks at the lifeline: its number may be another file's at once.
        async with self._killing:
            self._is_closed = True
            with suppress(LabError, subprocess.TimeoutExpired):
                await asyncio.to_thread(self._process.wait, KILL_SECONDS)
            if self._process.stdin:
                self._process.stdin.close()
            os.close(self._lifeline)

    def _main_process(self) -> list[int]:
        # Waits until the fork server has let go of the lifeline, so that it is not taken for one of the node.
        try:
            return [self._process.pid] if self._process.poll() is None else []
        except LabError:
            return []

    def _holders(self) -> list[int]:
        return [process for process in holders_of(self._lifeline) if process != os.getpid()]

    async def _is_gone(self, within: float = 0.0) -> bool:
        """Whether nobody holds the other end of the lifeline, after at most so many seconds."""
        with suppress(BlockingIOError):
            return not os.read(self._lifeline, 1)
        if not within:
            return False
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_reader(self._lifeline, ended.set)
        try:
            await asyncio.wait_for(ended.wait(), within)
        except TimeoutError:
            return False
        finally:
            loop.remove_reader(self._lifeline)
        return await self._is_gone()

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None
        # What is said to a node that has just ended is lost.
        with suppress(BrokenPipeError):
            os.write(self._process.stdin.fileno(), line.encode() + b"\n")


def _settle(done: asyncio.Future[None], problem: str | None) -> None:
    if done.done():
        return
    if problem is None:
        done.set_result(None)
    else:
        done.set_exception(UserError(problem))
