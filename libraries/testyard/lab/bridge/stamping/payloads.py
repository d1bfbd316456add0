"""What the service is asked.

Source: contract page "event-bus", 3.8.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Annotated, Any, Final
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from testyard.lab.bridge.stamping.json_text import encodable, storable
from testyard.lab.bridge.stamping.records import StampType

MOST_LISTED: Final = 1000
LARGEST_INTEGER: Final = 2**31 - 1
LONGEST_PATH: Final = 4096

_NAMESPACE: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,253}[A-Za-z0-9])?")

Content = Annotated[str, AfterValidator(encodable)]
Text = Annotated[str, AfterValidator(storable)]
Json = Annotated[dict[str, Any], AfterValidator(storable)]
Path = Annotated[Text, Field(min_length=1, max_length=LONGEST_PATH)]


def is_namespace(text: str) -> bool:
    """Whether a namespace can be called so: letters, digits, dots, hyphens and underscores."""
    return _NAMESPACE.fullmatch(text) is not None


class Payload(BaseModel):
    """A body; a name that is not known is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class StampOptions(Payload):
    """How a file is stamped.

    Attributes:
        stamp_type: How much of the stamp stands in the file.
        include_metadata: Whether the given metadata is kept with the stamp.
        validate_integrity: Whether the stamped content is checked before it is handed out.
    """

    stamp_type: StampType = StampType.LIGHTWEIGHT
    include_metadata: bool = True
    validate_integrity: bool = True


class StampRequest(Payload):
    """A file to stamp.

    Attributes:
        content: What is in it.
        file_path: Which file.
        content_type: Its media type; guessed from the path when not given.
        options: How it is stamped.
        metadata: Goes along with the stamp.
        protocol_version: Of the stamping protocol; the header ``X-Protocol-Version`` when not given.
        namespace: Whose it is; the header ``X-Namespace`` when not given.
        intelligence_data: What OnexTree has to say.
        version: Of the stamp.
        op_id: Which operation this is; the header ``X-Operation-ID``, or a new one, when not given.
        metadata_version: Of the O.N.E. metadata; the header ``X-Metadata-Version`` when not given.
    """

    content: Content
    file_path: Path
    content_type: Annotated[Text, Field(max_length=255)] | None = None
    options: StampOptions = StampOptions()
    metadata: Json = Field(default_factory=dict)
    protocol_version: Text | None = None
    namespace: Text | None = None
    intelligence_data: Json | None = None
    version: int = Field(default=1, ge=1, le=LARGEST_INTEGER)
    op_id: UUID | None = None
    metadata_version: Text | None = None


class ValidateRequest(Payload):
    """A stamped content to check.

    Attributes:
        content: With its stamp.
        expected_hash: What its hash is expected to be; None: what its stamp says.
    """

    content: Content
    expected_hash: str | None = None


class BatchRequest(Payload):
    """Several files to stamp; one that is refused does not keep the others from being stamped.

    Attributes:
        items: Each as ``POST /stamp`` takes it.
    """

    items: list[Any]


class ProtocolLevel(Enum):
    """How strictly a stamp has to follow the protocol."""

    STRICT = "strict"
    MODERATE = "moderate"
    LENIENT = "lenient"


class ProtocolRequest(Payload):
    """A stamp whose O.N.E. v0.1 fields are to be checked.

    Attributes:
        content: Holds the stamp; only a rich one has all the fields.
        stamp_data: The fields themselves, instead of a content.
        validation_level: How strictly.
    """

    content: Content | None = None
    stamp_data: Json | None = None
    validation_level: ProtocolLevel = ProtocolLevel.MODERATE
