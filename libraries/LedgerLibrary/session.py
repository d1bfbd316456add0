"""What the library's keywords share."""

from __future__ import annotations

from testyard.core.errors import UserError
from testyard.ledger.ledger import Ledger


class Session:
    """The ledgers of a run, by alias."""

    def __init__(self) -> None:
        self._ledgers: dict[str, Ledger] = {}

    def open(self, alias: str) -> None:
        """Begin a new one; one of that name is forgotten."""
        self._ledgers[alias] = Ledger()

    def get(self, alias: str) -> Ledger:
        """The ledger of that name.

        Raises:
            UserError: There is none.
        """
        if alias not in self._ledgers:
            known = ", ".join(self._ledgers) or "none"
            message = f"There is no ledger called {alias!r}: 'Open Ledger' first. Open ledgers: {known}."
            raise UserError(message)
        return self._ledgers[alias]

    def close(self) -> None:
        """Forget them all."""
        self._ledgers.clear()
