"""The power supply alone, with processes that a test plays instead of a node's."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import IO, Any, cast

import psutil
import pytest
from cluster_support import AT_ONCE, are_gone, expect_gone
from testyard.core.deadline import Deadline, wait_until
from testyard.core.errors import NotMetError
from testyard.lab.children import ChildProcess, LabError
from testyard.lab.clouds.machines import MachineState
from testyard.lab.cluster.machines import Machine
from testyard.lab.cluster.plan import NodePlan

READY = {"event": "ready", "boot_id": "one", "pid": 1}
RETURNS = {"event": "end", "returns": True}
# Says the events that it gets as arguments, and leaves a process that holds the lifeline, with its id in the log.
LEAVES_ONE = """
import subprocess, sys
kept = int(sys.argv[1])
left = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"], pass_fds=(kept,))
print(left.pid, file=sys.stderr, flush=True)
print(*sys.argv[2:], sep="\\n", flush=True)
"""
STAYS = f"{LEAVES_ONE}\nimport signal; signal.pause()"
FAILS = "import sys; [print(each, flush=True) for each in sys.argv[2:]]; sys.stderr.write('out of order')"
SOON = 20.0


class Plan:
    """What a process is told, which here does not listen."""

    def model_dump_json(self) -> str:
        return "{}"


class Power:
    """A machine whose boots run one script after the other."""

    def __init__(self, directory: Path, *boots: tuple[str, list[Mapping[str, Any]]]) -> None:
        self._boots = list(boots)
        self._log = directory / "n11.log"
        self.started: list[psutil.Process] = []
        self.machine = Machine("n11", lambda _: cast(NodePlan, Plan()), self, self._log)

    def fork(
        self, module: str, *, stdin: int, stdout: int, stderr: IO[bytes], descriptors: tuple[int, ...]
    ) -> ChildProcess:
        script, events = self._boots.pop(0)
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(descriptors[0]), *map(json.dumps, events)],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            pass_fds=descriptors,
        )
        self.started.append(psutil.Process(process.pid))
        return process

    @property
    def left(self) -> list[int]:
        """The ids of the processes that the boots have left so far."""
        return [int(line) for line in self._log.read_text(encoding="utf-8").splitlines()]


def test_every_process_that_holds_the_lifeline_dies_with_the_power(tmp_path: Path) -> None:
    async def story() -> None:
        power = Power(tmp_path, (STAYS, [READY]))
        power.machine.power_on()
        assert power.machine.state is MachineState.STARTING
        await power.machine.until_running()
        assert power.machine.state is MachineState.RUNNING
        processes = [*power.started, psutil.Process(power.left[0])]
        assert not [each for each in processes if are_gone([each])]
        await power.machine.power_off()
        expect_gone(processes, AT_ONCE)
        assert power.machine.state is MachineState.STOPPED
        assert power.machine.boot_id is None

    asyncio.run(story())


def test_what_a_boot_leaves_is_gone_before_the_next_one_begins(tmp_path: Path) -> None:
    async def story() -> None:
        again = {**READY, "boot_id": "two"}
        power = Power(tmp_path, (LEAVES_ONE, [READY, RETURNS]), (STAYS, [again]))
        power.machine.power_on()
        async with asyncio.timeout(SOON):
            while power.machine.boot_id != "two":
                power.machine._changed.clear()
                await power.machine._changed.wait()
        first, second = power.left
        expect_gone([each for each in psutil.process_iter() if each.pid == first], AT_ONCE)
        assert not are_gone([psutil.Process(second)])
        await power.machine.power_off()

    asyncio.run(story())


def test_a_process_that_ends_without_a_word_is_a_loss_of_power(tmp_path: Path) -> None:
    async def story() -> None:
        power = Power(tmp_path, (FAILS, [READY]))
        power.machine.power_on()
        await power.machine.until_stopped()
        assert power.machine.state is MachineState.STOPPED
        assert len(power.started) == 1

    asyncio.run(story())


def test_a_boot_that_fails_says_why(tmp_path: Path) -> None:
    async def story() -> None:
        power = Power(tmp_path, (FAILS, []))
        power.machine.power_on()
        with pytest.raises(LabError, match="n11 stopped instead of starting: out of order"):
            await power.machine.until_running()

    asyncio.run(story())


class SlowProcess:
    """A node's process that has ended by itself, and is waited for until ``asked`` is set.

    The second look at it is slow as well: it lasts until its machine is off, or a moment when that waits for it.
    """

    pid = 0

    def __init__(self, process: subprocess.Popen[bytes], machine: Machine) -> None:
        self.stdin, self.stdout = process.stdin, process.stdout
        self.asked, self.is_waited_for, self._looks = threading.Event(), threading.Event(), 0
        self._process, self._machine = process, machine

    def poll(self) -> int | None:
        self._looks += 1
        if self._looks > 1:
            with suppress(NotMetError):
                wait_until(
                    lambda: self._machine.state, _is_off, Deadline(timedelta(seconds=1)), "the machine to be off"
                )
        return self._process.wait()

    def wait(self, timeout: float | None = None) -> int:
        self.is_waited_for.set()
        self.asked.wait(SOON)
        return self._process.wait(timeout)


def _is_off(state: MachineState) -> bool:
    return state is MachineState.STOPPED


def test_the_power_can_be_taken_from_a_machine_that_has_just_gone_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        power = Power(tmp_path, (FAILS, [READY]))
        slow: list[SlowProcess] = []
        fork = power.fork

        def forked(*arguments: Any, **options: Any) -> Any:
            slow.append(SlowProcess(cast(Any, fork(*arguments, **options)), power.machine))
            return slow[0]

        monkeypatch.setattr(power, "fork", forked)
        power.machine.power_on()
        async with asyncio.timeout(SOON):
            while not slow:
                await asyncio.sleep(0)
        await asyncio.to_thread(slow[0].is_waited_for.wait, SOON)
        taking = asyncio.create_task(power.machine.power_off())
        await asyncio.sleep(0)
        slow[0].asked.set()
        await taking
        assert power.machine.state is MachineState.STOPPED

    asyncio.run(story())
