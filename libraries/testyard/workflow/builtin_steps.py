"""The document's steps on a deployment, and ``destroy`` (document 003, "Available Step Types"; contract 2.1).

The deployer checks the transitions and stops and starts services; power is ``testyard.power``'s, also of a whole
cluster. While a fault is on, rows are written into the database: ``data_integrity`` then looks for each of them.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from testyard.core.errors import NotMetError
from testyard.power.planning import Target, plan
from testyard.power.protocol import ProviderName
from testyard.power.results import PowerResult
from testyard.power.transitions import CrashMethod, Operation, RestartMethod, Support, transition
from testyard.workflow.context import Context
from testyard.workflow.deployer import Answer
from testyard.workflow.model import CrashNodeFields, NodeFields, RestartNodeFields, Step, node_names
from testyard.workflow.registry import StepRegistry

STOPPED = "stopped"
READY = "database_ready"
# The document's examples name n11, n12 and n13 and no size: that many nodes an unsaid size is planned as.
PLANNED_SIZE = 3


def register_builtin_steps(registry: StepRegistry) -> None:
    """Add the document's steps to a registry; ``validate`` and ``custom_command`` are the engine's own."""
    for name, description, function, planned in (
        ("init", "Initialize deployment", init, plan_init),
        ("deploy", "Deploy cluster", deploy, plan_verb("deploy")),
        ("stop_cluster", "Stop all cluster nodes", stop_cluster, plan_stop_cluster),
        ("start_cluster", "Start all cluster nodes", start_cluster, plan_start_cluster),
        ("destroy", "End the deployment", destroy, plan_verb("destroy", "--auto-approve")),
    ):
        registry.register(name, description, function, plan=planned)
    for name, description, function, fields in (
        ("stop_node", "Stop specific node", stop_node, NodeFields),
        ("start_node", "Start specific node", start_node, NodeFields),
        ("restart_node", "Restart specific node", restart_node, RestartNodeFields),
        ("crash_node", "Simulate node crash", crash_node, CrashNodeFields),
    ):
        registry.register(name, description, function, fields=fields, plan=plan_node)


def init(context: Context, step: Step) -> dict[str, Any]:
    """Prepare the deployment's directory; the suite's parameters become the deployer's options."""
    cluster = context.cluster
    cluster.deployer.init(context.provider, context.parameters)
    return {"command": shlex.join(cluster.deployer.init_command(context.provider, context.parameters))}


def deploy(context: Context, step: Step) -> dict[str, Any]:
    """Create the nodes; a deployment with a database gets the table that ``data_integrity`` looks after."""
    cluster = context.cluster
    _tell(context, cluster.deploy())
    result: dict[str, Any] = {"nodes": [node.name for node in cluster.nodes]}
    if cluster.has_database:
        seed = cluster.integrity.seed()
        result["integrity"] = {"rows": seed.rows, "checksum": seed.checksum}
    return result


def stop_cluster(context: Context, step: Step) -> dict[str, Any]:
    """Stop the services, then power off every node; ends when the deployment is seen to be stopped.

    Raises:
        DeployerError: The deployment cannot be stopped from the state it is in.
        NotMetError: A node did not stop in time, or the deployment is not stopped in the end.
        UserError: The provider refused.
    """
    cluster = context.cluster
    _keep_writing(context, Operation.STOP_CLUSTER)
    _tell(context, cluster.deployer.stop(services_only=True))
    results = cluster.power.stop_cluster()
    cluster.integrity.pause()
    cluster.deployer.health(update=True)
    _expect_status(context, STOPPED)
    return {"nodes": _as_json(results)}


def start_cluster(context: Context, step: Step) -> dict[str, Any]:
    """Power on every node, by the API or by an operator who is told; ends when the database is ready.

    Raises:
        DeployerError: The deployment cannot be started from the state it is in, or did not get ready in time.
        NotMetError: A node did not start in time.
        UserError: The provider refused.
    """
    cluster = context.cluster
    _tell(context, cluster.deployer.start(wait=False))
    results = cluster.power.start_cluster()
    cluster.deployer.health(update=True, wait_for=READY)
    return {"nodes": _as_json(results)}


def stop_node(context: Context, step: Step) -> dict[str, Any]:
    """Stop one node by the provider's API; ends when it is seen to be off.

    Raises:
        NotImplementedError: The provider's API is not used for that (document 003, table).
    """
    _keep_writing(context, Operation.STOP_NODE)
    return context.cluster.power.stop_node(step.own(NodeFields).target_node).as_json()


