"""What is known of a service: how it registers, and where it is found.

Source: contract page "event-bus", 3.10.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt

STAMPING: Final = "metadata-stamping-service"
ONEXTREE: Final = "onextree-service"

HIGHEST_PORT: Final = 65_535

Name = Annotated[str, Field(pattern=r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$")]
"""A DNS label, as Consul recommends."""
Host = Annotated[str, Field(pattern=r"^[A-Za-z0-9](?:[A-Za-z0-9.-]{0,253}[A-Za-z0-9])?$")]


class Source(Enum):
    """Who has told where a service is."""

    CONSUL = "consul"
    FALLBACK = "fallback"


class ConsulStatus(Enum):
    """How Consul is."""

    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    UNAVAILABLE = "unavailable"


class Registration(BaseModel):
    """One process of a service, as it registers.

    Attributes:
        name: Which service.
        host: Where it runs.
        port: On which TCP port it answers.
        tags: What it is looked for by.
        meta: What else is to be known of it, such as its version.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    host: Host
    port: int = Field(ge=1, le=HIGHEST_PORT)
    tags: tuple[str, ...] = ()
    meta: Mapping[str, str] = Field(default_factory=dict)

    @property
    def service_id(self) -> str:
        """The process: name, host and port."""
        return f"{self.name}-{self.host}-{self.port}"

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{self.host}:{self.port}"

    def to_consul(self, every: timedelta, timeout: timedelta) -> dict[str, Any]:
        """The body of ``PUT /v1/agent/service/register``.

        Args:
            every: How often Consul asks for the service's health.
            timeout: How long that may take.
        """
        return {
            "ID": self.service_id,
            "Name": self.name,
            "Tags": list(self.tags),
            "Address": self.host,
            "Port": self.port,
            "Meta": {**self.meta, "registered_at": datetime.now(UTC).isoformat()},
            "Check": {
                "HTTP": f"{self.url}/health",
                "Interval": f"{every.total_seconds():g}s",
                "Timeout": f"{timeout.total_seconds():g}s",
            },
        }


class _ConsulService(BaseModel):
    """The part ``Service`` of an entry of Consul's ``/v1/health/service``."""

    service_id: str = Field(alias="ID")
    name: str = Field(alias="Service")
    host: str = Field(alias="Address")
    port: NonNegativeInt = Field(alias="Port")
    tags: list[str] | None = Field(alias="Tags", default=None)
    meta: dict[str, str] | None = Field(alias="Meta", default=None)


class _ConsulNode(BaseModel):
    """The part ``Node``."""

    host: str = Field(alias="Address")


class _ConsulCheck(BaseModel):
    """One of the part ``Checks``."""

    status: str = Field(alias="Status")


class ConsulEntry(BaseModel):
    """An entry of Consul's ``/v1/health/service``.

    Attributes:
        node: The machine.
        service: The process.
        checks: How both are.
    """

    node: _ConsulNode = Field(alias="Node")
    service: _ConsulService = Field(alias="Service")
    checks: list[_ConsulCheck] = Field(alias="Checks")

    @property
    def passing(self) -> bool:
        """Whether all checks are."""
        return all(check.status == "passing" for check in self.checks)

    def instance(self) -> Instance:
        """The process; a service without an address of its own has the machine's."""
        service = self.service
        return Instance(
            service_id=service.service_id,
            name=service.name,
            host=service.host or self.node.host,
            port=service.port,
            tags=tuple(service.tags or ()),
            meta=service.meta or {},
        )


class Instance(BaseModel):
    """One process of a service, as Consul knows it.

    Attributes:
        service_id: The process.
        name: Which service.
        host: Where it runs.
        port: On which TCP port it answers.
        tags: What it is looked for by.
        meta: What else is known of it.
    """

    model_config = ConfigDict(frozen=True)

    service_id: str
    name: str
    host: str
    port: int
    tags: tuple[str, ...] = ()
    meta: Mapping[str, str] = Field(default_factory=dict)

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{self.host}:{self.port}"


class Located(BaseModel):
    """Where a service is.

    Attributes:
        name: Which service.
        url: Where it answers.
        source: Who has told.
        reason: Why Consul has not; None when it has.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    url: str
    source: Source
    reason: str | None = None
