"""The document's checks: each one measures, and says what it saw of every node (document 003, contract 2.2).

What the document leaves open:

* A cluster is degraded when some but not all nodes are down, the majority is not, and the database still takes
  writes; it may take the time ``election`` until the survivors have a primary. It is critical when no majority of
  the nodes runs.
* The database is degraded when a node accepts connections and another one does not; down when none accepts any.
* What cannot be measured fails: no deployment, no inventory, no database, no health, an API that refuses. A check
  never falls back to something else that it could measure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from testyard.core.errors import UserError
from testyard.power.protocol import PowerState
from testyard.workflow.context import Context
from testyard.workflow.measurements import (
    AdminUiSight,
    DatabaseSight,
    NodeSight,
    NodeState,
    Role,
    beside_each_other,
    told,
)
from testyard.workflow.registry import CheckRegistry, Measurement

# What a healthy deployment's state is called (contract 2.2).
READY = frozenset({"database_ready", "running"})
HEALTHY = "healthy"
STOPPED = "stopped"
MISSING = "missing"


def register_builtin_checks(registry: CheckRegistry) -> None:
    """Add the document's checks to a registry."""
    for name, description, function in (
        ("cluster_status", "Cluster is healthy and operational", cluster_status),
        ("cluster_status_stopped", "Cluster is fully stopped", cluster_status_stopped),
        ("cluster_degraded", "Cluster is degraded but operational", cluster_degraded),
        ("cluster_critical", "Cluster is in critical state", cluster_critical),
        ("all_nodes_running", "All nodes are running", all_nodes_running),
        ("ssh_connectivity", "SSH connectivity to all nodes", ssh_connectivity),
        ("vms_powered_off", "All VMs are powered off", vms_powered_off),
        ("database_running", "Database services are running", database_running),
        ("database_degraded", "Database is in degraded state", database_degraded),
        ("database_down", "Database is completely down", database_down),
        ("admin_ui_accessible", "Admin UI is accessible", admin_ui_accessible),
        ("data_integrity", "Verify data integrity after operations", data_integrity),
    ):
        registry.register(name, description, function)
    registry.register(
        "node_status",
        "Check node in specific state",
        node_status,
        arguments=("node", "state?"),
        values={"state": (NodeState.RUNNING.value, NodeState.STOPPED.value)},
    )


def cluster_status(context: Context) -> Measurement:
    """The state file says ready, and the health that is measured now has no issue."""
    deployer = context.cluster.deployer
    answer, health = beside_each_other(lambda ask: ask(), [deployer.status, deployer.health])
    status = answer.get("status", MISSING)
    healthy = (health.get("status"), health.get("issues_count"), health.get("issues")) == (HEALTHY, 0, [])
    return Measurement(status in READY and healthy, f"status {status}; health {_health(health)}")


def cluster_status_stopped(context: Context) -> Measurement:
    """The state file says stopped, and so does every node."""
    status = context.cluster.deployer.status().get("status", MISSING)
    sights = context.cluster.node_sights()
    return Measurement(status == STOPPED and _all(sights, NodeState.STOPPED), f"status {status}; {told(sights)}")


def cluster_degraded(context: Context) -> Measurement:
    """A minority of the nodes is down, all others run, and the database takes writes."""
    sights = context.cluster.node_sights()
    running, stopped = (_count(sights, state) for state in (NodeState.RUNNING, NodeState.STOPPED))
    nodes = f"{running} of {len(sights)} nodes run: {told(sights)}"
    if not (stopped > 0 and running + stopped == len(sights) and _majority(running, sights)):
        return Measurement(False, nodes)
    databases = context.cluster.elected_databases()
    return Measurement(_has_primary(databases), f"{nodes}; database: {told(databases)}")


