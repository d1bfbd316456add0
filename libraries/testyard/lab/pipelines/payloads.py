"""What the service's routes accept: bounded, so that nothing reaches the database that it would refuse.

Source: contract page "pipelines", 1.1 (fields and their bounds) and 1.2 (enumerations).
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Final, Literal

from fastapi import Path
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)

from testyard.lab.pipelines.execution import Template
from testyard.lab.pipelines.plans import UNLIMITED, Plan
from testyard.lab.pipelines.records import Channel
from testyard.lab.pipelines.retry import ErrorClass
from testyard.lab.pipelines.states import RunState

DEFAULT_PRIORITY: Final = 5
MOST_LISTED: Final = 1000
FARTHEST_OFFSET: Final = 1_000_000
DEEPEST_JSON: Final = 32
# A thousand years.
LONGEST_ADVANCE: Final = 1000 * 366 * 86400
# The parts of paths below /customers/ that are not ids.
RESERVED_IDS: Final = frozenset({"onboard", "credentials", "pipelines"})
TEXT_PATTERN: Final = r"^[^\x00-\x1f\x7f]*$"
TENANT_PATTERN: Final = r"^[A-Za-z0-9_]{3,50}$"
TEMPLATE_PATTERN: Final = r"^[A-Za-z][A-Za-z0-9_]{0,63}$"
ID_PATTERN: Final = r"^[A-Za-z0-9_-]{1,200}$"
# That of HTML's <input type=email>, with a bound.
EMAIL_PATTERN: Final = (
    r"^[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
    r"(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?){0,8}$"
)
URL_PATTERN: Final = r"^https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?([/?][!-~]*)?$"
PATTERNS_IN_WORDS: Final[Mapping[str, str]] = {
    TEXT_PATTERN: "a text without control characters",
    TENANT_PATTERN: "3 to 50 letters, digits or _",
    TEMPLATE_PATTERN: "a letter, then at most 63 letters, digits or _",
    ID_PATTERN: "1 to 200 letters, digits, _ or -",
    EMAIL_PATTERN: "an e-mail address",
    URL_PATTERN: "an http or https URL, without user and password",
}


class Provider(StrEnum):
    """Whose service a pipeline looks at."""

    GCP = "GCP"
    AWS = "AWS"
    AZURE = "AZURE"
    OPENAI = "OPENAI"
    CLAUDE = "CLAUDE"


class Domain(StrEnum):
    """What a pipeline is about."""

    COST = "COST"
    SECURITY = "SECURITY"
    COMPLIANCE = "COMPLIANCE"
    OBSERVABILITY = "OBSERVABILITY"


class CredentialType(StrEnum):
    """What kind of credential it is."""

    SERVICE_ACCOUNT = "SERVICE_ACCOUNT"
    SERVICE_PRINCIPAL = "SERVICE_PRINCIPAL"
    ACCESS_KEY = "ACCESS_KEY"
    API_KEY = "API_KEY"


def _storable(value: Any, depth: int = 0) -> None:
    """Refuse what JSON can say and PostgreSQL's jsonb cannot hold."""
    if depth > DEEPEST_JSON:
        raise ValueError(f"values nested at most {DEEPEST_JSON} deep")
    match value:
        case str():
            if "\x00" in value or any("\ud800" <= character <= "\udfff" for character in value):
                raise ValueError("texts without NUL and without halves of surrogate pairs")
        case float():
            if not math.isfinite(value):
                raise ValueError("finite numbers")
        case list():
            for each in value:
                _storable(each, depth + 1)
        case dict():
            for name, each in value.items():
                _storable(name, depth + 1)
                _storable(each, depth + 1)


def _storable_object(value: dict[str, Any]) -> dict[str, Any]:
    _storable(value)
    return value


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


def _text(value: object) -> object:
    """Refuse numbers where a date or a time is meant: they would count as seconds."""
    if not isinstance(value, str) or value.lstrip("-").replace(".", "", 1).isdecimal():
        raise ValueError("a date or a time in ISO 8601")
    return value


def _number(value: object) -> object:
    """Refuse what JSON does not call a number; 2.0 is an integer there."""
    if isinstance(value, bool | str):
        raise ValueError("a whole number")
    return value


Text = Annotated[str, StringConstraints(pattern=TEXT_PATTERN)]
JsonObject = Annotated[dict[str, Any], AfterValidator(_storable_object)]
SecretObject = Annotated[
    dict[str, Any], Field(min_length=1, json_schema_extra={"writeOnly": True}), AfterValidator(_storable_object)
]
Date = Annotated[datetime.date, BeforeValidator(_text)]
Moment = Annotated[AwareDatetime, BeforeValidator(_text)]
Url = Annotated[str, StringConstraints(pattern=URL_PATTERN, max_length=2000)]
TenantId = Annotated[str, StringConstraints(pattern=TENANT_PATTERN)]
TemplateName = Annotated[str, StringConstraints(pattern=TEMPLATE_PATTERN)]
Email = Annotated[str, StringConstraints(pattern=EMAIL_PATTERN, max_length=254)]
AnyCaseProvider = Annotated[Provider, BeforeValidator(_upper)]
AnyCaseDomain = Annotated[Domain, BeforeValidator(_upper)]
Priority = Annotated[int, Field(ge=1, le=10, description="1 to 10; higher runs first"), BeforeValidator(_number)]
Limit = Annotated[int, Field(ge=0, le=UNLIMITED), BeforeValidator(_number)]
CustomerId = Annotated[TenantId, Path(description="The customer's id, which is its tenant's")]
Identifier = Annotated[str, StringConstraints(pattern=ID_PATTERN)]
CredentialId = Annotated[Identifier, Path(description="The credential's id")]
ConfigId = Annotated[Identifier, Path(description="The configuration's id")]
KeyId = Annotated[Identifier, Path(description="The API key's id, which is not the key")]
RunId = Annotated[Identifier, Path(description="The run's id")]


