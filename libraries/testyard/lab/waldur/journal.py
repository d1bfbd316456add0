"""Append-only journals on disk: one JSON object per line, numbered from 1."""

import json
import time
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from testyard.lab.waldur.exchange import to_json
from testyard.lab.waldur.identifiers import timestamp

_INDEX_EVERY = 256
_BUFFER = 1 << 16
_SECRET_WORDS = ("token", "password", "passcode", "secret")
MASK = "***"


class Journal:
    """A journal file that can be read back from any entry without being held in memory.

    Writes are buffered; reading first writes out what is buffered, so it sees every entry made before it.

    Args:
        path: The file; created or truncated.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("wb", buffering=_BUFFER)
        self._position = 0
        self._offsets = [0]
        self.last = 0

    def append(self, **fields: Any) -> int:
        """Write one entry.

        Args:
            **fields: JSON values; ``sequence``, ``monotonic_ns`` and ``utc`` are put before them.

        Returns:
            The entry's sequence number; the last one's when the journal is closed already.
        """
        if self._file.closed:  # a request that outlived its world
            return self.last
        self.last += 1
        line = to_json({"sequence": self.last, "monotonic_ns": time.monotonic_ns(), "utc": timestamp()} | fields)
        self._file.write(line + b"\n")
        self._position += len(line) + 1
        if self.last % _INDEX_EVERY == 0:
            self._offsets.append(self._position)
        return self.last

    def read_lines(self, after: int = 0) -> Iterator[bytes]:
        """Yield the JSON text of the entries with a sequence number greater than ``after``, in order."""
        self._file.flush()
        after = max(after, 0)
        if after >= self.last:
            return
        with self._path.open("rb") as file:
            file.seek(self._offsets[after // _INDEX_EVERY])
            for line in islice(file, after % _INDEX_EVERY, None):
                yield line.rstrip(b"\n")

    def read(self, after: int = 0) -> Iterator[dict[str, Any]]:
        """As ``read_lines``, parsed."""
        for line in self.read_lines(after):
            yield json.loads(line)

    def close(self) -> None:
        """Write out what is buffered and close the file."""
        self._file.close()


def masked(value: Any) -> Any:
    """A copy of a JSON value in which the value of every key that names a secret is replaced by ``***``."""
    if isinstance(value, Mapping):
        return {
            key: MASK if any(word in str(key).lower() for word in _SECRET_WORDS) else masked(item)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [masked(item) for item in value]
    return value
