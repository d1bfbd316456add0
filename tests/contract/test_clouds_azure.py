"""Azure: azure-mgmt-compute against the lab's Resource Manager."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from azure.core.credentials import AzureKeyCredential
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, ResourceExistsError
from azure.core.pipeline.policies import AzureKeyCredentialPolicy
from azure.mgmt.compute import ComputeManagementClient
from azure.mgmt.compute.models import InstanceViewStatus, VirtualMachine
from clouds_contract import PowerContract, open_provider
from clouds_support import ServedCloud
from testyard.core.errors import UserError
from testyard.lab.clouds.machines import MachineState
from testyard.power.protocol import PowerProvider, PowerState, ProviderName

GROUP = "testyard"


class TestAzure(PowerContract):
    """The power of virtual machines at Azure."""

    provider = ProviderName.AZURE
    title = "Azure"
    required_settings = ("AZURE_SUBSCRIPTION_ID", "AZURE_RESOURCE_GROUP")
    credential = "AZURE_ACCESS_TOKEN"
    sdk = "azure.mgmt.compute"

    @pytest.fixture(scope="class")
    @classmethod
    def client(cls, served: ServedCloud) -> Iterator[Any]:
        """The SDK's own client, for all tests."""
        settings = served.settings
        credential = AzureKeyCredential(settings["AZURE_ACCESS_TOKEN"])
        with ComputeManagementClient(
            credential,
            settings["AZURE_SUBSCRIPTION_ID"],
            settings["AZURE_ENDPOINT"],
            authentication_policy=AzureKeyCredentialPolicy(credential, "Authorization", prefix="Bearer"),
            polling_interval=0.01,
        ) as client:
            yield client

    def test_a_client_secret_is_asked_for_where_there_is_no_token(self, cloud: ServedCloud) -> None:
        settings = {name: value for name, value in cloud.settings.items() if name != "AZURE_ACCESS_TOKEN"}
        for name in ("AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET"):
            with pytest.raises(UserError, match=f"set {name} "):
                open_provider(self.provider, settings)
            settings[name] = "a value of it"

    def test_a_token_goes_to_no_other_machine_without_tls(self, cloud: ServedCloud) -> None:
        settings = cloud.settings | {"AZURE_ENDPOINT": "http://azure.example"}
        with pytest.raises(UserError, match="cross the network in clear"):
            open_provider(self.provider, settings)

    def test_every_call_that_is_announced_is_made(self, cloud: ServedCloud, power: PowerProvider) -> None:
        assert power.calls == {
            "start": "virtual_machines.begin_start",
            "stop": "virtual_machines.begin_deallocate",
            "crash": "virtual_machines.begin_power_off(skip_shutdown=True)",
        }
        machine = f"virtualMachines/{self.instance().identifier}"
        power.start(self.instance())
        assert f"{machine}/start?api-version" in cloud.requests[-1]
        power.crash(self.instance())
        assert f"{machine}/powerOff?" in cloud.requests[-1]
        assert "skipShutdown=true" in cloud.requests[-1]
        power.stop(self.instance())
        assert f"{machine}/deallocate?api-version" in cloud.requests[-1]
        assert [request.split()[0] for request in cloud.requests] == ["GET", "POST"] * 3

    def test_machines_are_as_the_sdks_model_has_them(self, cloud: ServedCloud, client: Any) -> None:
        listed = list(client.virtual_machines.list(GROUP))
        assert len(listed) == 6
        for machine in [*listed, client.virtual_machines.get(GROUP, listed[0].name, expand="instanceView")]:
            assert isinstance(machine, VirtualMachine)
            # What the reference calls required or always has; the SDK itself requires nothing of an answer.
            assert machine.location == "germanywestcentral"
            assert machine.type == "Microsoft.Compute/virtualMachines"
            assert machine.id.endswith(
                f"/resourceGroups/{GROUP}/providers/Microsoft.Compute/virtualMachines/{machine.name}"
            )
            assert machine.properties.provisioning_state == "Succeeded"
            assert machine.properties.vm_id
            assert unknown_fields(machine) == []
        view = client.virtual_machines.instance_view(GROUP, listed[0].name)
        assert unknown_fields(view) == []
        assert [status.code for status in view.statuses] == ["ProvisioningState/succeeded", "PowerState/running"]
        assert all(isinstance(status, InstanceViewStatus) and status.level == "Info" for status in view.statuses)
        assert view.statuses[0].time.tzinfo is not None

    def codes_until_stopped(self, cloud: ServedCloud, client: Any) -> list[str]:
        """What is shown of the power of a machine that goes down and has gone down."""
        codes = []
        for state in (MachineState.STOPPING, MachineState.STOPPED):
            cloud.machines.put("n12", state)
            machine = client.virtual_machines.get(GROUP, self.instance().identifier, expand="instanceView")
            statuses = machine.properties.instance_view.statuses
            codes += [status.code for status in statuses if status.code.startswith("PowerState/")]
        return codes

    def test_a_stop_gives_the_resources_back(self, cloud: ServedCloud, power: PowerProvider, client: Any) -> None:
        power.stop(self.instance())
        assert self.codes_until_stopped(cloud, client) == ["PowerState/deallocating", "PowerState/deallocated"]

    def test_a_crash_keeps_the_resources(self, cloud: ServedCloud, power: PowerProvider, client: Any) -> None:
        power.crash(self.instance())
        assert self.codes_until_stopped(cloud, client) == ["PowerState/stopping", "PowerState/stopped"]

    def test_a_stopped_machine_can_still_be_deallocated(self, cloud: ServedCloud, power: PowerProvider) -> None:
        power.crash(self.instance())
        power.stop(self.instance())
        assert power.state(self.instance()) is PowerState.STOPPED
        assert cloud.machines.actions == [("power_off", "n12")]

    def test_an_operation_can_be_waited_for(self, cloud: ServedCloud, client: Any) -> None:
        cloud.machines.put("n12", MachineState.STOPPED)
        poller = client.virtual_machines.begin_start(GROUP, self.instance().identifier)
        assert poller.status() == "InProgress"
        assert not poller.done()
        cloud.machines.put("n12", MachineState.RUNNING)
        assert poller.result() is None
        assert poller.status() == "Succeeded"
        assert any("/operations/" in request for request in cloud.requests)

    def test_an_operation_that_another_one_replaces_has_failed(self, cloud: ServedCloud, client: Any) -> None:
        cloud.machines.put("n12", MachineState.STOPPED)
        name = self.instance().identifier
        poller = client.virtual_machines.begin_start(GROUP, name)
        client.virtual_machines.begin_power_off(GROUP, name, skip_shutdown=True, polling=False)
        with pytest.raises(HttpResponseError, match="OperationPreempted"):
            poller.result()

    def test_a_machine_that_is_stopping_is_not_started(
        self, cloud: ServedCloud, power: PowerProvider, client: Any
    ) -> None:
        cloud.machines.put("n12", MachineState.STOPPING)
        with pytest.raises(ResourceExistsError, match="OperationNotAllowed"):
            client.virtual_machines.begin_start(GROUP, self.instance().identifier, polling=False)
        with pytest.raises(
            UserError, match=r"did not do virtual_machines.begin_start for node n12 .*OperationNotAllowed"
        ):
            power.start(self.instance())
        assert cloud.machines.actions == []

    def test_an_expired_token_is_refused_as_azure_does(self, cloud: ServedCloud, client: Any) -> None:
        cloud.account.expired = True
        with pytest.raises(ClientAuthenticationError) as refused:
            list(client.virtual_machines.list(GROUP))
        assert refused.value.status_code == 401
        assert refused.value.error.code == "ExpiredAuthenticationToken"
        assert 'error="invalid_token"' in refused.value.response.headers["WWW-Authenticate"]

    def test_the_headers_of_calls_are_not_in_peoples_logs(
        self, power: PowerProvider, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.INFO):
            power.instances()
        assert [record for record in caplog.records if record.name.startswith("azure")] == []

    def test_another_resource_group_is_named(self, cloud: ServedCloud) -> None:
        power = open_provider(self.provider, cloud.settings | {"AZURE_RESOURCE_GROUP": "elsewhere"})
        with pytest.raises(UserError, match="ResourceGroupNotFound: Resource group 'elsewhere'"):
            power.instances()
        power.close()


def unknown_fields(model: Any, path: str = "") -> list[str]:
    """The fields of an answer that the SDK's model does not have, at any depth."""
    known = {field._rest_name: name for name, field in model._attr_to_rest_field.items()}
    unknown = [f"{path}{key}" for key in model if key not in known]
    for key in model.keys() & known.keys():
        value = getattr(model, known[key])
        for item in value if isinstance(value, list) else [value]:
            if hasattr(item, "_attr_to_rest_field"):
                unknown += unknown_fields(item, f"{path}{key}.")
    return unknown
