"""What the providers refuse in the same words, and how they are opened without anybody to talk to."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from clouds_support import ScriptedMachines
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from testyard.core.errors import UserError
from testyard.core.redact import secrets_in_use
from testyard.lab.clouds import MODULES, open_double
from testyard.lab.clouds.machines import CloudAccount, instance_identifier
from testyard.power.protocol import Instance, ProviderName
from testyard.power.providers import aws, azure, gcp
from testyard.power.providers.refusals import checked_instances, failed_call, gone, refuse_foreign


def machine(identifier: str, node: str) -> Instance:
    """A machine at AWS."""
    return Instance(identifier, node, "eu-central-1", ProviderName.AWS)


def test_machines_come_in_the_order_of_their_nodes() -> None:
    machines = [machine("i-2", "n12"), machine("i-1", "n11")]
    assert [it.node for it in checked_instances(ProviderName.AWS, "d-1", machines)] == ["n11", "n12"]


@pytest.mark.parametrize(
    ("machines", "message"),
    [
        ([], "AWS has no machine with the tag deployment=d-1"),
        ([machine("i-1", "")], "AWS's machine i-1 of deployment d-1 has no node name"),
        (
            [machine("i-1", "n11"), machine("i-2", "n12"), machine("i-3", "n12")],
            "AWS has 2 machines that are node n12 of deployment d-1: i-2, i-3",
        ),
    ],
)
def test_machines_that_cannot_be_told_apart_are_refused(machines: list[Instance], message: str) -> None:
    with pytest.raises(UserError, match=message):
        checked_instances(ProviderName.AWS, "d-1", machines)


@pytest.mark.parametrize(
    "tags", [{}, {"deployment": "d-1"}, {"Name": "n11"}, {"deployment": "d-2", "Name": "n11"}]
)
def test_a_machine_without_its_tags_is_foreign(tags: dict[str, str]) -> None:
    refuse_foreign(machine("i-1", "n11"), "d-1", {"deployment": "d-1", "Name": "n11"}, "Name")
    with pytest.raises(UserError, match=r"i-1 at AWS is not node n11 of deployment d-1: .*Nothing was done to it"):
        refuse_foreign(machine("i-1", "n11"), "d-1", tags, "Name")


def test_reasons_end_with_one_full_stop() -> None:
    assert str(failed_call(ProviderName.GCP, "instances.get", "No.")) == "GCP did not do instances.get: No."
    assert "node n11: it was deleted" in str(gone(machine("i-1", "n11")))


def test_an_unknown_profile_of_aws_is_named() -> None:
    with pytest.raises(UserError, match="no-such-profile"):
        aws.open_provider("d-1", {"AWS_REGION": "eu-central-1", "AWS_PROFILE": "no-such-profile"})


def test_azure_is_opened_by_a_client_secret() -> None:
    secret = "a client secret of this test"
    settings = {
        "AZURE_SUBSCRIPTION_ID": "00000000-0000-0000-0000-000000000001",
        "AZURE_RESOURCE_GROUP": "group",
        "AZURE_TENANT_ID": "00000000-0000-0000-0000-000000000002",
        "AZURE_CLIENT_ID": "00000000-0000-0000-0000-000000000003",
        "AZURE_CLIENT_SECRET": secret,
    }
    azure.open_provider("d-1", settings).close()
    assert secrets_in_use.mask(secret) == "***"


def test_gcp_is_opened_by_a_service_account(tmp_path: Path) -> None:
    key = generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    path = tmp_path / "account.json"
    content = {
        "type": "service_account",
        "private_key": pem,
        "client_email": "tester@project.example",
        "token_uri": "https://oauth2.example/token",
    }
    path.write_text(json.dumps(content), encoding="utf-8")
    settings = {
        "GOOGLE_CLOUD_PROJECT": "project",
        "GOOGLE_CLOUD_ZONE": "zone",
        "GOOGLE_APPLICATION_CREDENTIALS": str(path),
    }
    gcp.open_provider("d-1", settings).close()
    assert secrets_in_use.mask(pem) == "***"


def test_a_file_of_gcp_that_is_not_there_is_named() -> None:
    settings = {
        "GOOGLE_CLOUD_PROJECT": "project",
        "GOOGLE_CLOUD_ZONE": "zone",
        "GOOGLE_APPLICATION_CREDENTIALS": "/no/such/file.json",
    }
    with pytest.raises(UserError, match=r"/no/such/file\.json in GOOGLE_APPLICATION_CREDENTIALS"):
        gcp.open_provider("d-1", settings)


def test_there_is_a_double_of_each_provider() -> None:
    assert set(MODULES) == {provider.value for provider in ProviderName}


def test_a_double_of_no_provider_is_refused() -> None:
    with pytest.raises(UserError, match="no provider 'exoscale'; there are aws, azure"):
        open_double("exoscale", ScriptedMachines("aws"), CloudAccount("d-1"))


@pytest.mark.parametrize(
    ("provider", "pattern"),
    [
        ("aws", r"i-[0-9a-f]{17}"),
        ("azure", r"n11-[0-9a-f]{12}"),
        ("digitalocean", r"\d{9}"),
        ("libvirt", r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
    ],
)
def test_identifiers_look_like_the_providers_own(provider: str, pattern: str) -> None:
    first = instance_identifier(provider, "d-1", "n11")
    assert re.fullmatch(pattern, first)
    assert first == instance_identifier(provider, "d-1", "n11")
    assert (
        len({first, instance_identifier(provider, "d-2", "n11"), instance_identifier(provider, "d-1", "n12")}) == 3
    )


def test_an_account_shows_no_secret() -> None:
    account = CloudAccount("d-1")
    assert account.secret not in repr(account)
    assert account.token not in repr(account)
    assert account.secret != CloudAccount("d-1").secret
