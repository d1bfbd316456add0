"""The built-in checks' verdicts on what was measured, each of them also the other way."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from testyard.core.errors import UserError
from testyard.power.protocol import PowerState
from testyard.power.shell import Reach, SshAnswer
from testyard.workflow.cluster import Cluster
from testyard.workflow.context import Context
from testyard.workflow.measurements import AdminUiSight, ApiAnswer, DatabaseSight, NodeSight, NodeState, Role
from testyard.workflow.registry import CheckRegistry, Measurement
from testyard.workflow.settings import WorkflowSettings

ANSWERS = SshAnswer(Reach.ANSWERS, "boot-1")
DEAD = SshAnswer(Reach.DEAD, reason="connection refused")
REFUSES = SshAnswer(Reach.REFUSES, reason="permission denied")
UNASKED = ApiAnswer(None, "aws", "AWS_REGION is not set")
EXPIRED = ApiAnswer(None, "aws", "the credential has expired", failed=True)
UP = "up"
DOWN = "down"
ODD = "odd"
HEALTHY = {"status": "healthy", "exit_code": 0, "issues_count": 0, "issues": []}
ISSUE = {"type": "ssh_unreachable", "host": "n12", "severity": "critical"}
ILL = {"status": "issues_detected", "exit_code": 1, "issues_count": 1, "issues": [ISSUE]}
NAMES = ("n11", "n12", "n13", "n14", "n15")
P, S, N, W = Role.PRIMARY, Role.STANDBY, Role.NONE, Role.PRIMARY_WITHOUT_WRITES


def says(state: PowerState) -> ApiAnswer:
    """An answer of the API."""
    return ApiAnswer(state, "aws")


SIGHTS = {
    UP: (ANSWERS, says(PowerState.RUNNING)),
    DOWN: (DEAD, says(PowerState.STOPPED)),
    ODD: (DEAD, says(PowerState.RUNNING)),
}


class FakeDeployer:
    """Says what it is told to."""

    def __init__(self, status: dict[str, Any], health: dict[str, Any]) -> None:
        self._status = status
        self._health = health

    def status(self) -> dict[str, Any]:
        return self._status

    def health(self) -> dict[str, Any]:
        return self._health


class FakeIntegrity:
    """Has looked already."""

    def __init__(self, verdict: tuple[bool, str]) -> None:
        self._verdict = verdict

    def measure(self) -> tuple[bool, str]:
        return self._verdict


class FakeCluster:
    """A cluster of which everything has been measured already."""

    provider = "aws"
    settings = WorkflowSettings()

    def __init__(
        self,
        nodes: Sequence[str] = (),
        roles: Sequence[Role] = (),
        *,
        status: dict[str, Any] | None = None,
        health: dict[str, Any] | None = None,
        pages: Sequence[int] = (),
        integrity: tuple[bool, str] = (False, "not looked"),
    ) -> None:
        self._sights = [NodeSight(name, *SIGHTS[it]) for name, it in zip(NAMES, nodes, strict=False)]
        self._databases = [DatabaseSight(name, it) for name, it in zip(NAMES, roles, strict=False)]
        self._pages = [AdminUiSight(name, it, "refused") for name, it in zip(NAMES, pages, strict=False)]
        self.deployer = FakeDeployer(status or {}, health or {})
        self.integrity = FakeIntegrity(integrity)
        self.asked_for_a_primary = False

    def node_sights(self, names: Sequence[str] | None = None) -> list[NodeSight]:
        return [it for it in self._sights if names is None or it.node in names]

    def ssh_answers(self) -> dict[str, SshAnswer]:
        return {it.node: it.ssh for it in self._sights}

    def power_states(self) -> dict[str, PowerState]:
        return {it.node: it.api.state for it in self._sights if it.api.state}

    def databases(self) -> list[DatabaseSight]:
        return self._databases

    def elected_databases(self) -> list[DatabaseSight]:
        self.asked_for_a_primary = True
        return self._databases

    def admin_uis(self) -> list[AdminUiSight]:
        return self._pages


def look(check: str, cluster: FakeCluster) -> Measurement:
    """A check's measurement."""
    from testyard.workflow.loading import default_checks

    entry, arguments = default_checks().split(check)
    context = Context(deploy_dir=Path("d"), provider="aws", cluster=cast(Cluster, cluster))
    found = entry.function(context, *arguments)
    assert isinstance(found, Measurement)
    return found


