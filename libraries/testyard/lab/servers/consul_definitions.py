"""What is registered with Consul: services, their checks, and durations as Go writes them.

Source: Consul's HTTP API v1, "Service - Agent" and "Check - Agent".
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import timedelta
from enum import Enum
from typing import Any, Final, Self

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

_DURATION: Final = re.compile(r"(?:\d+(?:\.\d+)?(?:ns|us|ms|s|m|h))+")
_DURATION_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ns|us|ms|s|m|h)")
_SECONDS: Final = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


class CheckStatus(Enum):
    """How a check has turned out."""

    PASSING = "passing"
    WARNING = "warning"
    CRITICAL = "critical"


def go_duration(text: str) -> timedelta:
    """Read a duration as Go writes it: ``10s``, ``1m30s``, ``250ms``.

    Raises:
        ValueError: It is none.
    """
    if not _DURATION.fullmatch(text):
        raise ValueError(f"time: invalid duration {json.dumps(text)}")
    return timedelta(seconds=sum(float(number) * _SECONDS[unit] for number, unit in _DURATION_PART.findall(text)))


def _names(camel: str, snake: str) -> Any:
    """Consul takes ``CamelCase`` and ``snake_case``, in whichever case."""
    return Field(default=None, validation_alias=AliasChoices(camel.lower(), snake))


class Definition(BaseModel):
    """What a client sends; what this stand-in does not need is left alone."""

    model_config = ConfigDict(extra="ignore")

    @classmethod
    def read(cls, given: object) -> Self:
        """Read a definition whose names are in any case."""
        return cls.model_validate(lowered(given))


class CheckDefinition(Definition):
    """A check as it is registered; only HTTP checks are made."""

    check_id: str | None = _names("CheckID", "check_id")
    name: str | None = None
    notes: str | None = None
    http: str | None = None
    method: str | None = None
    header: dict[str, list[str]] | None = None
    body: str | None = None
    interval: str | None = None
    timeout: str | None = None
    status: CheckStatus | None = None


class ServiceDefinition(Definition):
    """A service as it is registered."""

    name: str | None = None
    service_id: str | None = Field(default=None, validation_alias="id")
    tags: list[str] | None = None
    address: str | None = None
    port: int | None = None
    meta: dict[str, str] | None = None
    tagged_addresses: dict[str, Any] | None = _names("TaggedAddresses", "tagged_addresses")
    enable_tag_override: bool | None = _names("EnableTagOverride", "enable_tag_override")
    weights: dict[str, int] | None = None
    check: CheckDefinition | None = None
    checks: list[CheckDefinition] | None = None


def lowered(given: object) -> object:
    """A definition with its names in lower case; what is below ``Meta``, ``Header`` and ``Weights`` stays."""
    if isinstance(given, list):
        return [lowered(each) for each in given]
    if not isinstance(given, Mapping):
        return given
    kept = {"meta", "header", "weights", "taggedaddresses", "tagged_addresses"}
    return {
        name.lower(): value if name.lower() in kept else lowered(value)
        for name, value in given.items()
        if value is not None
    }
