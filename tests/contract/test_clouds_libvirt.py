"""libvirt-python against the lab's libvirtd, over libvirt's own remote protocol."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from clouds_contract import LASTING
from clouds_support import FOREIGN, NODES, OWN, ScriptedMachines
from clouds_token_contract import BEFORE, DONE, OPERATIONS, until_done
from testyard.core.deadline import Deadline, never_within, wait_until
from testyard.core.errors import UserError
from testyard.lab.clouds import libvirt as double
from testyard.lab.clouds import libvirt_domains, open_double
from testyard.lab.clouds.machines import CloudAccount, MachineState, instance_identifier
from testyard.lab.servers.loop_thread import LoopThread
from testyard.power.protocol import Instance, PowerProvider, PowerState, ProviderName
from testyard.power.providers import libvirt as provider

WITHIN = timedelta(seconds=10)
MISSING = libvirt_domains.missing_part()
needs_libvirt = pytest.mark.skipif(bool(MISSING), reason=MISSING)

# What a killed process has started: prints the settings, and waits to be killed.
OWNER = """
import asyncio
from clouds_support import OWN, ScriptedMachines
from testyard.lab.clouds import open_double
from testyard.lab.clouds.machines import CloudAccount

async def own():
    double = open_double("libvirt", ScriptedMachines("libvirt"), CloudAccount(OWN))
    print(double.settings("")["LIBVIRT_DEFAULT_URI"], flush=True)
    await asyncio.Event().wait()

asyncio.run(own())
"""
ASKING = """
import sys
from testyard.core.errors import UserError
from testyard.power.providers.libvirt import open_provider

try:
    open_provider("d-own", eval(sys.argv[1]))
except UserError as problem:
    print(problem)
"""


class ServedLibvirt(LoopThread):
    """The lab's libvirt, on a loop of its own as in the datacentre."""

    def __init__(self) -> None:
        super().__init__("libvirt double")
        self.machines = ScriptedMachines("libvirt")
        self.account = CloudAccount(OWN, delay=timedelta())
        self.settings: dict[str, str] = {}

    @asynccontextmanager
    async def _serving(self) -> AsyncIterator[None]:
        opened = open_double("libvirt", self.machines, self.account)
        try:
            self.settings = opened.settings("")
            yield
        finally:
            opened.close()


def instance(node: str = "n12", deployment: str = OWN) -> Instance:
    """A machine as its node is known to the lab."""
    return Instance(instance_identifier("libvirt", deployment, node), node, "", ProviderName.LIBVIRT)


def until_state(power: PowerProvider, node: str, state: PowerState) -> None:
    """Wait until libvirt tells this state."""
    wait_until(
        lambda: power.state(instance(node)), lambda found: found is state, Deadline(WITHIN), f"{node} {state}"
    )


