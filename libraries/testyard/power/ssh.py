"""A node's shell over SSH: boot id, uptime, commands, and whether it answers at all.

Host keys are checked strictly against the deployment's `known_hosts`. The exit status of a command that takes the
machine down is not trusted, and neither is a connection that ends: what happened is proven by the boot id
(contract "cluster" 2.9: upstream believes the exit status, so that a reboot that never happened passes).
"""

from __future__ import annotations

import logging
import socket
import threading
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import paramiko

from testyard.core.deadline import seconds
from testyard.power.deployment import Node
from testyard.power.problems import DeploymentError, HostKeyError, LoginRefusedError, NodeUnreachableError
from testyard.power.shell import BOOT_ID, UPTIME, CommandResult, Reach, SshAnswer

# paramiko's threads log each refused connection as an error with a traceback; what is raised here says it better.
TRANSPORT_LOG = "testyard.power.ssh.transport"
_transport_log = logging.getLogger(TRANSPORT_LOG)
_transport_log.addHandler(logging.NullHandler())
_transport_log.propagate = False


class _FiredCommand:
    """A command that was sent and whose end nobody waits for."""

    def __init__(self, channel: paramiko.Channel) -> None:
        self._channel = channel

    def said(self) -> str:
        """What is known of it, for the message when nothing happened: `exit status 1: permission denied`."""
        errors = (
            self._channel.recv_stderr(1000).decode(errors="replace") if self._channel.recv_stderr_ready() else ""
        )
        if not self._channel.exit_status_ready():
            return errors.strip() or "the command has not ended"
        return f"exit status {self._channel.exit_status}{f': {errors.strip()}' if errors.strip() else ''}"


class _Strict(paramiko.MissingHostKeyPolicy):
    """Refuses a host whose key the deployment does not know, as `paramiko.RejectPolicy` does, in a sentence."""

    def __init__(self, node: Node, known_hosts: Path) -> None:
        self._node = node
        self._known_hosts = known_hosts

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        """Refuse."""
        message = (
            f"Node {self._node.name} ({self._node.known_as}) offers the host key {key.fingerprint}, and "
            f"{self._known_hosts} has none for it: nothing was sent."
        )
        raise HostKeyError(message)


