"""The command ``python -m testyard.lab.cluster.datacentre``: the machines of a lab, and who controls them.

It prints its address, ``http://127.0.0.1:PORT``, as the first line of standard output, and ends with SIGTERM or
with its owner: the process of ``--owner-pid``, or else whoever holds the other end of standard input. Everything
that it has started ends with it, also when it is killed. The bearer token is in ``TESTYARD_DATACENTRE_TOKEN``.

Control API: JSON on loopback, ``Authorization: Bearer TOKEN``. A refusal is ``{"error": TEXT}``: 400 a wrong body,
401 a wrong token, 404 no such deployment, node or action, 409 not possible now.

``GET /health``
    ``{"status": "ok", "deployments": [ID, ...]}``
``POST /deployments``
    ``{"id", "provider", "nodes": ["n11", ...], "database": true, "sysrq": true, "synchronous": true,
    "authorized_key": "ssh-ed25519 ...", "timings": {"boot": 0, "shutdown": 0, "crash": 0.5, "database": {...}}}``;
    what has a value here may be left out. Times are in seconds; those of the database are in ``database.timing``.
    Without ``synchronous`` a commit waits for no standby: a cluster that loses writes, to test tests. Makes the
    nodes, switches them on and waits until they, and the database, are ready. 201: ``{"nodes": {"n11": {"host",
    "ssh_port", "admin_ui_port", "database_port", "instance_id", "region", "user", "host_key": "ssh-ed25519
    ..."}}, "cloud": {NAME: VALUE}, "database": {"user", "password", "name"} or null, "admin_ui_certificate":
    PEM}``.
``GET /deployments/ID``
    ``{"id", "provider", "nodes": {"n11": {"state", "boot_id", "pid"}}, "database": {"primary", "term", "members":
    {"n11": {"role", "accepts_connections", "lag", "streaming", "problem"}}} or null, "links": [...]}``. A state is
    ``running``, ``starting``, ``stopping`` or ``stopped`` and is the power's: a machine that reboots itself stays
    ``running``; its ``boot_id`` is null until its SSH server answers again.
``DELETE /deployments/ID``
    Switches everything off and removes it. 204.
``POST /deployments/ID/nodes/NODE/ACTION``
    ``power-on`` answers at once; 409 while the node is stopping. ``power-off`` takes the power away and answers
    when every process of the node is gone. ``press`` presses the power button and answers at once. ``boot`` is
    what an operator does where starting is manual: power on, and an answer when SSH answers. These answer
    ``{"state"}``, ``boot`` also ``{"boot_id"}``. ``services-stop`` stops database and admin UI. ``new-host-key``
    has the node show another host key to new connections, ``first-host-key`` the one that it was deployed with:
    ``{"host_key"}``.
    ``claim-host-boot-id`` has it tell the boot id of the machine that the lab runs on, until it boots or
    ``claim-own-boot-id`` comes: ``{"boot_id"}``.
``GET /deployments/ID/links`` and ``POST`` with ``{"from", "to", "silent": true}``
    ``{"links": [{"from", "to", "silent", "database_port", "agent_port"}]}``, both directions of every link. Peers
    are the nodes and ``manager``; the ports are where ``from`` dials ``to``, null when that is the manager.
``POST /deployments/ID/measurements`` with ``{"directory", "database": true, "within": 5}``
    Looks at the nodes from outside, as the deployment's directory says that they are reached; no check of a node
    takes longer than ``within`` seconds. ``{"n11": {...}}``: each node's ``deployer.health.HostMeasurement``.
``POST /deployments/ID/cloud``
    ``{"expired": true}`` has the provider refuse the deployment's credentials, ``{"delay": 0.5}`` shows
    intermediate states so many seconds at least. Answers both values.
``/clouds/PROVIDER/ID/...``
    The provider's API for the deployment, with credentials of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from testyard.core.errors import UserError
from testyard.core.redact import mask_log_records, secrets_in_use
from testyard.lab.children import listening_socket, new_directory, remove_stale_directories, wait_for_the_end
from testyard.lab.cluster import modules
from testyard.lab.cluster.owner import Owner
from testyard.lab.cluster.places import open_place
from testyard.lab.fork_server.client import ForkServer

if TYPE_CHECKING:
    from testyard.lab.cluster.control_api import Datacentre

HOST = "127.0.0.1"
TOKEN_VARIABLE = "TESTYARD_DATACENTRE_TOKEN"


async def serve(
    listening: socket.socket,
    token: str,
    forks: ForkServer,
    directory: Path,
    owner: Owner,
    *,
    prepares_database: bool = False,
) -> None:
    """Answer requests until the owner has ended or SIGTERM comes, then end everything.

    Args:
        listening: Where the control API listens.
        token: Its bearer token.
        forks: Starts processes.
        directory: Where everything is written; removed at the end.
        owner: Whose end ends this.
        prepares_database: Whether what the first database needs is made at once.
    """
    # Here, as all of it is imported while clients can connect already.
    from testyard.lab.cluster.control_api import ControlApi, Datacentre
    from testyard.lab.cluster.http_listener import HttpListener

    asked_to_end = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asked_to_end.set)
    host, port = listening.getsockname()
    datacentre = Datacentre(directory, forks, f"http://{host}:{port}")
    listener = HttpListener(ControlApi(datacentre, token))
    await listener.open(listening)
    # What it could not make, the first deployment asks for again, and tells.
    preparing = asyncio.create_task(_prepare(datacentre)) if prepares_database else None
    ends = [asyncio.create_task(owner.ended()), asyncio.create_task(asked_to_end.wait())]
    try:
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (*ends, *filter(None, [preparing])):
            task.cancel()
        listener.close()
        await asyncio.gather(*(datacentre.destroy(each) for each in datacentre.identifiers))


async def _prepare(datacentre: Datacentre) -> None:
    with suppress(UserError):
        await datacentre.prepare_database()


def main() -> int:
    """Run the datacentre; gives the exit status."""
    parser = argparse.ArgumentParser(prog="python -m testyard.lab.cluster.datacentre")
    parser.add_argument("--owner-pid", type=int, help="ends with this process; default: with standard input")
    parser.add_argument(
        "--prepare-database", action="store_true", help="make at once what the first database takes a second for"
    )
    arguments = parser.parse_args()
    # Out of the environment: what is started here does not need it.
    token = os.environ.pop(TOKEN_VARIABLE, "")
    if not token:
        sys.stderr.write(f"testyard.lab.cluster.datacentre: {TOKEN_VARIABLE} is not set\n")
        return 2
    secrets_in_use.add(token)
    mask_log_records()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    remove_stale_directories()
    directory = new_directory(open_place())
    with ExitStack() as resources:
        listening = resources.enter_context(listening_socket(HOST, 0))
        sys.stdout.write("http://{}:{}\n".format(*listening.getsockname()))
        sys.stdout.flush()
        resources.callback(shutil.rmtree, directory, ignore_errors=True)
        forks = resources.enter_context(ForkServer(modules.NODE, modules.JANITOR, modules.MEASURING))
        janitor = forks.fork(modules.JANITOR, str(directory), stdin=subprocess.PIPE)
        owner, prepares = Owner(arguments.owner_pid), arguments.prepare_database
        asyncio.run(serve(listening, token, forks, directory, owner, prepares_database=prepares))
        assert janitor.stdin is not None
        janitor.stdin.close()
        wait_for_the_end(janitor)
    return 0


if __name__ == "__main__":
    sys.exit(main())