@pytest.mark.parametrize(
    ("ssh", "api", "state"),
    [
        (ANSWERS, says(PowerState.RUNNING), NodeState.RUNNING),
        (ANSWERS, UNASKED, NodeState.RUNNING),
        (ANSWERS, says(PowerState.STOPPED), NodeState.UNCLEAR),
        (ANSWERS, says(PowerState.STOPPING), NodeState.UNCLEAR),
        (ANSWERS, EXPIRED, NodeState.UNCLEAR),
        (SshAnswer(Reach.ANSWERS), says(PowerState.RUNNING), NodeState.UNCLEAR),
        (DEAD, says(PowerState.STOPPED), NodeState.STOPPED),
        (DEAD, UNASKED, NodeState.STOPPED),
        (DEAD, says(PowerState.RUNNING), NodeState.UNCLEAR),
        (DEAD, says(PowerState.STARTING), NodeState.UNCLEAR),
        (DEAD, says(PowerState.UNKNOWN), NodeState.UNCLEAR),
        (DEAD, EXPIRED, NodeState.UNCLEAR),
        (REFUSES, says(PowerState.RUNNING), NodeState.UNCLEAR),
        (REFUSES, says(PowerState.STOPPED), NodeState.UNCLEAR),
        (REFUSES, UNASKED, NodeState.UNCLEAR),
    ],
)
def test_a_nodes_state_is_what_ssh_and_the_api_agree_on(ssh: SshAnswer, api: ApiAnswer, state: NodeState) -> None:
    sight = NodeSight("n12", ssh, api)
    assert sight.state is state
    assert str(sight) == f"n12 {state.value} ({ssh}; {api})"


def test_a_node_that_is_asked_for_is_told_with_both_sides() -> None:
    measured = look("node_status:n12", FakeCluster([UP, ODD, UP])).measured
    assert measured == "n12 unclear (SSH dead (connection refused); aws says running)"


STATUS_READY = {"status": "database_ready"}


