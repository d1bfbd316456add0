"""The control API: faults, journals, markers and the steps that need a Django shell on a real Waldur.

It has a socket and a server of its own, so that it answers while the public side is down.
"""

import dataclasses
import json
import os
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from testyard.lab.broker import Broker
from testyard.lab.waldur.app import Receive, Scope, Send, read_body, send_reply
from testyard.lab.waldur.exchange import JSON_TYPE, ApiError, Reply, empty, json_reply
from testyard.lab.waldur.faults import Fault, FaultError, parse_fault
from testyard.lab.waldur.identifiers import new_identifier
from testyard.lab.waldur.journal import Journal
from testyard.lab.waldur.shell import OPERATIONS
from testyard.lab.waldur.world import World

TOKEN_HEADER = b"x-lab-token"


class Gate(Protocol):
    """The public listening socket, which ``refuse_connections`` closes and opens again."""

    async def close(self) -> None:
        """Refuse connections."""

    async def open(self) -> None:
        """Take connections on the same port again."""


class ControlError(Exception):
    """A control request that cannot be done; the text is for the tester."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class _Call:
    name: str
    """What follows the first path segment: a fault, an operation."""
    body: dict[str, Any]
    after: int


class ControlApplication:
    """Serves the control API.

    Args:
        world: The instance.
        name: The instance's name, e.g. ``A``.
        token: What the header ``X-Lab-Token`` must carry.
        staff_identifier: UUID of the staff user.
        requests: The journal of requests and markers.
        events: The journal of events.
        broker: The STOMP broker.
        gate: The public listening socket.
        renew: Replaces the instance, this application included, by an empty one.
    """

    def __init__(
        self,
        world: World,
        *,
        name: str,
        token: str,
        staff_identifier: str,
        requests: Journal,
        events: Journal,
        broker: Broker,
        gate: Gate,
        renew: Callable[[], None],
    ) -> None:
        self._world = world
        self._name = name
        self._token = token.encode()
        self._staff_identifier = staff_identifier
        self._requests = requests
        self._events = events
        self._broker = broker
        self._gate = gate
        self._renew = renew
        self._boot_identifier = new_identifier()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        try:
            reply = await self._answer(scope, receive)
        except ControlError as error:
            reply = json_reply({"detail": str(error)}, error.status)
        except FaultError as error:
            reply = json_reply({"detail": str(error)}, 400)
        except ApiError as error:
            reply = json_reply(error.body, error.status)
        except OSError as error:
            reply = json_reply({"detail": f"The public port cannot be changed: {error.strerror}"}, 500)
        await send_reply(send, reply)

    async def _answer(self, scope: Scope, receive: Receive) -> Reply:
        given = dict(scope["headers"]).get(TOKEN_HEADER, b"")
        if not secrets.compare_digest(given, self._token):
            raise ControlError(401, "The header X-Lab-Token is missing or wrong.")
        method: str = scope["method"]
        head, _, tail = scope["path"].strip("/").partition("/")
        handler = self._exact.get((method, head, tail)) or (self._prefixed.get((method, head)) if tail else None)
        if handler is None:
            raise ControlError(404, f"The control API has no {method} {scope['path']}.")
        body = await _body(receive) if method in ("POST", "PUT") else {}
        return await handler(self, _Call(tail, body, _after(scope["query_string"])))

    async def _ready(self, _call: "_Call") -> Reply:
        return json_reply(
            {
                "name": self._name,
                "pid": os.getpid(),
                "boot_id": self._boot_identifier,
                "staff_user_uuid": self._staff_identifier,
            }
        )

    async def _read_journal(self, call: "_Call") -> Reply:
        return _journal_page("entries", self._requests, call.after)

    async def _read_events(self, call: "_Call") -> Reply:
        return _journal_page("events", self._events, call.after)

    async def _write_marker(self, call: "_Call") -> Reply:
        return json_reply({"sequence": self._mark(str(call.body.get("text", "")))}, 201)

    async def _list_faults(self, _call: "_Call") -> Reply:
        return json_reply({"active": self._world.faults.active})

    async def _set_fault(self, call: "_Call") -> Reply:
        await self._set(call.name, call.body)
        return json_reply({"active": self._world.faults.active})

    async def _clear_fault(self, call: "_Call") -> Reply:
        await self._clear(parse_fault(call.name))
        return empty(204)

    async def _clear_faults(self, _call: "_Call") -> Reply:
        for name in self._world.faults.active:
            await self._clear(parse_fault(name))
        return empty(204)

    async def _reset(self, call: "_Call") -> Reply:
        await self._clear_faults(call)
        self._renew()
        return empty(204)

    async def _drop_stomp(self, _call: "_Call") -> Reply:
        return json_reply({"dropped": self._broker.drop_connections()})

    async def _list_connections(self, _call: "_Call") -> Reply:
        return json_reply(self._connections())

    async def _run_shell(self, call: "_Call") -> Reply:
        operation = OPERATIONS.get(call.name)
        if operation is None:
            known = ", ".join(OPERATIONS)
            raise ControlError(404, f"unknown operation {call.name!r} (known: {known})")
        return json_reply(operation(self._world, call.body))

    _exact: Mapping[tuple[str, str, str], Callable[["ControlApplication", "_Call"], Awaitable[Reply]]] = {
        ("GET", "ready", ""): _ready,
        ("GET", "journal", ""): _read_journal,
        ("GET", "events", ""): _read_events,
        ("POST", "marker", ""): _write_marker,
        ("GET", "faults", ""): _list_faults,
        ("DELETE", "faults", ""): _clear_faults,
        ("POST", "reset", ""): _reset,
        ("POST", "stomp", "drop"): _drop_stomp,
        ("GET", "stomp", "connections"): _list_connections,
    }
    _prefixed: Mapping[tuple[str, str], Callable[["ControlApplication", "_Call"], Awaitable[Reply]]] = {
        ("PUT", "faults"): _set_fault,
        ("DELETE", "faults"): _clear_fault,
        ("POST", "shell"): _run_shell,
    }

    def _mark(self, text: str) -> int:
        return self._requests.append(kind="marker", text=text)

    async def _set(self, name: str, parameters: dict[str, Any]) -> None:
        fault = self._world.faults.set(name, parameters)
        self._mark(f"fault {fault} on {json.dumps(parameters)}")
        if fault in self._switches:
            await self._switches[fault](self, True)

    async def _clear(self, fault: Fault) -> None:
        if fault not in self._world.faults:
            return
        if fault in self._switches:
            await self._switches[fault](self, False)
        self._world.faults.clear(fault)
        self._mark(f"fault {fault} off")

    async def _refuse(self, on: bool) -> None:
        if on:
            self._broker.drop_connections()
            await self._gate.close()
        else:
            await self._gate.open()

    async def _silence(self, on: bool) -> None:
        self._broker.silent_heart_beats = on

    async def _cut_stomp(self, on: bool) -> None:
        if on:
            self._broker.drop_connections()

    async def _release(self, on: bool) -> None:
        if not on:
            self._world.events.release_held()

    _switches: Mapping[Fault, Callable[["ControlApplication", bool], Awaitable[None]]] = {
        Fault.REFUSE_CONNECTIONS: _refuse,
        Fault.SILENT_HEARTBEAT: _silence,
        Fault.NO_STOMP: _cut_stomp,
        Fault.REORDER_EVENTS: _release,
    }

    def _connections(self) -> list[dict[str, Any]]:
        snapshots = []
        for connection in self._broker.connections():
            fields = {
                name: value.isoformat() if isinstance(value, datetime) else value
                for name, value in dataclasses.asdict(connection).items()
            }
            queues = set(connection.subscriptions.values())
            fields["queue_depths"] = {queue: self._broker.queue_depth(connection.vhost, queue) for queue in queues}
            snapshots.append(fields)
        return snapshots


def _journal_page(name: str, journal: Journal, after: int) -> Reply:
    """Entries as they are on disk, without parsing them."""
    lines = b",".join(journal.read_lines(after))
    return Reply(200, b'{"%b":[%b],"last":%d}' % (name.encode(), lines, journal.last), [JSON_TYPE])


async def _body(receive: Receive) -> dict[str, Any]:
    content = await read_body(receive)
    if not content:
        return {}
    try:
        value = json.loads(content)
    except ValueError as error:
        raise ControlError(400, f"The body is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ControlError(400, "The body must be a JSON object.")
    return value


def _after(query: bytes) -> int:
    name, _, value = query.decode("latin-1").partition("=")
    if not query:
        return 0
    if name != "after" or not value.isdecimal():
        raise ControlError(400, "The only parameter is after=<sequence number>.")
    return int(value)