class NodeShell:
    """SSH to one node; connects when needed and keeps the connection until `close`.

    Args:
        node: Where and who.
        known_hosts: The deployment's known_hosts file.
        connect_timeout: For the connection, and for each step of the handshake.
        command_timeout: For a command's output.
    """

    def __init__(
        self, node: Node, known_hosts: Path, *, connect_timeout: timedelta, command_timeout: timedelta
    ) -> None:
        self.node = node
        self._known_hosts = known_hosts
        self._connect_timeout = connect_timeout.total_seconds()
        self._command_timeout = command_timeout.total_seconds()
        self._client: paramiko.SSHClient | None = None
        self._lock = threading.RLock()

    def run(self, command: str, timeout: timedelta | None = None) -> CommandResult:
        """Run a command and wait for its end.

        Args:
            command: One line for the node's shell.
            timeout: For its output; by default the shell's own.

        Returns:
            Exit status and output.

        Raises:
            NodeUnreachableError: The node does not answer, or not in time.
            LoginRefusedError: The node does not let the user in.
            HostKeyError: The node's host key is not the known one.
        """
        with self._lock:
            kept = self._client
            try:
                return self._run(command, timeout)
            except NodeUnreachableError:
                self.close()
                if kept is None:
                    raise
                # The connection was an old one: only a new one says whether the node answers now.
                return self._run(command, timeout)

    def boot_id(self) -> str:
        """The id of the node's present boot.

        Raises:
            LoginRefusedError: It answers without a boot id.
            NodeUnreachableError: It does not answer.
            HostKeyError: Its host key is not the known one.
        """
        result = self.run(BOOT_ID, timedelta(seconds=self._connect_timeout))
        boot_id = result.output.strip()
        if result.status == -1:
            message = f"Node {self.node.name} ({self.node.address}) ended the connection."
            raise NodeUnreachableError(message)
        if result.status or not boot_id:
            message = (
                f"Node {self.node.name} ({self.node.address}) has no boot id to show: exit status {result.status} "
                f"{result.errors.strip()}"
            )
            raise LoginRefusedError(message)
        return boot_id

    def uptime(self) -> timedelta:
        """For how long the node is up, on its own clock.

        Raises:
            NodeUnreachableError: It does not answer, or not with an uptime.
        """
        result = self.run(UPTIME)
        try:
            return timedelta(seconds=float(result.output.split()[0]))
        except (IndexError, ValueError):
            message = (
                f"Node {self.node.name} has no uptime to show: {result.output.strip() or result.errors.strip()}"
            )
            raise NodeUnreachableError(message) from None

    def answer(self) -> SshAnswer:
        """Whether the node answers now, and from which boot; a host key that changed is no answer but an error."""
        try:
            return SshAnswer(Reach.ANSWERS, self.boot_id())
        except NodeUnreachableError as problem:
            return SshAnswer(Reach.DEAD, reason=str(problem))
        except LoginRefusedError as problem:
            return SshAnswer(Reach.REFUSES, reason=str(problem))

    def fire(self, command: str) -> _FiredCommand:
        """Send a command that takes the machine down; nobody waits for its end.

        It goes over the connection that is open, never over a new one: what answered before is what is hit.

        Raises:
            NodeUnreachableError: No connection is open, or it was lost before the command was sent.
        """
        with self._lock:
            transport = self._client.get_transport() if self._client else None
            if transport is None or not transport.is_active():
                message = f"The SSH connection to node {self.node.name} was lost before {command!r} was sent."
                raise NodeUnreachableError(message)
            try:
                channel = transport.open_session(timeout=self._connect_timeout)
                channel.settimeout(self._command_timeout)
                channel.exec_command(command)
            except (OSError, EOFError, paramiko.SSHException) as problem:
                raise self._unreachable(problem) from None
            return _FiredCommand(channel)

    def close(self) -> None:
        """End the connection, if there is one."""
        with self._lock:
            if self._client is not None:
                with suppress(OSError, EOFError, paramiko.SSHException):
                    self._client.close()
                self._client = None

    def _run(self, command: str, timeout: timedelta | None) -> CommandResult:
        wait = timeout.total_seconds() if timeout else self._command_timeout
        try:
            transport = self._connected().get_transport()
            if transport is None:
                message = "the connection has ended"
                raise EOFError(message)
            channel = transport.open_session(timeout=min(wait, self._connect_timeout))
            with channel:
                channel.settimeout(wait)
                channel.exec_command(command)
                output = channel.makefile("rb").read()
                errors = channel.makefile_stderr("rb").read()
                # The status may come after the end of the output, or never when the connection is lost.
                channel.status_event.wait(wait)
                return CommandResult(
                    channel.exit_status, output.decode(errors="replace"), errors.decode(errors="replace")
                )
        except (OSError, EOFError, paramiko.SSHException) as problem:
            raise self._unreachable(problem) from None

    def _connected(self) -> paramiko.SSHClient:
        if self._client is None:
            self._client = self._connect()
        return self._client

    def _connect(self) -> paramiko.SSHClient:
        node = self.node
        client = paramiko.SSHClient()
        client.set_log_channel(TRANSPORT_LOG)
        client.set_missing_host_key_policy(_Strict(node, self._known_hosts))
        try:
            # As the system's: they are read, and never written back.
            client.load_system_host_keys(str(self._known_hosts))
        except OSError:
            message = f"There is no {self._known_hosts}: the host key of node {node.name} cannot be checked."
            raise DeploymentError(message) from None
        try:
            client.connect(
                node.host,
                node.ssh_port,
                node.user,
                key_filename=str(node.private_key),
                allow_agent=False,
                look_for_keys=False,
                timeout=self._connect_timeout,
                banner_timeout=self._connect_timeout,
                auth_timeout=self._connect_timeout,
                sock=self._dialled(),
            )
        except paramiko.BadHostKeyException as problem:
            client.close()
            message = (
                f"The host key of node {node.name} ({node.known_as}) has changed: {self._known_hosts} expects "
                f"{problem.expected_key.fingerprint}, offered was {problem.key.fingerprint}. Nothing was sent."
            )
            raise HostKeyError(message) from None
        except paramiko.AuthenticationException as problem:
            client.close()
            message = f"Node {node.name} does not let {node.address} in with {node.private_key}: {problem}"
            raise LoginRefusedError(message) from None
        except FileNotFoundError:
            client.close()
            message = f"There is no {node.private_key}, the SSH key for node {node.name}."
            raise DeploymentError(message) from None
        except BaseException as problem:
            transport = client.get_transport()
            hangs = isinstance(problem, paramiko.SSHException) and transport is not None and transport.is_active()
            client.close()
            if hangs:
                # What paramiko says when the handshake has not ended in time: "No existing session".
                raise TimeoutError from None
            raise
        return client

    def _dialled(self) -> socket.socket:
        """A TCP connection that sends at once: paramiko's own waits 40 ms for a delayed acknowledgement."""
        dialled = socket.create_connection((self.node.host, self.node.ssh_port), self._connect_timeout)
        dialled.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return dialled

    def _unreachable(self, problem: Exception) -> NodeUnreachableError:
        if isinstance(problem, TimeoutError):
            reason = f"no answer within {seconds(timedelta(seconds=self._connect_timeout))}"
        else:
            reason = getattr(problem, "strerror", None) or str(problem) or type(problem).__name__
        return NodeUnreachableError(f"Node {self.node.name} ({self.node.address}) does not answer: {reason}.")
