"""Every built-in check passing and failing on what is really measured, on one embedded cluster."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from testyard.core.deadline import Deadline, wait_until
from testyard.core.errors import UserError
from testyard.workflow.builtin_steps import register_builtin_steps
from testyard.workflow.cluster import Cluster
from testyard.workflow.context import Context
from testyard.workflow.integrity import SEEDED_TABLE, WRITES_TABLE
from testyard.workflow.loading import default_checks
from testyard.workflow.model import Step
from testyard.workflow.registry import Measurement, StepRegistry
from testyard.workflow.settings import Deadlines, WorkflowSettings

WITHIN = timedelta(seconds=60)
MINUTE = timedelta(minutes=1)
SETTINGS = WorkflowSettings(
    deadlines=Deadlines(
        deploy=2 * MINUTE,
        stop=MINUTE,
        start=MINUTE,
        ready=MINUTE,
        destroy=MINUTE,
        ssh_connect=timedelta(seconds=5),
        election=timedelta(seconds=5),
        database_answer=timedelta(seconds=2),
    ),
    power_deadlines={"stop": 30, "boot": 30, "crash": 10, "reboot": 30, "stays_down": 0.2, "poll": 0.05},
)
CHECKS = (
    "cluster_status",
    "cluster_status_stopped",
    "cluster_degraded",
    "cluster_critical",
    "all_nodes_running",
    "ssh_connectivity",
    "vms_powered_off",
    "node_status:n12",
    "node_status:n12:running",
    "node_status:n12:stopped",
    "node_status:n13:running",
    "database_running",
    "database_degraded",
    "database_down",
    "admin_ui_accessible",
    "data_integrity",
)


class Lab:
    """A deployed cluster, and the hand that does to it what no deployer does."""

    def __init__(self, directory: Path) -> None:
        parameters = {"cluster_size": 3}
        self.said: list[str] = []
        self.cluster = Cluster(
            directory / "deployment", SETTINGS, provider="aws", parameters=parameters, log=self.said.append
        )
        self.context = Context(
            deploy_dir=directory / "deployment",
            parameters=parameters,
            provider="aws",
            cluster=self.cluster,
            log=self.said.append,
        )
        self._steps = StepRegistry()
        register_builtin_steps(self._steps)
        self._checks = default_checks()

    def do(self, step: str, **fields: Any) -> dict[str, Any]:
        """Do one step of a workflow."""
        entry = self._steps.find(step)
        assert entry is not None
        assert entry.function is not None
        parsed: Step = entry.model.model_validate({"step": step, **fields})
        return dict(entry.function(self.context, parsed) or {})

    def look(self, check: str) -> Measurement:
        """One check's measurement."""
        entry, arguments = self._checks.split(check)
        found = entry.function(self.context, *arguments)
        assert isinstance(found, Measurement)
        return found

    def passing(self) -> set[str]:
        """The checks that pass now."""
        found = {check: self.look(check) for check in CHECKS}
        assert all(it.measured for it in found.values())
        return {check for check, it in found.items() if it.passed}

    def control(self, path: str, **body: Any) -> None:
        """Have the datacentre do something."""
        datacentre = json.loads((self.cluster.directory / ".datacentre.json").read_text())
        url = f"{datacentre['address']}/deployments/{self.cluster.deployment.identifier}/{path}"
        headers = {"Authorization": f"Bearer {datacentre['token']}"}
        httpx.post(url, json=body, headers=headers, timeout=30).raise_for_status()

    def run_sql(self, statement: str) -> None:
        """Do something to the data that nobody was told of."""
        with self.cluster.open_primary()[1] as session:
            session.run(statement, within=WITHIN)

    def mend(self) -> None:
        """Wait until everything is as it was after the deployment."""
        for leftover in self.cluster.undo():
            assert leftover.ended, leftover.outcome
        ready = "cluster_status"
        wait_until(lambda: self.look(ready).passed, bool, Deadline(WITHIN), "the cluster to be whole again")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A cluster of three nodes for all tests of this module; each test leaves it whole."""
    lab = Lab(tmp_path_factory.mktemp("lab"))
    lab.do("init")
    try:
        lab.do("deploy")
        yield lab
    finally:
        lab.do("destroy")


@pytest.fixture
def mended(lab: Lab) -> Iterator[Lab]:
    """The cluster, which is whole again after the test."""
    yield lab
    lab.mend()


@contextmanager
def without(lab: Lab, name: str) -> Iterator[None]:
    """A file of the deployment's directory is missing for a while."""
    path = lab.cluster.directory / name
    away = path.with_name(f"{name}.away")
    path.rename(away)
    try:
        yield
    finally:
        away.rename(path)


