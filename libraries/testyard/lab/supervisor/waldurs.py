"""Waldur A and Waldur B of the lab: started, watched until they are ready, emptied, stopped."""

from __future__ import annotations

import json
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from testyard.core.deadline import Deadline
from testyard.core.json_client import JsonClient
from testyard.core.redact import secrets_in_use
from testyard.lab.children import (
    START_TIMEOUT,
    LabError,
    listening_socket,
    new_directory,
    remove_stale_directories,
    wait_for_the_end,
    wait_until_ready,
)
from testyard.lab.control import WaldurControl

# One address per Waldur and one port for both: the real agent dials the STOMP endpoint of both instances
# on the same port, each on its own host.
WALDUR_ADDRESSES = {"A": "127.0.0.1", "B": "127.0.0.2"}


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
                name = f"Waldur {instance.name} of the lab"
                wait_until_ready(instance.process, name, instance.control.ready, deadline)
        except BaseException:
            self.stop()
            raise
        return list(self._instances)

    def _start_waldur(self, name: str, listener: socket.socket) -> WaldurInstance:
        host, port = listener.getsockname()
        staff_token, control_token = secrets.token_hex(20), secrets.token_hex(20)
        secrets_in_use.add(staff_token, control_token)
        directory = new_directory()
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
            wait_for_the_end(instance.process)
            shutil.rmtree(instance.directory, ignore_errors=True)
        self._instances.clear()


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