class Payload(BaseModel):
    """A body or query: a field that nobody knows is refused, for it is a mistake."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Onboarding(Payload):
    """A new customer."""

    tenant_id: TenantId
    company_name: Annotated[Text, StringConstraints(min_length=2, max_length=200)]
    admin_email: Email
    subscription_plan: Plan = Plan.STARTER

    @field_validator("tenant_id")
    @classmethod
    def is_no_path(cls, value: str) -> str:
        """Refuse ids that are parts of paths."""
        if value.lower() in RESERVED_IDS:
            raise ValueError(f"an id other than {', '.join(sorted(RESERVED_IDS))}")
        return value


def _schema_of_change(schema: dict[str, Any]) -> None:
    """None stands for a field that is not there; what is there cannot be null."""
    schema["minProperties"] = 1
    for field in schema["properties"].values():
        field.pop("default", None)
        field.update(next(option for option in field.pop("anyOf") if option != {"type": "null"}))


class Change(Payload):
    """What changes: at least one field, and none with null."""

    model_config = ConfigDict(json_schema_extra=_schema_of_change)

    @model_validator(mode="before")
    @classmethod
    def changes_something(cls, fields: Any) -> Any:
        """Refuse a change of nothing, or to nothing."""
        if isinstance(fields, dict) and (not fields or None in fields.values()):
            raise ValueError(f"at least one of {', '.join(cls.model_fields)}, each with a value")
        return fields


class CustomerChange(Change):
    """What changes of a customer."""

    company_name: Annotated[Text, StringConstraints(min_length=2, max_length=200)] | None = None
    admin_email: Email | None = None


class NewCredential(Payload):
    """A credential for a provider. What is in ``credentials`` is encrypted and never returned."""

    provider: AnyCaseProvider
    credential_type: Annotated[CredentialType, BeforeValidator(_upper)]
    credential_name: Annotated[Text, StringConstraints(min_length=3, max_length=100)]
    credentials: SecretObject
    project_id: Annotated[Text, StringConstraints(min_length=1, max_length=100)] | None = None
    region: Annotated[Text, StringConstraints(min_length=1, max_length=100)] | None = None


class NewConfiguration(Payload):
    """When to run which pipeline."""

    provider: AnyCaseProvider
    domain: AnyCaseDomain
    template_name: Template
    schedule: Annotated[
        Text,
        StringConstraints(min_length=1, max_length=100),
        Field(description="Five fields of cron, in the zone", examples=["0 2 * * *"]),
    ]
    timezone: Annotated[
        Text, StringConstraints(min_length=1, max_length=64), Field(description="IANA zone", examples=["UTC"])
    ] = "UTC"
    priority: Priority = DEFAULT_PRIORITY
    default_parameters: JsonObject = Field(default_factory=dict)


class QuotaChange(Change):
    """Which limits change."""

    daily_limit: Limit | None = None
    monthly_limit: Limit | None = None
    concurrent_limit: Limit | None = None


class NewApiKey(Payload):
    """A further API key."""

    key_name: Annotated[Text, StringConstraints(min_length=1, max_length=100)]
    expires_in_days: Annotated[int, Field(ge=1, le=3650), BeforeValidator(_number)] = 365


class EmailTarget(Payload):
    """An address that is told of failed runs."""

    channel: Literal[Channel.EMAIL]
    target: Email


class WebTarget(Payload):
    """A URL that is told of failed runs."""

    channel: Literal[Channel.SLACK, Channel.WEBHOOK]
    target: Url


ChannelTarget = Annotated[EmailTarget | WebTarget, Field(discriminator="channel")]


class DirectRun(Payload):
    """What a run that is asked for directly may be given."""

    trigger_by: Annotated[Text, StringConstraints(min_length=1, max_length=100)] = "api_user"
    parameters: JsonObject = Field(default_factory=dict)
    priority: Priority = DEFAULT_PRIORITY


class Start(Payload):
    """Who takes a run to execute it."""

    worker_id: Annotated[Text, StringConstraints(min_length=1, max_length=100)] = "external"


class Report(Payload):
    """Which claim of a run an executor speaks for; without it, the newest."""

    claim_number: Annotated[int, Field(ge=1, le=2**31 - 1), BeforeValidator(_number)] | None = None


class Failure(Report):
    """How a run failed."""

    error_class: ErrorClass = ErrorClass.UNKNOWN
    error_message: Annotated[Text, StringConstraints(min_length=1, max_length=2000)] = (
        "the executor reported a failure"
    )


class ClockSetting(Payload):
    """What time it shall be."""

    now: Moment


class ClockAdvance(Payload):
    """How far the time shall move."""

    seconds: Annotated[float, Field(strict=True, ge=0, le=LONGEST_ADVANCE)]


class Page(Payload):
    """Which part of a list."""

    limit: Annotated[int, Field(ge=1, le=MOST_LISTED)] = 100
    offset: Annotated[int, Field(ge=0, le=FARTHEST_OFFSET)] = 0


class RunFilter(Page):
    """Which runs of a customer."""

    state: RunState | None = None
    date: Date | None = Field(default=None, description="The day (UTC) for which they were scheduled")


class AllRunsFilter(RunFilter):
    """Which runs of all customers."""

    customer_id: TenantId | None = None


class TriggerLimit(Payload):
    """How many due configurations one trigger takes."""

    limit: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
