"""Defects of the checks that workflows make (FLOW-C1 to C14), put in place in Robot Framework's process.

Each makes one check less than it says: a constant, one node instead of all, a file instead of a measurement.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from testyard.lab.sabotage.defect import Defect, defect, wrap

EVERY_CHECK = tuple(f"FLOW-C{number}" for number in range(1, 15))


def _answer(check: str, judge: Callable[..., bool]) -> None:
    """Let a built-in check give another verdict; what it says that it saw stays."""
    from testyard.workflow import builtin_checks
    from testyard.workflow.registry import Measurement

    def answer(original: Any, context: Any, *arguments: str) -> Any:
        seen = original(context, *arguments)
        return Measurement(judge(context, *arguments), seen.measured)

    wrap(builtin_checks, check, answer)


def _running(context: Any) -> list[bool]:
    return [sight.state.value == "running" for sight in context.cluster.node_sights()]


def _stopped(context: Any) -> list[bool]:
    return [sight.state.value == "stopped" for sight in context.cluster.node_sights()]


def _accepting(context: Any) -> list[bool]:
    return [sight.accepts for sight in context.cluster.databases()]


# The cluster.


@defect("status-from-the-file", "cluster_status believes the state file and measures no health", "FLOW-C1")
def status_from_the_file() -> None:
    _answer("cluster_status", lambda context: context.cluster.deployer.status().get("status") == "database_ready")


@defect("stopped-always", "cluster_status_stopped always passes", "FLOW-C2", "FLOW-R2")
def stopped_always() -> None:
    _answer("cluster_status_stopped", lambda _: True)


@defect("stopped-is-one-node", "one stopped node is enough for cluster_status_stopped", "FLOW-C2")
def stopped_is_one_node() -> None:
    _answer("cluster_status_stopped", lambda context: any(_stopped(context)))


@defect("degraded-without-database", "cluster_degraded does not ask for a majority or a database", "FLOW-C3")
def degraded_without_database() -> None:
    _answer("cluster_degraded", lambda context: any(_stopped(context)))


@defect("critical-with-a-majority", "one stopped node makes a cluster critical", "FLOW-C4")
def critical_with_a_majority() -> None:
    _answer("cluster_critical", lambda context: any(_stopped(context)))


@defect(
    "critical-is-all-down",
    "only a cluster without any node is critical",
    # The four states are not reached: the second crash is followed by a wait for this check.
    *EVERY_CHECK,
    "FLOW-E3",
)
def critical_is_all_down() -> None:
    _answer("cluster_critical", lambda context: all(_stopped(context)))


# Nodes.


@defect("majority-is-all", "a majority is enough for all_nodes_running", "FLOW-C5")
def majority_is_all() -> None:
    _answer("all_nodes_running", lambda context: 2 * sum(_running(context)) > len(_running(context)))


@defect("first-answer-counts", "one node that answers is enough for ssh_connectivity", "FLOW-C6")
def first_answer_counts() -> None:
    _answer("ssh_connectivity", lambda context: any(it.boot_id for it in context.cluster.ssh_answers().values()))


@defect("only-the-first-node", "ssh_connectivity tries the first node only", "FLOW-C6")
def only_the_first_node() -> None:
    _answer("ssh_connectivity", lambda context: bool(next(iter(context.cluster.ssh_answers().values())).boot_id))


@defect("one-off-is-all-off", "one powered-off machine is enough for vms_powered_off", "FLOW-C7")
def one_off_is_all_off() -> None:
    _answer(
        "vms_powered_off",
        lambda context: any(it.value == "stopped" for it in context.cluster.power_states().values()),
    )


@defect("any-state-will-do", "node_status without a state always passes", "FLOW-C8")
def any_state_will_do() -> None:
    from testyard.workflow import builtin_checks
    from testyard.workflow.registry import Measurement

    def answer(original: Any, context: Any, *arguments: str) -> Any:
        seen = original(context, *arguments)
        return seen if len(arguments) > 1 else Measurement(True, seen.measured)

    wrap(builtin_checks, "node_status", answer)


@defect("node-state-ignored", "node_status asks for running, whatever it is told", "FLOW-C9", "FLOW-E2", "FLOW-S3")
def node_state_ignored() -> None:
    from testyard.workflow import builtin_checks

    wrap(builtin_checks, "node_status", lambda original, context, node, *_: original(context, node))


@defect("status-of-the-whole", "node_status falls back to the overall status", "FLOW-C8", "FLOW-C9", "FLOW-E2")
def status_of_the_whole() -> None:
    def of_the_whole(context: Any, _: str, state: str = "running") -> bool:
        ready = context.cluster.deployer.status().get("status") == "database_ready"
        return ready is (state == "running")

    _answer("node_status", of_the_whole)


@defect("another-nodes-state", "node_status looks at the first node", "FLOW-C8", "FLOW-C9", "FLOW-E2")
def another_nodes_state() -> None:
    from testyard.workflow import builtin_checks

    wrap(builtin_checks, "node_status", lambda original, context, _, *state: original(context, "n11", *state))


# The database, the admin UI and the data.


@defect(
    "primary-is-enough", "database_running asks for one node that accepts connections, not for each", "FLOW-C10"
)
def primary_is_enough() -> None:
    _answer("database_running", lambda context: any(_accepting(context)))


@defect("down-is-degraded", "a database that is down counts as degraded", "FLOW-C11")
def down_is_degraded() -> None:
    _answer("database_degraded", lambda context: not all(_accepting(context)))


@defect("down-always", "database_down always passes", "FLOW-C12")
def down_always() -> None:
    _answer("database_down", lambda _: True)


@defect("one-down-is-down", "one node without a database is enough for database_down", "FLOW-C12")
def one_down_is_down() -> None:
    _answer("database_down", lambda context: not all(_accepting(context)))


@defect("one-admin-ui", "one admin UI is enough for admin_ui_accessible", "FLOW-C13")
def one_admin_ui() -> None:
    _answer("admin_ui_accessible", lambda context: any(it.accessible for it in context.cluster.admin_uis()))


@defect("admin-ui-never", "admin_ui_accessible always fails", "FLOW-C13", "FLOW-S2")
def admin_ui_never() -> None:
    _answer("admin_ui_accessible", lambda _: False)


@defect("integrity-always", "data_integrity always passes", "FLOW-C14")
def integrity_always() -> None:
    _answer("data_integrity", lambda _: True)


@defect("nothing-compared", "data_integrity compares no write with what is there", "FLOW-C14")
def nothing_compared() -> None:
    from testyard.workflow import integrity

    wrap(integrity, "compare", lambda _, writes, __: integrity.Comparison(tuple(writes), (), {}))


@defect("checksum-unread", "data_integrity does not look at the seeded rows", "FLOW-C14")
def checksum_unread() -> None:
    from testyard.workflow.integrity import Seed

    wrap(Seed, "compare", lambda _, __, *___: (True, "not compared"))


@defect(
    "seeded-rows-missing",
    "deploy seeds one row less than it says",
    *("FLOW-S2", "FLOW-S4", "FLOW-S5", "FLOW-C14", "FLOW-F6"),
)
def seeded_rows_missing() -> None:
    from testyard.workflow.integrity import Seed

    def create(original: Any, self: Any, *arguments: Any) -> None:
        original(Seed(self.seed, self.rows - 1), *arguments)

    wrap(Seed, "create", create)


CHECK_DEFECTS: tuple[Defect, ...] = tuple(value for value in dict(globals()).values() if isinstance(value, Defect))
