"""The lab's machines as domains of a private ``libvirtd``'s test driver.

Clients speak libvirt's own remote protocol with the real daemon. Its test driver has domains without machines, so
their power follows the lab's machines, and the other way round:

- The daemon's log tells which calls of domains begin (``virDomainDestroy``...). Lifecycle events would not do: a
  real domain runs until its system has shut down, while the test driver's is off at once; one with
  ``<on_poweroff>restart</on_poweroff>`` stays on, as a real one does, but the driver emits no event for it.
- What this process does itself is in that log too, and is told apart by counting.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import asdict
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any
from xml.sax.saxutils import quoteattr

from testyard.core.deadline import Deadline
from testyard.lab.children import STOP_TIMEOUT, LabError, wait_for_the_end
from testyard.lab.clouds import libvirt_launcher
from testyard.lab.clouds.libvirt_launcher import PROCESS_FILE, SOCKET, Plan
from testyard.lab.clouds.machines import MachineState, MachineView

NAMESPACE = "urn:testyard:instance"
START_TIMEOUT = timedelta(seconds=20)
INSTALL_CLIENT = (
    "apt install libvirt-dev pkg-config gcc python3-dev && pip install 'robotframework-testyard[libvirt]'"
)
INSTALL_DAEMON = "apt install libvirt-daemon"
# Where a system's daemons are, also for accounts whose PATH has none of it.
PLACES = "/usr/sbin:/usr/local/sbin:/sbin:/usr/bin:/usr/local/bin"
# As libvirt's VIR_DOMAIN_DEBUG writes it: function, line of its source, then the domain.
CALL = re.compile(
    rb"debug : virDomain(?P<call>Create|Shutdown|Destroy|Reboot|Reset)(?:With)?(?:Flags)?:\d+ : "
    rb"dom=0x[0-9a-f]+, \(VM: name=.*, uuid=(?P<uuid>[0-9a-f-]{36})\)"
)
DOMAIN = """\
<domain type='test'>
  <name>{name}</name>
  <uuid>{uuid}</uuid>
  <title>{title}</title>
  <metadata><testyard:instance xmlns:testyard='{namespace}' deployment={deployment} node={node}/></metadata>
  <memory unit='MiB'>1024</memory>
  <vcpu>1</vcpu>
  <os><type>hvm</type></os>
  <on_poweroff>restart</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>destroy</on_crash>
</domain>
"""

CallListener = Callable[[str, str], None]


def missing_part() -> str:
    """What this machine lacks to have libvirt's API in the lab, with the command that adds it; else empty."""
    if find_spec("libvirt") is None:
        return f"libvirt's API needs the Python package libvirt-python: {INSTALL_CLIENT}"
    if _daemon() is None:
        return f"The lab's libvirt needs the program libvirtd: {INSTALL_DAEMON}"
    return ""


