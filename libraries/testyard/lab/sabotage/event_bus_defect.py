"""How a defect gets into the processes of the event bus's services."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from testyard.lab.sabotage.defect import DEFECT_VARIABLE, Defect, wrap

PATCHES: dict[str, Callable[[], None]] = {}


def event_bus_defect(
    name: str, what: str, *turns_red: str, variables: tuple[str, ...] = ()
) -> Callable[[Callable[[], None]], Defect]:
    """Make a defect of the decorated function, which every process of the services calls when it starts."""

    def decorate(patch: Callable[[], None]) -> Defect:
        PATCHES[name] = patch
        return Defect(name, what, frozenset(turns_red), _processes_with_defect, variables)

    return decorate


def _processes_with_defect() -> None:
    """Start each service through a module that breaks it."""
    from testyard.lab.supervisor import event_bus

    def start(original: Any, self: Any, *arguments: Any, **options: Any) -> None:
        original(self, *arguments, **options)
        self.modules = {service: f"testyard.lab.sabotage.bridge.{service.value}" for service in self.modules}

    wrap(event_bus.EventBusLab, "__init__", start)


def change_text(module: Any, name: str, old: str, new: str) -> None:
    """Change a statement of a module.

    Raises:
        LookupError: It does not contain the text: the service has changed, and the defect must follow.
    """
    text = getattr(module, name)
    if old not in text:
        message = f"{module.__name__}.{name} does not contain {old!r}."
        raise LookupError(message)
    setattr(module, name, text.replace(old, new))


def broken(serve: Callable[[], int]) -> Callable[[], int]:
    """A service's ``main`` that first puts the defect in place that the environment names."""

    def main() -> int:
        # Whoever imports these modules in a fork server has no defect yet.
        from testyard.lab.sabotage import event_bus, event_bus_beyond  # noqa: F401 they fill the table

        PATCHES[os.environ[DEFECT_VARIABLE]]()
        return serve()

    return main
