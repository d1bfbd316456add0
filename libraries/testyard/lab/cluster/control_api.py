"""The datacentre's control API: HTTP and JSON, for the lab alone; the module ``datacentre`` documents it."""

from __future__ import annotations

import asyncio
import json
import secrets
import subprocess
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from testyard.core.errors import UserError
from testyard.lab.children import ChildProcess
from testyard.lab.clouds import MODULES
from testyard.lab.clouds.machines import MachineState, MachineView
from testyard.lab.cluster import modules
from testyard.lab.cluster.deployment import Deployment, Wish
from testyard.lab.cluster.machines import Forks
from testyard.lab.cluster.plan import Command, Timings

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp, Receive, Scope, Send

    from testyard.lab.cluster.database_room import DatabaseSupply

MOST_NODES = 32
# What Linux calls the present boot of the machine that the lab runs on.
HOST_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

Identifier = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]
NodeName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,30}$")]


class NewDeployment(BaseModel):
    """The body of ``POST /deployments``."""

    model_config = ConfigDict(extra="forbid")

    id: Identifier
    provider: str
    nodes: list[NodeName] = Field(min_length=1, max_length=MOST_NODES)
    database: bool = True
    sysrq: bool = True
    synchronous: bool = True
    authorized_key: str = Field(pattern=r"^ssh-ed25519 \S+")
    timings: Timings = Timings()


class LinkChange(BaseModel):
    """The body of ``POST /deployments/{id}/links``."""

    model_config = ConfigDict(extra="forbid")

    source: str = Field(alias="from")
    target: str = Field(alias="to")
    silent: bool


class CloudChange(BaseModel):
    """The body of ``POST /deployments/{id}/cloud``."""

    model_config = ConfigDict(extra="forbid")

    expired: bool | None = None
    delay: float | None = Field(default=None, ge=0)


class Measurement(BaseModel):
    """The body of ``POST /deployments/{id}/measurements``."""

    model_config = ConfigDict(extra="forbid")

    directory: Path
    database: bool
    within: float = Field(gt=0)


