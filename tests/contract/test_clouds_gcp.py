"""Google Cloud: google-cloud-compute against the lab's Compute Engine."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from clouds_contract import PowerContract, open_provider
from clouds_support import ServedCloud
from google.api_core.exceptions import BadRequest
from google.auth.exceptions import RefreshError
from google.oauth2.credentials import Credentials
from google.protobuf import json_format
from testyard.core.deadline import Deadline, wait_until
from testyard.core.errors import UserError
from testyard.lab.clouds.machines import MachineState
from testyard.power.protocol import PowerProvider, ProviderName
from testyard.power.providers.gcp_on_demand import import_compute

PROJECT, ZONE = "testyard", "europe-west3-a"
PLACE = {"project": PROJECT, "zone": ZONE}
PATIENCE = timedelta(seconds=20)


class TestGcp(PowerContract):
    """The power of instances at Google Cloud."""

    provider = ProviderName.GCP
    title = "GCP"
    required_settings = ("GOOGLE_CLOUD_PROJECT", "GOOGLE_CLOUD_ZONE")
    credential = "GOOGLE_ACCESS_TOKEN"
    sdk = "google.cloud.compute_v1"

    @pytest.fixture(scope="class")
    @classmethod
    def client(cls, served: ServedCloud) -> Iterator[Any]:
        """The SDK's own client of instances, for all tests."""
        services, _ = import_compute()
        options = {"api_endpoint": served.settings["GOOGLE_COMPUTE_ENDPOINT"]}
        with services.InstancesClient(
            credentials=Credentials(served.settings["GOOGLE_ACCESS_TOKEN"]), client_options=options
        ) as client:
            yield client

    @pytest.fixture(scope="class")
    @classmethod
    def operations(cls, served: ServedCloud, opened: PowerProvider) -> Iterator[Any]:
        """The SDK's own client of operations: the one that a client of instances makes asks Google itself."""
        zone_operations = importlib.import_module("google.cloud.compute_v1.services.zone_operations")
        options = {"api_endpoint": served.settings["GOOGLE_COMPUTE_ENDPOINT"]}
        with zone_operations.ZoneOperationsClient(
            credentials=Credentials(served.settings["GOOGLE_ACCESS_TOKEN"]), client_options=options
        ) as client:
            yield client

    def answer(self, cloud: ServedCloud, path: str, method: str = "GET") -> dict[str, Any]:
        """What the double answers, as JSON."""
        address = f"{cloud.settings['GOOGLE_COMPUTE_ENDPOINT']}/compute/v1/projects/{PROJECT}/zones/{ZONE}/{path}"
        headers = {"Authorization": f"Bearer {cloud.settings['GOOGLE_ACCESS_TOKEN']}"}
        answered: dict[str, Any] = httpx.request(method, address, headers=headers).json()
        return answered

    def test_a_token_goes_to_no_other_machine_without_tls(self, cloud: ServedCloud) -> None:
        settings = cloud.settings | {"GOOGLE_COMPUTE_ENDPOINT": "http://google.example"}
        with pytest.raises(UserError, match="cross the network in clear"):
            open_provider(self.provider, settings)

    def test_credentials_are_asked_for_where_there_is_no_token(self, cloud: ServedCloud) -> None:
        settings = {name: value for name, value in cloud.settings.items() if name != "GOOGLE_ACCESS_TOKEN"}
        with pytest.raises(UserError, match="set GOOGLE_APPLICATION_CREDENTIALS "):
            open_provider(self.provider, settings)

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            ("no JSON, but a secret", "holds no usable credentials"),
            (
                '{"type": "service_account", "private_key": "a secret that is no key"}',
                "holds no usable credentials",
            ),
            ('{"type": "external_account", "private_key": "a secret that is no key"}', "of type external_account"),
        ],
    )
    def test_a_file_without_credentials_is_named_and_not_quoted(
        self, cloud: ServedCloud, tmp_path: Path, content: str, reason: str
    ) -> None:
        path = tmp_path / "credentials.json"
        path.write_text(content, encoding="utf-8")
        settings = {name: value for name, value in cloud.settings.items() if name != "GOOGLE_ACCESS_TOKEN"}
        settings["GOOGLE_APPLICATION_CREDENTIALS"] = str(path)
        with pytest.raises(UserError, match=reason) as refused:
            open_provider(self.provider, settings)
        assert str(path) in str(refused.value)
        assert "secret" not in str(refused.value)

    def test_every_call_that_is_announced_is_made(self, cloud: ServedCloud, power: PowerProvider) -> None:
        assert power.calls == {
            "start": "instances.start",
            "stop": "instances.stop",
            "crash": "instances.stop(no_graceful_shutdown=True)",
        }
        instance = f"POST /compute/v1/projects/{PROJECT}/zones/{ZONE}/instances/{self.instance().identifier}"
        power.start(self.instance())
        assert cloud.requests[-1] == f"{instance}/start"
        power.stop(self.instance())
        assert cloud.requests[-1] == f"{instance}/stop"
        power.crash(self.instance())
        assert cloud.requests[-1].lower() == f"{instance}/stop?noGracefulShutdown=true".lower()
        assert [request.split()[0] for request in cloud.requests] == ["GET", "POST"] * 3

    def test_answers_have_only_fields_that_the_sdk_knows(self, cloud: ServedCloud) -> None:
        _, types = import_compute()
        name = self.instance().identifier
        for path, method, kind in [
            ("instances", "GET", types.InstanceList),
            (f"instances/{name}", "GET", types.Instance),
            (f"instances/{name}/stop", "POST", types.Operation),
        ]:
            body = json.dumps(self.answer(cloud, path, method))
            parsed = json_format.Parse(body, kind.pb(kind()), ignore_unknown_fields=False)
            assert parsed.self_link.startswith(cloud.base_url)

    @pytest.mark.parametrize(
        ("state", "shown"),
        [
            (MachineState.STARTING, "STAGING"),
            (MachineState.RUNNING, "RUNNING"),
            (MachineState.STOPPING, "STOPPING"),
            (MachineState.STOPPED, "TERMINATED"),
        ],
    )
    def test_states_have_compute_engines_names(
        self, cloud: ServedCloud, client: Any, state: MachineState, shown: str
    ) -> None:
        _, types = import_compute()
        cloud.machines.put("n12", state)
        assert client.get(**PLACE, instance=self.instance().identifier).status == shown
        assert shown in types.Instance.Status.__members__

    def test_a_filter_is_applied_and_a_wrong_one_refused(self, cloud: ServedCloud, client: Any) -> None:
        _, types = import_compute()
        request = types.ListInstancesRequest(**PLACE, filter="labels.deployment=d-own AND labels.node=n13")
        assert [instance.name for instance in client.list(request)] == [self.instance("n13").identifier]
        with pytest.raises(BadRequest, match="Invalid list filter expression"):
            client.list(types.ListInstancesRequest(**PLACE, filter="anything goes"))

    def test_an_operation_can_be_asked_for_and_waited_for(
        self, cloud: ServedCloud, client: Any, operations: Any
    ) -> None:
        _, types = import_compute()
        done = types.Operation.Status.DONE
        cloud.machines.put("n12", MachineState.STOPPED)
        begun = client.start_unary(**PLACE, instance=self.instance().identifier)
        assert operations.get(**PLACE, operation=begun.name).status is types.Operation.Status.RUNNING
        with ThreadPoolExecutor() as threads:
            waiting = threads.submit(operations.wait, **PLACE, operation=begun.name)
            wait_until(
                lambda: cloud.arrived[-1],
                lambda request: request.endswith("/wait"),
                Deadline(PATIENCE),
                "the request to wait",
            )
            assert not cloud.requests[-1].endswith("/wait")
            cloud.machines.put("n12", MachineState.RUNNING)
            waited = waiting.result()
        assert (waited.status, waited.progress, waited.operation_type) == (done, 100, "start")
        assert waited.target_link.endswith(f"/instances/{self.instance().identifier}")
        assert not waited.error.errors

    def test_an_operation_that_another_one_replaces_has_failed(
        self, cloud: ServedCloud, client: Any, operations: Any
    ) -> None:
        cloud.machines.put("n12", MachineState.STOPPED)
        name = self.instance().identifier
        begun = client.start_unary(**PLACE, instance=name)
        client.stop_unary(**PLACE, instance=name)
        replaced = operations.get(**PLACE, operation=begun.name)
        assert [error.code for error in replaced.error.errors] == ["OPERATION_CANCELED_BY_USER"]
        assert replaced.http_error_status_code == 409

    def test_a_machine_that_is_stopping_is_not_started(self, cloud: ServedCloud, power: PowerProvider) -> None:
        cloud.machines.put("n12", MachineState.STOPPING)
        with pytest.raises(UserError, match=r"did not do instances.start for node n12 .*is not ready"):
            power.start(self.instance())
        assert cloud.machines.actions == []

    def test_an_expired_token_is_refused_as_google_does(self, cloud: ServedCloud, client: Any) -> None:
        cloud.account.expired = True
        with pytest.raises(RefreshError):
            client.list(**PLACE)
        error = self.answer(cloud, "instances")["error"]
        assert (error["code"], error["status"]) == (401, "UNAUTHENTICATED")
        assert error["details"][0]["reason"] == "ACCESS_TOKEN_EXPIRED"

    @pytest.mark.parametrize(
        ("changed", "reason"),
        [
            ({"GOOGLE_CLOUD_PROJECT": "elsewhere"}, "The resource 'projects/elsewhere' was not found"),
            ({"GOOGLE_CLOUD_ZONE": "nowhere-1-a"}, "'nowhere-1-a'. Unknown zone"),
        ],
    )
    def test_another_place_is_named(self, cloud: ServedCloud, changed: dict[str, str], reason: str) -> None:
        power = open_provider(self.provider, cloud.settings | changed)
        with pytest.raises(UserError, match=f"did not do instances.list: .*{reason}"):
            power.instances()
        power.close()

    def test_the_rest_of_the_sdk_is_there_when_it_is_asked_for(self) -> None:
        program = (
            "import sys\n"
            "from testyard.power.providers.gcp_on_demand import import_compute\n"
            "services, types = import_compute()\n"
            "assert 'google.cloud.compute_v1.services.disks' not in sys.modules\n"
            "from google.cloud import compute_v1\n"
            "assert compute_v1.InstancesClient is services.InstancesClient\n"
            "assert compute_v1.Instance is types.Instance\n"
            "assert compute_v1.DisksClient.__module__ == 'google.cloud.compute_v1.services.disks.client'\n"
            "assert not hasattr(compute_v1, 'NoSuchClient')\n"
        )
        subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=60)
