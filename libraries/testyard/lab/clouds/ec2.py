"""EC2 for boto3: moto behind a wrapper that does what moto leaves out.

moto answers (parameters, filters, XML); the wrapper checks the signature and whether the credentials have expired,
lets through only what a role for starting and stopping may do, shows the machines' states and works their power.

Sources: EC2 API reference, actions DescribeInstances, StartInstances and StopInstances (``Force``,
``SkipOsShutdown``) and its list of error codes; Signature Version 4.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING
from urllib.parse import parse_qs
from xml.sax.saxutils import escape

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from testyard.core.redact import secrets_in_use
from testyard.lab.clouds.machines import (
    REGIONS,
    CloudAccount,
    CloudDouble,
    Machines,
    MachineState,
    ShownMachines,
)
from testyard.lab.clouds.refusal import RefusedError

if TYPE_CHECKING:
    from testyard.lab.clouds.ec2_moto import MotoAccount

ALLOWED = frozenset(
    {"DescribeInstances", "DescribeInstanceStatus", "DescribeTags", "StartInstances", "StopInstances"}
)
AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<key>[^/]+)/(?P<date>\d{8})/(?P<region>[a-z0-9-]+)/ec2/aws4_request, "
    r"SignedHeaders=(?P<headers>[a-z0-9;-]+), Signature=(?P<signature>[0-9a-f]{64})"
)


class Ec2Double:
    """The endpoint of EC2 for one account.

    Args:
        machines: The lab's machines.
        account: The account whose credentials are taken.
    """

    def __init__(self, machines: Machines, account: CloudAccount) -> None:
        self._account = account
        self._key = f"ASIA{account.identity.upper():.16}"
        self._shown = ShownMachines("aws", machines, account)
        # moto is imported and used in this one thread: the import alone takes a second.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ec2")
        self._opening: Future[MotoAccount] | None = None
        self.application = Starlette(routes=[Route("/", self._answer, methods=["POST"])])
        secrets_in_use.add(account.secret, account.token)

    def settings(self, base_url: str) -> dict[str, str]:
        """The settings that boto3 needs; see :class:`testyard.lab.clouds.machines.CloudDouble`."""
        # Whoever wants to know this is about to import boto3, meanwhile moto is imported here.
        self._moto()
        return {
            "AWS_ACCESS_KEY_ID": self._key,
            "AWS_SECRET_ACCESS_KEY": self._account.secret,
            "AWS_SESSION_TOKEN": self._account.token,
            "AWS_REGION": REGIONS["aws"],
            # With the slash: boto3 posts to this very address.
            "AWS_ENDPOINT_URL_EC2": f"{base_url}/",
        }

    def close(self) -> None:
        """Take the account out of moto and end its thread, which may take until moto is imported."""
        opening, self._opening = self._opening, None
        if opening is not None:
            self._thread.submit(lambda: opening.result().forget())
        self._thread.shutdown(wait=False)

    def _moto(self) -> Future[MotoAccount]:
        if self._opening is None:
            self._opening = self._thread.submit(_open_moto)
        return self._opening

    async def _answer(self, request: Request) -> Response:
        body = await request.body()
        # First of all: checking a signature needs modules that moto imports too, and must not wait for them here.
        moto = await asyncio.wrap_future(self._moto())
        try:
            self._check_signature(request, body)
            fields = {name: values[0] for name, values in parse_qs(body.decode()).items()}
            return await self._act(moto, fields, request, body)
        except RefusedError as problem:
            return Response(_error_document(problem), problem.status, media_type="text/xml;charset=UTF-8")

    async def _act(self, moto: MotoAccount, fields: dict[str, str], request: Request, body: bytes) -> Response:
        action = fields.get("Action", "")
        if action not in ALLOWED:
            raise RefusedError(403, "UnauthorizedOperation", "You are not authorized to perform this operation.")
        identifiers = [value for name, value in fields.items() if name.startswith("InstanceId.")]
        if action == "StartInstances":
            self._refuse_start_while_stopping(identifiers)
        machines = self._shown.all()
        states = {machine.instance_id: machine.state for machine in machines}
        answer = await asyncio.get_running_loop().run_in_executor(
            self._thread, moto.answer, machines, request.headers, body
        )
        if answer.status == 200:
            for identifier in identifiers:
                await self._work(action, fields, identifier, states[identifier])
        return Response(answer.body, answer.status, media_type=answer.content_type)

    async def _work(self, action: str, fields: dict[str, str], identifier: str, state: MachineState) -> None:
        off = state is MachineState.STOPPED
        if action == "StartInstances" and off:
            await self._shown.start(identifier)
        elif action == "StopInstances" and not off:
            if fields.get("Force") == "true" or fields.get("SkipOsShutdown") == "true":
                await self._shown.crash(identifier)
            elif state is not MachineState.STOPPING:
                await self._shown.stop(identifier)

    def _refuse_start_while_stopping(self, identifiers: list[str]) -> None:
        for identifier in identifiers:
            machine = self._shown.find(identifier)
            if machine is not None and machine.state is MachineState.STOPPING:
                message = f"The instance '{identifier}' is not in a state from which it can be started."
                raise RefusedError(400, "IncorrectInstanceState", message)

    def _check_signature(self, request: Request, body: bytes) -> None:
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.credentials import Credentials

        found = AUTHORIZATION.fullmatch(request.headers.get("authorization", ""))
        refused = RefusedError(401, "AuthFailure", "AWS was not able to validate the provided access credentials")
        if found is None or found["key"] != self._key:
            raise refused
        names = found["headers"].split(";")
        signed = AWSRequest(
            method=request.method,
            url=f"http://{request.headers['host']}{request.scope['path']}",
            data=body,
            headers={name: request.headers.get(name, "") for name in names},
        )
        signed.context["timestamp"] = request.headers.get("x-amz-date", "")
        signer = SigV4Auth(Credentials(self._key, self._account.secret), "ec2", found["region"])
        text = signer.string_to_sign(signed, signer.canonical_request(signed))
        token = request.headers.get("x-amz-security-token")
        if signer.signature(text, signed) != found["signature"] or token != self._account.token:
            raise refused
        if self._account.expired:
            raise RefusedError(400, "RequestExpired", "Request has expired.")


def create(machines: Machines, account: CloudAccount) -> CloudDouble:
    """The double of this provider; see :mod:`testyard.lab.clouds.machines`."""
    return Ec2Double(machines, account)


def _open_moto() -> MotoAccount:
    from testyard.lab.clouds.ec2_moto import MotoAccount

    return MotoAccount()


def _error_document(problem: RefusedError) -> str:
    """EC2 API reference, "Error responses": the format of every refusal."""
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Response><Errors><Error><Code>{problem.code}</Code><Message>{escape(str(problem))}</Message></Error></Errors>"
        f"<RequestID>{uuid.uuid4()}</RequestID></Response>"
    )
