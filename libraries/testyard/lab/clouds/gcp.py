"""Compute Engine v1 for google-cloud-compute: the instances of one project and zone, and their power.

A stand-in: there is no Compute Engine to install. Sources: the REST reference of Compute Engine v1 (instances.list
with ``filter``, instances.get, start, stop with ``noGracefulShutdown``, zoneOperations.get and wait), "VM instance
lifecycle" (STAGING, RUNNING, STOPPING, TERMINATED) and the error body of Google's APIs (AIP-193).
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from testyard.core.redact import secrets_in_use
from testyard.lab.clouds.machines import (
    REGIONS,
    CloudAccount,
    CloudDouble,
    Machines,
    MachineState,
    MachineView,
    ShownMachines,
)
from testyard.lab.clouds.operations import Operation, Operations, Progress, mount_address
from testyard.lab.clouds.refusal import Handler, RefusedError, answering

PROJECT = "testyard"
ZONE = "/compute/v1/projects/{project}/zones/{zone}"
STATES = {
    MachineState.STARTING: "STAGING",
    MachineState.RUNNING: "RUNNING",
    MachineState.STOPPING: "STOPPING",
    MachineState.STOPPED: "TERMINATED",
}
LABEL = re.compile(r'\(?\s*labels\.([a-z0-9_-]+)\s*(?:=|eq)\s*"?([^\s"()]+)"?\s*\)?')
# zoneOperations.wait answers after two minutes at the latest, done or not.
LONGEST_WAIT_SECONDS = 120


class GcpDouble:
    """The endpoint of Compute Engine for one account.

    Args:
        machines: The lab's machines.
        account: The account whose token is taken.
    """

    def __init__(self, machines: Machines, account: CloudAccount) -> None:
        self._account = account
        self._shown = ShownMachines("gcp", machines, account)
        self._operations = Operations(self._shown)
        instance, operation = ZONE + "/instances/{name}", ZONE + "/operations/{operation}"
        self.application = Starlette(
            routes=[
                Route(ZONE + "/instances", self._answering(self._list), methods=["GET"]),
                Route(instance, self._answering(self._get), methods=["GET"]),
                Route(f"{instance}/start", self._answering(self._start), methods=["POST"]),
                Route(f"{instance}/stop", self._answering(self._stop), methods=["POST"]),
                Route(operation, self._answering(self._get_operation), methods=["GET"]),
                Route(f"{operation}/wait", self._answering(self._wait), methods=["POST"]),
            ]
        )
        secrets_in_use.add(account.secret)

    def settings(self, base_url: str) -> dict[str, str]:
        """The settings that the provider needs; see :class:`testyard.lab.clouds.machines.CloudDouble`."""
        return {
            "GOOGLE_CLOUD_PROJECT": PROJECT,
            "GOOGLE_CLOUD_ZONE": REGIONS["gcp"],
            "GOOGLE_COMPUTE_ENDPOINT": base_url,
            "GOOGLE_ACCESS_TOKEN": self._account.secret,
        }

    def close(self) -> None:
        """Nothing is held."""

    def _answering(self, handler: Handler) -> Handler:
        return answering(handler, self._check, _refusal)

    def _check(self, request: Request) -> None:
        authorization = request.headers.get("authorization", "")
        message = (
            "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other "
            "valid authentication credential."
        )
        if not authorization:
            raise RefusedError(401, "required", message, "CREDENTIALS_MISSING")
        if authorization != f"Bearer {self._account.secret}":
            raise RefusedError(401, "authError", message, "ACCESS_TOKEN_TYPE_UNSUPPORTED")
        if self._account.expired:
            raise RefusedError(401, "authError", message, "ACCESS_TOKEN_EXPIRED")
        project, zone = request.path_params["project"], request.path_params["zone"]
        if project != PROJECT:
            raise RefusedError(404, "notFound", f"The resource 'projects/{project}' was not found")
        if zone not in {machine.region for machine in self._shown.all()} | {REGIONS["gcp"]}:
            raise RefusedError(
                400,
                "invalid",
                f"Invalid value for field 'zone': '{zone}'. Unknown zone.",
            )

    async def _list(self, request: Request) -> Response:
        wanted = _labels(request.query_params.get("filter", ""))
        zone = request.path_params["zone"]
        items = [
            self._represent(request, machine)
            for machine in self._shown.all()
            if machine.region == zone and wanted.items() <= _labels_of(machine).items()
        ]
        body: dict[str, Any] = {
            "kind": "compute#instanceList",
            "id": f"projects/{PROJECT}/zones/{zone}/instances",
            "selfLink": f"{self._zone_address(request)}/instances",
        }
        # An empty list has no items at all, as all lists of Compute Engine.
        return JSONResponse(body | ({"items": items} if items else {}))

    async def _get(self, request: Request) -> Response:
        return JSONResponse(self._represent(request, self._machine(request)))

    async def _start(self, request: Request) -> Response:
        machine = self._machine(request)
        if machine.state is MachineState.STOPPING:
            message = f"The resource '{self._name(machine)}' is not ready"
            raise RefusedError(400, "resourceNotReady", message)
        if machine.state is MachineState.STOPPED:
            await self._shown.start(machine.instance_id)
        return self._begun(request, "start", machine, MachineState.RUNNING)

    async def _stop(self, request: Request) -> Response:
        machine = self._machine(request)
        at_once = request.query_params.get("noGracefulShutdown", "false").lower() == "true"
        if at_once and machine.state is not MachineState.STOPPED:
            await self._shown.crash(machine.instance_id)
        elif machine.state in {MachineState.RUNNING, MachineState.STARTING}:
            await self._shown.stop(machine.instance_id)
        return self._begun(request, "stop", machine, MachineState.STOPPED)

    async def _get_operation(self, request: Request) -> Response:
        return JSONResponse(self._represent_operation(request, self._operation(request)))

    async def _wait(self, request: Request) -> Response:
        operation = self._operation(request)
        if self._operations.standing(operation).progress is Progress.RUNNING:
            with suppress(TimeoutError):
                async with asyncio.timeout(LONGEST_WAIT_SECONDS):
                    await self._shown.come_to_rest(operation.instance_id)
        return JSONResponse(self._represent_operation(request, operation))

    def _begun(self, request: Request, kind: str, machine: MachineView, target: MachineState) -> Response:
        operation = self._operations.begin(kind, machine.instance_id, target)
        return JSONResponse(self._represent_operation(request, operation))

    def _operation(self, request: Request) -> Operation:
        name = request.path_params["operation"]
        operation = self._operations.find(name.removeprefix("operation-"))
        if operation is None:
            zone = request.path_params["zone"]
            message = f"The resource 'projects/{PROJECT}/zones/{zone}/operations/{name}' was not found"
            raise RefusedError(404, "notFound", message)
        return operation

    def _machine(self, request: Request) -> MachineView:
        name, zone = request.path_params["name"], request.path_params["zone"]
        machine = self._shown.find(name)
        if machine is None or machine.region != zone:
            message = f"The resource 'projects/{PROJECT}/zones/{zone}/instances/{name}' was not found"
            raise RefusedError(404, "notFound", message)
        return machine

    def _name(self, machine: MachineView) -> str:
        return f"projects/{PROJECT}/zones/{machine.region}/instances/{machine.instance_id}"

    def _zone_address(self, request: Request) -> str:
        return mount_address(request) + ZONE.format(project=PROJECT, zone=request.path_params["zone"])

    def _represent(self, request: Request, machine: MachineView) -> dict[str, Any]:
        zone = self._zone_address(request)
        return {
            "kind": "compute#instance",
            "id": _number(machine.instance_id),
            "name": machine.instance_id,
            "zone": zone,
            "selfLink": f"{zone}/instances/{machine.instance_id}",
            "machineType": f"{zone}/machineTypes/e2-medium",
            "status": STATES[machine.state],
            "labels": _labels_of(machine),
            "labelFingerprint": "42WmSpB8rSM=",
            "deletionProtection": False,
            "networkInterfaces": [
                {
                    "kind": "compute#networkInterface",
                    "name": "nic0",
                    "networkIP": machine.host,
                    "stackType": "IPV4_ONLY",
                }
            ],
        }

    def _represent_operation(self, request: Request, operation: Operation) -> dict[str, Any]:
        standing = self._operations.standing(operation)
        zone = self._zone_address(request)
        name = f"operation-{operation.identifier}"
        body: dict[str, Any] = {
            "kind": "compute#operation",
            "id": _number(operation.identifier),
            "name": name,
            "operationType": operation.kind,
            "zone": zone,
            "selfLink": f"{zone}/operations/{name}",
            "targetId": _number(operation.instance_id),
            "targetLink": f"{zone}/instances/{operation.instance_id}",
            "status": "RUNNING" if standing.progress is Progress.RUNNING else "DONE",
            "progress": 0 if standing.progress is Progress.RUNNING else 100,
            "insertTime": operation.begun.isoformat(),
            "startTime": operation.begun.isoformat(),
        }
        if standing.ended is not None:
            body["endTime"] = standing.ended.isoformat()
        if standing.progress is Progress.FAILED:
            message = "Operation was canceled by a later operation."
            body |= {
                "error": {"errors": [{"code": "OPERATION_CANCELED_BY_USER", "message": message}]},
                "httpErrorStatusCode": 409,
                "httpErrorMessage": "CONFLICT",
            }
        return body


def create(machines: Machines, account: CloudAccount) -> CloudDouble:
    """The double of this provider; see :mod:`testyard.lab.clouds.machines`."""
    return GcpDouble(machines, account)


def _number(name: str) -> str:
    """A 64-bit id as Compute Engine gives each resource; numbers of that size are texts in JSON."""
    return str(int(hashlib.sha256(name.encode()).hexdigest()[:15], 16))


def _labels_of(machine: MachineView) -> dict[str, str]:
    return {"deployment": machine.deployment, "node": machine.node}


def _labels(expression: str) -> dict[str, str]:
    """The labels that a filter asks for.

    Raises:
        RefusedError: The filter asks for something else.
    """
    wanted = {}
    for part in re.split(r"\s+AND\s+", expression) if expression else []:
        found = LABEL.fullmatch(part)
        if found is None:
            message = f"Invalid value for field 'filter': '{expression}'. Invalid list filter expression."
            raise RefusedError(400, "invalid", message)
        wanted[found[1]] = found[2]
    return wanted


def _refusal(problem: RefusedError) -> Response:
    return JSONResponse(_error_body(problem), problem.status)


def _error_body(problem: RefusedError) -> dict[str, Any]:
    error: dict[str, Any] = {
        "code": problem.status,
        "message": str(problem),
        "errors": [{"message": str(problem), "domain": "global", "reason": problem.code}],
    }
    if problem.status == 401:
        error["status"] = "UNAUTHENTICATED"
        error["details"] = [
            {
                "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "reason": problem.details,
                "domain": "googleapis.com",
                "metadata": {"service": "compute.googleapis.com", "at": datetime.now(UTC).isoformat()},
            }
        ]
    return {"error": error}