def start_node(context: Context, step: Step) -> dict[str, Any]:
    """Start one node by the provider's API; ends when it answers.

    Raises:
        NotImplementedError: The provider's API is not used for that (document 003, table).
    """
    return context.cluster.power.start_node(step.own(NodeFields).target_node).as_json()


def restart_node(context: Context, step: Step) -> dict[str, Any]:
    """Restart one node; ends when it answers with a new boot id.

    Raises:
        NotImplementedError: The method is one that the provider's API is not used for (document 003, table).
    """
    fields = step.own(RestartNodeFields)
    _keep_writing(context, Operation.of_step("restart_node", fields.method))
    return context.cluster.power.restart_node(fields.target_node, RestartMethod(fields.method)).as_json()


def crash_node(context: Context, step: Step) -> dict[str, Any]:
    """Crash one node; the result tells whether it came back or stayed down.

    Raises:
        NotImplementedError: The method is one that the provider's API is not used for (document 003, table).
    """
    fields = step.own(CrashNodeFields)
    _keep_writing(context, Operation.of_step("crash_node", fields.method))
    return context.cluster.power.crash_node(fields.target_node, CrashMethod(fields.method)).as_json()


def destroy(context: Context, step: Step) -> dict[str, Any]:
    """End the deployment."""
    context.cluster.destroy()
    return {}


def plan_init(context: Context, step: Step) -> str:
    """The call of ``init``."""
    return shlex.join(context.cluster.deployer.init_command(context.provider, context.parameters))


def plan_verb(verb: str, *options: str) -> Any:
    """A plan that is one call of the deployer."""
    return lambda context, step: shlex.join(context.cluster.deployer.command(verb, *options))


def plan_stop_cluster(context: Context, step: Step) -> list[str]:
    """The calls of ``stop_cluster``."""
    deployer = context.cluster.deployer
    return [
        shlex.join(deployer.command("stop", "--services-only")),
        *_power_plan(context, Operation.STOP_CLUSTER, _planned_nodes(context)),
        shlex.join(deployer.command("health", "--update")),
    ]


def plan_start_cluster(context: Context, step: Step) -> list[str]:
    """The calls of ``start_cluster``."""
    deployer = context.cluster.deployer
    return [
        shlex.join(deployer.command("start", "--no-wait")),
        *_power_plan(context, Operation.START_CLUSTER, _planned_nodes(context)),
        shlex.join(deployer.health_command(update=True, wait_for=READY)),
    ]


def plan_node(context: Context, step: Step) -> list[str]:
    """The call of a step on one node."""
    operation = Operation.of_step(step.step, getattr(step, "method", None))
    return _power_plan(context, operation, [step.own(NodeFields).target_node])


def _power_plan(context: Context, operation: Operation, nodes: Sequence[str]) -> list[str]:
    cluster = context.cluster
    calls = plan(
        ProviderName(context.provider),
        operation,
        [Target(node) for node in nodes],
        power_api=cluster.power_api,
        deadlines=cluster.power_deadlines,
    )
    return [str(call) for call in calls]


def _planned_nodes(context: Context) -> list[str]:
    return node_names(context.parameters.get("cluster_size") or PLANNED_SIZE)


def _keep_writing(context: Context, operation: Operation) -> None:
    """See to it that rows are written while a fault is on; one that is refused anyway needs none."""
    cluster = context.cluster
    row = transition(ProviderName(context.provider), operation, cluster.power_api)
    if row.support is Support.NO or not cluster.has_database or not cluster.integrity.seeded:
        return
    if why := cluster.integrity.keep_writing():
        context.log(f"No rows are written during {operation.value}: {why}.")


def _expect_status(context: Context, wanted: str) -> None:
    status = context.cluster.deployer.status().get("status")
    if status != wanted:
        sights = "; ".join(map(str, context.cluster.node_sights()))
        message = f"The deployment's status should be {wanted}, but is {status}: {sights}."
        raise NotMetError(message)


def _tell(context: Context, answer: Answer) -> None:
    for line in answer.output.splitlines():
        context.log(line)


def _as_json(results: Sequence[PowerResult]) -> list[dict[str, Any]]:
    return [result.as_json() for result in results]
