"""Azure Resource Manager for azure-mgmt-compute: the virtual machines of one resource group and their power.

A stand-in: there is no Azure to install. Sources: the REST reference of Microsoft.Compute/virtualMachines (List,
Get with ``$expand=instanceView``, Instance View, Start, Deallocate, Power Off with ``skipShutdown``), "Track
asynchronous Azure operations" (202, Azure-AsyncOperation, Location, Retry-After), "States and billing status of
Azure Virtual Machines" (the codes ``PowerState/...``; a machine that is stopped is billed, one that is deallocated
is not), and the error body of Azure Resource Manager.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from testyard.core.redact import secrets_in_use
from testyard.lab.clouds.machines import (
    CloudAccount,
    CloudDouble,
    Machines,
    MachineState,
    MachineView,
    ShownMachines,
)
from testyard.lab.clouds.operations import Operation, Operations, Progress, mount_address
from testyard.lab.clouds.refusal import Handler, RefusedError, answering

RESOURCE_GROUP = "testyard"
COMPUTE = "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Compute/virtualMachines"
OPERATIONS = "/subscriptions/{subscription}/providers/Microsoft.Compute/locations/{location}/operations"
# What is said of a machine whose system was shut down, and of one whose resources were given back.
STOPPED_STATES = {
    MachineState.STARTING: ("starting", "VM starting"),
    MachineState.RUNNING: ("running", "VM running"),
    MachineState.STOPPING: ("stopping", "VM stopping"),
    MachineState.STOPPED: ("stopped", "VM stopped"),
}
DEALLOCATED_STATES = STOPPED_STATES | {
    MachineState.STOPPING: ("deallocating", "VM deallocating"),
    MachineState.STOPPED: ("deallocated", "VM deallocated"),
}
STATUSES = {Progress.RUNNING: "InProgress", Progress.SUCCEEDED: "Succeeded", Progress.FAILED: "Failed"}


class AzureDouble:
    """The endpoint of Azure Resource Manager for one account.

    Args:
        machines: The lab's machines.
        account: The account whose token is taken.
    """

    def __init__(self, machines: Machines, account: CloudAccount) -> None:
        self._account = account
        self._subscription = str(uuid.uuid5(uuid.NAMESPACE_OID, account.identity))
        self._tenant = str(uuid.uuid5(uuid.NAMESPACE_URL, account.identity))
        self._shown = ShownMachines("azure", machines, account)
        self._operations = Operations(self._shown)
        # Machines whose last stop gave their resources back.
        self._deallocated: set[str] = set()
        machine = COMPUTE + "/{name}"
        self.application = Starlette(
            routes=[
                Route(COMPUTE, self._answering(self._list), methods=["GET"]),
                Route(machine, self._answering(self._get), methods=["GET"]),
                Route(f"{machine}/instanceView", self._answering(self._get_view), methods=["GET"]),
                Route(f"{machine}/start", self._answering(self._start), methods=["POST"]),
                Route(f"{machine}/deallocate", self._answering(self._deallocate), methods=["POST"]),
                Route(f"{machine}/powerOff", self._answering(self._power_off), methods=["POST"]),
                Route(OPERATIONS + "/{operation}", self._answering(self._get_operation), methods=["GET"]),
            ]
        )
        secrets_in_use.add(account.secret)

    def settings(self, base_url: str) -> dict[str, str]:
        """The settings that the provider needs; see :class:`testyard.lab.clouds.machines.CloudDouble`."""
        return {
            "AZURE_TENANT_ID": self._tenant,
            "AZURE_SUBSCRIPTION_ID": self._subscription,
            "AZURE_RESOURCE_GROUP": RESOURCE_GROUP,
            "AZURE_ENDPOINT": base_url,
            "AZURE_ACCESS_TOKEN": self._account.secret,
        }

    def close(self) -> None:
        """Nothing is held."""

    def _answering(self, handler: Handler) -> Handler:
        return answering(handler, self._check, _refusal)

    def _check(self, request: Request) -> None:
        authorization = request.headers.get("authorization", "")
        if not authorization:
            raise self._unauthorized(
                "AuthenticationFailed", "Authentication failed. The 'Authorization' header is missing."
            )
        if authorization != f"Bearer {self._account.secret}":
            raise self._unauthorized("InvalidAuthenticationToken", "The access token is invalid.")
        if self._account.expired:
            now = datetime.now(UTC)
            message = (
                f"The access token expiry UTC time '{now - timedelta(minutes=1):%m/%d/%Y %I:%M:%S %p}' is earlier "
                f"than current UTC time '{now:%m/%d/%Y %I:%M:%S %p}'."
            )
            raise self._unauthorized("ExpiredAuthenticationToken", message)
        if "api-version" not in request.query_params:
            message = "The api-version query parameter (?api-version=) is required for all requests."
            raise RefusedError(400, "MissingApiVersionParameter", message)
        subscription = request.path_params["subscription"]
        if subscription != self._subscription:
            message = f"The subscription '{subscription}' could not be found."
            raise RefusedError(404, "SubscriptionNotFound", message)
        group = request.path_params.get("group", RESOURCE_GROUP)
        if group.lower() != RESOURCE_GROUP:
            raise RefusedError(404, "ResourceGroupNotFound", f"Resource group '{group}' could not be found.")

    def _unauthorized(self, code: str, message: str) -> RefusedError:
        challenge = (
            f'Bearer authorization_uri="https://login.windows.net/{self._tenant}", error="invalid_token", '
            f'error_description="{message}"'
        )
        return RefusedError(401, code, message, headers={"WWW-Authenticate": challenge})

    async def _list(self, request: Request) -> Response:
        return JSONResponse({"value": [self._represent(machine) for machine in self._shown.all()]})

    async def _get(self, request: Request) -> Response:
        machine = self._machine(request)
        body = self._represent(machine)
        if request.query_params.get("$expand") == "instanceView":
            body["properties"]["instanceView"] = self._instance_view(machine)
        return JSONResponse(body)

    async def _get_view(self, request: Request) -> Response:
        return JSONResponse(self._instance_view(self._machine(request)))

    async def _start(self, request: Request) -> Response:
        machine = self._machine(request)
        if machine.state is MachineState.STOPPING:
            message = f"Operation 'start' is not allowed on VM '{machine.instance_id}' since it is being stopped."
            raise RefusedError(409, "OperationNotAllowed", message)
        if machine.state is MachineState.STOPPED:
            self._deallocated.discard(machine.instance_id)
            await self._shown.start(machine.instance_id)
        return self._accepted(request, self._operations.begin("start", machine.instance_id, MachineState.RUNNING))

    async def _deallocate(self, request: Request) -> Response:
        machine = self._machine(request)
        self._deallocated.add(machine.instance_id)
        if machine.state in {MachineState.RUNNING, MachineState.STARTING}:
            await self._shown.stop(machine.instance_id)
        return self._accepted(
            request, self._operations.begin("deallocate", machine.instance_id, MachineState.STOPPED)
        )

    async def _power_off(self, request: Request) -> Response:
        machine = self._machine(request)
        at_once = request.query_params.get("skipShutdown", "false").lower() == "true"
        if machine.state in {MachineState.RUNNING, MachineState.STARTING}:
            self._deallocated.discard(machine.instance_id)
        if at_once and machine.state is not MachineState.STOPPED:
            await self._shown.crash(machine.instance_id)
        elif machine.state in {MachineState.RUNNING, MachineState.STARTING}:
            await self._shown.stop(machine.instance_id)
        return self._accepted(
            request, self._operations.begin("powerOff", machine.instance_id, MachineState.STOPPED)
        )

    async def _get_operation(self, request: Request) -> Response:
        identifier = request.path_params["operation"]
        operation = self._operations.find(identifier)
        if operation is None:
            raise RefusedError(404, "NotFound", f"The operation '{identifier}' could not be found.")
        standing = self._operations.standing(operation)
        running = standing.progress is Progress.RUNNING
        if request.query_params.get("monitor") == "true":
            return self._accepted(request, operation) if running else Response(status_code=200)
        body: dict[str, Any] = {
            "startTime": operation.begun.isoformat(),
            "status": STATUSES[standing.progress],
            "name": operation.identifier,
        }
        if standing.ended is not None:
            body["endTime"] = standing.ended.isoformat()
        if standing.progress is Progress.FAILED:
            body["error"] = {
                "code": "OperationPreempted",
                "message": "The operation execution has been preempted by a more recent operation.",
            }
        return JSONResponse(body, headers={"Retry-After": "0"} if running else None)

    def _accepted(self, request: Request, operation: Operation) -> Response:
        version = request.query_params["api-version"]
        machine = self._shown.find(operation.instance_id)
        location = machine.region if machine is not None else "global"
        path = OPERATIONS.format(subscription=self._subscription, location=location)
        address = f"{mount_address(request)}{path}/{operation.identifier}?api-version={version}"
        headers = {
            "Azure-AsyncOperation": address,
            "Location": f"{address}&monitor=true",
            # Azure says 10; who waits for a lab asks as often as the client was told to.
            "Retry-After": "0",
        }
        return Response(status_code=202, headers=headers)

    def _machine(self, request: Request) -> MachineView:
        name = request.path_params["name"]
        machine = self._shown.find(name)
        if machine is None:
            message = (
                f"The Resource 'Microsoft.Compute/virtualMachines/{name}' under resource group '{RESOURCE_GROUP}' "
                "was not found. For more details please go to https://aka.ms/ARMResourceNotFoundFix"
            )
            raise RefusedError(404, "ResourceNotFound", message)
        return machine

    def _represent(self, machine: MachineView) -> dict[str, Any]:
        path = COMPUTE.format(subscription=self._subscription, group=RESOURCE_GROUP)
        name = machine.instance_id
        interface = path.replace("Microsoft.Compute/virtualMachines", "Microsoft.Network/networkInterfaces")
        return {
            "name": name,
            "id": f"{path}/{name}",
            "type": "Microsoft.Compute/virtualMachines",
            "location": machine.region,
            "tags": {"Name": machine.node, "deployment": machine.deployment},
            "properties": {
                "vmId": str(uuid.uuid5(uuid.NAMESPACE_OID, name)),
                "provisioningState": "Succeeded",
                "hardwareProfile": {"vmSize": "Standard_D2s_v5"},
                "osProfile": {
                    "computerName": machine.node,
                    "adminUsername": "admin",
                    "linuxConfiguration": {"disablePasswordAuthentication": True},
                },
                "networkProfile": {
                    "networkInterfaces": [{"id": f"{interface}/{name}-nic", "properties": {"primary": True}}]
                },
            },
        }

    def _instance_view(self, machine: MachineView) -> dict[str, Any]:
        if machine.state is MachineState.RUNNING:
            self._deallocated.discard(machine.instance_id)
        states = DEALLOCATED_STATES if machine.instance_id in self._deallocated else STOPPED_STATES
        code, text = states[machine.state]
        now = datetime.now(UTC).isoformat()
        return {
            "computerName": machine.node,
            "statuses": [
                {
                    "code": "ProvisioningState/succeeded",
                    "level": "Info",
                    "displayStatus": "Provisioning succeeded",
                    "time": now,
                },
                {"code": f"PowerState/{code}", "level": "Info", "displayStatus": text},
            ],
        }


def _refusal(problem: RefusedError) -> Response:
    body = {"error": {"code": problem.code, "message": str(problem)}}
    return JSONResponse(body, problem.status, headers=problem.headers)


def create(machines: Machines, account: CloudAccount) -> CloudDouble:
    """The double of this provider; see :mod:`testyard.lab.clouds.machines`."""
    return AzureDouble(machines, account)
