"""Driving a deployer's command line."""

import json
import signal
import sys
import threading
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
from testyard.core.deadline import Deadline, wait_until
from testyard.core.redact import secrets_in_use
from testyard.workflow.deployer import Deployer, DeployerError
from testyard.workflow.settings import Deadlines, WorkflowSettings

FAKE = (sys.executable, "-IS", str(Path(__file__).parent.parent / "fake_deployer.py"))
SECOND = timedelta(seconds=1)


class FakeDeployment:
    """A deployer that deploys nothing, and what it was told."""

    def __init__(self, directory: Path, deadlines: Deadlines | None = None, **environment: str) -> None:
        self._calls = directory / "calls"
        self.hangs = directory / "hangs"
        settings = WorkflowSettings(deployer=FAKE, deadlines=deadlines or Deadlines(grace=SECOND))
        named = {f"FAKE_DEPLOYER_{name}": value for name, value in environment.items()}
        named["FAKE_DEPLOYER_CALLS"] = str(self._calls)
        self.deployer = Deployer(directory / "d", settings, environment=named)

    @property
    def calls(self) -> list[list[str]]:
        return [json.loads(line) for line in self._calls.read_text().splitlines()]


def test_a_suites_parameters_become_options(tmp_path: Path) -> None:
    parameters = {
        "cluster_size": 3,
        "libvirt_memory_gb": 8,
        "database": False,
        "sysrq": True,
        "allowed_cidr": ["10.0.0.0/8"],
        "owner": "a b",
        "db_version": None,
        "power_api": "extended",
    }
    fake = FakeDeployment(tmp_path)
    fake.deployer.init("libvirt", parameters)
    options = "--cloud-provider libvirt --cluster-size 3 --libvirt-memory-gb 8 --database false --sysrq true"
    assert fake.calls == [
        [
            "init",
            "d",
            *options.split(),
            "--allowed-cidr",
            '["10.0.0.0/8"]',
            "--owner",
            "a b",
            "--power-api",
            "extended",
        ]
    ]


@pytest.mark.parametrize("name", ["host_password", "api_token", "client_secret", "access_key"])
def test_a_parameter_that_is_a_secret_is_masked_from_then_on(tmp_path: Path, name: str) -> None:
    FakeDeployment(tmp_path).deployer.init_command("aws", {name: f"not-to-be-seen-{name}"})
    assert secrets_in_use.mask(f"x not-to-be-seen-{name}") == "x ***"


def test_every_verb_has_its_documented_options(tmp_path: Path) -> None:
    fake = FakeDeployment(tmp_path)
    deployer = fake.deployer
    deployer.init("aws", {})
    deployer.deploy()
    deployer.stop()
    deployer.stop(services_only=True)
    deployer.start()
    deployer.start(wait=False)
    deployer.health()
    deployer.health(update=True)
    deployer.health(update=True, wait_for="database_ready")
    deployer.status()
    deployer.destroy()
    assert [[verb, *options] for verb, _, *options in fake.calls] == [
        ["init", "--cloud-provider", "aws"],
        ["deploy"],
        ["stop"],
        ["stop", "--services-only"],
        ["start"],
        ["start", "--no-wait"],
        ["health"],
        ["health", "--update"],
        ["health", "--update", "--wait-for", "database_ready,15m"],
        ["status"],
        ["destroy", "--auto-approve"],
    ]


def test_a_wait_that_is_no_whole_minute_is_told_in_seconds(tmp_path: Path) -> None:
    fake = FakeDeployment(tmp_path, Deadlines(ready=timedelta(seconds=7.5)))
    assert fake.deployer.health_command(wait_for="database_ready")[-1] == "database_ready,7.500s"


def test_a_refusal_is_told_with_its_last_line(tmp_path: Path) -> None:
    with pytest.raises(DeployerError) as failed:
        FakeDeployment(tmp_path, FAILS="deploy").deployer.deploy()
    assert str(failed.value) == "The deployer's 'deploy' failed (exit status 1): no quota for another cluster"


