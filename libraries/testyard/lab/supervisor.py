"""Starts what a suite asks for, waits until it is ready, stops it, and leaves nothing behind.

Every service is a child process that holds one end of a pipe from this process as its standard input: when
this process ends, however it ends, the pipe closes, and the child removes its directory and stops.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from testyard.core.deadline import Deadline, seconds
from testyard.core.errors import UserError
from testyard.core.json_client import JsonClient, UnreachableError
from testyard.core.redact import secrets_in_use
from testyard.lab.control import WaldurControl

START_TIMEOUT = timedelta(seconds=20)
STOP_TIMEOUT = timedelta(seconds=3)
DIRECTORY_PREFIX = "testyard-"
SUITE_DIRECTORY = "suite"

# One address per Waldur and one port for both: the real agent dials the STOMP endpoint of both instances
# on the same port, each on its own host.
WALDUR_ADDRESSES = {"A": "127.0.0.1", "B": "127.0.0.2"}


class LabError(UserError):
    """The lab could not be started or stopped."""


@dataclass(frozen=True)
class WaldurInstance:
    """One running Waldur double.

    Attributes:
        name: ``A`` (source) or ``B`` (target).
        url: Where its API is, without ``/api/``.
        host: The loopback address it listens on.
        port: The TCP port of REST and of STOMP over WebSocket.
        staff_token: The API token of its staff user.
        control: Switches its faults and reads what it saw.
        directory: Its temporary directory; gone when it stops.
        process: The child process.
    """

    name: str
    url: str
    host: str
    port: int
    staff_token: str = field(repr=False)
    control: WaldurControl = field(repr=False)
    directory: Path
    process: subprocess.Popen[bytes] = field(repr=False)


class Supervisor:
    """Owns the processes of one lab.

    Example:
        >>> with Supervisor() as lab:                       # doctest: +SKIP
        ...     source, target = lab.start_waldurs()
    """

    def __init__(self, waldur_module: str = "testyard.lab.waldur") -> None:
        self._waldur_module = waldur_module
        self._instances: list[WaldurInstance] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def instances(self) -> dict[str, WaldurInstance]:
        """The running Waldur doubles by name."""
        return {instance.name: instance for instance in self._instances}

    def start_waldurs(self, *, port: int = 0, ready_within: timedelta = START_TIMEOUT) -> list[WaldurInstance]:
        """Start Waldur A and Waldur B, each on its own loopback address, and wait until both are ready.

        Args:
            port: The TCP port for both; 0 takes a free one.
            ready_within: Give up after this time.

        Returns:
            Waldur A, Waldur B.

        Raises:
            LabError: A port is taken, an address is missing, or a double did not become ready; nothing is
                left running.
        """
        remove_stale_directories()
        deadline = Deadline(ready_within)
        try:
            for name, listener in zip(WALDUR_ADDRESSES, listen_on(WALDUR_ADDRESSES.values(), port), strict=True):
                self._instances.append(self._start_waldur(name, listener))
            for instance in self._instances:
                _wait_until_ready(instance, deadline)
        except BaseException:
            self.stop()
            raise
        return list(self._instances)

    def _start_waldur(self, name: str, listener: socket.socket) -> WaldurInstance:
        host, port = listener.getsockname()
        staff_token, control_token = secrets.token_hex(20), secrets.token_hex(20)
        secrets_in_use.add(staff_token, control_token)
        directory = Path(tempfile.gettempdir()) / f"{DIRECTORY_PREFIX}{os.getpid()}-{secrets.token_hex(4)}"
        with listener, listening_socket(host, 0) as control_listener:
            control_port = control_listener.getsockname()[1]
            descriptors = (listener.fileno(), control_listener.fileno())
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", self._waldur_module, "--name", name, "--host", host),
                    *("--public-fd", str(descriptors[0]), "--control-fd", str(descriptors[1])),
                    *("--directory", str(directory)),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=descriptors,
                start_new_session=True,  # Ctrl-C is for the run; it stops the lab in its teardown
            )
        assert process.stdin is not None
        handshake = {"staff_token": staff_token, "control_token": control_token}
        process.stdin.write(json.dumps(handshake).encode() + b"\n")
        process.stdin.flush()
        control = WaldurControl(
            JsonClient(
                f"http://{host}:{control_port}",
                headers={"X-Lab-Token": control_token},
                secret=control_token,
                name=f"the control API of Waldur {name}",
            )
        )
        return WaldurInstance(name, f"http://{host}:{port}", host, port, staff_token, control, directory, process)

    def serves(self, port: int) -> bool:
        """Whether every process lives, and on this port; 0 is any."""
        return all(each.process.poll() is None and port in {0, each.port} for each in self._instances)

    def renew(self) -> None:
        """Empty every Waldur as if it had just been started; the processes, their ports and tokens stay.

        Raises:
            UserError: One does not answer any more.
        """
        for instance in self._instances:
            instance.control.reset()

    def stop(self) -> None:
        """Stop every process and remove every directory; safe to call again."""
        for instance in self._instances:
            if instance.process.stdin:
                instance.process.stdin.close()
        for instance in self._instances:
            instance.control.close()
            try:
                instance.process.wait(STOP_TIMEOUT.total_seconds())
            except subprocess.TimeoutExpired:
                instance.process.kill()
                instance.process.wait()
            if instance.process.stderr:
                instance.process.stderr.close()
            shutil.rmtree(instance.directory, ignore_errors=True)
        self._instances.clear()


class LabKeeper:
    """Hands out the lab, takes it back, and ends it with the run.

    Attributes:
        lab: What is handed out; None while no suite uses the lab.
    """

    def __init__(self) -> None:
        self.lab: Supervisor | None = None
        self._waiting: Supervisor | None = None

    def hand_out(self, *, port: int, within: timedelta) -> Supervisor:
        """Start the lab, or take the one that waits; it is as empty as a new one.

        Args:
            port: The TCP port of both Waldurs; 0 takes a free one.
            within: Give up after this time.

        Raises:
            LabError: The port is taken, or a process did not become ready; nothing is left running.
        """
        lab, self._waiting = self._waiting, None
        if lab is not None and not lab.serves(port):
            lab.stop()
            lab = None
        if lab is None:
            lab = Supervisor()
            lab.start_waldurs(port=port, ready_within=within)
        self.lab = lab
        return lab

    def take_back(self) -> None:
        """Empty the lab and keep it for the next suite; stop it when it does not answer any more."""
        if self.lab is None:
            return
        shutil.rmtree(self.directory, ignore_errors=True)
        lab, self.lab = self.lab, None
        try:
            lab.renew()
        except UserError:
            lab.stop()
        else:
            self._waiting = lab

    def stop(self) -> None:
        """End every process."""
        for lab in (self.lab, self._waiting):
            if lab is not None:
                lab.stop()
        self.lab = self._waiting = None

    @property
    def directory(self) -> Path:
        """A directory for what must not outlive the suite; it also ends with the lab's first process.

        Raises:
            LabError: No suite uses the lab.
        """
        if self.lab is None:
            message = "The lab is not running, so it has no directory."
            raise LabError(message)
        directory = next(iter(self.lab.instances.values())).directory / SUITE_DIRECTORY
        directory.mkdir(mode=0o700, exist_ok=True)
        return directory


def listening_socket(host: str, port: int) -> socket.socket:
    """A bound, listening TCP socket, so that a free port cannot be taken before its server starts."""
    listener = socket.socket()
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
    except BaseException:
        listener.close()
        raise
    return listener


def listen_on(hosts: Iterable[str], port: int, *, attempts: int = 20) -> list[socket.socket]:
    """Listening sockets on one port of several addresses.

    Raises:
        LabError: The port is taken, or an address is not configured on this machine.
    """
    for _ in range(attempts):
        listeners: list[socket.socket] = []
        try:
            for host in hosts:
                chosen = listeners[0].getsockname()[1] if listeners else port
                listeners.append(listening_socket(host, chosen))
        except OSError as problem:
            for listener in listeners:
                listener.close()
            if port or not listeners:
                message = f"Cannot listen on {host} port {chosen or '(any)'}: {problem.strerror}."
                raise LabError(message) from None
            continue
        return listeners
    message = f"Found no port that is free on all of {', '.join(hosts)} in {attempts} attempts."
    raise LabError(message)


def _wait_until_ready(instance: WaldurInstance, deadline: Deadline) -> None:
    name = f"Waldur {instance.name} of the lab"
    while True:
        status = instance.process.poll()
        if status is not None:
            assert instance.process.stderr is not None
            said = instance.process.stderr.read().decode(errors="replace").strip().splitlines()
            message = (
                f"{name} ended with status {status} instead of starting: {said[-1] if said else 'no reason given'}"
            )
            raise LabError(message)
        try:
            instance.control.ready()
        except UnreachableError:
            pass
        else:
            return
        if deadline.expired:
            message = f"{name} was not ready after {seconds(deadline.elapsed)}."
            raise LabError(message)
        deadline.pause(timedelta(milliseconds=10))


def remove_stale_directories() -> None:
    """Remove directories of labs whose supervisor no longer lives (all of them were killed at once)."""
    for directory in Path(tempfile.gettempdir()).glob(f"{DIRECTORY_PREFIX}*-*"):
        process = directory.name.removeprefix(DIRECTORY_PREFIX).split("-")[0]
        if process.isdigit() and not _is_alive(int(process)):
            shutil.rmtree(directory, ignore_errors=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
