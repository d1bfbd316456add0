"""A Waldur double in this process, called without sockets, and a small market on it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from testyard.lab.waldur.faults import Fault
from testyard.lab.waldur.instance import Handshake, Instance

STAFF_TOKEN = "staff-token"
CONTROL_TOKEN = "control-token"
HOST = "waldur.test:8080"
BASE = f"http://{HOST}/api/"

COMPONENTS = [
    {"type": "cpu", "name": "CPU", "measured_unit": "hours", "billing_type": "limit"},
    {"type": "ram", "name": "RAM", "measured_unit": "GB", "billing_type": "usage"},
]


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.content)


@dataclass
class FakeGate:
    """Stands for the public listening socket."""

    history: list[str] = field(default_factory=list)

    async def close(self) -> None:
        self.history.append("close")

    async def open(self) -> None:
        self.history.append("open")


class Double:
    """One instance, called by its applications' ASGI interface."""

    def __init__(self, directory: Path, runner: asyncio.Runner) -> None:
        self.instance = Instance("A", directory, Handshake(STAFF_TOKEN, CONTROL_TOKEN))
        self.gate = FakeGate()
        self._control = self.instance.control(self.gate, lambda: self.gate.history.append("renew"))
        self._runner = runner

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = STAFF_TOKEN,
        query: Any = (),
        raw: bytes | None = None,
    ) -> Answer:
        """Send a request to ``/api/{path}``, or to ``path`` itself when it starts with a slash."""
        headers = {"Host": HOST, "User-Agent": "unit test"}
        if token is not None:
            headers["Authorization"] = f"Token {token}"
        address = path if path.startswith("/") else f"/api/{path}"
        content = _content(body, raw)
        return self._send(self.instance.public, method, address, query=query, headers=headers, content=content)

    def get(self, path: str, *, token: str | None = STAFF_TOKEN, expect: int = 200, **query: Any) -> Any:
        """GET and parse; any other status than expected fails."""
        return _expected(self.call("GET", path, token=token, query=query), expect)

    def post(
        self, path: str, body: Any = None, *, token: str | None = STAFF_TOKEN, expect: int | None = None
    ) -> Any:
        """POST and parse; by default any success will do."""
        return _expected(self.call("POST", path, body if body is not None else {}, token=token), expect)

    def patch(self, path: str, body: Any, *, token: str | None = STAFF_TOKEN, expect: int = 200) -> Any:
        """PATCH and parse."""
        return _expected(self.call("PATCH", path, body, token=token), expect)

    def delete(self, path: str, *, token: str | None = STAFF_TOKEN, expect: int = 204) -> None:
        """DELETE."""
        _expected(self.call("DELETE", path, token=token), expect)

    def control(
        self, method: str, path: str, body: Any = None, *, token: str | None = CONTROL_TOKEN, query: Any = ()
    ) -> Answer:
        """Send a request to the control API."""
        headers = {"X-Lab-Token": token} if token is not None else {}
        content = _content(body, None)
        return self._send(self._control, method, path, query=query, headers=headers, content=content)

    def fault(self, name: str, **parameters: Any) -> None:
        """Switch a fault on."""
        answer = self.control("PUT", f"/faults/{name}", parameters)
        assert answer.status == 200, answer.content

    def shell(self, operation: str, **parameters: Any) -> Any:
        """Run an operation of the control API's shell."""
        answer = self.control("POST", f"/shell/{operation}", parameters)
        assert answer.status == 200, answer.content
        return answer.json

    def events(self, object_type: str | None = None) -> list[dict[str, Any]]:
        """The journaled events, optionally of one type."""
        entries = list(self.instance.events.read())
        return [entry for entry in entries if object_type in (None, entry["object_type"])]

    def _send(
        self, application: Any, method: str, path: str, *, query: Any, headers: Mapping[str, str], content: bytes
    ) -> Answer:
        sent: list[Any] = []
        scope = {
            "type": "http",
            "method": method,
            "scheme": "http",
            "path": path,
            "query_string": urlencode(query, doseq=True).encode(),
            "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
            "client": ("127.0.0.1", 1),
        }

        async def receive() -> Any:
            return {"type": "http.request", "body": content, "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        async def run() -> None:
            await application(scope, receive, send)

        if Fault.LATENCY in self.instance.world.faults:
            self._runner.run(run())
        else:
            _finish(run())
        start, body = sent
        decoded = {name.decode(): value.decode() for name, value in start["headers"]}
        return Answer(start["status"], decoded, body["body"])


@contextmanager
def running_double(directory: Path) -> Iterator[Double]:
    """A double whose journals are in ``directory``."""
    with asyncio.Runner() as runner:
        double = Double(directory, runner)
        try:
            yield double
        finally:
            double.instance.close()


@dataclass(frozen=True)
class Member:
    """A user and its token."""

    uuid: str
    token: str = field(repr=False)
    url: str


class Market:
    """A provider with an active offering, and an organisation with a project that may order it.

    ``owner`` owns the ordering organisation, ``manager`` and ``member`` are in its project, ``provider`` owns the
    provider, ``agent`` is the offering's manager, ``stranger`` has no role.
    """

    def __init__(self, double: Double, **offering: Any) -> None:
        self.double = double
        self.provider_customer = double.post("customers/", {"name": "Provider Org"})
        self.customer = double.post("customers/", {"name": "Peer Org", "abbreviation": "PO"})
        double.post("marketplace-service-providers/", {"customer": self.provider_customer["url"]})
        self.category = double.post("marketplace-categories/", {"title": "HPC"})
        self.offering = double.post(
            "marketplace-provider-offerings/",
            {
                "name": "Peer Slurm",
                "type": "Marketplace.Slurm",
                "category": self.category["url"],
                "customer": self.provider_customer["url"],
                "components": COMPONENTS,
                "plans": [{"name": "Default"}],
                **offering,
            },
        )
        double.post(f"{self.provided}/activate/")
        self.project = double.post("projects/", {"name": "Peer Project", "customer": self.customer["url"]})
        self.owner = self.user("owner", f"customers/{self.customer['uuid']}", "CUSTOMER.OWNER")
        self.manager = self.user("manager", f"projects/{self.project['uuid']}", "PROJECT.MANAGER")
        self.member = self.user("member", f"projects/{self.project['uuid']}", "PROJECT.MEMBER")
        self.provider = self.user("provider", f"customers/{self.provider_customer['uuid']}", "CUSTOMER.OWNER")
        self.agent = self.user("agent", self.provided, "OFFERING.MANAGER")
        self.stranger = self.user("stranger")
        self.public = double.get(f"marketplace-public-offerings/{self.offering['uuid']}/")

    @property
    def provided(self) -> str:
        """Path of the offering for its provider."""
        return f"marketplace-provider-offerings/{self.offering['uuid']}"

    def user(self, username: str, scope: str | None = None, role: str | None = None, **attributes: Any) -> Member:
        """Create a user, optionally with a role on a scope."""
        user = self.double.post("users/", {"username": username, "first_name": username.title(), **attributes})
        token = self.double.post(f"users/{user['uuid']}/refresh_token/")["token"]
        if scope is not None:
            self.double.post(f"{scope}/add_user/", {"user": user["uuid"], "role": role})
        return Member(user["uuid"], token, user["url"])

    def order_body(self, **changes: Any) -> dict[str, Any]:
        """A body that is accepted."""
        return {
            "offering": self.public["url"],
            "project": self.project["url"],
            "plan": self.public["plans"][0]["url"],
            "attributes": {"name": "alloc"},
            "limits": {"cpu": 10},
            **changes,
        }

    def order(self, token: str = STAFF_TOKEN, **changes: Any) -> dict[str, Any]:
        """Place an order."""
        order: dict[str, Any] = self.double.post(
            "marketplace-orders/", self.order_body(**changes), token=token, expect=201
        )
        return order

    def act(self, order: Mapping[str, Any] | str, *actions: str, body: Any = None) -> dict[str, Any]:
        """Do things to an order as staff; gives the order after that."""
        identifier = order if isinstance(order, str) else order["uuid"]
        for action in actions:
            self.double.post(f"marketplace-orders/{identifier}/{action}/", body)
        after: dict[str, Any] = self.double.get(f"marketplace-orders/{identifier}/")
        return after

    def completed_order(self) -> dict[str, Any]:
        """An order that is done; its resource is OK."""
        return self.act(self.order(), "approve_by_provider", "set_state_done")

    def resource(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """The resource of an order."""
        found: dict[str, Any] = self.double.get(f"marketplace-resources/{order['marketplace_resource_uuid']}/")
        return found


def _finish(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run what never waits to its end, without the cost of an event loop; it may let others run once."""
    try:
        for _ in range(2):
            if coroutine.send(None) is not None:
                break
    except StopIteration:
        return
    coroutine.close()
    raise AssertionError("the double waited for something")


def _content(body: Any, raw: bytes | None) -> bytes:
    if raw is not None:
        return raw
    return b"" if body is None else json.dumps(body).encode()


def _expected(answer: Answer, status: int | None) -> Any:
    right = answer.status == status if status is not None else 200 <= answer.status < 300
    assert right, f"expected {status or 'success'}, got {answer.status}: {answer.content.decode()}"
    return answer.json if answer.content else None