@needs_libvirt
class TestLibvirt:
    """The power of machines under libvirt."""

    @pytest.fixture(scope="class")
    @classmethod
    def served(cls) -> Iterator[ServedLibvirt]:
        """The lab's libvirt, for all tests."""
        with ServedLibvirt() as served:
            yield served

    @pytest.fixture(scope="class")
    @classmethod
    def opened(cls, served: ServedLibvirt) -> Iterator[PowerProvider]:
        """The provider, for all tests."""
        with closing(provider.open_provider(OWN, served.settings)) as power:
            yield power

    @pytest.fixture
    def cloud(self, served: ServedLibvirt, opened: PowerProvider) -> ServedLibvirt:
        """The lab's libvirt, with its machines and domains running."""
        served.account.delay = timedelta()
        served.machines.reset()
        wait_until(
            lambda: [domain.isActive() for domain in opened._connection.listAllDomains()],
            lambda active: active == [1] * (2 * len(NODES) + 1),
            Deadline(WITHIN),
            "every domain, the driver's own one too, to run",
        )
        return served

    @pytest.fixture
    def power(self, cloud: ServedLibvirt, opened: PowerProvider) -> PowerProvider:
        """The provider for the own deployment."""
        return opened

    def test_lists_the_domains_of_its_deployment_and_no_others(self, power: PowerProvider) -> None:
        found = power.instances()
        assert [each.node for each in found] == list(NODES)
        assert [each.identifier for each in found] == [instance(node).identifier for node in NODES]
        assert {each.provider for each in found} == {ProviderName.LIBVIRT}
        assert {each.region for each in found} == {power._connection.getHostname()}

    def test_a_deployment_without_domains_is_named(self, cloud: ServedLibvirt) -> None:
        with (
            closing(provider.open_provider("d-none", cloud.settings)) as power,
            pytest.raises(UserError, match="libvirt has no machine with the tag deployment=d-none"),
        ):
            power.instances()

    def test_a_domain_runs_until_its_system_has_shut_down(
        self, cloud: ServedLibvirt, power: PowerProvider
    ) -> None:
        power.stop(instance())
        until_done(cloud, ("press", "n12"))
        never_within(
            lambda: power.state(instance()),
            lambda state: state is not PowerState.RUNNING,
            Deadline(timedelta(milliseconds=100)),
            "a domain that is off before its machine",
        )
        cloud.machines.put("n12", MachineState.STOPPED)
        until_state(power, "n12", PowerState.STOPPED)
        assert power.state(instance("n11")) is PowerState.RUNNING

    def test_a_shutdown_takes_at_least_as_long_as_the_account_says(
        self, cloud: ServedLibvirt, power: PowerProvider
    ) -> None:
        cloud.account.delay = LASTING
        power.stop(instance())
        until_done(cloud, ("press", "n12"))
        cloud.machines.put("n12", MachineState.STOPPED)
        never_within(
            lambda: power.state(instance()),
            lambda state: state is not PowerState.RUNNING,
            Deadline(timedelta(milliseconds=100)),
            "a domain that is off at once",
        )
        cloud.account.delay = timedelta()
        until_state(power, "n12", PowerState.STOPPED)

    def test_a_start_switches_the_machine_on(self, cloud: ServedLibvirt, power: PowerProvider) -> None:
        cloud.machines.put("n12", MachineState.STOPPED)
        until_state(power, "n12", PowerState.STOPPED)
        power.start(instance())
        assert power.state(instance()) is PowerState.RUNNING
        until_done(cloud, ("power_on", "n12"))

    def test_a_crash_takes_the_power(self, cloud: ServedLibvirt, power: PowerProvider) -> None:
        power.crash(instance())
        assert power.state(instance()) is PowerState.STOPPED
        until_done(cloud, ("power_off", "n12"))

    def test_a_domain_follows_its_machine(self, cloud: ServedLibvirt, power: PowerProvider) -> None:
        cloud.machines.put("n13", MachineState.STOPPED)
        until_state(power, "n13", PowerState.STOPPED)
        cloud.machines.put("n13", MachineState.STARTING)
        until_state(power, "n13", PowerState.RUNNING)
        cloud.machines.put("n13", MachineState.STOPPED)
        until_state(power, "n13", PowerState.STOPPED)
        self.nothing_but_a_crash_was_done(cloud, power)

    @pytest.mark.parametrize(("call", "first"), [("reboot", "press"), ("reset", "power_off")])
    def test_a_domain_that_restarts_stays_on(
        self, cloud: ServedLibvirt, power: PowerProvider, call: str, first: str
    ) -> None:
        getattr(power._connection.lookupByUUIDString(instance().identifier), call)()
        if call == "reboot":
            until_done(cloud, ("press", "n12"))
            cloud.machines.put("n12", MachineState.STOPPED)
        until_done(cloud, (first, "n12"), ("power_on", "n12"))
        assert power.state(instance()) is PowerState.RUNNING

    @pytest.mark.parametrize("operation", ["state", *OPERATIONS])
    def test_a_foreign_domain_is_refused_and_untouched(
        self, cloud: ServedLibvirt, power: PowerProvider, operation: str
    ) -> None:
        with pytest.raises(UserError, match=f"is not node n12 of deployment {OWN}.*{FOREIGN}.*Nothing was done"):
            getattr(power, operation)(instance(deployment=FOREIGN))
        self.nothing_but_a_crash_was_done(cloud, power)

    @pytest.mark.parametrize("operation", OPERATIONS)
    def test_a_domain_without_metadata_is_refused_and_untouched(
        self, cloud: ServedLibvirt, power: PowerProvider, operation: str
    ) -> None:
        other = power._connection.lookupByName("test")
        known = Instance(other.UUIDString(), "n12", "", ProviderName.LIBVIRT)
        with pytest.raises(UserError, match="Nothing was done"):
            getattr(power, operation)(known)
        assert other.isActive()
        self.nothing_but_a_crash_was_done(cloud, power)

    @pytest.mark.parametrize("operation", OPERATIONS)
    def test_the_metadata_are_read_again_before_each_action(
        self, cloud: ServedLibvirt, power: PowerProvider, operation: str
    ) -> None:
        (known,) = [each for each in power.instances() if each.node == "n12"]
        domain = power._connection.lookupByUUIDString(known.identifier)
        relabel(domain, "d-taken-over")
        try:
            with pytest.raises(UserError, match="d-taken-over"):
                getattr(power, operation)(known)
        finally:
            relabel(domain, OWN)
        self.nothing_but_a_crash_was_done(cloud, power)

    @pytest.mark.parametrize("operation", ["state", *OPERATIONS])
    def test_a_domain_that_is_gone_is_named(
        self, cloud: ServedLibvirt, power: PowerProvider, operation: str
    ) -> None:
        cloud.machines.remove("n12")
        wait_until(lambda: len(power.instances()), lambda count: count == 2, Deadline(WITHIN), "one domain less")
        with pytest.raises(UserError, match=r"libvirt has no machine .*node n12"):
            getattr(power, operation)(instance())

    @pytest.mark.parametrize("operation", OPERATIONS)
    def test_every_call_that_is_announced_is_made(
        self, cloud: ServedLibvirt, power: PowerProvider, monkeypatch: pytest.MonkeyPatch, operation: str
    ) -> None:
        import libvirt

        made: list[str] = []
        for name in ("create", "shutdown", "destroy", "reboot", "reset"):
            monkeypatch.setattr(libvirt.virDomain, name, noting(made, name, getattr(libvirt.virDomain, name)))
        cloud.machines.put("n12", BEFORE[operation])
        wait_until(
            lambda: power.state(instance()) is PowerState.STOPPED,
            lambda off: off is (operation == "start"),
            Deadline(WITHIN),
            "the state before",
        )
        # What the double itself has called to get there.
        made.clear()
        getattr(power, operation)(instance())
        assert made == [power.calls[operation]]
        until_done(cloud, (DONE[operation], "n12"))

    def test_a_call_that_libvirt_refuses_is_told(self, cloud: ServedLibvirt, power: PowerProvider) -> None:
        with pytest.raises(UserError, match=r"libvirt did not do virDomain\.create for node n12.*already running"):
            power.start(instance())
        self.nothing_but_a_crash_was_done(cloud, power)

    def test_nobody_at_the_address_is_named_and_that_is_all(self, tmp_path: Path) -> None:
        settings = {"LIBVIRT_DEFAULT_URI": f"test+unix:///default?socket={tmp_path}/nobody"}
        # In a process of its own: whether the C library prints errors besides is one setting for all of it.
        asked = subprocess.run(
            [sys.executable, "-c", ASKING, repr(settings)], capture_output=True, text=True, check=True
        )
        assert asked.stdout.startswith("libvirt did not do open test+unix:///default?socket=")
        assert "nobody" in asked.stdout
        assert asked.stderr == ""

    def test_the_daemon_is_nobody_and_keeps_to_its_directory(self, cloud: ServedLibvirt) -> None:
        directory = Path(cloud.settings["LIBVIRT_DEFAULT_URI"].partition("socket=")[2]).parent
        process = Path("/proc") / (directory / "pid").read_text(encoding="ascii").strip()
        assert directory.stat().st_mode & 0o077 == 0
        assert (process.stat().st_uid == 0) is False
        files = [str(each.readlink()) for each in (process / "fd").iterdir()]
        elsewhere = [
            each for each in files if each.startswith("/") and not each.startswith((f"{directory}", "/dev/"))
        ]
        assert elsewhere == []

    def nothing_but_a_crash_was_done(self, cloud: ServedLibvirt, power: PowerProvider) -> None:
        """What is done is done in the order it was asked for: a last crash is then the only thing."""
        power.crash(instance("n11"))
        until_done(cloud, ("power_off", "n11"))


