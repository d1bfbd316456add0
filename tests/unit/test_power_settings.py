"""Providers' settings and credentials: where they come from, what is missing, and that they are never shown."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from power_support import write_deployment
from testyard.core.errors import UserError
from testyard.core.redact import MASK, secrets_in_use
from testyard.power.cloud_settings import SETTINGS, open_provider, read_settings, unavailable, why_not_asked
from testyard.power.deployment import Deployment
from testyard.power.protocol import ProviderName


def deployment(directory: Path, provider: str, cloud: object = None) -> Deployment:
    write_deployment(directory, provider)
    if cloud is not None:
        (directory / ".cloud.json").write_text(json.dumps(cloud), encoding="utf-8")
    return Deployment.read(directory)


def test_only_the_providers_own_settings_are_read(tmp_path: Path) -> None:
    environment = {"HCLOUD_TOKEN": "token-of-hetzner", "DIGITALOCEAN_TOKEN": "token-of-another", "HOME": "/root"}
    assert read_settings(deployment(tmp_path, "hetzner"), environment) == {"HCLOUD_TOKEN": "token-of-hetzner"}


def test_the_directory_counts_more_than_the_environment(tmp_path: Path) -> None:
    environment = {"AWS_REGION": "us-east-1", "AWS_CA_BUNDLE": "/etc/ca.pem"}
    settings = read_settings(deployment(tmp_path, "aws", {"AWS_REGION": "eu-central-1"}), environment)
    assert settings == {"AWS_REGION": "eu-central-1", "AWS_CA_BUNDLE": "/etc/ca.pem"}


def test_credentials_of_two_accounts_are_never_mixed(tmp_path: Path) -> None:
    own = {"AWS_ACCESS_KEY_ID": "key-of-the-lab", "AWS_SECRET_ACCESS_KEY": "secret-of-the-lab"}
    environment = {"AWS_SESSION_TOKEN": "session-of-the-user", "AWS_PROFILE": "production"}
    assert read_settings(deployment(tmp_path, "aws", own), environment) == own


@pytest.mark.parametrize("provider", [it for it in ProviderName if SETTINGS[it].credentials])
def test_every_credential_is_masked_from_then_on(tmp_path: Path, provider: ProviderName) -> None:
    values = {name: f"very-secret-{name}-of-{tmp_path.name}" for name in SETTINGS[provider].credentials}
    read_settings(deployment(tmp_path, provider), values)
    for value in values.values():
        assert secrets_in_use.mask(f"got {value}!") == f"got {MASK}!"


def test_the_secrets_in_a_key_file_are_masked_too(tmp_path: Path) -> None:
    key = tmp_path / "key.json"
    key.write_text(json.dumps({"private_key": "-----BEGIN very private-----", "type": "service_account"}))
    read_settings(deployment(tmp_path, "gcp"), {"GOOGLE_APPLICATION_CREDENTIALS": str(key)})
    assert secrets_in_use.mask("-----BEGIN very private-----") == MASK
    assert secrets_in_use.mask("service_account") == "service_account"


@pytest.mark.parametrize("content", ["[1]", '{"HCLOUD_TOKEN": {"a": "hidden-token-value"}}', "not json"])
def test_a_wrong_cloud_file_is_named_and_not_quoted(tmp_path: Path, content: str) -> None:
    directory = write_deployment(tmp_path, "hetzner")
    (directory / ".cloud.json").write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=r"cloud\.json must be a JSON object of texts") as raised:
        read_settings(Deployment.read(directory), {})
    assert "hidden-token-value" not in str(raised.value)


@pytest.mark.parametrize(
    ("provider", "settings", "variable"),
    [
        ("aws", {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}, "AWS_REGION"),
        ("aws", {"AWS_REGION": "eu-central-1"}, "AWS_ACCESS_KEY_ID"),
        ("azure", {}, "AZURE_SUBSCRIPTION_ID"),
        ("gcp", {"GOOGLE_CLOUD_PROJECT": "project"}, "GOOGLE_CLOUD_ZONE"),
        ("digitalocean", {}, "DIGITALOCEAN_TOKEN"),
        ("hetzner", {}, "HCLOUD_TOKEN"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, provider: str, settings: dict[str, str], variable: str) -> None:
    own = deployment(tmp_path, provider)
    reason = why_not_asked(own.provider, settings)
    assert reason is not None
    assert variable in reason
    with pytest.raises(UserError, match=variable):
        open_provider(own, settings)


def test_an_api_with_its_settings_can_be_asked(tmp_path: Path) -> None:
    settings = {"HCLOUD_TOKEN": "a-token-of-hetzner"}
    assert why_not_asked(ProviderName.HETZNER, settings) is None
    opened = open_provider(deployment(tmp_path, "hetzner"), settings)
    assert opened.name is ProviderName.HETZNER
    opened.close()


def test_a_deployment_may_say_why_its_api_cannot_be_asked() -> None:
    settings = {"LIBVIRT_DEFAULT_URI": "test:///default", unavailable(ProviderName.LIBVIRT): "no hypervisor here"}
    assert why_not_asked(ProviderName.LIBVIRT, settings) == "no hypervisor here"


def test_an_sdk_that_is_not_installed_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hcloud", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "hcloud" else object())
    reason = why_not_asked(ProviderName.HETZNER, {"HCLOUD_TOKEN": "a-token-of-hetzner"})
    assert reason == "hcloud is not installed: pip install 'robotframework-testyard[lab]'"


def test_no_sdk_is_imported_before_it_is_needed() -> None:
    sdks = [names.sdk for names in SETTINGS.values()]
    program = f"import sys, testyard.power.engine; print([it for it in {sdks!r} if it in sys.modules])"
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"