def cluster_critical(context: Context) -> Measurement:
    """No majority of the nodes runs: more of them are stopped than a majority can do without."""
    sights = context.cluster.node_sights()
    stopped = _count(sights, NodeState.STOPPED)
    # Not "the majority was not seen running": nodes whose state is unclear do not make a cluster critical.
    passed = bool(sights) and not _majority(len(sights) - stopped, sights)
    return Measurement(passed, f"{stopped} of {len(sights)} nodes are stopped: {told(sights)}")


def all_nodes_running(context: Context) -> Measurement:
    """Every node runs."""
    sights = context.cluster.node_sights()
    return Measurement(_all(sights, NodeState.RUNNING), told(sights))


def ssh_connectivity(context: Context) -> Measurement:
    """Every node answers over SSH, with a boot id."""
    answers = context.cluster.ssh_answers()
    passed = bool(answers) and all(answer.boot_id for answer in answers.values())
    return Measurement(passed, told(f"{node} {answer}" for node, answer in answers.items()))


def vms_powered_off(context: Context) -> Measurement:
    """The provider's API says of every node's machine that it is stopped.

    Raises:
        UserError: The API cannot be asked, as its SDK or a setting is missing: says what to do.
    """
    states = context.cluster.power_states()
    passed = bool(states) and all(state is PowerState.STOPPED for state in states.values())
    provider = context.cluster.provider
    return Measurement(passed, told(f"{provider} says {state.value} of {node}" for node, state in states.items()))


def node_status(context: Context, node: str, state: str = NodeState.RUNNING.value) -> Measurement:
    """The node is in the state, ``running`` if none is named."""
    wanted = NodeState(state)
    if wanted is NodeState.UNCLEAR:
        message = f"A node can be asked to be running or stopped, not {state!r}."
        raise UserError(message)
    (sight,) = context.cluster.node_sights([node])
    return Measurement(sight.state is wanted, str(sight))


def database_running(context: Context) -> Measurement:
    """One node is a primary that takes writes, and every node accepts connections."""
    databases = context.cluster.databases()
    passed = _has_primary(databases) and all(database.accepts for database in databases)
    return Measurement(passed, told(databases))


def database_degraded(context: Context) -> Measurement:
    """The database can be reached, but not on every node."""
    databases = context.cluster.databases()
    accepting = sum(database.accepts for database in databases)
    return Measurement(0 < accepting < len(databases), told(databases))


def database_down(context: Context) -> Measurement:
    """No node accepts connections to the database."""
    databases = context.cluster.databases()
    return Measurement(bool(databases) and not any(it.accepts for it in databases), told(databases))


def admin_ui_accessible(context: Context) -> Measurement:
    """Every node shows its admin UI over HTTPS, with the deployment's certificate."""
    sights: Sequence[AdminUiSight] = context.cluster.admin_uis()
    return Measurement(bool(sights) and all(sight.accessible for sight in sights), told(sights))


def data_integrity(context: Context) -> Measurement:
    """The seeded table is as its seed makes it, and every write that was acknowledged during a fault is there."""
    databases = context.cluster.elected_databases()
    if not _has_primary(databases):
        return Measurement(False, f"there is no primary to ask: {told(databases)}")
    return Measurement(*context.cluster.integrity.measure())


def _health(health: dict[str, Any]) -> str:
    issues = health.get("issues")
    if not isinstance(issues, list):
        return f"{health.get('status', MISSING)}, without a list of issues"
    named = (f"{it.get('host')} {it.get('type')} ({it.get('severity')})" for it in issues if isinstance(it, dict))
    return f"{health.get('status', MISSING)}, {len(issues)} issues{': ' if issues else ''}{', '.join(named)}"


def _all(sights: Sequence[NodeSight], state: NodeState) -> bool:
    return bool(sights) and all(sight.state is state for sight in sights)


def _count(sights: Sequence[NodeSight], state: NodeState) -> int:
    return sum(sight.state is state for sight in sights)


def _majority(some: int, of: Sequence[object]) -> bool:
    return some > len(of) // 2


def _has_primary(databases: Sequence[DatabaseSight]) -> bool:
    return sum(database.role is Role.PRIMARY for database in databases) == 1