@pytest.mark.parametrize(
    ("check", "cluster", "passes"),
    [
        ("cluster_status", FakeCluster(status=STATUS_READY, health=HEALTHY), True),
        ("cluster_status", FakeCluster(status={"status": "running"}, health=HEALTHY), True),
        ("cluster_status", FakeCluster(status={"status": "stopped"}, health=HEALTHY), False),
        ("cluster_status", FakeCluster(status={"status": "deploy_in_progress"}, health=HEALTHY), False),
        ("cluster_status", FakeCluster(status={}, health=HEALTHY), False),
        ("cluster_status", FakeCluster(status={"status": None}, health=HEALTHY), False),
        ("cluster_status", FakeCluster(status=STATUS_READY, health=ILL), False),
        ("cluster_status", FakeCluster(status=STATUS_READY, health={}), False),
        ("cluster_status", FakeCluster(status=STATUS_READY, health={**HEALTHY, "issues": [ISSUE]}), False),
        ("cluster_status", FakeCluster(status=STATUS_READY, health={**HEALTHY, "issues_count": 1}), False),
        ("cluster_status", FakeCluster(status=STATUS_READY, health={"status": "healthy"}), False),
        ("cluster_status_stopped", FakeCluster([DOWN, DOWN, DOWN], status={"status": "stopped"}), True),
        ("cluster_status_stopped", FakeCluster([DOWN, DOWN, UP], status={"status": "stopped"}), False),
        ("cluster_status_stopped", FakeCluster([DOWN, ODD, DOWN], status={"status": "stopped"}), False),
        ("cluster_status_stopped", FakeCluster([DOWN, DOWN, DOWN], status=STATUS_READY), False),
        ("cluster_status_stopped", FakeCluster([], status={"status": "stopped"}), False),
        ("cluster_degraded", FakeCluster([UP, DOWN, UP], [P, N, S]), True),
        ("cluster_degraded", FakeCluster([UP, DOWN, UP, DOWN, UP], [P, N, S, N, S]), True),
        ("cluster_degraded", FakeCluster([UP, UP, UP], [P, S, S]), False),
        ("cluster_degraded", FakeCluster([UP, DOWN, DOWN], [P, N, N]), False),
        ("cluster_degraded", FakeCluster([DOWN, DOWN, DOWN], [N, N, N]), False),
        ("cluster_degraded", FakeCluster([UP, DOWN, UP], [S, N, S]), False),
        ("cluster_degraded", FakeCluster([UP, DOWN, UP], [W, N, S]), False),
        ("cluster_degraded", FakeCluster([UP, DOWN, UP], [P, N, P]), False),
        ("cluster_degraded", FakeCluster([UP, ODD, UP], [P, N, S]), False),
        ("cluster_degraded", FakeCluster([UP, DOWN, UP, UP, ODD], [P, N, S, S, S]), False),
        ("cluster_degraded", FakeCluster([UP, DOWN], [P, N]), False),
        ("cluster_degraded", FakeCluster([], []), False),
        ("cluster_critical", FakeCluster([UP, DOWN, DOWN]), True),
        ("cluster_critical", FakeCluster([DOWN, DOWN, DOWN]), True),
        ("cluster_critical", FakeCluster([UP, DOWN]), True),
        ("cluster_critical", FakeCluster([UP, DOWN, UP]), False),
        ("cluster_critical", FakeCluster([UP, UP, UP]), False),
        ("cluster_critical", FakeCluster([UP, DOWN, ODD]), False),
        ("cluster_critical", FakeCluster([ODD, ODD, ODD]), False),
        ("cluster_critical", FakeCluster([]), False),
        ("all_nodes_running", FakeCluster([UP, UP, UP]), True),
        ("all_nodes_running", FakeCluster([UP, UP, DOWN]), False),
        ("all_nodes_running", FakeCluster([ODD, UP, UP]), False),
        ("all_nodes_running", FakeCluster([]), False),
        ("ssh_connectivity", FakeCluster([UP, UP, UP]), True),
        ("ssh_connectivity", FakeCluster([UP, UP, DOWN]), False),
        ("ssh_connectivity", FakeCluster([DOWN, UP, UP]), False),
        ("ssh_connectivity", FakeCluster([]), False),
        ("vms_powered_off", FakeCluster([DOWN, DOWN, DOWN]), True),
        ("vms_powered_off", FakeCluster([DOWN, DOWN, ODD]), False),
        ("vms_powered_off", FakeCluster([UP, DOWN, DOWN]), False),
        ("vms_powered_off", FakeCluster([]), False),
        ("node_status:n12", FakeCluster([DOWN, UP, DOWN]), True),
        ("node_status:n12", FakeCluster([UP, DOWN, UP]), False),
        ("node_status:n12:running", FakeCluster([DOWN, UP, DOWN]), True),
        ("node_status:n12:running", FakeCluster([UP, ODD, UP]), False),
        ("node_status:n12:stopped", FakeCluster([UP, DOWN, UP]), True),
        ("node_status:n12:stopped", FakeCluster([DOWN, UP, DOWN]), False),
        ("node_status:n12:stopped", FakeCluster([DOWN, ODD, DOWN]), False),
        ("database_running", FakeCluster(roles=[P, S, S]), True),
        ("database_running", FakeCluster(roles=[S, S, P]), True),
        ("database_running", FakeCluster(roles=[P, S, N]), False),
        ("database_running", FakeCluster(roles=[S, S, S]), False),
        ("database_running", FakeCluster(roles=[W, S, S]), False),
        ("database_running", FakeCluster(roles=[P, P, S]), False),
        ("database_running", FakeCluster(roles=[]), False),
        ("database_degraded", FakeCluster(roles=[P, N, S]), True),
        ("database_degraded", FakeCluster(roles=[N, N, S]), True),
        ("database_degraded", FakeCluster(roles=[P, S, S]), False),
        ("database_degraded", FakeCluster(roles=[N, N, N]), False),
        ("database_degraded", FakeCluster(roles=[]), False),
        ("database_down", FakeCluster(roles=[N, N, N]), True),
        ("database_down", FakeCluster(roles=[N, N, S]), False),
        ("database_down", FakeCluster(roles=[P, S, S]), False),
        ("database_down", FakeCluster(roles=[]), False),
        ("admin_ui_accessible", FakeCluster(pages=[200, 200, 302]), True),
        ("admin_ui_accessible", FakeCluster(pages=[200, 200, 0]), False),
        ("admin_ui_accessible", FakeCluster(pages=[200, 503, 200]), False),
        ("admin_ui_accessible", FakeCluster(pages=[404, 200, 200]), False),
        ("admin_ui_accessible", FakeCluster(pages=[]), False),
        ("data_integrity", FakeCluster(roles=[P, S, S], integrity=(True, "all there")), True),
        ("data_integrity", FakeCluster(roles=[P, S, S], integrity=(False, "row 2 is lost")), False),
        ("data_integrity", FakeCluster(roles=[S, S, N], integrity=(True, "all there")), False),
    ],
)
def test_verdict(check: str, cluster: FakeCluster, passes: bool) -> None:
    found = look(check, cluster)
    assert found.passed is passes
    assert found.measured


