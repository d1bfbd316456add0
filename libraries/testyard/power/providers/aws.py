"""The power of machines at AWS, by boto3.

Source: EC2 API reference (DescribeInstances, StartInstances, StopInstances). A stop is orderly; with ``Force`` and
``SkipOsShutdown`` it takes the power away.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from testyard.core.errors import UserError
from testyard.core.redact import secrets_in_use
from testyard.power.protocol import Instance, PowerProvider, PowerState, ProviderName
from testyard.power.providers.refusals import (
    checked_instances,
    failed_call,
    gone,
    import_sdk,
    refuse_foreign,
    refused_credential,
    required,
)

Answer = TypeVar("Answer")

CREDENTIALS = "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN"
STATES = {
    "pending": PowerState.STARTING,
    "running": PowerState.RUNNING,
    "stopping": PowerState.STOPPING,
    "shutting-down": PowerState.STOPPING,
    "stopped": PowerState.STOPPED,
    "terminated": PowerState.STOPPED,
}
# EC2 API reference, "Error codes", those that are about credentials.
REFUSED = frozenset(
    {
        "AuthFailure",
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidClientTokenId",
        "RequestExpired",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
UNKNOWN_INSTANCE = frozenset({"InvalidInstanceID.NotFound", "InvalidInstanceID.Malformed"})
# A terminated machine is still listed for an hour; it is no machine of the deployment any more.
ALIVE = ["pending", "running", "stopping", "stopped"]


class AwsProvider:
    """Machines of one deployment at AWS; see :class:`testyard.power.protocol.PowerProvider`.

    Args:
        deployment: Value of their tag ``deployment``.
        client: boto3's client of EC2.
    """

    name = ProviderName.AWS
    calls: Mapping[str, str] = {
        "start": "ec2.start_instances",
        "stop": "ec2.stop_instances",
        "crash": "ec2.stop_instances(Force=True, SkipOsShutdown=True)",
    }

    def __init__(self, deployment: str, client: Any) -> None:
        self._deployment = deployment
        self._client = client

    def instances(self) -> Sequence[Instance]:
        """The machines with the deployment's tag."""
        filters = [
            {"Name": "tag:deployment", "Values": [self._deployment]},
            {"Name": "instance-state-name", "Values": ALIVE},
        ]
        pages = self._client.get_paginator("describe_instances").paginate(Filters=filters)
        described = self._call("ec2.describe_instances", lambda: list(pages.search("Reservations[].Instances[]")))
        region = self._client.meta.region_name
        found = [
            Instance(machine["InstanceId"], _tags(machine).get("Name", ""), region, self.name)
            for machine in described
        ]
        return checked_instances(self.name, self._deployment, found)

    def state(self, instance: Instance) -> PowerState:
        """The machine's state as EC2 tells it now."""
        return STATES.get(self._read(instance)["State"]["Name"], PowerState.UNKNOWN)

    def start(self, instance: Instance) -> None:
        """Start the machine."""
        self._act("start", instance, lambda ids: self._client.start_instances(InstanceIds=ids))

    def stop(self, instance: Instance) -> None:
        """Stop the machine; its system shuts down."""
        self._act("stop", instance, lambda ids: self._client.stop_instances(InstanceIds=ids))

    def crash(self, instance: Instance) -> None:
        """Take the machine's power away."""
        self._act(
            "crash",
            instance,
            lambda ids: self._client.stop_instances(InstanceIds=ids, Force=True, SkipOsShutdown=True),
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _act(self, operation: str, instance: Instance, call: Callable[[list[str]], Any]) -> None:
        self._read(instance)
        what = f"{self.calls[operation]} for node {instance.node} ({instance.identifier})"
        self._call(what, lambda: call([instance.identifier]), instance)

    def _read(self, instance: Instance) -> dict[str, Any]:
        """What EC2 says of the machine now, when it is the deployment's.

        Raises:
            UserError: It is not, or there is none.
        """
        answer = self._call(
            f"ec2.describe_instances for node {instance.node} ({instance.identifier})",
            lambda: self._client.describe_instances(InstanceIds=[instance.identifier]),
            instance,
        )
        described: list[dict[str, Any]] = [
            machine for reservation in answer["Reservations"] for machine in reservation["Instances"]
        ]
        if not described:
            raise gone(instance)
        refuse_foreign(instance, self._deployment, _tags(described[0]), "Name")
        return described[0]

    def _call(self, what: str, call: Callable[[], Answer], instance: Instance | None = None) -> Answer:
        from botocore.exceptions import BotoCoreError, ClientError
        from botocore.parsers import ResponseParserError

        try:
            return call()
        except ClientError as problem:
            error = problem.response.get("Error", {})
            code, reason = error.get("Code", ""), f"{error.get('Code')}: {error.get('Message')}"
            if code in REFUSED:
                raise refused_credential(self.name, CREDENTIALS, reason) from problem
            if instance is not None and code in UNKNOWN_INSTANCE:
                raise gone(instance) from problem
            raise failed_call(self.name, what, reason) from problem
        except (BotoCoreError, ResponseParserError) as problem:
            raise failed_call(self.name, what, str(problem)) from problem


def open_provider(deployment_id: str, settings: Mapping[str, str]) -> PowerProvider:
    """AWS for one deployment.

    Args:
        deployment_id: Value of the tag ``deployment`` of its machines.
        settings: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, or AWS_PROFILE, or
            AWS_WEB_IDENTITY_TOKEN_FILE; AWS_REGION or AWS_DEFAULT_REGION; AWS_ENDPOINT_URL_EC2 where it is not
            AWS's own.

    Raises:
        UserError: boto3 is not installed, or a setting is missing or wrong.
    """
    provider = ProviderName.AWS
    secrets_in_use.add(settings.get("AWS_SECRET_ACCESS_KEY", ""), settings.get("AWS_SESSION_TOKEN", ""))
    region = settings.get("AWS_REGION") or settings.get("AWS_DEFAULT_REGION")
    if not region:
        region = required(provider, settings, "AWS_REGION", "the region of the machines")
    credentials = _credentials(settings)
    boto3 = load_sdk()
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    # Whoever waits for a state asks again anyway: no long silence behind a call.
    config = Config(connect_timeout=10, read_timeout=30, retries={"mode": "standard", "total_max_attempts": 2})
    endpoint = settings.get("AWS_ENDPOINT_URL_EC2") or None
    try:
        session = boto3.session.Session(region_name=region, botocore_session=_core_session(), **credentials)
        client = session.client("ec2", endpoint_url=endpoint, config=config)
    except (BotoCoreError, ValueError) as problem:
        message = (
            f"boto3 does not take the settings for AWS (AWS_REGION, AWS_PROFILE, AWS_ENDPOINT_URL_EC2): {problem}"
        )
        raise UserError(message) from problem
    return AwsProvider(deployment_id, client)


def load_sdk() -> Any:
    """boto3, with its description of EC2, which takes most of a second to read.

    Raises:
        UserError: boto3 is not installed.
    """
    boto3 = import_sdk(ProviderName.AWS, "boto3")
    _described(_core_session().get_config_variable("data_path")).load_service_model("ec2", "service-2")
    return boto3


def _core_session() -> Any:
    from botocore.session import Session

    session = Session()
    session.register_component("data_loader", _described(session.get_config_variable("data_path")))
    return session


@functools.cache
def _described(data_path: str | None) -> Any:
    """What botocore knows of AWS; it keeps what it has read, where otherwise each session reads it anew."""
    from botocore.loaders import create_loader

    return create_loader(data_path)


def _credentials(settings: Mapping[str, str]) -> dict[str, str | None]:
    """Credentials as a session of boto3 takes them; no metadata server is asked, whose absence is slow to see."""
    if not settings.get("AWS_ACCESS_KEY_ID") and settings.get("AWS_PROFILE"):
        return {"profile_name": settings["AWS_PROFILE"]}
    if not settings.get("AWS_ACCESS_KEY_ID") and settings.get("AWS_WEB_IDENTITY_TOKEN_FILE"):
        return {}  # boto3 reads this file's name, and the role that belongs to it, from the environment itself
    provider = ProviderName.AWS
    return {
        "aws_access_key_id": required(provider, settings, "AWS_ACCESS_KEY_ID", "an access key (or AWS_PROFILE)"),
        "aws_secret_access_key": required(provider, settings, "AWS_SECRET_ACCESS_KEY", "the access key's secret"),
        "aws_session_token": settings.get("AWS_SESSION_TOKEN") or None,
    }


def _tags(machine: dict[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in machine.get("Tags", [])}
