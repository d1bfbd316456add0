"""What a stamp is, and how it stands in a file: an HTML comment before the content.

Source: contract page "event-bus", 3.6 and 3.8; O.N.E. v0.1.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from typing import Any, Final, NamedTuple
from uuid import UUID, uuid5

from pydantic import BaseModel, ConfigDict

from testyard.lab.bridge.events import MetadataStamped

PROTOCOL_VERSION: Final = "1.0"
METADATA_VERSION: Final = "0.1"
HASH_ALGORITHM: Final = "BLAKE3"
DEFAULT_NAMESPACE: Final = "omninode.services.metadata"

_STAMPS: Final = UUID("6f1c2b0e-3a55-5d0c-9d0b-5b8f2f0c7a11")
# What is between the brackets of a rich stamp holds neither of them, so that no other stamp can stand in it.
_STAMP: Final = re.compile(
    r"<!-- METADATA_STAMP:(?P<stamp_type>lightweight|rich):blake3:(?P<file_hash>[0-9a-f]{64})"
    r"(?: (?P<fields>\{[^<>\n]*\}))? -->\n?"
)


class StampType(Enum):
    """How much of a stamp stands in the file."""

    LIGHTWEIGHT = "lightweight"
    RICH = "rich"


class StampRecord(BaseModel):
    """One stamp, as the table keeps it.

    Attributes:
        stamp_id: The same one for the same content in the same namespace.
        file_hash: BLAKE3 of the content, 64 hexadecimal digits.
        file_path: Which file.
        file_size_bytes: Its size.
        content_type: Its media type.
        stamp_data: The O.N.E. v0.1 fields.
        protocol_version: Of the stamping protocol.
        intelligence_data: What OnexTree had to say.
        version: Of the stamp.
        op_id: Which operation stamped first.
        namespace: Whose it is.
        metadata_version: Of the O.N.E. metadata.
        created_at: When it was stamped first.
    """

    model_config = ConfigDict(frozen=True)

    stamp_id: UUID
    file_hash: str
    file_path: str
    file_size_bytes: int
    content_type: str | None
    stamp_data: dict[str, Any]
    protocol_version: str
    intelligence_data: dict[str, Any] | None
    version: int
    op_id: UUID | None
    namespace: str
    metadata_version: str
    created_at: datetime

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> StampRecord:
        """The stamp of a row of ``metadata_stamps``."""
        return cls(**{_COLUMNS.get(name, name): value for name, value in row.items()})

    def event(self, file_path: str, operation: UUID, milliseconds: float) -> MetadataStamped:
        """What is published when the content is stamped, be it again.

        Args:
            file_path: Which file was stamped this time.
            operation: Which operation stamped this time.
            milliseconds: How long it took.
        """
        return MetadataStamped(
            **{**dict(self), "file_path": file_path, "op_id": operation}, execution_time_ms=milliseconds
        )

    def answer(self) -> dict[str, Any]:
        """What the interface tells of it."""
        stamp_type = StampType(self.stamp_data.get("stamp_type", StampType.LIGHTWEIGHT.value))
        return {**dict(self), "stamp_type": stamp_type.value, "stamp": stamp_text(self, stamp_type)}


_COLUMNS: Final = {"id": "stamp_id", "file_size": "file_size_bytes"}


def stamp_id(namespace: str, file_hash: str) -> UUID:
    """The id of the stamp of a content in a namespace."""
    return uuid5(_STAMPS, f"{namespace}/{file_hash}")


def one_fields(record: StampRecord) -> dict[str, Any]:
    """The O.N.E. v0.1 fields of a stamp, as a rich one carries them."""
    return {
        "stamp_id": str(record.stamp_id),
        "file_hash": record.file_hash,
        "hash_algorithm": HASH_ALGORITHM,
        "protocol_version": record.protocol_version,
        "metadata_version": record.metadata_version,
        "namespace": record.namespace,
        "version": record.version,
        "op_id": str(record.op_id) if record.op_id else None,
        "created_at": record.created_at.isoformat(),
        "metadata": record.stamp_data.get("metadata", {}),
        "intelligence_data": record.intelligence_data,
    }


def stamp_text(record: StampRecord, stamp_type: StampType) -> str:
    """The stamp as it stands in the file, without the end of its line."""
    start = f"<!-- METADATA_STAMP:{stamp_type.value}:blake3:{record.file_hash}"
    if stamp_type is StampType.LIGHTWEIGHT:
        return f"{start} -->"
    fields = json.dumps(one_fields(record), separators=(",", ":"), sort_keys=True)
    fields = fields.replace("<", "\\u003c").replace(">", "\\u003e")
    return f"{start} {fields} -->"


class FoundStamp(NamedTuple):
    """A stamp that stands in a content.

    Args:
        stamp_type: How much of it.
        file_hash: What it says the hash is.
        fields: The O.N.E. fields of a rich one; None when they are not JSON.
        leading: Whether it stands at the beginning, as only stamps of the content itself do.
    """

    stamp_type: StampType
    file_hash: str
    fields: dict[str, Any] | None
    leading: bool


def stamps_in(content: str) -> tuple[list[FoundStamp], str]:
    """Find the stamps of a content.

    Args:
        content: Stamped or not.

    Returns:
        The stamps in it, and the content without those at its beginning.
    """
    found = []
    bare_from = 0
    for match in _STAMP.finditer(content):
        leading = match.start() == bare_from
        if leading:
            bare_from = match.end()
        fields = _fields(match["fields"])
        found.append(FoundStamp(StampType(match["stamp_type"]), match["file_hash"], fields, leading))
    return found, content[bare_from:]


def bare(content: str) -> str:
    """A content without the stamps at its beginning: stamping what is stamped hashes the same."""
    begin = 0
    while match := _STAMP.match(content, begin):
        begin = match.end()
    return content[begin:]


def _fields(text: str | None) -> dict[str, Any] | None:
    try:
        fields = json.loads(text or "null")
    except ValueError:
        return None
    return fields if isinstance(fields, dict) else None