def relabel(domain: Any, deployment: str) -> None:
    """Say whose domain it is, as an administrator does with ``virsh metadata``."""
    import libvirt

    domain.setMetadata(
        libvirt.VIR_DOMAIN_METADATA_ELEMENT,
        f"<instance deployment='{deployment}' node='n12'/>",
        "testyard",
        provider.NAMESPACE,
        libvirt.VIR_DOMAIN_AFFECT_LIVE | libvirt.VIR_DOMAIN_AFFECT_CONFIG,
    )


def noting(made: list[str], name: str, real: Any) -> Any:
    """A method of a domain that notes its call."""

    def call(domain: Any) -> Any:
        made.append(f"virDomain.{name}")
        return real(domain)

    return call


@needs_libvirt
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_daemon_ends_with_its_owner(number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OWNER],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    ) as owner:
        assert owner.stdout is not None
        directory = Path(owner.stdout.readline().decode().strip().partition("socket=")[2]).parent
        process = Path("/proc") / (directory / "pid").read_text(encoding="ascii").strip()
        assert process.exists()
        owner.send_signal(number)
    wait_until(process.exists, lambda exists: not exists, Deadline(WITHIN), "the end of libvirtd")
    wait_until(directory.exists, lambda exists: not exists, Deadline(WITHIN), "the end of its directory")


