"""The part of DigitalOcean's API v2 that ``pydo`` needs to work the power of droplets.

An action is ``in-progress`` until the machine is where it was to bring it; a second one is refused meanwhile, as
is one that would change nothing. Source: docs.digitalocean.com/reference/api.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from testyard.core.redact import secrets_in_use
from testyard.lab.clouds.actions import ActionKind, Actions
from testyard.lab.clouds.digitalocean_bodies import TYPES, action_body, droplet_body, error_body, list_body
from testyard.lab.clouds.machines import CloudAccount, CloudDouble, Machines, MachineState, MachineView
from testyard.lab.clouds.refusal import RefusedError

PER_PAGE, MOST_PER_PAGE = 20, 200
RATE_LIMIT = {"ratelimit-limit": "5000", "ratelimit-remaining": "4999", "ratelimit-reset": "1893456000"}

Endpoint = Callable[[Request], Awaitable[Any]]


class DigitalOceanDouble:
    """The endpoint of DigitalOcean's API for one account.

    Args:
        machines: The lab's machines.
        account: The account whose token is taken.
    """

    def __init__(self, machines: Machines, account: CloudAccount) -> None:
        self._account = account
        self._actions = Actions("digitalocean", machines, account, waits_for_shutdown=True)
        secrets_in_use.add(account.secret)
        one = "/v2/droplets/{droplet:int}"
        self.application = Starlette(
            routes=[
                self._route("/v2/droplets", self._list),
                self._route(one, self._get),
                self._route(f"{one}/actions", self._begin, method="POST", status=201),
                self._route(f"{one}/actions/{{action:int}}", self._action),
                self._route("/v2/actions/{action:int}", self._action),
            ],
            exception_handlers={HTTPException: _unknown_route},
        )

    def settings(self, base_url: str) -> dict[str, str]:
        """The settings that pydo needs; see :class:`testyard.lab.clouds.machines.CloudDouble`."""
        return {"DIGITALOCEAN_TOKEN": self._account.secret, "DIGITALOCEAN_ENDPOINT": base_url}

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
                    raise RefusedError(401, "unauthorized", "Unable to authenticate you")
                return JSONResponse(await endpoint(request), status, headers=RATE_LIMIT)
            except RefusedError as problem:
                return JSONResponse(error_body(problem.code, str(problem)), problem.status, RATE_LIMIT)

        return Route(path, answer, methods=[method])

    async def _list(self, request: Request) -> dict[str, Any]:
        query = dict(request.query_params)
        page = _number(query.pop("page", "1"), most=1_000_000)
        per_page = _number(query.pop("per_page", str(PER_PAGE)), most=MOST_PER_PAGE)
        droplets = [self._body(machine) for machine in self._actions.shown.all()]
        if "tag_name" in query:
            tag = query["tag_name"].lower()
            droplets = [each for each in droplets if tag in map(str.lower, each["tags"])]
        if "name" in query:
            droplets = [each for each in droplets if each["name"].lower() == query["name"].lower()]
        address = str(request.url.replace(query=""))
        return list_body("droplets", droplets, address, query, page=page, per_page=per_page)

    async def _get(self, request: Request) -> dict[str, Any]:
        return {"droplet": self._body(self._machine(request))}

    async def _begin(self, request: Request) -> dict[str, Any]:
        machine = self._machine(request)
        try:
            kind = TYPES[(await request.json())["type"]]
        except (ValueError, KeyError, TypeError):
            message = "You specified an invalid value for the attribute: type."
            raise RefusedError(422, "unprocessable_entity", message) from None
        if self._actions.running_on(machine.instance_id):
            raise RefusedError(422, "unprocessable_entity", "Droplet already has a pending event.")
        off = machine.state is MachineState.STOPPED
        if off is not (kind is ActionKind.POWER_ON):
            state = "off" if off else "on"
            raise RefusedError(422, "unprocessable_entity", f"Droplet is currently powered {state}.")
        return {"action": action_body(await self._actions.begin(kind, machine.instance_id, machine.region))}

    async def _action(self, request: Request) -> dict[str, Any]:
        action = self._actions.find(request.path_params["action"])
        droplet = request.path_params.get("droplet")
        if action is None or (droplet is not None and action.instance_id != str(droplet)):
            raise _not_found()
        return {"action": action_body(action)}

    def _machine(self, request: Request) -> MachineView:
        machine = self._actions.shown.find(str(request.path_params["droplet"]))
        if machine is None:
            raise _not_found()
        return machine

    def _body(self, machine: MachineView) -> dict[str, Any]:
        return droplet_body(machine, self._actions.running_on(machine.instance_id))


def create(machines: Machines, account: CloudAccount) -> CloudDouble:
    """The double of this provider; see :mod:`testyard.lab.clouds.machines`."""
    return DigitalOceanDouble(machines, account)


def _not_found() -> RefusedError:
    return RefusedError(404, "not_found", "The resource you requested could not be found.")


def _number(text: str, *, most: int) -> int:
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text) <= most:
        raise RefusedError(422, "unprocessable_entity", f"{text!r} is no number from 1 to {most}.")
    return int(text)


async def _unknown_route(_: Request, problem: Exception) -> Response:
    assert isinstance(problem, HTTPException)
    return JSONResponse(
        error_body("not_found", "The resource you requested could not be found."), problem.status_code
    )
