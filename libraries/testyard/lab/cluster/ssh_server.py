"""The SSH server of a node (asyncssh): one user, one key, and no shell but the node's own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import asyncssh

from testyard.lab.cluster.plan import HOST, USER
from testyard.lab.cluster.shell import NOT_FOUND, Answer, PowerChange, Shell

LONGEST_PIECE = 4096


class SshServer:
    """Answers SSH connections for as long as the node runs.

    Args:
        shell: Interprets what users say.
        name: The node's name, for the prompt.
        authorized_key: The public key that may log in.
        change: Called when a command's answer changes the node's power.
    """

    def __init__(
        self, shell: Shell, name: str, authorized_key: str, change: Callable[[PowerChange], None]
    ) -> None:
        self._shell = shell
        self._prompt = f"{USER}@{name}:~$ "
        self._key = asyncssh.import_public_key(authorized_key)
        self._change = change
        self._acceptor: asyncssh.SSHAcceptor | None = None

    async def open(self, port: int, host_key: str) -> None:
        """Take connections.

        Args:
            port: TCP port.
            host_key: The private host key in OpenSSH's format.
        """
        self._acceptor = await asyncssh.listen(
            HOST,
            port,
            server_factory=lambda: _OneUser(self._key),
            server_host_keys=[asyncssh.import_private_key(host_key)],
            process_factory=self._serve,
            allow_scp=False,
            agent_forwarding=False,
            x11_forwarding=False,
            gss_host=None,
            # Making an editor for each command takes longer than the command.
            line_editor=False,
            login_timeout=10,
        )

    def present(self, host_key: str) -> None:
        """Show another host key to whoever connects from now on."""
        if self._acceptor is not None:
            self._acceptor.update(server_host_keys=[asyncssh.import_private_key(host_key)])

    def refuse(self) -> None:
        """Take no more connections."""
        if self._acceptor is not None:
            self._acceptor.close()

    async def _serve(self, process: asyncssh.SSHServerProcess[str]) -> None:
        if process.subsystem is not None:
            process.stderr.write(f"subsystem {process.subsystem}: not found\n")
            process.exit(NOT_FOUND)
        elif process.command is None:
            await self._converse(process)
        else:
            answer = await self._shell.run(process.command)
            if answer.change is PowerChange.POWER_OFF:
                # The power goes before anything could be answered.
                self._change(answer.change)
            _show(process, answer)
            process.exit(answer.status)
            if answer.change is not None:
                self._change(answer.change)

    async def _converse(self, process: asyncssh.SSHServerProcess[str]) -> None:
        """A session of somebody who types, or of a library that reads a prompt after the login."""
        status = 0
        process.stdout.write(self._prompt)
        async for line in _typed(process):
            if line in {"exit", "logout"}:
                break
            if line:
                answer = await self._shell.run(line)
                status = answer.status
                _show(process, answer)
                if answer.change is not None:
                    self._change(answer.change)
            process.stdout.write(self._prompt)
        process.exit(status)


class _OneUser(asyncssh.SSHServer):
    """Lets in one user with one key; neither passwords nor forwarded ports.

    Args:
        key: The key.
    """

    def __init__(self, key: asyncssh.SSHKey) -> None:
        self._key = key

    def begin_auth(self, username: str) -> bool:
        """Nobody comes in without a key."""
        return True

    def public_key_auth_supported(self) -> bool:
        """Keys are the only way in."""
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        """Whether this user may come in with this key."""
        return username == USER and key == self._key


async def _typed(process: asyncssh.SSHServerProcess[str]) -> AsyncIterator[str]:
    """The lines that come; a terminal sends a carriage return for Enter, and shows what it gets back."""
    begun = ""
    while piece := await process.stdin.read(LONGEST_PIECE):
        piece = piece.replace("\r", "\n")
        if process.term_type is not None:
            process.stdout.write(_on_a_screen(piece))
        *ended, begun = (begun + piece).split("\n")
        for line in ended:
            yield line.strip()


def _show(process: asyncssh.SSHServerProcess[str], answer: Answer) -> None:
    if process.term_type is None:
        process.stdout.write(answer.stdout)
        process.stderr.write(answer.stderr)
    else:
        # A terminal has one screen for both.
        process.stdout.write(_on_a_screen(answer.stdout + answer.stderr))


def _on_a_screen(text: str) -> str:
    return text.replace("\n", "\r\n")
