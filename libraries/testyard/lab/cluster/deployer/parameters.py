"""The parameters of a deployment: ``--libvirt-memory-gb 8`` is ``libvirt_memory_gb: 8`` in the JSON of a suite."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import isfinite
from typing import Any, Final, NoReturn

from testyard.core.errors import UserError

PROVIDERS: Final = ("aws", "azure", "gcp", "digitalocean", "hetzner", "libvirt")
MANUAL_PROVIDERS: Final = frozenset({"digitalocean", "hetzner", "libvirt"})
"""Where the documented deployer cannot power nodes on: a person does (document 003, table)."""
LARGEST_CLUSTER: Final = 32
FIRST_NODE: Final = 11
DEFAULT_DATABASE_VERSION: Final = "postgresql-embedded"
# What the documented deployer's own options are called: a parameter that nearly has such a name is a typing error.
KNOWN: Final = frozenset(
    {
        *("cloud_provider", "cluster_size", "db_version", "database", "sysrq", "architecture", "owner", "timings"),
        *("instance_type", "data_volume_size", "data_volumes_per_node", "root_volume_size", "allowed_cidr"),
        *("aws_region", "aws_profile", "aws_spot_instance", "azure_region", "azure_subscription"),
        *("azure_spot_instance", "gcp_region", "gcp_zone", "gcp_project", "gcp_spot_instance"),
        *("digitalocean_region", "hetzner_location", "hetzner_network_zone"),
        *("libvirt_memory_gb", "libvirt_vcpus", "libvirt_network", "libvirt_pool", "libvirt_uri"),
    }
)
_SECRET: Final = re.compile(r"(^|_)(password|token|secret|key|credentials?)$")
_NAME: Final = re.compile(r"--([a-z][a-z0-9]*(?:[-_][a-z0-9]+)*)")
_SIMILAR: Final = 0.9


class UsageError(UserError):
    """The command line is not one that the deployer knows."""


def node_names(count: int) -> list[str]:
    """The names of a cluster's nodes: n11, n12..."""
    return [f"n{FIRST_NODE + index}" for index in range(count)]


def read_options(words: Sequence[str], tell: Callable[[str], None]) -> dict[str, Any]:
    """The parameters that a command line gives.

    Args:
        words: What follows the options that the command line knows: ``--name VALUE`` or ``--name=VALUE``.
        tell: Is told what is not kept: values that look like a credential.

    Raises:
        UsageError: A word is no option, or nearly has the name of a known parameter.
        UserError: A value is missing, empty, or not one of those that are possible.
    """
    found: dict[str, Any] = {}
    for name, text in _pairs(words):
        if name in found:
            message = f"--{name.replace('_', '-')} is given twice"
            raise UserError(message)
        if not text.strip():
            message = f"--{name.replace('_', '-')} has no value"
            raise UserError(message)
        if _SECRET.search(name):
            tell(f"the value of --{name.replace('_', '-')} is not kept: the lab makes its own credentials")
            continue
        found[name] = _checked(name, _value(text))
    return found


def _pairs(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    rest = list(words)
    while rest:
        word, equals, value = rest.pop(0).partition("=")
        found = _NAME.fullmatch(word)
        if not found:
            message = f"expected an option such as --cluster-size, got {word!r}"
            raise UsageError(message)
        name = found[1].replace("-", "_")
        _refuse_typing_error(name)
        if not equals:
            value = rest.pop(0) if rest and not _NAME.fullmatch(rest[0].partition("=")[0]) else ""
        yield name, value


def _refuse_typing_error(name: str) -> None:
    if name in KNOWN:
        return
    import difflib

    near = difflib.get_close_matches(name, KNOWN, n=1, cutoff=_SIMILAR)
    if near:
        meant = near[0].replace("_", "-")
        message = f"unknown option --{name.replace('_', '-')}; did you mean --{meant}?"
        raise UsageError(message)


def _value(text: str) -> Any:
    """What a text means as JSON: a number, true, false, a list or an object; anything else is itself.

    So is a number that would read differently when it is written again: version 2025.10 is not 2025.1.
    """
    try:
        value = json.loads(text)
    except ValueError:
        return text
    match value:
        case dict() | list() | bool():
            return value
        case int() | float() if json.dumps(value) == text and isfinite(value):
            return value
    return text


def _checked(name: str, value: Any) -> Any:
    match name:
        case "cloud_provider" if value not in PROVIDERS:
            _refuse(name, f"one of {', '.join(PROVIDERS)}", value)
        case "cluster_size" if type(value) is not int or not 1 <= value <= LARGEST_CLUSTER:
            _refuse(name, f"a number from 1 to {LARGEST_CLUSTER}", value)
        case "database" | "sysrq" if type(value) is not bool:
            _refuse(name, "true or false", value)
        case "timings" if not isinstance(value, dict):
            _refuse(name, "a JSON object", value)
        case "db_version" | "architecture" if not isinstance(value, str):
            return str(value)
    return value


def _refuse(name: str, expected: str, value: object) -> NoReturn:
    message = f"--{name.replace('_', '-')}: expected {expected}, got {value!r}"
    raise UserError(message)


def cluster_size(parameters: Mapping[str, Any]) -> int:
    """How many nodes a deployment has."""
    return int(parameters.get("cluster_size", 1))


def has_database(parameters: Mapping[str, Any]) -> bool:
    """Whether its nodes have a database."""
    return bool(parameters.get("database", True))
