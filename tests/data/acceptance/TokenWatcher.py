"""A listener that learns every secret value of a run where it is used, and can switch masking off.

The values are learned from the wire as well as from the registry of secrets: one that nobody registered is
just what a leak looks like.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import httpx
import stomp.protocol
from testyard.core.redact import SecretRegistry

SHORTEST = 8


class TokenWatcher:
    """Writes secret values to a file, one a line.

    Args:
        values: The file; outside the run's results.
        masking: ``off`` makes the registry of secrets mask nothing.
    """

    ROBOT_LISTENER_API_VERSION = 3

    def __init__(self, values: str, masking: Literal["on", "off"] = "on") -> None:
        self._values = Path(values)
        self._known: set[str] = set()
        before(SecretRegistry, "add", self._registered)
        before(httpx.Client, "send", self._sent)
        before(stomp.protocol.Protocol12, "connect", self._connected)
        if masking == "off":
            SecretRegistry.mask = lambda _, text: text  # type: ignore[method-assign] # sabotage

    def _registered(self, _: SecretRegistry, *values: str) -> None:
        for value in values:
            self._learn(value)

    def _sent(self, _: httpx.Client, request: httpx.Request, **__: Any) -> None:
        self._learn(request.headers.get("Authorization", "").removeprefix("Token "))
        self._learn(request.headers.get("X-Lab-Token", ""))

    def _connected(
        self, _: Any, username: str | None = None, passcode: str | None = None, *__: Any, **___: Any
    ) -> None:
        self._learn(passcode or "")

    def _learn(self, value: str) -> None:
        if len(value) >= SHORTEST and value not in self._known:
            self._known.add(value)
            with self._values.open("a", encoding="utf-8") as file:
                file.write(f"{value}\n")


def before(owner: type, name: str, look: Callable[..., None]) -> None:
    """Make a class's method call ``look`` with its arguments first."""
    original = getattr(owner, name)

    @functools.wraps(original)
    def looked_at(*arguments: Any, **options: Any) -> Any:
        look(*arguments, **options)
        return original(*arguments, **options)

    setattr(owner, name, looked_at)
