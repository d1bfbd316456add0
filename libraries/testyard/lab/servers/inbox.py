"""What a receiver of the lab keeps: what arrived, in order, and the wait for something to arrive."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Generic, TypeVar

from testyard.core.deadline import Deadline, wait_until

Item = TypeVar("Item")


class Inbox(Generic[Item]):
    """Things that arrived, oldest first; any thread may add and read.

    Args:
        what: What arrives here, in the singular, for messages: ``mail``.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._lock = threading.Lock()
        self._items: list[Item] = []

    def add(self, item: Item) -> None:
        """Keep one more."""
        with self._lock:
            self._items.append(item)

    def items(self) -> list[Item]:
        """All that is kept, oldest first."""
        with self._lock:
            return list(self._items)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._items.clear()

    def wait_for(self, predicate: Callable[[Item], bool], within: timedelta) -> Item:
        """Wait until something is here that a predicate accepts, now or from earlier.

        Args:
            predicate: Says whether an item is the one waited for; its exceptions end the wait.
            within: Give up after this time.

        Returns:
            The oldest such item.

        Raises:
            NotMetError: There is none in time; lists what is here.
        """
        found: list[Item] = []

        def accepts(items: list[Item]) -> bool:
            found[:] = [item for item in items if predicate(item)][:1]
            return bool(found)

        wait_until(self.items, accepts, Deadline(within), f"a {self._what} that matches")
        return found[0]
