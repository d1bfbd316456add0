"""The command ``python -m testyard.lab.cluster.database.watchdog``: kills a PostgreSQL whose agent has ended.

Standard input is a pipe from the agent, which sends a line ``process ID`` for each server that it starts, and a
line ``segment ID`` as soon as that has shared memory. When the pipe ends, however the agent ended, every process
that holds the other end of the lifeline is killed, and the last server's segment, which nobody else would remove,
is given back.

It holds a lock until all that is done, and says ``ready`` when it has it: then the processes of the node's earlier
life are gone. It imports next to nothing, as one starts with each node, beside everything else.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import signal
import sys

STANDARD_INPUT, STANDARD_OUTPUT = 0, 1
REMOVE_SEGMENT = 0  # IPC_RMID
# Backends end by themselves when their postmaster has, but not in the middle of a query.
PATIENCE_SECONDS = 0.1


def main() -> int:
    """Watch until the agent has ended; the arguments are the lock file and the lifeline's descriptor."""
    for signal_number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signal_number, signal.SIG_IGN)
    lifeline = int(sys.argv[2])
    lock = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    os.write(STANDARD_OUTPUT, b"ready\n")
    processes, segments = _told()
    _kill(lifeline, processes[-1:])
    for segment in segments[-1:]:
        remove_shared_memory(segment)
    return 0


def remove_shared_memory(segment: int) -> None:
    """Remove the segment of a server that was killed, and so could not do it.

    Args:
        segment: Its id; one that does not exist is fine.
    """
    ctypes.CDLL(None).shmctl(segment, REMOVE_SEGMENT, None)


def _told() -> tuple[list[int], list[int]]:
    """What the agent has told when it has ended: processes and segments, the last ones last."""
    said = b""
    while part := os.read(STANDARD_INPUT, 4096):
        said += part
    lines = [line.split() for line in said.splitlines()]
    told = {kind: [int(number) for each, number in lines if each == kind] for kind in (b"process", b"segment")}
    return told[b"process"], told[b"segment"]


def _kill(lifeline: int, victims: list[int]) -> None:
    """Kill everybody who holds the other end of a pipe, first those known; returns when all are gone."""
    while not select.select([lifeline], [], [], 0)[0]:
        for process in victims:
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if select.select([lifeline], [], [], PATIENCE_SECONDS)[0]:
            return
        victims = _holders(lifeline)


def _holders(pipe: int) -> list[int]:
    """Everybody else who has a pipe open; both ends are one file."""
    file = os.fstat(pipe)
    with os.scandir("/proc") as entries:
        others = [int(entry.name) for entry in entries if entry.name.isdigit() and int(entry.name) != os.getpid()]
    return [process for process in others if _has_open(process, (file.st_dev, file.st_ino))]


def _has_open(process: int, file: tuple[int, int]) -> bool:
    try:
        with os.scandir(f"/proc/{process}/fd") as entries:
            opened = [entry.stat() for entry in entries]
    except OSError:  # it has just ended, or closed something
        return False
    return any((each.st_dev, each.st_ino) == file for each in opened)


if __name__ == "__main__":
    sys.exit(main())