class Datacentre:
    """Every deployment of the lab; also the machines that the providers' endpoints see.

    Args:
        directory: Where the deployments' files go; made when the first one is.
        forks: Starts the machines' processes.
        url: Where the control API is.
    """

    def __init__(self, directory: Path, forks: Forks, url: str) -> None:
        self._directory = directory
        self._forks = forks
        self._url = url
        self._deployments: dict[str, Deployment] = {}
        self._supply: DatabaseSupply | None = None

    async def create(self, wish: Wish) -> dict[str, Any]:
        """Create a deployment.

        Raises:
            UserError: It does not come to life; nothing of it is left.
        """
        # Others may pass through: PostgreSQL does not run as root.
        self._directory.mkdir(mode=0o711, exist_ok=True)
        directory = self._directory / wish.identifier
        directory.mkdir(mode=0o711)
        supply = await self._database_supply() if wish.database else None
        deployment = self._deployments[wish.identifier] = Deployment(wish, directory, self._forks, supply)
        try:
            return await deployment.create(self, self._url)
        except BaseException:
            self._deployments.pop(wish.identifier, None)
            raise

    async def prepare_database(self) -> None:
        """Make now what the first deployment with a database would wait for."""
        await (await self._database_supply()).template()

    async def _database_supply(self) -> DatabaseSupply:
        if self._supply is None:
            # In a thread: importing what talks to PostgreSQL takes long.
            room = await asyncio.to_thread(import_module, "testyard.lab.cluster.database_room")
            self._directory.mkdir(mode=0o711, exist_ok=True)
            self._supply = self._supply or room.DatabaseSupply(self._directory)
        return self._supply

    def has(self, identifier: str) -> bool:
        """Whether there is a deployment of this id, or one being made."""
        return identifier in self._deployments

    def deployment(self, identifier: str) -> Deployment:
        """The deployment of an id.

        Raises:
            KeyError: There is none.
        """
        return self._deployments[identifier]

    @property
    def identifiers(self) -> list[str]:
        """The ids of the deployments."""
        return list(self._deployments)

    async def destroy(self, identifier: str) -> None:
        """Destroy a deployment; nothing when there is none."""
        if deployment := self._deployments.get(identifier):
            await deployment.destroy()
            self._deployments.pop(identifier, None)

    async def measure(self, question: Measurement) -> dict[str, Any]:
        """Have the nodes of a deployment's directory looked at, from outside, as the deployer does.

        Raises:
            UserError: They could not be.
        """
        process = self._forks.fork(modules.MEASURING, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        answer = await asyncio.to_thread(_answer, process, question.model_dump_json().encode() + b"\n")
        if not answer:
            message = "The nodes could not be measured."
            raise UserError(message)
        measured: dict[str, Any] = json.loads(answer)
        return measured

    def of_provider(self, provider: str) -> list[MachineView]:
        """Every machine of a provider, of every deployment."""
        return [
            view
            for deployment in self._deployments.values()
            if deployment.wish.provider == provider
            for view in deployment.views()
        ]

    def view(self, instance_id: str) -> MachineView | None:
        """The machine that its provider calls so, or None."""
        views = (view for deployment in self._deployments.values() for view in deployment.views())
        return next((view for view in views if view.instance_id == instance_id), None)

    async def power_on(self, instance_id: str) -> None:
        """Begin to start a machine."""
        view = self._known(instance_id)
        self._deployments[view.deployment].node(view.node).machine.power_on()

    async def power_off(self, instance_id: str) -> None:
        """Take a machine's power away."""
        view = self._known(instance_id)
        await self._deployments[view.deployment].node(view.node).machine.power_off()

    async def press(self, instance_id: str) -> None:
        """Press a machine's power button."""
        view = self._known(instance_id)
        self._deployments[view.deployment].node(view.node).machine.press()

    def _known(self, instance_id: str) -> MachineView:
        view = self.view(instance_id)
        if view is None:
            message = f"There is no machine {instance_id!r}."
            raise UserError(message)
        return view


class ControlApi:
    """The application behind the datacentre's address.

    Args:
        datacentre: What it controls.
        token: The bearer token that callers have; the providers' endpoints have credentials of their own.
    """

    def __init__(self, datacentre: Datacentre, token: str) -> None:
        self._datacentre = datacentre
        self._expected = f"Bearer {token}".encode()
        one = "/deployments/{identifier}"
        self._starlette = Starlette(
            routes=[
                Route("/health", self._health),
                Route("/deployments", self._create, methods=["POST"]),
                Route(one, self._show, methods=["GET"]),
                Route(one, self._destroy, methods=["DELETE"]),
                Route(f"{one}/nodes/{{node}}/{{action}}", self._act, methods=["POST"]),
                Route(f"{one}/links", self._links, methods=["GET"]),
                Route(f"{one}/links", self._change_link, methods=["POST"]),
                Route(f"{one}/measurements", self._measure, methods=["POST"]),
                Route(f"{one}/cloud", self._change_cloud, methods=["POST"]),
                Mount("/clouds/{provider}/{identifier}", app=self._cloud),
            ],
            exception_handlers={HTTPException: _refused, UserError: _impossible, ValidationError: _invalid},
        )
        self._actions: dict[str, Callable[[Deployment, str], Awaitable[dict[str, Any]]]] = {
            "power-on": _power_on,
            "power-off": _power_off,
            "press": _press,
            "boot": _boot,
            "services-stop": _stop_services,
            "new-host-key": _renew_host_key,
            "first-host-key": _restore_host_key,
            "claim-host-boot-id": _claim_host_boot_id,
            "claim-own-boot-id": _claim_own_boot_id,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "http" and not scope["path"].startswith("/clouds/") and not self._is_allowed(scope):
            answer = _problem(401, "The datacentre's bearer token is missing or wrong.")
            await answer(scope, receive, send)
            return
        await self._starlette(scope, receive, send)

    def _is_allowed(self, scope: Scope) -> bool:
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        return secrets.compare_digest(given, self._expected)

    async def _health(self, _: Request) -> Response:
        return JSONResponse({"status": "ok", "deployments": self._datacentre.identifiers})

    async def _create(self, request: Request) -> Response:
        wanted = NewDeployment.model_validate_json(await request.body())
        if self._datacentre.has(wanted.id):
            raise HTTPException(409, f"There is a deployment {wanted.id!r} already.")
        if wanted.provider not in MODULES:
            raise HTTPException(400, f"There is no provider {wanted.provider!r}; there are {', '.join(MODULES)}.")
        if len(set(wanted.nodes)) < len(wanted.nodes):
            raise HTTPException(400, f"Two nodes have the same name: {', '.join(wanted.nodes)}.")
        wish = Wish(
            wanted.id,
            wanted.provider,
            tuple(wanted.nodes),
            wanted.database,
            wanted.sysrq,
            wanted.synchronous,
            wanted.authorized_key,
            wanted.timings,
        )
        return JSONResponse(await self._datacentre.create(wish), 201)

    async def _show(self, request: Request) -> Response:
        return JSONResponse(self._deployment(request).state())

    async def _destroy(self, request: Request) -> Response:
        await self._datacentre.destroy(self._deployment(request).wish.identifier)
        return Response(status_code=204)

    async def _act(self, request: Request) -> Response:
        deployment = self._deployment(request)
        name, action = request.path_params["node"], request.path_params["action"]
        if name not in deployment.nodes:
            raise HTTPException(404, f"There is no node {name!r}; there are {', '.join(deployment.nodes)}.")
        if action not in self._actions:
            raise HTTPException(404, f"There is no action {action!r}; there are {', '.join(self._actions)}.")
        return JSONResponse(await self._actions[action](deployment, name))

    async def _links(self, request: Request) -> Response:
        return JSONResponse({"links": self._deployment(request).link_states()})

    async def _change_link(self, request: Request) -> Response:
        deployment = self._deployment(request)
        change = LinkChange.model_validate_json(await request.body())
        deployment.links.set_silent(change.source, change.target, silent=change.silent)
        return JSONResponse({"links": deployment.link_states()})

    async def _measure(self, request: Request) -> Response:
        self._deployment(request)
        question = Measurement.model_validate_json(await request.body())
        return JSONResponse(await self._datacentre.measure(question))

    async def _change_cloud(self, request: Request) -> Response:
        account = self._deployment(request).account
        change = CloudChange.model_validate_json(await request.body())
        if change.expired is not None:
            account.expired = change.expired
        if change.delay is not None:
            account.delay = timedelta(seconds=change.delay)
        return JSONResponse({"expired": account.expired, "delay": account.delay.total_seconds()})

    async def _cloud(self, scope: Scope, receive: Receive, send: Send) -> None:
        provider, identifier = scope["path_params"]["provider"], scope["path_params"]["identifier"]
        application: ASGIApp | None = None
        if self._datacentre.has(identifier):
            deployment = self._datacentre.deployment(identifier)
            if deployment.wish.provider == provider and deployment.double:
                application = deployment.double.application
        if application is None:
            application = _problem(404, f"There is no account of {identifier!r} at {provider!r}.")
        await application(scope, receive, send)

    def _deployment(self, request: Request) -> Deployment:
        identifier = request.path_params["identifier"]
        if not self._datacentre.has(identifier):
            raise HTTPException(404, f"There is no deployment {identifier!r}.")
        return self._datacentre.deployment(identifier)


def _answer(process: ChildProcess, question: bytes) -> bytes:
    """What a process that takes one question answers to it."""
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdin, process.stdout:
        with suppress(BrokenPipeError):
            process.stdin.write(question)
            process.stdin.flush()
        answer = process.stdout.read()
    process.wait()
    return answer


async def _power_on(deployment: Deployment, name: str) -> dict[str, Any]:
    machine = deployment.node(name).machine
    machine.power_on()
    return {"state": machine.state.value}


async def _power_off(deployment: Deployment, name: str) -> dict[str, Any]:
    machine = deployment.node(name).machine
    await machine.power_off()
    return {"state": machine.state.value}


async def _press(deployment: Deployment, name: str) -> dict[str, Any]:
    machine = deployment.node(name).machine
    machine.press()
    return {"state": machine.state.value}


async def _boot(deployment: Deployment, name: str) -> dict[str, Any]:
    machine = deployment.node(name).machine
    if machine.state is MachineState.STOPPING:
        await machine.until_stopped()
    machine.power_on()
    await machine.until_running()
    return {"state": machine.state.value, "boot_id": machine.boot_id}


async def _stop_services(deployment: Deployment, name: str) -> dict[str, Any]:
    machine = deployment.node(name).machine
    await machine.ask(Command.STOP_SERVICES)
    return {"state": machine.state.value}


async def _renew_host_key(deployment: Deployment, name: str) -> dict[str, Any]:
    return {"host_key": await deployment.renew_host_key(name)}


async def _restore_host_key(deployment: Deployment, name: str) -> dict[str, Any]:
    return {"host_key": await deployment.restore_host_key(name)}


async def _claim_host_boot_id(deployment: Deployment, name: str) -> dict[str, Any]:
    boot_id = HOST_BOOT_ID.read_text(encoding="ascii").strip()
    await deployment.claim_boot_id(name, boot_id)
    return {"boot_id": boot_id}


async def _claim_own_boot_id(deployment: Deployment, name: str) -> dict[str, Any]:
    await deployment.claim_boot_id(name, None)
    return {"boot_id": deployment.node(name).machine.boot_id}


def _problem(status: int, reason: str) -> JSONResponse:
    return JSONResponse({"error": reason}, status)


async def _refused(_: Request, problem: Exception) -> Response:
    assert isinstance(problem, HTTPException)
    return _problem(problem.status_code, problem.detail)


async def _impossible(_: Request, problem: Exception) -> Response:
    return _problem(409, str(problem))


async def _invalid(_: Request, problem: Exception) -> Response:
    assert isinstance(problem, ValidationError)
    places = (f"{'.'.join(map(str, each['loc'])) or 'body'}: {each['msg']}" for each in problem.errors())
    return _problem(400, "; ".join(places))