def test_a_whole_cluster(lab: Lab) -> None:
    assert lab.passing() == {
        "cluster_status",
        "all_nodes_running",
        "ssh_connectivity",
        "node_status:n12",
        "node_status:n12:running",
        "node_status:n13:running",
        "database_running",
        "admin_ui_accessible",
        "data_integrity",
    }


def test_a_cluster_without_one_node(mended: Lab) -> None:
    result = mended.do("stop_node", target_node="n12")
    assert (result["node"], result["outcome"]) == ("n12", "stopped")
    assert mended.passing() == {
        "cluster_degraded",
        "node_status:n12:stopped",
        "node_status:n13:running",
        "database_degraded",
        "data_integrity",
    }
    assert mended.do("start_node", target_node="n12")["outcome"] == "started"


def test_a_cluster_without_its_majority(mended: Lab) -> None:
    mended.do("crash_node", target_node="n11", method="destroy")
    mended.do("crash_node", target_node="n12", method="destroy")
    assert mended.passing() - {"database_degraded", "database_down"} == {
        "cluster_critical",
        "node_status:n12:stopped",
        "node_status:n13:running",
    }


def test_a_stopped_cluster(mended: Lab) -> None:
    mended.do("stop_cluster")
    assert mended.passing() == {
        "cluster_status_stopped",
        "cluster_critical",
        "vms_powered_off",
        "node_status:n12:stopped",
        "database_down",
    }
    mended.do("start_cluster")
    assert mended.look("cluster_status").passed
    assert mended.look("database_running").passed


def test_no_write_is_lost_when_the_primary_crashes(mended: Lab) -> None:
    primary = next(it.node for it in mended.cluster.databases() if it.role.name == "PRIMARY")
    mended.do("crash_node", target_node=primary, method="destroy")
    found = mended.look("data_integrity")
    assert found.passed, found.measured
    assert "; none lost" in found.measured
    assert " 0 acknowledged" not in found.measured
    assert not found.measured.startswith(f"{primary}:")


def test_a_restarted_node_has_a_new_boot_id(mended: Lab) -> None:
    result = mended.do("restart_node", target_node="n13")
    assert (result["method"], result["command"], result["outcome"]) == ("ssh", "sudo reboot", "came back")
    assert result["boot_id_before"] != result["boot_id_after"]


def test_a_crash_over_ssh_tells_whether_the_node_came_back(mended: Lab) -> None:
    result = mended.do("crash_node", target_node="n13")
    assert (result["method"], result["crash_type"], result["outcome"]) == ("ssh", "hard_shutdown", "came back")
    assert result["boot_id_before"] != result["boot_id_after"]


def test_services_that_stop_are_seen_although_the_node_runs(mended: Lab) -> None:
    mended.control("nodes/n12/services-stop")
    assert mended.passing() == {
        "all_nodes_running",
        "ssh_connectivity",
        "node_status:n12",
        "node_status:n12:running",
        "node_status:n13:running",
        "database_degraded",
        "data_integrity",
    }
    mended.do("restart_node", target_node="n12")


@pytest.mark.parametrize(
    ("damage", "repair", "told"),
    [
        (
            f"update {SEEDED_TABLE} set payload = 'x' where id = 3",
            f"update {SEEDED_TABLE} set payload = md5('{{seed}}:3') where id = 3",
            "the seeded table has 1000 rows with checksum",
        ),
        (
            f"delete from {SEEDED_TABLE} where id = 3",
            f"insert into {SEEDED_TABLE} values (3, md5('{{seed}}:3'))",
            "the seeded table has 999 rows with checksum",
        ),
    ],
)
def test_damaged_data_is_seen(lab: Lab, damage: str, repair: str, told: str) -> None:
    lab.run_sql(damage)
    found = lab.look("data_integrity")
    lab.run_sql(repair.format(seed=lab.cluster.directory.name))
    assert not found.passed
    assert told in found.measured
    assert lab.look("data_integrity").passed