@needs_libvirt
def test_nothing_is_left_when_the_launcher_was_killed() -> None:
    domains = libvirt_domains.LibvirtDomains(lambda _call, _uuid: None)
    domains.open()
    directory = Path(domains.uri.partition("socket=")[2]).parent
    process = Path("/proc") / (directory / "pid").read_text(encoding="ascii").strip()
    domains._launcher.kill()
    domains.close()
    wait_until(process.exists, lambda exists: not exists, Deadline(WITHIN), "the end of libvirtd")
    assert not directory.exists()


def test_without_libvirt_the_machines_run_and_the_settings_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(double, "missing_part", lambda: "libvirt's API needs the Python package: apt install it")
    with ServedLibvirt() as cloud:
        settings = cloud.settings
    assert settings == {provider.UNAVAILABLE: "libvirt's API needs the Python package: apt install it"}


@needs_libvirt
def test_a_daemon_that_does_not_start_is_said_in_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libvirt_domains, "_daemon", lambda: "/bin/false")
    with ServedLibvirt() as cloud:
        settings = cloud.settings
    assert settings.keys() == {provider.UNAVAILABLE}
    assert "libvirtd did not start" in settings[provider.UNAVAILABLE]


def test_the_part_that_is_missing_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libvirt_domains, "find_spec", lambda _: None)
    assert libvirt_domains.missing_part().endswith(provider.INSTALL)
    monkeypatch.setattr(libvirt_domains, "find_spec", lambda _: object())
    monkeypatch.setattr(libvirt_domains, "_daemon", lambda: None)
    assert libvirt_domains.missing_part().endswith("apt install libvirt-daemon")


def test_a_missing_sdk_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "libvirt", None)
    with pytest.raises(UserError) as caught:
        provider.open_provider(OWN, {provider.UNAVAILABLE: "something else"})
    assert str(caught.value).endswith(provider.INSTALL)


@needs_libvirt
def test_what_the_lab_says_instead_of_an_address_is_the_error() -> None:
    with pytest.raises(UserError, match=r"^no libvirtd here$"):
        provider.open_provider(OWN, {provider.UNAVAILABLE: "no libvirtd here"})


@needs_libvirt
def test_a_missing_address_is_named() -> None:
    with pytest.raises(UserError, match=r"^libvirt needs .*set LIBVIRT_DEFAULT_URI "):
        provider.open_provider(OWN, {})


def test_both_sides_agree_on_their_texts() -> None:
    assert (double.URI, double.UNAVAILABLE) == (provider.URI, provider.UNAVAILABLE)
    assert (libvirt_domains.NAMESPACE, libvirt_domains.INSTALL_CLIENT) == (provider.NAMESPACE, provider.INSTALL)
