"""How long a double keeps its callers waiting: as long as its faults ask for, and no longer."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

from double_support import CONTROL_TOKEN, STAFF_TOKEN, FakeGate
from testyard.lab.waldur.instance import Handshake, Instance
from testyard.lab.waldur.server import bind

AN_HOUR = 3_600_000
PROMPTLY = 5


async def _request(application: Any, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> int:
    """Send one request; gives the answer's status."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": method,
        "scheme": "http",
        "path": path,
        "query_string": b"",
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
        "client": ("127.0.0.1", 1),
    }
    await application(scope, receive, send)
    return int(sent[0]["status"])


def test_held_up_requests_are_answered_when_the_fault_ends(tmp_path: Path) -> None:
    instance = Instance("A", tmp_path, Handshake(STAFF_TOKEN, CONTROL_TOKEN))
    control = instance.control(FakeGate(), instance.close)
    lab = {"X-Lab-Token": CONTROL_TOKEN}
    staff = {"Authorization": f"Token {STAFF_TOKEN}"}

    async def scenario() -> list[int]:
        milliseconds = f'{{"milliseconds": {AN_HOUR}}}'.encode()
        assert await _request(control, "PUT", "/faults/latency", lab, milliseconds) == 200
        async with asyncio.timeout(PROMPTLY), asyncio.TaskGroup() as group:
            held = [group.create_task(_request(instance.public, "GET", "/api/users/me/", staff)) for _ in "12"]
            while len(instance.world.faults.held_up) < len(held):
                await asyncio.sleep(0)
            assert await _request(control, "DELETE", "/faults/latency", lab) == 204
        return [task.result() for task in held]

    try:
        assert asyncio.run(scenario()) == [200, 200]
        assert not instance.world.faults.held_up
        assert [entry["path"] for entry in instance.requests.read() if entry["kind"] == "request"] == [
            "/api/users/me/",
            "/api/users/me/",
        ]
    finally:
        instance.close()


def test_what_a_reopened_port_accepts_is_sent_without_delay() -> None:
    with bind("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.proto == socket.IPPROTO_TCP
