"""Settings and credentials of the providers, and the way to a provider's API.

The settings have the names that the providers' own tools read from the environment. What the deployment
directory's `.cloud.json` says counts more than the environment; when it brings a credential, none of the
environment's credentials for that provider is used beside it: half a credential of one account with half of
another helps nobody. Every credential is masked in logs from the moment it is read.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from testyard.core.errors import UserError
from testyard.core.redact import secrets_in_use
from testyard.power.deployment import Deployment
from testyard.power.protocol import PowerProvider, ProviderName

CLOUD_FILE = ".cloud.json"


@dataclass(frozen=True)
class SettingNames:
    """What a provider reads.

    Attributes:
        prefix: How its settings' names begin.
        required: One group per thing that is needed; one name of each group must be set.
        credentials: The names whose values are secret.
        selectors: The names that choose credentials kept elsewhere.
        sdk: The module of its SDK.
        extra: The extra of the distribution that brings the SDK.
    """

    prefix: str
    sdk: str
    required: tuple[tuple[str, ...], ...]
    credentials: tuple[str, ...] = ()
    selectors: tuple[str, ...] = ()
    extra: str = "lab"


# A file, not a secret: what is in it is.
KEY_FILE = "GOOGLE_APPLICATION_CREDENTIALS"
KEY_FILE_SECRETS = ("private_key", "private_key_id", "refresh_token", "client_secret")

SETTINGS: Mapping[ProviderName, SettingNames] = {
    ProviderName.AWS: SettingNames(
        "AWS_",
        "boto3",
        (
            ("AWS_REGION", "AWS_DEFAULT_REGION"),
            ("AWS_ACCESS_KEY_ID", "AWS_PROFILE"),
        ),
        ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
        ("AWS_PROFILE",),
    ),
    ProviderName.AZURE: SettingNames(
        "AZURE_",
        "azure.mgmt.compute",
        (
            ("AZURE_SUBSCRIPTION_ID",),
            ("AZURE_RESOURCE_GROUP",),
            ("AZURE_CLIENT_SECRET", "AZURE_ACCESS_TOKEN"),
        ),
        ("AZURE_CLIENT_SECRET", "AZURE_ACCESS_TOKEN"),
    ),
    ProviderName.GCP: SettingNames(
        "GOOGLE_",
        "google.cloud.compute_v1",
        (
            ("GOOGLE_CLOUD_PROJECT",),
            ("GOOGLE_CLOUD_ZONE",),
            (KEY_FILE, "GOOGLE_ACCESS_TOKEN"),
        ),
        ("GOOGLE_ACCESS_TOKEN",),
        (KEY_FILE,),
    ),
    ProviderName.DIGITALOCEAN: SettingNames(
        "DIGITALOCEAN_", "pydo", (("DIGITALOCEAN_TOKEN",),), ("DIGITALOCEAN_TOKEN",)
    ),
    ProviderName.HETZNER: SettingNames("HCLOUD_", "hcloud", (("HCLOUD_TOKEN",),), ("HCLOUD_TOKEN",)),
    ProviderName.LIBVIRT: SettingNames("LIBVIRT_", "libvirt", (("LIBVIRT_DEFAULT_URI",),), extra="libvirt"),
}


def read_settings(deployment: Deployment, environment: Mapping[str, str]) -> dict[str, str]:
    """The settings of the deployment's provider, from its directory and the environment.

    Args:
        deployment: Whose provider.
        environment: For example `os.environ`.

    Returns:
        The provider's own settings and no others. Its credentials are masked in logs from now on.

    Raises:
        UserError: `.cloud.json` is not an object of texts.
    """
    names = SETTINGS[deployment.provider]
    own = _cloud_file(deployment.directory / CLOUD_FILE)
    account = {*names.credentials, *names.selectors}
    ignored = account if any(map(own.get, account)) else set()
    outer = {name: value for name, value in environment.items() if name not in ignored}
    prefixes = (names.prefix, unavailable(deployment.provider))
    merged = {name: value for name, value in {**outer, **own}.items() if name.startswith(prefixes) and value}
    secrets_in_use.add(*(merged[name] for name in names.credentials if name in merged))
    if KEY_FILE in merged:
        secrets_in_use.add(*_key_file_secrets(Path(merged[KEY_FILE])))
    return merged


def why_not_asked(provider: ProviderName, settings: Mapping[str, str]) -> str | None:
    """Why the provider's API cannot be asked at all here, or None when it can.

    Args:
        provider: Whose API.
        settings: What `read_settings` gave.

    Returns:
        What is missing and how to add it: settings, or the SDK. A wrong or expired credential is no reason: who
        has set one wants the API to be asked.
    """
    names = SETTINGS[provider]
    if reason := settings.get(unavailable(provider)):
        return reason
    if not _is_installed(names.sdk):
        return f"{names.sdk} is not installed: pip install 'robotframework-testyard[{names.extra}]'"
    missing = [" or ".join(group) for group in names.required if not any(map(settings.get, group))]
    return f"{', '.join(missing)} is not set" if missing else None


def unavailable(provider: ProviderName) -> str:
    """The setting by which a deployment says why its provider's API cannot be asked."""
    return f"TESTYARD_{provider.name}_UNAVAILABLE"


def open_provider(deployment: Deployment, settings: Mapping[str, str]) -> PowerProvider:
    """The API of the deployment's provider.

    Args:
        deployment: Only its instances can be touched.
        settings: What `read_settings` gave.

    Raises:
        UserError: A setting is missing, or the SDK is not installed; names it, and the way to get it.
    """
    module = importlib.import_module(f"testyard.power.providers.{deployment.provider.value}")
    opened: PowerProvider = module.open_provider(deployment.identifier, settings)
    return opened


def load_sdk(provider: ProviderName) -> None:
    """Import the SDK of a provider, which takes up to two seconds, so that the first call need not wait for it.

    Nothing where it is not installed: whoever needs it is told then.
    """
    module = importlib.import_module(f"testyard.power.providers.{provider.value}")
    with suppress(UserError):
        module.load_sdk()


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the package that it would be in
        return False


def _cloud_file(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    try:
        return TypeAdapter(dict[str, str]).validate_json(path.read_bytes())
    except (OSError, ValidationError):
        # Not the error's own text: it quotes what is in the file.
        message = f'{path} must be a JSON object of texts by setting, for example {{"HCLOUD_TOKEN": "..."}}.'
        raise UserError(message) from None


def _key_file_secrets(path: Path) -> list[str]:
    """What is secret in a key file; the SDK complains about a file that is not one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    found = (content.get(name) for name in KEY_FILE_SECRETS) if isinstance(content, dict) else ()
    return [value for value in found if isinstance(value, str)]
