"""What holds for the power of machines at every provider: its SDK against the lab's double, over a real socket.

Each provider's tests inherit from :class:`PowerContract` and add what is special about its SDK and its API.
"""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import ClassVar

import pytest
from clouds_support import FOREIGN, NODES, OWN, ServedCloud
from testyard.core.errors import UserError
from testyard.core.redact import SecretRegistry, mask_log_records, secrets_in_use
from testyard.lab.clouds.machines import REGIONS, MachineState, instance_identifier
from testyard.lab.servers.loop_thread import loopback_listener
from testyard.power.protocol import Instance, PowerProvider, PowerState, ProviderName

ACTIONS = ("start", "stop", "crash")
# Until the test ends it: what a power action shows must not depend on how fast the test is.
LASTING = timedelta(hours=1)


def open_provider(name: ProviderName, settings: Mapping[str, str], deployment: str = OWN) -> PowerProvider:
    """A provider's API, as the power control opens it."""
    opened: PowerProvider = importlib.import_module(f"testyard.power.providers.{name}").open_provider(
        deployment, settings
    )
    return opened


class PowerContract:
    """Tests of one provider; a subclass says which, and what its SDK and its settings are called."""

    provider: ClassVar[ProviderName]
    # The title people know the provider by, as messages have it.
    title: ClassVar[str]
    # Settings that must be there, and the one whose value has expired when the credentials have.
    required_settings: ClassVar[tuple[str, ...]]
    credential: ClassVar[str]
    # Module of the SDK, without which nothing works.
    sdk: ClassVar[str]

    @pytest.fixture(scope="class")
    @classmethod
    def served(cls) -> Iterator[ServedCloud]:
        """The double, for all tests."""
        with ServedCloud(cls.provider.value) as cloud:
            yield cloud

    @pytest.fixture(scope="class")
    @classmethod
    def opened(cls, served: ServedCloud) -> Iterator[PowerProvider]:
        """The provider's API, for all tests: some SDKs take half a second to make a client."""
        power = open_provider(cls.provider, served.settings)
        yield power
        power.close()

    @pytest.fixture
    def cloud(self, served: ServedCloud) -> ServedCloud:
        """The double, with its machines running."""
        served.reset()
        return served

    @pytest.fixture
    def power(self, cloud: ServedCloud, opened: PowerProvider) -> PowerProvider:
        """The provider's API for the own deployment."""
        return opened

    def instance(self, node: str = "n12", deployment: str = OWN) -> Instance:
        """A machine of the double as the provider would list it."""
        name = self.provider.value
        return Instance(instance_identifier(name, deployment, node), node, REGIONS[name], self.provider)

    def test_lists_the_machines_of_its_deployment_and_no_others(self, power: PowerProvider) -> None:
        assert list(power.instances()) == [self.instance(node) for node in NODES]

    def test_a_start_is_shown_until_the_machine_runs(self, cloud: ServedCloud, power: PowerProvider) -> None:
        cloud.machines.put("n12", MachineState.STOPPED)
        assert power.state(self.instance()) is PowerState.STOPPED
        power.start(self.instance())
        assert power.state(self.instance()) is PowerState.STARTING
        assert cloud.machines.actions == [("power_on", "n12")]
        cloud.machines.put("n12", MachineState.RUNNING)
        assert power.state(self.instance()) is PowerState.RUNNING

    def test_a_stop_is_orderly_and_shown_until_the_machine_is_off(
        self, cloud: ServedCloud, power: PowerProvider
    ) -> None:
        power.stop(self.instance())
        assert power.state(self.instance()) is PowerState.STOPPING
        assert cloud.machines.actions == [("press", "n12")]
        cloud.machines.put("n12", MachineState.STOPPED)
        assert power.state(self.instance()) is PowerState.STOPPED

    def test_a_crash_takes_the_power_and_is_shown_for_as_long_as_the_account_says(
        self, cloud: ServedCloud, power: PowerProvider
    ) -> None:
        cloud.account.delay = LASTING
        power.crash(self.instance())
        assert power.state(self.instance()) is PowerState.STOPPING
        assert cloud.machines.actions == [("power_off", "n12")]
        cloud.account.delay = timedelta()
        assert power.state(self.instance()) is PowerState.STOPPED

    def test_an_action_touches_only_its_own_machine(self, cloud: ServedCloud, power: PowerProvider) -> None:
        power.crash(self.instance("n13"))
        assert [power.state(instance) for instance in power.instances()] == [
            PowerState.RUNNING,
            PowerState.RUNNING,
            PowerState.STOPPED,
        ]
        states = {
            machine.state for machine in cloud.machines.of_provider(self.provider) if machine.deployment == FOREIGN
        }
        assert states == {MachineState.RUNNING}

    def test_several_nodes_can_be_worked_on_at_the_same_time(
        self, cloud: ServedCloud, power: PowerProvider
    ) -> None:
        with ThreadPoolExecutor() as threads:
            list(threads.map(power.stop, map(self.instance, NODES)))
            assert set(threads.map(power.state, map(self.instance, NODES))) == {PowerState.STOPPING}
            assert sorted(cloud.machines.actions) == [("press", node) for node in NODES]
            for node in NODES:
                cloud.machines.put(node, MachineState.STOPPED)
            assert set(threads.map(power.state, map(self.instance, NODES))) == {PowerState.STOPPED}

    @pytest.mark.parametrize("operation", ["state", *ACTIONS])
    def test_a_foreign_machine_is_refused_and_untouched(
        self, cloud: ServedCloud, power: PowerProvider, operation: str
    ) -> None:
        foreign = self.instance(deployment=FOREIGN)
        with pytest.raises(UserError, match=f"{foreign.identifier}.*is not node n12.*Nothing was done") as refused:
            getattr(power, operation)(foreign)
        assert FOREIGN in str(refused.value)
        assert cloud.machines.actions == []

    @pytest.mark.parametrize("operation", ACTIONS)
    def test_the_tag_is_read_again_before_each_action(
        self, cloud: ServedCloud, power: PowerProvider, operation: str
    ) -> None:
        (instance,) = [instance for instance in power.instances() if instance.node == "n12"]
        cloud.machines.relabel("n12", deployment="d-taken-over")
        with pytest.raises(UserError, match="d-taken-over"):
            getattr(power, operation)(instance)
        assert cloud.machines.actions == []

    @pytest.mark.parametrize("operation", ACTIONS)
    def test_a_machine_that_is_said_to_be_another_node_is_refused(
        self, cloud: ServedCloud, power: PowerProvider, operation: str
    ) -> None:
        with pytest.raises(UserError, match="is not node n11"):
            getattr(power, operation)(replace(self.instance("n12"), node="n11"))
        assert cloud.machines.actions == []

    @pytest.mark.parametrize("operation", ["state", *ACTIONS])
    def test_a_machine_that_is_gone_is_named(
        self, cloud: ServedCloud, power: PowerProvider, operation: str
    ) -> None:
        cloud.machines.remove("n12")
        with pytest.raises(UserError, match=f"{self.title} has no machine .*node n12"):
            getattr(power, operation)(self.instance())

    def test_a_deployment_without_machines_is_named(self, cloud: ServedCloud) -> None:
        power = open_provider(self.provider, cloud.settings, "d-none")
        with pytest.raises(UserError, match=rf"{self.title} has no machine with the tag deployment=d-none\b"):
            power.instances()
        power.close()

    @pytest.mark.parametrize("operation", ["instances", "state", *ACTIONS])
    def test_an_expired_credential_is_one_clear_error(
        self, cloud: ServedCloud, power: PowerProvider, operation: str
    ) -> None:
        cloud.account.expired = True
        arguments = () if operation == "instances" else (self.instance(),)
        with pytest.raises(
            UserError, match=f"{self.title} refuses the credentials in .*{self.credential}"
        ) as refused:
            getattr(power, operation)(*arguments)
        assert not any(secret in str(refused.value) for secret in self.secrets(cloud))
        assert cloud.machines.actions == []
        cloud.account.expired = False
        assert power.state(self.instance()) is PowerState.RUNNING

    def test_a_wrong_credential_is_one_clear_error(self, cloud: ServedCloud) -> None:
        power = open_provider(self.provider, cloud.settings | {self.credential: "0123456789abcdef" * 4})
        with pytest.raises(UserError, match=f"{self.title} refuses the credentials in .*{self.credential}"):
            power.instances()
        power.close()

    def test_a_missing_setting_is_named(self, cloud: ServedCloud) -> None:
        for name in self.required_settings:
            settings = {key: value for key, value in cloud.settings.items() if key != name}
            with pytest.raises(UserError, match=f"^{self.title} needs .*set {name} "):
                open_provider(self.provider, settings)

    def test_a_missing_sdk_names_the_command_that_adds_it(
        self, cloud: ServedCloud, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for module in [name for name in sys.modules if name == self.sdk or name.startswith(f"{self.sdk}.")]:
            monkeypatch.delitem(sys.modules, module)
        monkeypatch.setitem(sys.modules, self.sdk, None)
        with pytest.raises(UserError, match=r"pip install 'robotframework-testyard\[lab\]'"):
            open_provider(self.provider, cloud.settings)

    def test_an_endpoint_that_does_not_answer_is_one_clear_error(self, served: ServedCloud) -> None:
        with loopback_listener() as nobody:
            port = nobody.getsockname()[1]
        settings = {
            name: value.replace(f":{served.port}/", f":{port}/") for name, value in served.settings.items()
        }
        assert settings != served.settings
        power = open_provider(self.provider, settings)
        with pytest.raises(UserError, match=f"^{self.title} did not do ") as failed:
            power.instances()
        assert "127.0.0.1" in str(failed.value)
        power.close()

    def test_no_secret_is_logged(
        self, cloud: ServedCloud, caplog: pytest.LogCaptureFixture, unmasked: Callable[[], None]
    ) -> None:
        # What the process knew before does not count: opening a provider makes its secrets known.
        unmasked()
        with caplog.at_level(logging.DEBUG):
            power = open_provider(self.provider, cloud.settings)
            power.instances()
            power.crash(self.instance())
            power.close()
        logged = "\n".join(
            f"{record.getMessage()} {record.exc_text} {record.__dict__}" for record in caplog.records
        )
        assert "127.0.0.1" in logged, "the SDK logs nothing at DEBUG: then this test shows nothing"
        assert [secret for secret in self.secrets(cloud) if secret in logged] == []
        # Some SDKs log no credentials, today: what is made known is masked whoever logs it.
        assert [secret for secret in self.secrets(cloud) if secret in secrets_in_use.mask(secret)] == []

    @pytest.fixture
    def unmasked(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
        """Begins with a registry that knows no secret, and masks what is logged by it."""
        factory = logging.getLogRecordFactory()

        def begin() -> None:
            registry = SecretRegistry()
            for name in ("_values", "_beginnings", "_longest", "_longest_first", "_masked_last"):
                monkeypatch.setattr(secrets_in_use, name, getattr(registry, name))
            logging.setLogRecordFactory(logging.LogRecord)
            mask_log_records()

        yield begin
        logging.setLogRecordFactory(factory)

    def secrets(self, cloud: ServedCloud) -> list[str]:
        """The settings whose values nobody may see."""
        account = cloud.account
        return [value for value in cloud.settings.values() if value in {account.secret, account.token}]
