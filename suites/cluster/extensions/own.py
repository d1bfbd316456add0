"""A team's own check and step, registered as the document shows (document 003, extending the framework)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from testyard.workflow.context import Context
from testyard.workflow.model import NodeFields, Step
from testyard.workflow.registry import CheckRegistry, StepRegistry


def somebody_is_there(context: Mapping[str, Any]) -> bool:
    """Whether the deployment has an inventory."""
    return (context["deploy_dir"] / "inventory.ini").is_file()


def greet(context: Context, step: Step) -> dict[str, str]:
    """Say hello to a node."""
    node = step.own(NodeFields).target_node
    context.log(f"hello to {node}")
    return {"said": f"hello to {node}"}


def register(steps: StepRegistry, checks: CheckRegistry) -> None:
    """Add both to what workflows may name."""
    steps.register("greet", "Say hello to a node", greet, fields=NodeFields)
    checks.register("somebody_is_there", "The deployment has an inventory", somebody_is_there)
