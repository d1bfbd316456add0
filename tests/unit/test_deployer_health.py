"""The health JSON: its keys, what counts as an issue, and how bad it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from testyard.lab.cluster.deployer.health import Health, HostMeasurement, IssueType, Severity, measured_now

FINE = HostMeasurement("", False, "", "", {"database": "active", "admin-ui": "active"}, False)
PRIMARY = FINE._replace(takes_writes=True)
OFF = HostMeasurement("Connection refused", True, "Connection refused", "Connection refused", {}, False)
DATABASE_STOPPED = FINE._replace(
    database="Connection refused", services={"database": "inactive", "admin-ui": "active"}
)
ADMIN_UI_STOPPED = FINE._replace(
    admin_ui="Connection refused", services={"database": "active", "admin-ui": "inactive"}
)


def health(*, has_database: bool = True, instances: int | None = 3, **hosts: HostMeasurement) -> Health:
    measured = {"n11": PRIMARY, "n12": FINE, "n13": FINE} | hosts
    return measured_now(Path("/d"), measured, has_database=has_database, instances=instances)


def issues(seen: Health) -> list[tuple[str, str, str]]:
    return [(each["type"], each["host"], each["severity"]) for each in seen.as_json()["issues"]]


# ---- the keys are those of contract 2.7


def test_the_keys_are_the_contracts():
    content = health(n12=OFF).as_json()
    assert list(content) == [
        *("status", "exit_code", "timestamp", "deployment_dir", "checks", "issues_count", "issues", "hosts"),
    ]
    assert list(content["checks"]) == ["ssh", "adminui", "database", "cos_ssh", "services"]
    for check in ("ssh", "adminui", "database", "cos_ssh"):
        assert list(content["checks"][check]) == ["passed", "failed"]
    assert list(content["checks"]["services"]) == ["active", "failed"]
    assert content["issues"]
    assert all(list(issue) == ["type", "host", "severity"] for issue in content["issues"])
    for host in content["hosts"].values():
        assert list(host) == [
            *("ssh_ok", "cos_ssh_ok", "services", "volume_status", "cluster_status", "port_8443_ok"),
            "port_8563_ok",
        ]


def test_the_types_of_issues_are_the_contracts():
    assert list(IssueType) == [
        *(
            "ssh_unreachable",
            "service_failed",
            "cos_ssh_unreachable",
            "adminui_unreachable",
            "db_port_unreachable",
        ),
        *("no_data_volumes", "broken_volume_symlink", "cloud_instance_count_mismatch", "terraform_refresh_failed"),
    ]
    assert list(Severity) == ["critical", "warning"]


# ---- what is an issue


def test_a_healthy_cluster_has_none():
    seen = health()
    content = seen.as_json()
    assert (content["status"], content["exit_code"], content["issues_count"], content["issues"]) == (
        *("healthy", 0, 0),
        [],
    )
    assert content["checks"] == {
        "ssh": {"passed": 3, "failed": 0},
        "adminui": {"passed": 3, "failed": 0},
        "database": {"passed": 3, "failed": 0},
        "cos_ssh": {"passed": 3, "failed": 0},
        "services": {"active": 6, "failed": 0},
    }
    assert (seen.healthy, seen.ssh_answers, seen.stage_d) == (True, True, True)


def test_a_node_that_is_off():
    seen = health(n12=OFF)
    content = seen.as_json()
    assert (content["status"], content["exit_code"], content["issues_count"]) == ("issues_detected", 1, 4)
    assert issues(seen) == [
        ("ssh_unreachable", "n12", "critical"),
        ("cos_ssh_unreachable", "n12", "warning"),
        ("adminui_unreachable", "n12", "warning"),
        ("db_port_unreachable", "n12", "warning"),
    ]
    assert content["checks"] == {
        "ssh": {"passed": 2, "failed": 1},
        "adminui": {"passed": 2, "failed": 1},
        "database": {"passed": 2, "failed": 1},
        "cos_ssh": {"passed": 2, "failed": 1},
        "services": {"active": 4, "failed": 0},
    }
    assert content["hosts"]["n12"] == {
        "ssh_ok": False,
        "cos_ssh_ok": False,
        "services": {},
        "volume_status": "none",
        "cluster_status": "none",
        "port_8443_ok": False,
        "port_8563_ok": False,
    }
    assert (seen.ssh_answers, seen.stage_d) == (True, True)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        (
            DATABASE_STOPPED,
            [
                ("service_failed", "n13", "critical"),
                ("cos_ssh_unreachable", "n13", "warning"),
                ("db_port_unreachable", "n13", "warning"),
            ],
        ),
        (ADMIN_UI_STOPPED, [("service_failed", "n13", "critical"), ("adminui_unreachable", "n13", "warning")]),
        (
            FINE._replace(ssh="no", services={}),
            [("ssh_unreachable", "n13", "critical"), ("cos_ssh_unreachable", "n13", "warning")],
        ),
        (FINE._replace(admin_ui="no"), [("adminui_unreachable", "n13", "warning")]),
        (FINE._replace(database="no"), [("db_port_unreachable", "n13", "warning")]),
    ],
)
def test_each_fault_has_its_issues(host, expected):
    assert issues(health(n13=host)) == expected


@pytest.mark.parametrize(("instances", "expected"), [(3, 0), (None, 0), (2, 1), (4, 1)])
def test_the_datacentre_has_as_many_nodes_as_the_inventory(instances, expected):
    found = issues(health(instances=instances))
    assert found == [("cloud_instance_count_mismatch", "cluster", "warning")] * expected


def test_an_issue_says_what_was_seen():
    (line, *_) = map(str, health(n12=OFF).issues)
    assert line == "n12: ssh_unreachable (critical): Connection refused"


# ---- the stage of the cluster


@pytest.mark.parametrize(
    ("host", "stage"),
    [
        (OFF, "none"),
        (ADMIN_UI_STOPPED, "a"),
        (DATABASE_STOPPED, "b"),
        (FINE._replace(database="no"), "c"),
        (FINE, "d"),
    ],
)
def test_a_node_has_come_so_far(host, stage):
    assert health(n13=host).as_json()["hosts"]["n13"]["cluster_status"] == stage


def test_without_a_node_that_takes_writes_the_cluster_is_not_complete():
    seen = health(n11=FINE)
    assert seen.healthy
    assert not seen.stage_d
    assert seen.as_json()["hosts"]["n12"]["cluster_status"] == "c"


def test_when_every_node_is_off_none_answers():
    seen = health(n11=OFF, n12=OFF, n13=OFF)
    assert (seen.ssh_answers, seen.stage_d) == (False, False)


def test_a_node_that_refuses_us_over_ssh_is_not_off():
    refusing = PRIMARY._replace(ssh="its host key is not the one in known_hosts", services={})
    seen = health(n11=refusing, n12=refusing, n13=refusing)
    assert (seen.ssh_answers, seen.stage_d, seen.healthy) == (True, True, False)
    assert seen.as_json()["checks"]["ssh"] == {"passed": 0, "failed": 3}


def test_a_deployment_without_database_is_not_asked_for_one():
    host = FINE._replace(services={"admin-ui": "active"})
    seen = health(has_database=False, n11=host, n12=host, n13=host)
    content = seen.as_json()
    assert content["status"] == "healthy"
    assert content["checks"]["database"] == content["checks"]["cos_ssh"] == {"passed": 0, "failed": 0}
    assert content["hosts"]["n11"]["port_8563_ok"] is None
    assert seen.stage_d


# ---- the history


def test_each_measurement_is_a_line_of_the_history(tmp_path):
    first = measured_now(tmp_path, {"n11": PRIMARY}, has_database=True, instances=1)
    second = measured_now(tmp_path, {"n11": OFF}, has_database=True, instances=1)
    for each in (first, second):
        each.append_to_history()
    lines = (tmp_path / ".health_history.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [first.as_json(), second.as_json()]