def test_issues_are_an_answer_and_no_failure(tmp_path: Path) -> None:
    fake = FakeDeployment(tmp_path, HEALTH='{"status": "issues_detected"}', HEALTH_STATUS="1")
    assert fake.deployer.health() == {"status": "issues_detected"}


def test_a_status_that_is_not_reached_is_a_failure(tmp_path: Path) -> None:
    fake = FakeDeployment(tmp_path, HEALTH='{"status": "issues_detected"}', HEALTH_STATUS="1")
    with pytest.raises(DeployerError, match="'health' failed"):
        fake.deployer.health(wait_for="database_ready")


@pytest.mark.parametrize("status", ["2", "3", "130"])
def test_health_that_cannot_be_measured_is_a_failure(tmp_path: Path, status: str) -> None:
    with pytest.raises(DeployerError, match=f"exit status {status}"):
        FakeDeployment(tmp_path, HEALTH_STATUS=status).deployer.health()


@pytest.mark.parametrize("answer", ["", "healthy", "[]", "null", '"healthy"', '{"status": "hea'])
def test_an_answer_that_is_no_object_is_a_failure(tmp_path: Path, answer: str) -> None:
    with pytest.raises(DeployerError, match="gave no JSON object"):
        FakeDeployment(tmp_path, HEALTH=answer).deployer.health()


def test_a_verb_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    deadlines = Deadlines(deploy=timedelta(milliseconds=300), grace=SECOND)
    fake = FakeDeployment(tmp_path, deadlines, HANGS="deploy")
    with pytest.raises(DeployerError, match=r"deploy --deployment-dir .*' had not ended after 0\.3 s"):
        fake.deployer.deploy()


def test_a_deployer_that_is_not_there_is_told(tmp_path: Path) -> None:
    settings = WorkflowSettings(deployer=("/no/such/deployer",))
    with pytest.raises(DeployerError, match=r"/no/such/deployer cannot be run: No such file or directory"):
        Deployer(tmp_path, settings).status()


def test_ctrl_c_ends_the_deployer_first(tmp_path: Path) -> None:
    fake = FakeDeployment(tmp_path, HANGS="deploy")
    before = psutil.Process().children()

    def press_ctrl_c() -> None:
        wait_until(fake.hangs.exists, bool, Deadline(timedelta(seconds=20)), "the deployer to hang")
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)  # as the kernel hands Ctrl-C out

    pressing = threading.Thread(target=press_ctrl_c)
    pressing.start()
    with pytest.raises(KeyboardInterrupt):
        fake.deployer.deploy()
    pressing.join()
    assert psutil.Process().children() == before


def test_the_operators_command_gets_the_directory_and_the_nodes(tmp_path: Path) -> None:
    note = f"import sys, pathlib; pathlib.Path({str(tmp_path / 'note')!r}).write_text(' '.join(sys.argv[1:]))"
    settings = WorkflowSettings(operator=(sys.executable, "-c", note))
    Deployer(tmp_path / "d", settings).run_operator(["n11", "n13"])
    assert (tmp_path / "note").read_text() == f"{tmp_path / 'd'} n11 n13"


def test_an_operator_that_fails_is_told(tmp_path: Path) -> None:
    settings = WorkflowSettings(operator=(sys.executable, "-c", "import sys; sys.exit('no such machine')"))
    with pytest.raises(DeployerError, match=r"operator's command failed \(exit status 1\): no such machine"):
        Deployer(tmp_path, settings).run_operator(["n11"])


def test_without_an_operators_command_nothing_is_run(tmp_path: Path) -> None:
    Deployer(tmp_path / "d", WorkflowSettings()).run_operator(["n11"])
    assert not (tmp_path / "d").exists()


def test_the_defaults_are_the_documented_durations() -> None:
    deadlines = WorkflowSettings().deadlines
    assert [
        deadlines.init,
        deadlines.deploy,
        deadlines.stop,
        deadlines.start,
        deadlines.destroy,
        deadlines.ready,
        deadlines.ssh_connect,
        deadlines.ssh_command,
    ] == [timedelta(seconds=it) for it in (300, 3600, 600, 600, 1200, 900, 10, 30)]
    assert WorkflowSettings().delay_scale == 1.0
    assert list(WorkflowSettings().differences()) == []
