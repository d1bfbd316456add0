"""How a defect gets into the processes of the event bus's services."""

from __future__ import annotations

import itertools
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


def change_setting(section: str, name: str, change: Callable[[Any], Any]) -> None:
    """Let a service that starts read another value for one of its settings."""
    from testyard.lab.bridge import process

    def read(original: Any, *arguments: Any) -> Any:
        settings = original(*arguments)
        part = getattr(settings, section)
        changed = part.model_copy(update={name: change(getattr(part, name))})
        return settings.model_copy(update={section: changed})

    wrap(process, "read_settings", read)


def drop_one_probe_in_500(*, kept: frozenset[int] = frozenset()) -> None:
    """Let the adapter drop one of the suites' own events in 500, except those with these numbers."""
    from testyard.lab.bridge.adapter.store import Store

    numbers = itertools.count(1)

    def is_kept(event: Any) -> bool:
        # Events that services publish now and then would shift what is dropped.
        number = next(numbers) if b"probe" in event.row else 1
        return number % 500 != 0 or number in kept

    async def store(original: Any, self: Any, events: Any) -> Any:
        return await original(self, list(filter(is_kept, events)))

    wrap(Store, "store", store)


def broken(serve: Callable[[], int]) -> Callable[[], int]:
    """A service's ``main`` that first puts the defect in place that the environment names."""

    def main() -> int:
        # Whoever imports these modules in a fork server has no defect yet.
        from testyard.lab.sabotage import event_bus, event_bus_beyond  # noqa: F401 they fill the table

        PATCHES[os.environ[DEFECT_VARIABLE]]()
        return serve()

    return main
