"""How a defect gets into the pipeline service's process and into those of its workers."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from importlib import import_module
from typing import Any

from testyard.lab.sabotage.defect import Defect, wrap

PATCHES: dict[str, Callable[[], None]] = {}


def pipeline_defect(name: str, what: str, *turns_red: str) -> Callable[[Callable[[], None]], Defect]:
    """Make a defect of the decorated function, which the service's processes call when they start."""

    def decorate(patch: Callable[[], None]) -> Defect:
        PATCHES[name] = patch
        return Defect(name, what, frozenset(turns_red), processes_with_defect)

    return decorate


def processes_with_defect() -> None:
    """Start the service and its workers through the modules that break them."""
    from testyard.lab.supervisor import pipelines

    def start(original: Any, self: Any, *arguments: Any, **options: Any) -> None:
        original(self, *arguments, **options)
        self.modules = ("testyard.lab.sabotage.pipeline_service", "testyard.lab.sabotage.pipeline_worker")

    wrap(pipelines.PipelineLab, "__init__", start)


def change_sql(old: str, new: str) -> None:
    """Change every statement of the service that contains a text.

    Raises:
        LookupError: None does: the service has changed, and the defect must follow.
    """
    from testyard.lab.pipelines import store

    changed = 0
    for found in pkgutil.iter_modules(store.__path__):
        module = import_module(f"{store.__name__}.{found.name}")
        for attribute, value in list(vars(module).items()):
            if isinstance(value, str) and old in value and not attribute.startswith("__"):
                setattr(module, attribute, value.replace(old, new))
                changed += 1
    if not changed:
        message = f"No statement of the pipeline service contains {old!r}."
        raise LookupError(message)
