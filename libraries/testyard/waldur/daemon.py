"""The real agent as a daemon: its console command as a child process, in one of its modes.

Each mode works once as soon as it starts and again after its period (``WALDUR_SITE_AGENT_…_PERIOD_MINUTES`` in
the environment). ``event_process`` ends with status 0 when told to; the others have no handler for SIGTERM.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from pathlib import Path

from testyard.core.deadline import Deadline, seconds, wait_until
from testyard.core.errors import NotMetError
from testyard.core.redact import secrets_in_use

LAUNCHER = "testyard.waldur.daemon_launcher"
CLOSE_WITHIN = timedelta(seconds=3)
LAST_LINES = 5


class AgentMode(Enum):
    """What a daemon does, as the command's option ``-m`` calls it."""

    ORDER_PROCESS = "order_process"
    REPORT = "report"
    MEMBERSHIP_SYNC = "membership_sync"
    EVENT_PROCESS = "event_process"

    @property
    def status_after_sigterm(self) -> int:
        """How such a daemon ends on SIGTERM: by itself, or of the signal (agent 1.0.7)."""
        return 0 if self is AgentMode.EVENT_PROCESS else -signal.SIGTERM


@dataclass(frozen=True)
class LogLine:
    """One line of a daemon's log.

    Attributes:
        level: ``info``, ``warning``…; empty when the line is not the agent's own.
        text: What it says, with secrets masked.
    """

    level: str
    text: str


class AgentDaemon:
    """One running daemon. Its log is an unnamed file, so that nothing of it is left however the run ends.

    Args:
        mode: What it does.
        configuration: The agent's YAML file.
        launcher: The module that runs the command.

    Example:
        >>> daemon = AgentDaemon(AgentMode.REPORT, Path("agent.yaml"))     # doctest: +SKIP
        >>> daemon.end(Deadline(timedelta(seconds=5)))                     # doctest: +SKIP
        -15
    """

    def __init__(self, mode: AgentMode, configuration: Path, *, launcher: str = LAUNCHER) -> None:
        self.mode = mode
        self._log = tempfile.TemporaryFile(prefix="testyard-daemon-")  # noqa: SIM115 closed with the daemon
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", launcher, "-m", mode.value, "-c", str(configuration)],
                stdin=subprocess.PIPE,
                stdout=self._log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the run; it ends the daemon in its teardown
            )
        except BaseException:
            self._log.close()
            raise

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def status(self) -> int | None:
        """How it ended, negative for a signal; None while it runs."""
        return self._process.poll()

    def log(self) -> list[LogLine]:
        """What it has logged so far, oldest first."""
        # The daemon writes through the same open file: reading must not move its position.
        content = os.pread(self._log.fileno(), os.fstat(self._log.fileno()).st_size, 0)
        return [_log_line(line) for line in content.decode(errors="replace").splitlines() if line.strip()]

    def wait_until_said(self, text: str, deadline: Deadline) -> None:
        """Wait until a line of its log contains a text.

        Raises:
            NotMetError: It has ended without, or the time is over; quotes what it said last.
        """
        what = f"the daemon {self.mode.value} to say {text!r}"

        def said_or_ended() -> tuple[bool, int | None]:
            status = self.status  # before the log: one that has ended says no more
            return any(text in line.text for line in self.log()), status

        try:
            said, status = wait_until(said_or_ended, lambda it: it[0] or it[1] is not None, deadline, what)
        except NotMetError:
            said, status = False, None
        if not said:
            ending = "the time is over" if status is None else f"it has ended with status {status}"
            message = f"Waited {seconds(deadline.elapsed)} for {what}, but {ending}. {self._last_words()}"
            raise NotMetError(message)

    def end(self, deadline: Deadline) -> int:
        """Tell it to end with SIGTERM, and wait until it has.

        Returns:
            Its exit status; negative when the signal ended it.

        Raises:
            NotMetError: It had ended before, or does not end in time.
        """
        if self.status is not None:
            message = (
                f"The daemon {self.mode.value} had ended already, with status {self.status}. {self._last_words()}"
            )
            raise NotMetError(message)
        self._process.send_signal(signal.SIGTERM)
        what = f"the daemon {self.mode.value} to end on SIGTERM"
        status = wait_until(lambda: self.status, lambda found: found is not None, deadline, what)
        assert status is not None
        return status

    def close(self) -> None:
        """Let it end with its pipe, however it fares; safe to call again."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(CLOSE_WITHIN.total_seconds())
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def _last_words(self) -> str:
        lines = [f"  {line.level or '-'}: {line.text}" for line in self.log()[-LAST_LINES:]]
        return "It said last:\n" + "\n".join(lines) if lines else "It said nothing."


def _log_line(line: str) -> LogLine:
    """The agent writes JSON, one object a line; what others write is taken as it is."""
    masked = secrets_in_use.mask(line)
    with suppress(ValueError):
        content = json.loads(masked)
        if isinstance(content, dict) and "event" in content:
            problem = str(content.get("exception", "")).strip().splitlines()
            text = str(content["event"])
            return LogLine(str(content.get("level", "")), f"{text} ({problem[-1]})" if problem else text)
    return LogLine("", masked)