class LibvirtDomains:
    """A private libvirtd and the domains in it; used by one thread after the other.

    Args:
        listener: Told each call of another client on a domain, by its name ("Destroy") and the domain's UUID, in a
            thread of its own.
    """

    def __init__(self, listener: CallListener) -> None:
        self._listener = listener
        self._launcher: subprocess.Popen[bytes] | None = None
        self._libvirt: Any = None
        self._connection: Any = None
        self._known: set[str] = set()
        self._lock = threading.Lock()
        self._own_calls: Counter[tuple[str, str]] = Counter()
        self._socket = Path()

    @property
    def uri(self) -> str:
        """What clients open."""
        return f"test+unix:///default?socket={self._socket}"

    def open(self) -> None:
        """Start the daemon and wait until it answers.

        Raises:
            LabError: A part is missing, or it did not start.
        """
        if missing := missing_part():
            raise LabError(missing)
        # Imported here, in a thread, while the machines boot.
        import libvirt

        from testyard.lab.servers.postgresql import reachable_directory, unprivileged_account

        self._libvirt = libvirt
        account = unprivileged_account()
        directory = reachable_directory(account)
        self._socket = directory / SOCKET
        plan = Plan(str(_daemon()), str(directory), (account.pw_uid, account.pw_gid) if account else None)
        self._launcher = launcher = subprocess.Popen(
            # By its path and without packages: it needs none, and looking for them is most of its start.
            [sys.executable, "-I", "-S", libvirt_launcher.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for the run; it stops the lab in its teardown
        )
        assert launcher.stdin is not None
        assert launcher.stdout is not None
        with suppress(BrokenPipeError):
            launcher.stdin.write(json.dumps(asdict(plan)).encode() + b"\n")
            launcher.stdin.flush()
        threading.Thread(target=self._listen, args=(launcher.stdout,), name="libvirt log", daemon=True).start()
        # By default the C library prints each error to standard error, besides raising it.
        libvirt.registerErrorHandler(_say_nothing, None)
        deadline = Deadline(START_TIMEOUT)
        while self._connection is None:
            try:
                self._connection = libvirt.open(self.uri)
            except libvirt.libvirtError as problem:
                if launcher.poll() is not None or deadline.expired:
                    message = f"The lab's libvirtd did not start: {problem}"
                    raise LabError(message) from None
                deadline.pause(timedelta(milliseconds=5))

    def define(self, machines: Collection[MachineView]) -> None:
        """Have a domain for each machine, running when that is not off, and for no other one."""
        for machine in machines:
            if machine.instance_id not in self._known:
                self._connection.defineXML(_domain(machine))
                self._known.add(machine.instance_id)
                self.switch(machine.instance_id, on=machine.state is not MachineState.STOPPED)
        for uuid in self._known - {machine.instance_id for machine in machines}:
            self.switch(uuid, on=False)
            self._connection.lookupByUUIDString(uuid).undefine()
            self._known.discard(uuid)

    def switch(self, uuid: str, *, on: bool) -> None:
        """Have a domain on or off, as its machine is."""
        domain = self._connection.lookupByUUIDString(uuid)
        if bool(domain.isActive()) is on:
            return
        call = "Create" if on else "Destroy"
        with self._lock:
            self._own_calls[call, uuid] += 1
        try:
            if on:
                domain.create()
            else:
                domain.destroy()
        except self._libvirt.libvirtError as problem:
            # A client has done the same just now.
            if problem.get_error_code() != self._libvirt.VIR_ERR_OPERATION_INVALID:
                raise

    def close(self) -> None:
        """End the daemon and with it its connections; safe to call again."""
        launcher, self._launcher = self._launcher, None
        if launcher is not None:
            assert launcher.stdin is not None
            with suppress(BrokenPipeError):
                launcher.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                launcher.wait(STOP_TIMEOUT.total_seconds())
            _remove_what_a_killed_launcher_left(self._socket.parent)
            wait_for_the_end(launcher)

    def _listen(self, log: IO[bytes]) -> None:
        with suppress(ValueError):  # closed while it is read
            for line in log:
                found = CALL.search(line)
                if found is not None:
                    call, uuid = found["call"].decode(), found["uuid"].decode()
                    if not self._is_own(call, uuid):
                        self._listener(call, uuid)

    def _is_own(self, call: str, uuid: str) -> bool:
        with self._lock:
            if not self._own_calls[call, uuid]:
                return False
            self._own_calls[call, uuid] -= 1
            return True


def _remove_what_a_killed_launcher_left(directory: Path) -> None:
    # Only what is the daemon's: it has not written this file anywhere else.
    with suppress(FileNotFoundError, ProcessLookupError, ValueError):
        os.kill(int((directory / PROCESS_FILE).read_text(encoding="ascii")), signal.SIGKILL)
        shutil.rmtree(directory, ignore_errors=True)


def _daemon() -> str | None:
    return shutil.which("libvirtd") or shutil.which("libvirtd", path=PLACES)


def _domain(machine: MachineView) -> str:
    return DOMAIN.format(
        name=f"{machine.deployment}-{machine.node}",
        uuid=machine.instance_id,
        title=f"{machine.node} of {machine.deployment}",
        namespace=NAMESPACE,
        deployment=quoteattr(machine.deployment),
        node=quoteattr(machine.node),
    )


def _say_nothing(_context: object, _error: object) -> None:
    pass
