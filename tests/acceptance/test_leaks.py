"""Kill a run at any moment, in any way: nothing of it is left five seconds later."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from pathlib import Path

import pytest
from acceptance_support import FEDERATION, GONE_WITHIN, OFTEN, RobotRun, send
from testyard.core.deadline import Deadline, wait_until

POLLING = FEDERATION / "20_rest_polling.robot"
EVENTS = FEDERATION / "30_stomp_events.robot"
AGENT_HEART_BEAT = Path("/tmp/waldur-site-agent-heartbeat")  # the agent's own, shared by all agents of a machine
START_WITHIN = timedelta(seconds=60)
FIRST_SIGNAL = "Second signal will force exit."
SECOND_SIGNAL = "Execution forcefully stopped."


class Moment(Enum):
    """When to kill, and what the debug file says then; empty: as soon as the lab's first process is there."""

    LAB_STARTS = ""
    PROVISIONING = "START KEYWORD: WaldurLibrary.Create Offering ["
    AGENT_IS_IMPORTED = "START KEYWORD: WaldurLibrary.Join Federation ["
    AGENT_WORKS = "START KEYWORD: WaldurLibrary.Let The Agent Work ["
    EVENT_IS_AWAITED = "START KEYWORD: StompLibrary.Order Event Should Arrive ["
    TEARDOWN = "START TEARDOWN: federation.The Federation Is Taken Down"


@dataclass(frozen=True)
class Kill:
    """One way to kill one run."""

    suite: Path
    moment: Moment
    signal: signal.Signals
    twice: bool = False

    def __str__(self) -> str:
        return f"{self.suite.stem}-{self.moment.name.lower()}-{self.signal.name}{'-twice' if self.twice else ''}"


KILLS = [
    *(Kill(POLLING, Moment.LAB_STARTS, number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)),
    *(Kill(POLLING, Moment.PROVISIONING, number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)),
    Kill(POLLING, Moment.LAB_STARTS, signal.SIGINT, twice=True),
    Kill(EVENTS, Moment.AGENT_IS_IMPORTED, signal.SIGKILL),
    Kill(POLLING, Moment.AGENT_WORKS, signal.SIGINT),
    Kill(EVENTS, Moment.EVENT_IS_AWAITED, signal.SIGTERM),
    Kill(EVENTS, Moment.EVENT_IS_AWAITED, signal.SIGKILL),
    Kill(EVENTS, Moment.EVENT_IS_AWAITED, signal.SIGINT, twice=True),
    Kill(POLLING, Moment.TEARDOWN, signal.SIGTERM),
    Kill(EVENTS, Moment.TEARDOWN, signal.SIGKILL),
]


@dataclass(frozen=True)
class Outcome:
    """What was there when the run was killed, and how it ended."""

    before: list[str]
    status: int
    stderr: str


def kill(case: Kill, directory: Path) -> Outcome:
    """Run a suite, kill it at its moment, and wait until nothing is left.

    Raises:
        AssertionError: Something is left after five seconds; lists it.
    """
    with RobotRun(directory, case.suite) as run:
        if case.moment is Moment.LAB_STARTS:
            wait_until(run.children, bool, Deadline(START_WITHIN), "a process of the lab", interval=OFTEN)
        else:
            run.wait_for(case.moment.value)
        with run.holding_still():
            run.remember_addresses()
            before = run.leftovers()
            send(run, case.signal)
        if case.twice:
            wait_until(
                lambda: run.stderr,
                lambda text: FIRST_SIGNAL in text,
                Deadline(GONE_WITHIN),
                FIRST_SIGNAL,
                interval=OFTEN,
            )
            send(run, case.signal)
        deadline = Deadline(GONE_WITHIN)
        run.should_leave_nothing(deadline)
        return Outcome(before, run.process.wait(), run.stderr)


@pytest.fixture(scope="module")
def killed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[Kill], Outcome]]:
    """Runs the chosen cases, two at a time; gives a case's outcome, or raises what went wrong with it."""
    chosen = [
        item.callspec.params["case"]
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.module is request.module and hasattr(item, "callspec")
    ]
    with ThreadPoolExecutor(2) as pool:
        futures: dict[Kill, Future[Outcome]] = {
            case: pool.submit(kill, case, tmp_path_factory.mktemp("killed") / "run") for case in chosen
        }
        yield lambda case: futures[case].result()
        pool.shutdown(cancel_futures=True)


@pytest.fixture(scope="module", autouse=True)
def untouched_heart_beat() -> Iterator[None]:
    """The agent's liveness file of this machine is not ours to touch."""
    before = AGENT_HEART_BEAT.stat().st_mtime_ns if AGENT_HEART_BEAT.exists() else None
    yield
    after = AGENT_HEART_BEAT.stat().st_mtime_ns if AGENT_HEART_BEAT.exists() else None
    assert after == before, f"{AGENT_HEART_BEAT} was written by a run"


@pytest.mark.parametrize("case", KILLS, ids=str)
def test_a_killed_run_leaves_nothing(case: Kill, killed: Callable[[Kill], Outcome]) -> None:
    outcome = killed(case)

    assert any("process" in what for what in outcome.before), "there was nothing to be left"
    if case.moment not in {Moment.LAB_STARTS, Moment.TEARDOWN}:
        # The check sees each kind of thing that must be gone.
        assert len([what for what in outcome.before if "process" in what]) == 3
        assert len([what for what in outcome.before if "listens" in what]) == 4
        assert any("testyard-" in what for what in outcome.before)
    if case.signal is signal.SIGKILL:
        assert outcome.status == -signal.SIGKILL
    elif case.moment is not Moment.TEARDOWN:  # the last steps of robot itself do not announce a signal
        assert FIRST_SIGNAL in outcome.stderr
        assert (SECOND_SIGNAL in outcome.stderr) is case.twice
