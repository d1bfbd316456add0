"""Whether a stamp follows the O.N.E. v0.1 protocol.

The contract names three levels and not what they ask for. Here ``lenient`` wants the hash, ``moderate`` also the
versions and the namespace, ``strict`` every field, each consistent with the others.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from testyard.lab.bridge.events import FILE_HASH_PATTERN
from testyard.lab.bridge.stamping.payloads import ProtocolLevel, is_namespace
from testyard.lab.bridge.stamping.records import HASH_ALGORITHM, METADATA_VERSION, PROTOCOL_VERSION, stamp_id

Fields = Mapping[str, Any]

_FILE_HASH: Final = re.compile(FILE_HASH_PATTERN)


class Check(NamedTuple):
    """One thing that the protocol asks for.

    Args:
        field: Of which field.
        level: From which level on.
        expected: What it asks for.
        holds: Whether the fields have it.
    """

    field: str
    level: ProtocolLevel
    expected: str
    holds: Callable[[Fields], bool]


def violations(fields: Fields, level: ProtocolLevel) -> list[Check]:
    """What a stamp lacks.

    Args:
        fields: Its O.N.E. v0.1 fields.
        level: How strictly it is looked at.
    """
    return [check for check in CHECKS if _LEVELS[check.level] <= _LEVELS[level] and not check.holds(fields)]


def _is_hash(fields: Fields) -> bool:
    file_hash = fields.get("file_hash")
    return isinstance(file_hash, str) and _FILE_HASH.fullmatch(file_hash) is not None


def _is_uuid(value: object) -> bool:
    try:
        UUID(str(value))
    except ValueError:
        return False
    return True


def _is_moment(value: object) -> bool:
    try:
        return datetime.fromisoformat(str(value)).tzinfo is not None
    except ValueError:
        return False


def _is_positive(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_right_stamp_id(fields: Fields) -> bool:
    return str(fields.get("stamp_id")) == str(stamp_id(str(fields.get("namespace")), str(fields.get("file_hash"))))


_LEVELS: Final = {ProtocolLevel.LENIENT: 0, ProtocolLevel.MODERATE: 1, ProtocolLevel.STRICT: 2}

CHECKS: Final = (
    Check("file_hash", ProtocolLevel.LENIENT, "64 hexadecimal digits", _is_hash),
    Check(
        "hash_algorithm",
        ProtocolLevel.LENIENT,
        f"{HASH_ALGORITHM}, or nothing",
        lambda fields: fields.get("hash_algorithm", HASH_ALGORITHM) == HASH_ALGORITHM,
    ),
    Check(
        "protocol_version",
        ProtocolLevel.MODERATE,
        PROTOCOL_VERSION,
        lambda fields: fields.get("protocol_version") == PROTOCOL_VERSION,
    ),
    Check(
        "metadata_version",
        ProtocolLevel.MODERATE,
        METADATA_VERSION,
        lambda fields: fields.get("metadata_version") == METADATA_VERSION,
    ),
    Check(
        "namespace",
        ProtocolLevel.MODERATE,
        "letters, digits, dots, hyphens and underscores",
        lambda fields: isinstance(fields.get("namespace"), str) and is_namespace(fields["namespace"]),
    ),
    Check(
        "version",
        ProtocolLevel.STRICT,
        "a whole number of at least 1",
        lambda fields: _is_positive(fields.get("version")),
    ),
    Check("op_id", ProtocolLevel.STRICT, "a UUID", lambda fields: _is_uuid(fields.get("op_id"))),
    Check(
        "created_at",
        ProtocolLevel.STRICT,
        "a time with its offset from UTC",
        lambda fields: _is_moment(fields.get("created_at")),
    ),
    Check("stamp_id", ProtocolLevel.STRICT, "the id of this hash in this namespace", _is_right_stamp_id),
)
