"""The datacentre that a deployment uses: that of the environment, or one of its own."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import IO, Final, NamedTuple

from testyard.core.deadline import Deadline, seconds, wait_until
from testyard.core.errors import NotMetError, UserError
from testyard.lab.cluster.deployer.control import Control
from testyard.lab.cluster.deployer.files import DATACENTRE
from testyard.lab.cluster.deployer.lock import birth_of, is_running
from testyard.lab.cluster.deployer.storage import PRIVATE, write_durably

ADDRESS_VARIABLE: Final = "TESTYARD_DATACENTRE"
TOKEN_VARIABLE: Final = "TESTYARD_DATACENTRE_TOKEN"
MODULE: Final = "testyard.lab.cluster.datacentre"
START_TIMEOUT: Final = timedelta(seconds=20)
END_TIMEOUT: Final = timedelta(seconds=10)


class Datacentre(NamedTuple):
    """Where a deployment's nodes are.

    Attributes:
        address: Of the control API.
        token: Its bearer token.
        pid: The process, when it was started for this deployment alone; otherwise 0.
        birth: When that process began, see :func:`~testyard.lab.cluster.deployer.lock.birth_of`.
    """

    address: str
    token: str
    pid: int = 0
    birth: str = ""

    def control(self, timeout: timedelta) -> Control:
        """Its control API."""
        return Control(self.address, self.token, timeout)


def of_environment(environment: Mapping[str, str] = os.environ) -> Datacentre | None:
    """The datacentre that the environment names; None when it names none.

    Raises:
        UserError: There is an address without a token.
    """
    address = environment.get(ADDRESS_VARIABLE)
    if not address:
        return None
    token = environment.get(TOKEN_VARIABLE)
    if not token:
        message = f"{ADDRESS_VARIABLE} is set, but {TOKEN_VARIABLE} is not"
        raise UserError(message)
    return Datacentre(address, token)


class StartingDatacentre:
    """A datacentre that is on its way: what does not need it can be done meanwhile.

    Args:
        owner: The process whose end ends it.

    Raises:
        UserError: There is no such process.
    """

    def __init__(self, owner: int) -> None:
        if not is_running(owner, ""):
            message = f"--owner-pid: there is no process {owner}"
            raise UserError(message)
        self._token = os.urandom(24).hex()
        self._complaints: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 closed by _close
        self._process = subprocess.Popen(
            [sys.executable, "-m", MODULE, "--owner-pid", str(owner)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            env={**os.environ, TOKEN_VARIABLE: self._token},
            # Ctrl-C at the terminal is for its owner, whose end it follows.
            start_new_session=True,
        )

    def ready(self) -> Datacentre:
        """Wait until it answers: it prints its address.

        Raises:
            UserError: It has ended instead, with the last line it said, or takes too long.
        """
        deadline = Deadline(START_TIMEOUT)
        output = self._process.stdout
        assert output is not None
        readable, _, _ = select.select([output], [], [], deadline.remaining.total_seconds())
        address = output.readline().decode(errors="replace").strip() if readable else ""
        if not address:
            self._process.kill()
            self._process.wait()
            self._complaints.seek(0)
            said = self._complaints.read().decode(errors="replace").strip().splitlines()
            self.end()
            reason = said[-1] if said else "it gave no reason"
            message = f"the datacentre did not start within {seconds(deadline.elapsed)}: {reason}"
            raise UserError(message)
        self._close()
        return Datacentre(address, self._token, self._process.pid, birth_of(self._process.pid))

    def end(self) -> None:
        """End it; safe to call again."""
        self._process.kill()
        self._process.wait()
        self._close()

    def _close(self) -> None:
        """Close this side's ends; what it says from now on nobody reads."""
        self._complaints.close()
        if self._process.stdout:
            self._process.stdout.close()


def remember(directory: Path, datacentre: Datacentre) -> None:
    """Write down which datacentre a deployment uses."""
    write_durably(directory / DATACENTRE, json.dumps(datacentre._asdict(), indent=2) + "\n", PRIVATE)


def remembered(directory: Path) -> Datacentre | None:
    """The datacentre that a deployment uses; None when it has used none.

    Raises:
        UserError: The file is broken.
    """
    path = directory / DATACENTRE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Datacentre(
            str(content["address"]), str(content["token"]), int(content["pid"]), str(content["birth"])
        )
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as problem:
        message = f"{path} does not name a datacentre: {type(problem).__name__}"
        raise UserError(message) from None


def end_own(datacentre: Datacentre) -> None:
    """End a deployment's own datacentre, and wait until it has ended; one of somebody else's is left alone."""
    if not is_running(datacentre.pid, datacentre.birth):
        return
    for number, within in ((signal.SIGTERM, END_TIMEOUT), (signal.SIGKILL, END_TIMEOUT)):
        try:
            os.kill(datacentre.pid, number)
            wait_until(
                lambda: is_running(datacentre.pid, datacentre.birth),
                lambda running: not running,
                Deadline(within),
                f"the end of the datacentre's process {datacentre.pid}",
            )
        except ProcessLookupError:
            return
        except NotMetError:
            continue
        return
    message = f"the datacentre's process {datacentre.pid} does not end"
    raise UserError(message)
