"""What the fork server's tests run in its processes: each does what its first argument says."""

from __future__ import annotations

import atexit
import gc
import json
import os
import random
import secrets
import signal
import socket
import sys
import threading
import uuid
from collections.abc import Callable
from pathlib import Path


def end_with(status: str) -> int:
    return int(status)


def end_with_nothing() -> None:
    """A main that gives no status."""


def exit_saying(what: str) -> None:
    sys.exit(what)


def fail() -> None:
    raise LookupError("nothing was found")


def die(number: str) -> None:
    os.kill(os.getpid(), int(number))


def end_in_the_background() -> None:
    """Python waits for threads before it ends."""
    threading.Timer(0.01, sys.stdout.write, ["later"]).start()


def say_at_the_end() -> None:
    atexit.register(sys.stdout.write, "the end\n")


def say_without_end_of_line() -> None:
    sys.stdout.write("half a line")


def echo() -> None:
    """Say every line of standard input, and that it has ended."""
    for line in sys.stdin:
        sys.stdout.write(line.upper())
        sys.stdout.flush()
    sys.stderr.write("it has ended\n")


def show(variable: str) -> None:
    sys.stdout.write(os.environ.get(variable, "(not there)"))


def draw() -> None:
    """Values that no other process may have."""
    sys.stdout.write(f"{random.random()} {secrets.token_hex()} {uuid.uuid4()} {uuid.uuid1()}")


def answer(descriptor: str) -> None:
    with socket.socket(fileno=int(descriptor)) as listener, listener.accept()[0] as caller:
        caller.sendall(b"hello")


def wait_for_signals(*_: str) -> None:
    sys.stdout.write("waiting\n")
    sys.stdout.flush()
    while True:
        signal.pause()


def describe(*_: str) -> None:
    """All that should be as in a process that was started."""
    told = {
        "arguments": sys.argv,
        "streams": [
            [each.fileno(), each.encoding, each.errors, each.line_buffering, each.write_through, str(each.buffer)]
            for each in (sys.stdin, sys.stdout, sys.stderr)
        ],
        "seekable": [each.seekable() for each in (sys.stdin, sys.stdout, sys.stderr)],
        "originals": [sys.__stdin__ is sys.stdin, sys.__stdout__ is sys.stdout, sys.__stderr__ is sys.stderr],
        "handlers": {number.name: str(signal.getsignal(number)) for number in signal.Signals},
        "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
        "wakes": signal.set_wakeup_fd(-1),
        "leads its session": os.getsid(0) == os.getpid(),
        "collects garbage": gc.isenabled(),
        "threads": threading.active_count(),
        "is the main thread": threading.current_thread() is threading.main_thread(),
        "directory": str(Path.cwd()),
        "open": sorted(number for number in range(100) if is_open(number)),
    }
    json.dump(told, sys.stdout)


def is_open(number: int) -> bool:
    """Whether there is a file under a descriptor."""
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


ACTIONS: dict[str, Callable[..., int | None]] = {
    action.__name__: action
    for action in (
        *(end_with, end_with_nothing, exit_saying, fail, die, end_in_the_background, say_at_the_end),
        *(say_without_end_of_line, echo, show, draw, answer, wait_for_signals, describe),
    )
}


def main() -> int | None:
    """Do what the first argument says."""
    _, action, *arguments = sys.argv
    return ACTIONS[action](*arguments)


if __name__ == "__main__":
    sys.exit(main())
