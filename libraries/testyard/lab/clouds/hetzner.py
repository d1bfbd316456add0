"""The part of Hetzner's Cloud API v1 that ``hcloud`` needs to work the power of servers.

An action locks its server until it has ended; the one of a shutdown ends when the request has been sent to the
server, not when that is off.

Source: docs.hetzner.cloud/reference/cloud, "Servers", "Server Actions", "Errors" and "Label Selector".
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from testyard.core.redact import secrets_in_use
from testyard.lab.clouds.actions import Actions
from testyard.lab.clouds.hetzner_bodies import PATHS, action_body, error_body, list_body, server_body
from testyard.lab.clouds.machines import CloudAccount, CloudDouble, Machines, MachineView
from testyard.lab.clouds.refusal import RefusedError

PER_PAGE, MOST_PER_PAGE = 25, 50
REQUIREMENT = re.compile(r"(?P<not>!)?(?P<key>[^!=,]+)(?:(?P<operator>==|=|!=)(?P<value>[^=,]*))?")

Endpoint = Callable[[Request], Awaitable[Any]]


class HetznerDouble:
    """The endpoint of Hetzner's Cloud API for one project.

    Args:
        machines: The lab's machines.
        account: The project whose token is taken.
    """

    def __init__(self, machines: Machines, account: CloudAccount) -> None:
        self._account = account
        self._actions = Actions("hetzner", machines, account, waits_for_shutdown=False)
        secrets_in_use.add(account.secret)
        one = "/v1/servers/{server:int}"
        self.application = Starlette(
            routes=[
                self._route("/v1/servers", self._list),
                self._route(one, self._get),
                *(self._route(f"{one}/actions/{path}", self._begin, method="POST", status=201) for path in PATHS),
                self._route(f"{one}/actions/{{action:int}}", self._action),
                self._route("/v1/servers/actions/{action:int}", self._action),
                self._route("/v1/actions/{action:int}", self._action),
            ],
            exception_handlers={HTTPException: _unknown_route},
        )

    def settings(self, base_url: str) -> dict[str, str]:
        """The settings that hcloud needs; see :class:`testyard.lab.clouds.machines.CloudDouble`."""
        return {"HCLOUD_TOKEN": self._account.secret, "HCLOUD_ENDPOINT": f"{base_url}/v1"}

    def close(self) -> None:
        """End the actions that run."""
        self._actions.close()

    def _route(self, path: str, endpoint: Endpoint, *, method: str = "GET", status: int = 200) -> Route:
        async def answer(request: Request) -> Response:
            try:
                if (
                    request.headers.get("authorization") != f"Bearer {self._account.secret}"
                    or self._account.expired
                ):
                    raise RefusedError(401, "unauthorized", "unable to authenticate")
                return JSONResponse(await endpoint(request), status)
            except RefusedError as problem:
                return JSONResponse(error_body(problem.code, str(problem)), problem.status)

        return Route(path, answer, methods=[method])

    async def _list(self, request: Request) -> dict[str, Any]:
        query = request.query_params
        page = _number("page", query.get("page", "1"), most=1_000_000)
        per_page = _number("per_page", query.get("per_page", str(PER_PAGE)), most=MOST_PER_PAGE)
        servers = [self._body(machine) for machine in self._actions.shown.all()]
        if selector := query.get("label_selector"):
            servers = [server for server in servers if selects(selector, server["labels"])]
        if name := query.get("name"):
            servers = [server for server in servers if server["name"] == name]
        if statuses := query.getlist("status"):
            servers = [server for server in servers if server["status"] in statuses]
        return list_body("servers", servers, page=page, per_page=per_page)

    async def _get(self, request: Request) -> dict[str, Any]:
        return {"server": self._body(self._machine(request))}

    async def _begin(self, request: Request) -> dict[str, Any]:
        machine = self._machine(request)
        kind = PATHS[request.url.path.rpartition("/")[2]]
        if self._actions.running_on(machine.instance_id):
            raise RefusedError(423, "locked", "cannot perform operation because server is locked")
        return {"action": action_body(await self._actions.begin(kind, machine.instance_id, machine.region))}

    async def _action(self, request: Request) -> dict[str, Any]:
        number = request.path_params["action"]
        action = self._actions.find(number)
        server = request.path_params.get("server")
        if action is None or (server is not None and action.instance_id != str(server)):
            raise RefusedError(404, "not_found", f"action with ID '{number}' not found")
        return {"action": action_body(action)}

    def _machine(self, request: Request) -> MachineView:
        number = request.path_params["server"]
        machine = self._actions.shown.find(str(number))
        if machine is None:
            raise RefusedError(404, "not_found", f"server with ID '{number}' not found")
        return machine

    def _body(self, machine: MachineView) -> dict[str, Any]:
        locked = self._actions.running_on(machine.instance_id) is not None
        return server_body(machine, locked=locked)


def create(machines: Machines, account: CloudAccount) -> CloudDouble:
    """The double of this provider; see :mod:`testyard.lab.clouds.machines`."""
    return HetznerDouble(machines, account)


def selects(selector: str, labels: Mapping[str, str]) -> bool:
    """Whether labels meet a label selector ("Label Selector").

    Args:
        selector: Requirements with commas between them: ``k==v``, ``k=v``, ``k!=v``, ``k`` or ``!k``.
        labels: The labels of a server.

    Raises:
        RefusedError: It is none, or one with ``in``, which is not understood here.

    Example:
        >>> selects("deployment==d1,node!=n12", {"deployment": "d1", "node": "n11"})
        True
    """
    return all(_meets(requirement.strip(), labels) for requirement in selector.split(","))


def _meets(requirement: str, labels: Mapping[str, str]) -> bool:
    found = REQUIREMENT.fullmatch(requirement)
    if found is None or " " in requirement or (found["not"] and found["operator"]):
        raise RefusedError(400, "invalid_input", "invalid input in field 'label_selector'")
    if found["operator"] is None:
        return (found["key"] in labels) is not bool(found["not"])
    return (labels.get(found["key"]) == found["value"]) is (found["operator"] != "!=")


def _number(field: str, text: str, *, most: int) -> int:
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text) <= most:
        raise RefusedError(400, "invalid_input", f"invalid input in field '{field}'")
    return int(text)


async def _unknown_route(_: Request, problem: Exception) -> Response:
    assert isinstance(problem, HTTPException)
    return JSONResponse(error_body("not_found", "not found"), problem.status_code)
