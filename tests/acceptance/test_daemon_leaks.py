"""Kill a run while the agent works for it as a daemon: nothing of either is left five seconds later."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from acceptance_support import DATA, GONE_WITHIN, PROJECT, RobotRun, send
from testyard.core.deadline import Deadline

DAEMONS = PROJECT / "suites" / "usernames" / "85_daemon.robot"
LIVENESS_FILE = Path("/tmp/waldur-site-agent-heartbeat")  # the agent's own, shared by all agents of a machine
LAUNCHER = "testyard.waldur.daemon_launcher"
STOPPING_LISTENER = DATA / "StoppingListener.py"
# What robot does when the daemon has only just begun, and when it has long been at work.
LOADING = "WaldurLibrary.Agent Daemon Should Say"
WORKING = "WaldurLibrary.Order Should Become"
LISTENING = "WaldurLibrary.Order Should Be Placed On B"
IN_EVENTS = ("-v", "SLOW:True", "--test", "*Mode For Events*")


@pytest.mark.parametrize(
    ("options", "moment", "mode", "number"),
    [
        pytest.param((), LOADING, "order_process", signal.SIGKILL, id="loading-SIGKILL"),
        pytest.param((), WORKING, "order_process", signal.SIGINT, id="working-SIGINT"),
        pytest.param((), WORKING, "order_process", signal.SIGTERM, id="working-SIGTERM"),
        pytest.param((), WORKING, "order_process", signal.SIGKILL, id="working-SIGKILL"),
        pytest.param(IN_EVENTS, LISTENING, "event_process", signal.SIGKILL, id="listening-SIGKILL"),
    ],
)
def test_a_killed_run_leaves_no_daemon(
    options: tuple[str, ...], moment: str, mode: str, number: signal.Signals, tmp_path: Path
) -> None:
    liveness = LIVENESS_FILE.stat().st_mtime_ns if LIVENESS_FILE.exists() else None
    with RobotRun(tmp_path / "run", "--listener", f"{STOPPING_LISTENER}:{moment}", *options, DAEMONS) as run:
        # While robot itself holds still, the daemon cannot be done before it has been seen.
        run.wait_until_stopped()
        run.remember_addresses()
        before, commands = run.leftovers(), run.commands()

        send(run, number)
        run.process.send_signal(signal.SIGCONT)
        run.should_leave_nothing(Deadline(GONE_WITHIN))

        status = run.process.wait()
    daemons = [command for command in commands if LAUNCHER in command]
    # The check sees each kind of thing that must be gone.
    assert len(daemons) == 1
    assert f"-m {mode} -c " in daemons[0]
    assert len([what for what in before if "process" in what]) == 4
    assert len([what for what in before if "listens" in what]) == 4
    assert any("testyard-" in what for what in before)
    assert (status == -signal.SIGKILL) is (number is signal.SIGKILL)
    assert (LIVENESS_FILE.stat().st_mtime_ns if LIVENESS_FILE.exists() else None) == liveness
