"""A script of the standard library alone: one ``libvirtd`` that dies with its parent.

Standard input is a pipe from the parent, first with a line of JSON (a ``Plan``). When it ends, however the parent
ended, the daemon is killed and its directory removed. What the daemon logs goes to standard output.

The daemon touches nothing of the system's own libvirt: its sockets, its configuration and its home are in the
directory, it runs as an unprivileged account, finds none of the drivers that manage machines or networks (the test
driver is built in), and no message bus.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

STANDARD_INPUT = 0
SOCKET = "libvirt-sock"
PROCESS_FILE = "pid"
# The calls of domains are logged, each when it begins; nothing else is, but for errors.
CONFIGURATION = """\
unix_sock_dir = "{directory}"
unix_sock_rw_perms = "0700"
auth_unix_rw = "none"
auth_unix_ro = "none"
min_workers = 2
max_workers = 8
prio_workers = 1
admin_min_workers = 1
admin_max_workers = 1
keepalive_interval = -1
log_level = 4
log_filters = "1:libvirt.domain"
log_outputs = "1:stderr"
"""


@dataclass(frozen=True)
class Plan:
    """What to start.

    Attributes:
        program: The path of ``libvirtd``.
        directory: A directory to create, use and remove; the daemon's socket is in it.
        account: The user and group id to run as; None is the present ones.
    """

    program: str
    directory: str
    account: tuple[int, int] | None


def start(plan: Plan, inherited: int) -> subprocess.Popen[bytes]:
    """Make the directory and start the daemon in it.

    Args:
        plan: What to start.
        inherited: A descriptor that the daemon keeps open for as long as it lives.
    """
    directory = Path(plan.directory)
    user, group = plan.account or (None, None)
    directory.mkdir(mode=0o700)
    configuration, home, drivers = directory / "libvirtd.conf", directory / "home", directory / "drivers"
    configuration.write_text(CONFIGURATION.format(directory=directory), encoding="utf-8")
    home.mkdir(mode=0o700)
    drivers.mkdir(mode=0o700)
    if plan.account:
        for path in (directory, configuration, home, drivers):
            os.chown(path, *plan.account)
    no_bus = f"unix:path={directory / 'no-bus'}"
    return subprocess.Popen(
        [plan.program, "--config", str(configuration), "--pid-file", str(directory / PROCESS_FILE)],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
        cwd=directory,
        env={
            "PATH": os.defpath,
            "LC_ALL": "C",
            "HOME": str(home),
            "XDG_RUNTIME_DIR": str(directory),
            "LIBVIRT_DRIVER_DIR": str(drivers),
            "DBUS_SESSION_BUS_ADDRESS": no_bus,
            "DBUS_SYSTEM_BUS_ADDRESS": no_bus,
        },
        user=user,
        group=group,
        extra_groups=None if user is None else [],
        umask=0o077,
        pass_fds=(inherited,),
        start_new_session=True,
    )


def main() -> int:
    """Run one daemon until it or the parent is gone; gives the exit status."""
    for signal_number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signal_number, _end)
    line = sys.stdin.buffer.readline()
    if not line:
        return 0
    plan = Plan(**json.loads(line))
    # Readable when the daemon is gone, which has the other end.
    lifeline, inherited = os.pipe()
    daemon = None
    try:
        daemon = start(plan, inherited)
        os.close(inherited)
        select.select([STANDARD_INPUT, lifeline], [], [])
    finally:
        if daemon is not None:
            # It has nothing to save: its machines are in its memory only.
            daemon.kill()
            daemon.wait()
        shutil.rmtree(plan.directory, ignore_errors=True)
    return 0


def _end(signal_number: int, _: FrameType | None) -> None:
    sys.exit(128 + signal_number)


if __name__ == "__main__":
    sys.exit(main())
