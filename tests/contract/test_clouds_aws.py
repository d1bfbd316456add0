"""AWS: boto3 against the lab's EC2."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from clouds_contract import PowerContract, open_provider
from clouds_support import ServedCloud
from testyard.core.errors import UserError
from testyard.lab.clouds.machines import MachineState
from testyard.power.protocol import PowerProvider, ProviderName


def new_client(settings: Mapping[str, str]) -> Any:
    """boto3's own client for the double."""
    return boto3.session.Session(
        aws_access_key_id=settings["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=settings["AWS_SECRET_ACCESS_KEY"],
        aws_session_token=settings["AWS_SESSION_TOKEN"],
        region_name=settings["AWS_REGION"],
    ).client("ec2", endpoint_url=settings["AWS_ENDPOINT_URL_EC2"])


class TestAws(PowerContract):
    """The power of machines at AWS."""

    provider = ProviderName.AWS
    title = "AWS"
    required_settings = ("AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    credential = "AWS_SECRET_ACCESS_KEY"
    sdk = "boto3"

    @pytest.fixture(scope="class")
    @classmethod
    def client(cls, served: ServedCloud) -> Iterator[Any]:
        """boto3's own client, for all tests."""
        client = new_client(served.settings)
        yield client
        client.close()

    def test_the_other_name_of_the_region_will_do(self, cloud: ServedCloud) -> None:
        settings = cloud.settings
        settings["AWS_DEFAULT_REGION"] = settings.pop("AWS_REGION")
        power = open_provider(self.provider, settings)
        assert len(power.instances()) == 3
        power.close()

    def test_another_region_has_no_machines(self, cloud: ServedCloud) -> None:
        power = open_provider(self.provider, cloud.settings | {"AWS_REGION": "us-east-1"})
        with pytest.raises(UserError, match="check the account and the region"):
            power.instances()
        power.close()

    def test_every_call_that_is_announced_is_made(self, cloud: ServedCloud, power: PowerProvider) -> None:
        assert power.calls == {
            "start": "ec2.start_instances",
            "stop": "ec2.stop_instances",
            "crash": "ec2.stop_instances(Force=True, SkipOsShutdown=True)",
        }
        identifier = self.instance().identifier
        cloud.machines.put("n12", MachineState.STOPPED)
        power.start(self.instance())
        assert f"Action=StartInstances&Version=2016-11-15&InstanceId.1={identifier}" in cloud.requests[-1]
        cloud.machines.put("n12", MachineState.RUNNING)
        power.stop(self.instance())
        assert cloud.requests[-1].endswith(f"Action=StopInstances&Version=2016-11-15&InstanceId.1={identifier}")
        power.crash(self.instance())
        assert "Action=StopInstances" in cloud.requests[-1]
        assert "&SkipOsShutdown=true" in cloud.requests[-1]
        assert "&Force=true" in cloud.requests[-1]

    def test_instances_are_as_boto3s_model_has_them(self, cloud: ServedCloud, client: Any) -> None:
        (reservation, *_) = client.describe_instances(Filters=[{"Name": "tag:Name", "Values": ["n11"]}])[
            "Reservations"
        ]
        (instance,) = reservation["Instances"]
        shape = client.meta.service_model.shape_for("Instance")
        assert set(instance) <= set(shape.members)
        assert instance["State"] == {"Code": 16, "Name": "running"}
        assert instance["State"]["Name"] in shape.members["State"].members["Name"].enum
        assert {"InstanceId", "Tags", "State", "LaunchTime", "Placement", "PrivateIpAddress"} <= set(instance)

    @pytest.mark.parametrize(
        ("state", "shown"),
        [
            (MachineState.STARTING, {"Code": 0, "Name": "pending"}),
            (MachineState.STOPPING, {"Code": 64, "Name": "stopping"}),
            (MachineState.STOPPED, {"Code": 80, "Name": "stopped"}),
        ],
    )
    def test_states_have_ec2s_names_and_codes(
        self, cloud: ServedCloud, client: Any, state: MachineState, shown: dict[str, Any]
    ) -> None:
        cloud.machines.put("n12", state)
        (reservation,) = client.describe_instances(InstanceIds=[self.instance().identifier])["Reservations"]
        assert reservation["Instances"][0]["State"] == shown

    def test_an_answer_says_what_changes(self, cloud: ServedCloud, client: Any) -> None:
        identifier = self.instance().identifier
        assert client.stop_instances(InstanceIds=[identifier])["StoppingInstances"] == [
            {
                "InstanceId": identifier,
                "CurrentState": {"Code": 64, "Name": "stopping"},
                "PreviousState": {"Code": 16, "Name": "running"},
            }
        ]

    @pytest.mark.parametrize(
        ("expired", "changed", "code", "status"),
        [
            (True, {}, "RequestExpired", 400),
            (False, {"AWS_ACCESS_KEY_ID": "ASIA0000000000000000"}, "AuthFailure", 401),
            (False, {"AWS_SESSION_TOKEN": "0123456789abcdef"}, "AuthFailure", 401),
        ],
    )
    def test_refusals_are_ec2s(
        self, cloud: ServedCloud, expired: bool, changed: dict[str, str], code: str, status: int
    ) -> None:
        cloud.account.expired = expired
        client = new_client(cloud.settings | changed)
        with pytest.raises(ClientError) as refused:
            client.describe_instances()
        client.close()
        assert refused.value.response["Error"]["Code"] == code
        assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == status

    def test_a_dry_run_of_ec2_changes_nothing(self, cloud: ServedCloud, client: Any) -> None:
        with pytest.raises(ClientError, match="DryRunOperation"):
            client.stop_instances(InstanceIds=[self.instance().identifier], DryRun=True)
        assert cloud.machines.actions == []

    def test_nothing_can_be_terminated(self, cloud: ServedCloud, client: Any) -> None:
        with pytest.raises(ClientError, match="UnauthorizedOperation"):
            client.terminate_instances(InstanceIds=[self.instance().identifier])

    def test_a_machine_that_is_stopping_is_not_started(self, cloud: ServedCloud, power: PowerProvider) -> None:
        cloud.machines.put("n12", MachineState.STOPPING)
        with pytest.raises(
            UserError, match=r"did not do ec2.start_instances for node n12 .*IncorrectInstanceState"
        ):
            power.start(self.instance())
        assert cloud.machines.actions == []

    def test_a_stop_that_hangs_can_be_forced(self, cloud: ServedCloud, power: PowerProvider) -> None:
        cloud.machines.put("n12", MachineState.STOPPING)
        power.crash(self.instance())
        assert cloud.machines.actions == [("power_off", "n12")]
