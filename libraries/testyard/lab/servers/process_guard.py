"""A script of the standard library alone: runs one server at a time, and lets none outlive its parent.

Standard input is a pipe from the parent, which writes requests, one line of JSON each, and reads one line of JSON
from standard output as the answer to each. The first is ``{"directory": PATH}``: a directory to create, in which
the parent may write files. Then, as often as the parent likes:

- ``{"run": [COMMAND, ARGUMENT, ...], "environment": {...}, "log": PATH}``: start it, its output appended to the
  log; answered by ``{"pid": N}``;
- ``{"wait": SECONDS}``: wait until it has ended, at most so long; answered by ``{"status": N}``, null while it
  runs;
- ``{"signal": N}``: send it a signal, if it still runs; answered by ``{}``.

Every request has a ``number``, which its answer repeats. What cannot be done is answered by ``{"error": TEXT}``.
When the pipe ends, however the parent ended, what runs is killed and the directory removed.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import Any

STANDARD_INPUT = 0


class ParentGoneError(Exception):
    """The pipe from the parent ended: nobody needs the server any more."""


class Requests:
    """What the parent has written, line by line. Unbuffered beneath, so that select() tells the truth about it."""

    def __init__(self) -> None:
        self._unread = b""

    def next(self) -> bytes:
        """Wait for a line.

        Raises:
            ParentGoneError: There is none any more.
        """
        while b"\n" not in self._unread:
            self.read()
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    def read(self) -> None:
        """Wait for more.

        Raises:
            ParentGoneError: There is no more.
        """
        part = os.read(STANDARD_INPUT, 65_536)
        if not part:
            raise ParentGoneError
        self._unread += part

    @property
    def is_waiting(self) -> bool:
        """Whether a line is there already."""
        return b"\n" in self._unread


class Guard:
    """Owns the directory and what runs.

    Args:
        requests: What the parent asks for; also says when it is gone.
    """

    def __init__(self, requests: Requests) -> None:
        self._requests = requests
        self._directory: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        # Readable when the process is gone, which has the other end.
        self._lifeline = -1

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Do what the parent asks for.

        Raises:
            OSError: It cannot be done.
            ParentGoneError: Nobody waits for it any more.
        """
        if "directory" in request:
            directory = Path(request["directory"])
            directory.mkdir(mode=0o700)
            self._directory = directory
            return {}
        if "run" in request:
            return {"pid": self._run(request["run"], request["environment"], request["log"])}
        if "wait" in request:
            return {"status": self._status_within(request["wait"])}
        if self._process is not None:
            self._process.send_signal(request["signal"])
        return {}

    def close(self) -> None:
        """Kill what runs and remove the directory."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)

    def _run(self, command: list[str], environment: dict[str, str], log: str) -> int:
        if self._process is not None and self._process.poll() is None:
            message = f"process {self._process.pid} still runs"
            raise OSError(message)
        if self._lifeline >= 0:
            os.close(self._lifeline)
        self._lifeline, inherited = os.pipe()
        try:
            with Path(log).open("ab") as output:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    cwd=self._directory,
                    env=environment,
                    umask=0o077,
                    pass_fds=(inherited,),
                    start_new_session=True,
                )
        finally:
            os.close(inherited)
        return self._process.pid

    def _status_within(self, seconds: float) -> int | None:
        if self._process is None:
            return 0
        patience = 0 if self._requests.is_waiting else seconds
        ended, _, _ = select.select([STANDARD_INPUT, self._lifeline], [], [], patience)
        if STANDARD_INPUT in ended:
            # The parent is gone, or was interrupted and asks for something else.
            self._requests.read()
        return self._process.wait() if self._lifeline in ended else None


def serve(guard: Guard, requests: Requests) -> None:
    """Answer requests until the parent is gone.

    Raises:
        ParentGoneError: It is.
    """
    while True:
        request = json.loads(requests.next())
        try:
            answer = guard.answer(request)
        except OSError as problem:
            answer = {"error": str(problem)}
        sys.stdout.write(json.dumps(answer | {"number": request["number"]}) + "\n")
        sys.stdout.flush()


def main() -> int:
    """Guard until the parent is gone; gives the exit status."""
    for signal_number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signal_number, _end)
    requests = Requests()
    guard = Guard(requests)
    try:
        serve(guard, requests)
    except ParentGoneError:
        pass
    except BrokenPipeError:
        # Who would read the answer is gone, which is the end; the interpreter must not try to write it once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    finally:
        guard.close()
    return 0


def _end(signal_number: int, _: FrameType | None) -> None:
    sys.exit(128 + signal_number)


if __name__ == "__main__":
    sys.exit(main())
