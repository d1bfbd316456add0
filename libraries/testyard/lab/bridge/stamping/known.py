"""The stamps that this process made last, whether the table has them yet or not."""

from __future__ import annotations

from uuid import UUID

from cachetools import LRUCache

from testyard.lab.bridge.stamping.records import StampRecord


class KnownStamps:
    """A bounded memory; what was not needed for the longest time is forgotten first.

    The table has one stamp for a content, the first one: that of another namespace is only known here.

    Args:
        most: How many stamps, and how many operations.
    """

    def __init__(self, most: int) -> None:
        self._by_hash: LRUCache[str, StampRecord] = LRUCache(most)
        self._by_id: LRUCache[UUID, StampRecord] = LRUCache(most)
        self._operations: LRUCache[UUID, str] = LRUCache(most)

    def __len__(self) -> int:
        return len(self._by_hash)

    def find(self, file_hash: str) -> StampRecord | None:
        """The first stamp of a content, in whichever namespace."""
        return self._by_hash.get(file_hash)

    def find_by_id(self, stamp_id: UUID) -> StampRecord | None:
        """The stamp of a content in a namespace."""
        return self._by_id.get(stamp_id)

    def remember(self, record: StampRecord) -> StampRecord:
        """Keep a stamp, unless there is one of this content in this namespace; gives the one that is kept."""
        self._by_hash.setdefault(record.file_hash, record)
        return self._by_id.setdefault(record.stamp_id, record)

    def forget(self, record: StampRecord) -> None:
        """Forget a stamp that came to nothing."""
        if self._by_hash.get(record.file_hash) is record:
            del self._by_hash[record.file_hash]
        self._by_id.pop(record.stamp_id, None)

    def content_of(self, operation: UUID) -> str | None:
        """The hash of what an operation has stamped."""
        return self._operations.get(operation)

    def note(self, operation: UUID, file_hash: str) -> None:
        """Keep what an operation has stamped."""
        self._operations[operation] = file_hash
