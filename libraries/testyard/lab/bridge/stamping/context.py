"""What the headers of a request say, and what is told back.

Source: contract page "event-bus", 3.8. A header says what the body does not; where both say something they must
say the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from uuid import UUID, uuid4

REQUEST_ID: Final = "x-request-id"
CORRELATION_ID: Final = "x-correlation-id"
NAMESPACE: Final = "x-namespace"
PROTOCOL_VERSION: Final = "x-protocol-version"
METADATA_VERSION: Final = "x-metadata-version"
OPERATION_ID: Final = "x-operation-id"

LONGEST: Final = 255


class HeaderError(ValueError):
    """A header that cannot be understood.

    Attributes:
        header: Its name.
    """

    def __init__(self, header: str, message: str) -> None:
        super().__init__(message)
        self.header = header


@dataclass
class Context:
    """What is known of a request beside its body.

    Attributes:
        request_id: The request; made here when the caller gives none.
        correlation_id: Which workflow it belongs to.
        namespace: Whose files it is about.
        protocol_version: Of the stamping protocol.
        metadata_version: Of the O.N.E. metadata.
        operation_id: Which operation it is.
    """

    request_id: str
    correlation_id: UUID | None = None
    namespace: str | None = None
    protocol_version: str | None = None
    metadata_version: str | None = None
    operation_id: UUID | None = None

    def headers(self) -> list[tuple[bytes, bytes]]:
        """What every answer carries."""
        told = {
            REQUEST_ID: self.request_id,
            CORRELATION_ID: self.correlation_id,
            NAMESPACE: self.namespace,
            PROTOCOL_VERSION: self.protocol_version,
            METADATA_VERSION: self.metadata_version,
            OPERATION_ID: self.operation_id,
        }
        return [(name.encode(), str(value).encode()) for name, value in told.items() if value is not None]


def read_context(headers: Mapping[str, str]) -> Context:
    """Read the headers.

    Args:
        headers: By their names in lower case.

    Raises:
        HeaderError: One of them cannot be understood.
    """
    for name in (REQUEST_ID, NAMESPACE, PROTOCOL_VERSION, METADATA_VERSION):
        given = headers.get(name, "")
        if len(given) > LONGEST or not given.isascii() or not given.isprintable():
            raise HeaderError(name, f"{name} is expected to be at most {LONGEST} printable ASCII characters")
    return Context(
        request_id=headers.get(REQUEST_ID) or str(uuid4()),
        correlation_id=_uuid(headers, CORRELATION_ID),
        namespace=headers.get(NAMESPACE) or None,
        protocol_version=headers.get(PROTOCOL_VERSION) or None,
        metadata_version=headers.get(METADATA_VERSION) or None,
        operation_id=_uuid(headers, OPERATION_ID),
    )


def _uuid(headers: Mapping[str, str], name: str) -> UUID | None:
    given = headers.get(name)
    if not given:
        return None
    try:
        return UUID(given)
    except ValueError:
        raise HeaderError(name, f"{name} is expected to be a UUID") from None
