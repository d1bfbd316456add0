"""What the providers that are asked with one bearer token have in common: all but AWS and libvirt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from urllib.parse import urlsplit

from testyard.core.errors import UserError
from testyard.core.redact import secrets_in_use
from testyard.power.protocol import ProviderName
from testyard.power.providers.refusals import TITLES, required


@dataclass(frozen=True)
class TokenAccess:
    """Where an API is, and the token it is asked with.

    Args:
        token: The bearer token; masked in everything that is logged from now on.
        endpoint: The API's address, without a slash at its end.
        plain: Whether the endpoint is asked without TLS; only one on this machine is, the lab's.
    """

    token: str = field(repr=False)
    endpoint: str
    plain: bool


def token_access(
    provider: ProviderName, settings: Mapping[str, str], *, token: str, endpoint: str, default: str
) -> TokenAccess:
    """The token and the address from the settings.

    Args:
        provider: Whose API.
        settings: Settings by the names of environment variables.
        token: The setting that holds the token.
        endpoint: The setting that holds another address than the provider's own.
        default: The provider's own address.

    Raises:
        UserError: There is no token, it cannot be sent in a header, or it would cross a network in clear.
    """
    value = required(provider, settings, token, "an API token")
    secrets_in_use.add(value)
    if not (value.isascii() and value.isprintable()) or " " in value:
        message = (
            f"{token} cannot be a token of {TITLES[provider]}: it holds a space, a line end or a character that "
            "is not ASCII. Was it read from a file?"
        )
        raise UserError(message)
    address = api_address(settings, endpoint, default)
    return TokenAccess(value, address, address.startswith("http:"))


def api_address(settings: Mapping[str, str], endpoint: str, default: str) -> str:
    """The address of an API from the settings, without a slash at its end.

    Args:
        settings: Settings by the names of environment variables.
        endpoint: The setting that holds another address than the provider's own.
        default: The provider's own address.

    Raises:
        UserError: It is no address, or what is secret would cross a network in clear.
    """
    address = (settings.get(endpoint) or default).rstrip("/")
    parts = urlsplit(address)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        message = (
            f"{endpoint} is {address!r}, which is no address of an API: https://HOST or http://127.0.0.1:PORT."
        )
        raise UserError(message)
    if parts.scheme == "http" and not _is_loopback(parts.hostname):
        message = f"{endpoint} is {address}: the token would cross the network in clear. Use https."
        raise UserError(message)
    return address


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
