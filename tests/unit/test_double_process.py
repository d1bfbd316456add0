"""The Waldur double as a process: how it starts, how it ends, and its sockets."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import websocket

COMMAND = (sys.executable, "-m", "testyard.lab.waldur", "--name", "A")
HANDSHAKE = json.dumps({"staff_token": "staff", "control_token": "control"}).encode() + b"\n"


@dataclass
class Running:
    """A started process and where it listens."""

    process: subprocess.Popen[bytes]
    public: str
    control: httpx.Client
    directory: Path


@contextmanager
def _listening() -> Iterator[socket.socket]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    """A double on inherited sockets, ready."""
    directory = tmp_path / "double"
    with _listening() as public, _listening() as control:
        descriptors = (public.fileno(), control.fileno())
        addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in (public, control)]
        process = subprocess.Popen(
            [
                *COMMAND,
                *("--public-fd", str(descriptors[0]), "--control-fd", str(descriptors[1])),
                *("--directory", str(directory)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=descriptors,
        )
    assert process.stdin
    process.stdin.write(HANDSHAKE)
    process.stdin.flush()
    with (
        process,
        httpx.Client(
            base_url=f"http://{addresses[1]}", headers={"X-Lab-Token": "control"}, timeout=10
        ) as control_client,
    ):
        try:
            assert control_client.get("/ready").json()["pid"] == process.pid
            yield Running(process, addresses[0], control_client, directory)
        finally:
            process.kill()


def _close_standard_input(running: Running) -> None:
    assert running.process.stdin
    running.process.stdin.close()


def _terminate(running: Running) -> None:
    running.process.send_signal(signal.SIGTERM)


def _interrupt_then_close(running: Running) -> None:
    running.process.send_signal(signal.SIGINT)
    assert running.control.get("/ready").status_code == 200
    _close_standard_input(running)


@pytest.mark.parametrize("end", [_close_standard_input, _terminate, _interrupt_then_close])
def test_it_ends_at_once_and_leaves_nothing(running: Running, end: Callable[[Running], None]) -> None:
    with (
        closing(websocket.create_connection(f"ws://{running.public}/rmqws-stomp")),
        httpx.Client() as idle,
        socket.create_connection(running.public.split(":")) as half,
    ):
        assert idle.get(f"http://{running.public}/api/version/").status_code == 200
        half.sendall(b"GET /api/version/ HTTP/1.1\r\n")
        assert sorted(each.name for each in running.directory.iterdir()) == ["events.jsonl", "requests.jsonl"]

        end(running)

        assert running.process.wait(timeout=1) == 0
    assert not running.directory.exists()
    assert running.process.stdout
    assert running.process.stderr
    assert (running.process.stdout.read(), running.process.stderr.read()) == (b"", b"")


def test_the_faults_of_the_public_socket(running: Running) -> None:
    url, stomp_url = f"http://{running.public}/api/version/", f"ws://{running.public}/rmqws-stomp"
    stomp = websocket.create_connection(stomp_url)
    with httpx.Client() as idle, closing(stomp):
        assert idle.get(url).status_code == 200

        # Refused connections come back on the same port.
        assert running.control.put("/faults/refuse_connections", json={}).status_code == 200
        # The idle connection is cut: its client sees that before it sends (and dials in vain) or just after.
        with pytest.raises(httpx.NetworkError):
            idle.get(url)
        with pytest.raises(httpx.ConnectError):
            httpx.get(url)
        with pytest.raises((ConnectionError, websocket.WebSocketConnectionClosedException)):
            stomp.recv()
        assert running.control.delete("/faults/refuse_connections").status_code == 204
        assert idle.get(url).status_code == 200

        # WebSockets are refused without STOMP.
        assert running.control.put("/faults/no_stomp", json={}).status_code == 200
        with pytest.raises(websocket.WebSocketBadStatusException, match="403"):
            websocket.create_connection(stomp_url)

    entries = running.control.get("/journal").json()["entries"]
    assert [entry["status"] for entry in entries if entry["kind"] == "request"] == [101, 200, 200, 403]


def _frame(command: str, **headers: str) -> str:
    lines = [command, *(f"{name.replace('_', '-')}:{value}" for name, value in headers.items())]
    return "\n".join([*lines, "", "\0"])


def test_an_event_reaches_a_connected_client(running: Running) -> None:
    with httpx.Client(base_url=f"http://{running.public}/api/", headers={"Authorization": "Token staff"}) as api:

        def post(path: str, **body: object) -> Any:
            answer = api.post(path, json=body)
            assert answer.is_success, answer.text
            return answer.json()

        customer = post("customers/", name="Org")
        post("marketplace-service-providers/", customer=customer["url"])
        offering = post(
            "marketplace-provider-offerings/",
            name="Offering",
            type="Marketplace.Slurm",
            customer=customer["url"],
            category=post("marketplace-categories/", title="HPC")["url"],
        )
        identity = post("marketplace-site-agent-identities/", offering=offering["uuid"], name="agent")
        queue = post(f"marketplace-site-agent-identities/{identity['uuid']}/register_queue/")
        stomp = websocket.create_connection(f"ws://{running.public}/rmqws-stomp", timeout=5)
        with closing(stomp):
            login = {"login": queue["rmq_username"], "passcode": "staff", "host": queue["vhost"]}
            stomp.send(_frame("STOMP", accept_version="1.2", **login))
            assert str(stomp.recv()).startswith("CONNECTED\n")
            destination = f"/amq/queue/{queue['queue_name']}"
            stomp.send(_frame("SUBSCRIBE", id="s", destination=destination, ack="client", receipt="r"))
            assert str(stomp.recv()).startswith("RECEIPT\n")

            user = running.control.get("/ready").json()["staff_user_uuid"]
            post("marketplace-offering-users/", offering_uuid=offering["uuid"], user_uuid=user)

            head, _, body = str(stomp.recv()).partition("\n\n")
            (connection,) = running.control.get("/stomp/connections").json()
            assert head.startswith("MESSAGE\n")
            assert json.loads(body.rstrip("\0"))["object_type"] == "offering_user"
            assert connection["vhost"] == queue["vhost"]
            assert connection["queue_depths"] == {queue["queue_name"]: 1}
            assert running.control.post("/stomp/drop").json() == {"dropped": 1}
            with pytest.raises((ConnectionError, websocket.WebSocketConnectionClosedException)):
                stomp.recv()


@pytest.mark.parametrize(
    ("handshake", "problem"),
    [(HANDSHAKE, "cannot listen on port {port} of 127.0.0.1: Address already in use"), (b"{}\n", "first line")],
)
def test_a_start_that_fails_is_explained_in_one_line(tmp_path: Path, handshake: bytes, problem: str) -> None:
    with _listening() as taken:
        port = taken.getsockname()[1]
        ended = subprocess.run(
            [*COMMAND, "--port", str(port), "--directory", str(tmp_path / "double")],
            input=handshake,
            capture_output=True,
            check=False,
            timeout=10,
        )

    (line,) = ended.stderr.decode().splitlines()
    assert problem.format(port=port) in line
    assert (ended.returncode, ended.stdout) == (2, b"")
    assert not (tmp_path / "double").exists()
