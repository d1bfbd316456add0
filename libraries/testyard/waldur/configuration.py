"""The site agent's configuration file, read and written with errors that name the key.

The agent itself only warns about most mistakes and carries on with unvalidated settings; here a mistake ends
the run with one line (document 000, configuration template).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, AnyHttpUrl, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from testyard.core.errors import ConfigurationError, UserError
from testyard.core.redact import refuse_placeholder, secrets_in_use

# Such words are not shown in messages: they might be tokens.
LONG_WORD = re.compile(r"[0-9A-Za-z_-]{20,}")


def _http_url(value: str) -> str:
    TypeAdapter(AnyHttpUrl).validate_python(value)
    return value


def _identifier(value: str) -> str:
    digits = value.replace("-", "")
    if len(digits) != 32 or not all(digit in "0123456789abcdefABCDEF" for digit in digits):
        message = "is not a UUID"
        raise ValueError(message)
    return value


Url = Annotated[str, AfterValidator(_http_url)]
Identifier = Annotated[str, AfterValidator(_identifier)]
Token = Annotated[str, Field(min_length=1, repr=False)]


class TargetComponent(BaseModel):
    """How one component of A counts on B."""

    model_config = ConfigDict(extra="forbid")

    factor: float = Field(default=1.0, gt=0)


class Component(BaseModel):
    """One component of A and what it becomes on B; without targets it passes through unchanged."""

    measured_unit: str
    unit_factor: float
    accounting_type: Literal["limit", "usage", "one"]
    label: str
    target_components: dict[str, TargetComponent] = {}


class BackendSettings(BaseModel):
    """Where B is and who the agent is there."""

    model_config = ConfigDict(extra="allow")

    target_api_url: Url
    target_api_token: Token
    target_offering_uuid: Identifier
    target_customer_uuid: Identifier
    user_match_field: Literal["cuid", "email", "username"] = "cuid"
    user_resolve_method: Literal["remote_eduteams", "identity_bridge", "user_field"] = "identity_bridge"
    target_stomp_enabled: bool = False


class OfferingConfiguration(BaseModel):
    """One federated offering, as the agent reads it."""

    model_config = ConfigDict(extra="allow")

    name: str
    waldur_api_url: Url
    waldur_api_token: Token
    waldur_offering_uuid: Identifier
    backend_type: Literal["waldur"]
    order_processing_backend: Literal["waldur"]
    stomp_enabled: bool = False
    websocket_use_tls: bool = True
    verify_ssl: bool = True
    stomp_ws_host: str | None = None
    stomp_ws_port: int | None = None
    stomp_ws_path: str | None = None
    backend_settings: BackendSettings
    backend_components: dict[str, Component] = Field(min_length=1)

    def target_limits(self, limits: Mapping[str, float]) -> dict[str, float]:
        """What limits on A must be on B: source x factor, summed per target (document 000, step 3)."""
        expected: dict[str, float] = {}
        for source, amount in limits.items():
            for target, factor in self._factors(source).items():
                expected[target] = expected.get(target, 0) + amount * factor
        return expected

    def origins_of_target_components(self) -> dict[str, str]:
        """The components that B's offering must have, each with where its amount comes from."""
        origins: dict[str, list[str]] = {}
        for source in self.backend_components:
            for target, factor in self._factors(source).items():
                origins.setdefault(target, []).append(f"{source} x {factor:g}")
        return {target: " + ".join(terms) for target, terms in origins.items()}

    def _factors(self, source: str) -> dict[str, float]:
        targets = self.backend_components[source].target_components
        return {name: target.factor for name, target in targets.items()} or {source: 1.0}


class AgentConfiguration(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="allow")

    offerings: list[OfferingConfiguration] = Field(min_length=1)

    @property
    def offering(self) -> OfferingConfiguration:
        """The federated offering: the file's first."""
        return self.offerings[0]


def load_configuration(path: Path) -> AgentConfiguration:
    """Read and check an agent configuration; its tokens are masked in every log from now on.

    Args:
        path: The YAML file.

    Raises:
        ConfigurationError: No such file, no YAML, or a wrong key: one line that names the file, the key and
            what was found.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as problem:
        message = f"The agent configuration {path} cannot be read: {problem.strerror}."
        raise ConfigurationError(message) from None
    except (yaml.YAMLError, ValueError) as problem:  # a date that does not exist is a bare ValueError
        mark = getattr(problem, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        reason = _yaml_reason(problem)
        message = f"The agent configuration {path} is not YAML{where}: {reason}."
        raise ConfigurationError(message) from None
    if not isinstance(content, dict):
        message = f"The agent configuration {path}: expected a mapping with 'offerings', got {_kind(content)}."
        raise ConfigurationError(message)
    # Before anything is said about the content: a token may stand where it does not belong.
    secrets_in_use.add(*_tokens(content))
    try:
        configuration = AgentConfiguration.model_validate(content)
    except ValidationError as problem:
        raise ConfigurationError(_explain(path, problem)) from None
    return configuration


def write_configuration(path: Path, content: Mapping[str, Any]) -> None:
    """Write an agent configuration that only this user can read: it holds tokens.

    Raises:
        UserError: A value is ``<secret>`` where a secret's value was meant.
    """
    text = yaml.safe_dump(dict(content), sort_keys=False)
    refuse_placeholder(text)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
        os.fchmod(stream.fileno(), 0o600)  # the file may have been there, readable by all
        stream.write(text)


def configuration_in_memory(content: Mapping[str, Any]) -> Path:
    """Keep an agent configuration in memory, for this process alone and as long as it lives.

    Returns:
        A path at which this process can read it (Linux).

    Raises:
        UserError: A value is ``<secret>`` where a secret's value was meant, or this is not Linux.
    """
    if not hasattr(os, "memfd_create"):
        message = "A configuration can be kept in memory on Linux only; give a directory for it."
        raise UserError(message)
    path = Path(f"/proc/self/fd/{os.memfd_create('agent.yaml')}")
    write_configuration(path, content)
    return path


def _explain(path: Path, problem: ValidationError) -> str:
    first, *others = problem.errors()
    key = ".".join(str(part) for part in first["loc"])
    value = first["input"]
    if first["type"] == "missing":
        found = "is missing"
    elif isinstance(value, bool | int | float) or (isinstance(value, str) and not _may_be_secret(key, value)):
        found = f"{first['msg']}, got {_kind(value)} {value!r}"
    else:
        found = f"{first['msg']}, got {_kind(value)}"
    more = f" ({len(others)} more)" if others else ""
    return secrets_in_use.mask(f"The agent configuration {path}: key {key}: {found}.{more}")


def _yaml_reason(problem: Exception) -> str:
    if isinstance(problem, UnicodeDecodeError):
        return "not UTF-8 text"
    return str(getattr(problem, "problem", None) or getattr(problem, "reason", None) or problem)


def _may_be_secret(key: str, value: str) -> bool:
    # A token pasted into another key is a long word of letters and digits; so is a UUID, which needs no echo.
    return "token" in key or LONG_WORD.search(value) is not None


def _tokens(content: object) -> Iterator[str]:
    """Every text below a key that names a token, wherever it stands."""
    match content:
        case dict():
            for key, value in content.items():
                if "token" in str(key) and isinstance(value, str | int):
                    yield str(value)
                yield from _tokens(value)
        case list():
            for item in content:
                yield from _tokens(item)


def _kind(value: object) -> str:
    names = {str: "text", int: "number", float: "number", bool: "boolean", list: "list", dict: "mapping"}
    return "nothing" if value is None else names.get(type(value), type(value).__name__)