def test_an_acknowledged_write_that_is_gone_is_named(lab: Lab) -> None:
    assert lab.cluster.integrity.keep_writing() == ""
    lab.cluster.integrity.pause()
    number = _last_write(lab)
    lab.run_sql(f"create table spare as select * from {WRITES_TABLE} where id = {number}")
    lab.run_sql(f"delete from {WRITES_TABLE} where id = {number}")
    found = lab.look("data_integrity")
    lab.run_sql(f"insert into {WRITES_TABLE} select * from spare")
    lab.run_sql("drop table spare")
    assert not found.passed
    assert f"1 acknowledged writes are lost: row {number} (acknowledged by n1" in found.measured
    assert lab.look("data_integrity").passed


def _last_write(lab: Lab) -> int:
    with lab.cluster.open_primary()[1] as session:
        rows = session.run(f"select max(id) from {WRITES_TABLE}", within=WITHIN)
    return int(rows[0][0] or 0)


def test_a_provider_that_refuses_makes_states_unclear_and_is_told(lab: Lab) -> None:
    lab.control("cloud", expired=True)
    try:
        found = lab.look("all_nodes_running")
        assert not found.passed
        assert "n12 unclear (SSH answers, boot id" in found.measured
        assert "aws failed: " in found.measured
        assert lab.look("ssh_connectivity").passed
        assert not lab.look("node_status:n12").passed
        assert not lab.look("node_status:n12:stopped").passed
        with pytest.raises(UserError, match=r"(?i)credential|expired"):
            lab.look("vms_powered_off")
    finally:
        lab.control("cloud", expired=False)
    assert lab.look("all_nodes_running").passed


@pytest.mark.parametrize(
    ("name", "check", "told"),
    [
        ("admin_ui.crt", "admin_ui_accessible", "cannot be checked: there is no .*admin_ui.crt"),
        (".credentials.json", "database_running", "has no database that can be asked"),
        (".credentials.json", "database_down", "has no database that can be asked"),
        (".credentials.json", "data_integrity", "has no database that can be asked"),
        ("inventory.ini", "all_nodes_running", "inventory.ini"),
        ("inventory.ini", "ssh_connectivity", "inventory.ini"),
        ("inventory.ini", "database_down", "inventory.ini"),
        ("known_hosts", "ssh_connectivity", "known_hosts"),
        (".exasol.json", "vms_powered_off", ".exasol.json"),
    ],
)
def test_what_cannot_be_measured_is_no_verdict(lab: Lab, name: str, check: str, told: str) -> None:
    with without(lab, name), pytest.raises(UserError, match=told):
        lab.look(check)


def test_an_admin_ui_with_another_certificate_is_not_accessible(lab: Lab, other_certificate: str) -> None:
    path = lab.cluster.directory / "admin_ui.crt"
    own = path.read_text()
    path.write_text(other_certificate)
    try:
        found = lab.look("admin_ui_accessible")
    finally:
        path.write_text(own)
    assert not found.passed
    assert "its certificate is not the deployment's" in found.measured


@pytest.fixture
def other_certificate(tmp_path: Path) -> str:
    """A certificate of somebody else."""
    import subprocess

    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=other"
    files = ["-keyout", str(tmp_path / "key"), "-out", str(tmp_path / "crt")]
    subprocess.run([*command.split(), *files], check=True, capture_output=True)
    return (tmp_path / "crt").read_text()


def test_a_cluster_that_has_not_all_its_nodes_is_told(lab: Lab) -> None:
    lab.cluster.parameters["cluster_size"] = 4
    try:
        for check in ("all_nodes_running", "ssh_connectivity", "database_down", "admin_ui_accessible"):
            with pytest.raises(UserError, match="should have 4 nodes, the inventory has 3: n11, n12, n13"):
                lab.look(check)
    finally:
        lab.cluster.parameters["cluster_size"] = 3


def test_an_unknown_node_is_told(lab: Lab) -> None:
    with pytest.raises(UserError, match="There is no node 'n99'"):
        lab.look("node_status:n99")


@pytest.mark.parametrize("step", ["init", "deploy", "start_cluster"])
def test_what_the_deployer_refuses_fails_the_step_with_its_reason(lab: Lab, step: str) -> None:
    with pytest.raises(RuntimeError, match=r"The deployer's '\w+' failed \(exit status 1\): .*\w"):
        lab.do(step)
    assert lab.look("cluster_status").passed