def test_every_documented_check_is_registered() -> None:
    registry = CheckRegistry()
    from testyard.workflow.builtin_checks import register_builtin_checks

    register_builtin_checks(registry)
    assert registry.names() == sorted(
        [
            "cluster_status",
            "cluster_status_stopped",
            "cluster_degraded",
            "cluster_critical",
            "all_nodes_running",
            "ssh_connectivity",
            "vms_powered_off",
            "node_status",
            "database_running",
            "database_degraded",
            "database_down",
            "admin_ui_accessible",
            "data_integrity",
        ]
    )
    assert all(not check.allow_failure and check.retry is None for check in registry)


def test_health_issues_are_told() -> None:
    measured = look("cluster_status", FakeCluster(status=STATUS_READY, health=ILL)).measured
    assert measured == "status database_ready; health issues_detected, 1 issues: n12 ssh_unreachable (critical)"


def test_missing_health_is_told() -> None:
    assert (
        look("cluster_status", FakeCluster()).measured
        == "status missing; health missing, without a list of issues"
    )


def test_every_node_is_told() -> None:
    measured = look("ssh_connectivity", FakeCluster([UP, DOWN, UP])).measured
    assert measured == (
        "n11 SSH answers, boot id boot-1; n12 SSH dead (connection refused); n13 SSH answers, boot id boot-1"
    )


def test_a_database_is_only_waited_for_when_a_minority_is_down() -> None:
    whole, critical, degraded = (FakeCluster(it, [P, N, N]) for it in ([UP] * 3, [UP, DOWN, DOWN], [UP, UP, DOWN]))
    for cluster in (whole, critical, degraded):
        look("cluster_degraded", cluster)
    assert [it.asked_for_a_primary for it in (whole, critical, degraded)] == [False, False, True]


def test_integrity_without_a_primary_is_no_pass_and_says_why() -> None:
    measured = look("data_integrity", FakeCluster(roles=[S, S, N], integrity=(True, "all there"))).measured
    assert measured == "there is no primary to ask: n11 standby; n12 standby; n13 accepts no connections"


def test_a_state_that_no_node_can_be_asked_for_is_refused() -> None:
    with pytest.raises(UserError, match="running or stopped, not 'unclear'"):
        look("node_status:n12:unclear", FakeCluster([UP, ODD, UP]))
