"""What every provider refuses, in the same words: which provider, which setting or node, and what to do."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from testyard.core.errors import UserError
from testyard.power.protocol import Instance, ProviderName

# How people write the providers' names.
TITLES: Mapping[ProviderName, str] = {
    ProviderName.AWS: "AWS",
    ProviderName.AZURE: "Azure",
    ProviderName.GCP: "GCP",
    ProviderName.DIGITALOCEAN: "DigitalOcean",
    ProviderName.HETZNER: "Hetzner",
    ProviderName.LIBVIRT: "libvirt",
}


def import_sdk(provider: ProviderName, module: str, *, extra: str = "lab") -> Any:
    """A module of the provider's SDK.

    Args:
        provider: Whose SDK.
        module: Its name, such as ``boto3``.
        extra: The extra of this distribution that brings it.

    Raises:
        UserError: It is not installed; names the command that adds it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as problem:
        message = (
            f"The power of {TITLES[provider]} machines needs the Python module {module!r}, which cannot be "
            f"imported ({problem}): pip install 'robotframework-testyard[{extra}]'"
        )
        raise UserError(message) from problem


def required(provider: ProviderName, settings: Mapping[str, str], name: str, what: str) -> str:
    """The value of a setting.

    Args:
        provider: Who needs it.
        settings: All settings.
        name: The environment variable of this setting.
        what: What it says, for people: ``the region of the machines``.

    Raises:
        UserError: It is not set, or empty.
    """
    value = settings.get(name, "")
    if not value:
        message = (
            f"{TITLES[provider]} needs {what}: set {name} in the environment, or in .cloud.json of the "
            "deployment's directory."
        )
        raise UserError(message)
    return value


def refused_credential(provider: ProviderName, variables: str, reason: str) -> UserError:
    """The provider does not take the credentials, because they have expired or are wrong.

    Args:
        provider: Who refuses.
        variables: The environment variables that hold them; never their values.
        reason: What the provider said.
    """
    message = f"{TITLES[provider]} refuses the credentials in {variables}: {reason.rstrip('.')}. Set new ones."
    return UserError(message)


def failed_call(provider: ProviderName, call: str, reason: str) -> UserError:
    """A call of the provider's API failed.

    Args:
        provider: Whose API.
        call: The call and what it was about: ``ec2.start_instances for node n12 (i-0abc)``.
        reason: What the provider or the SDK said.
    """
    message = f"{TITLES[provider]} did not do {call}: {reason.rstrip('.')}."
    return UserError(message)


def checked_instances(
    provider: ProviderName, deployment: str, instances: Sequence[Instance]
) -> Sequence[Instance]:
    """The instances in the order of their nodes, when they can be told apart.

    Raises:
        UserError: There is none, one has no node name, or two are said to be the same node.
    """
    title = TITLES[provider]
    if not instances:
        message = (
            f"{title} has no machine with the tag deployment={deployment}: check the account and the region in "
            "the settings, and whether the deployment still exists."
        )
        raise UserError(message)
    for instance in instances:
        if not instance.node:
            message = (
                f"{title}'s machine {instance.identifier} of deployment {deployment} has no node name in its tags."
            )
            raise UserError(message)
    (node, times) = Counter(instance.node for instance in instances).most_common(1)[0]
    if times > 1:
        same = ", ".join(instance.identifier for instance in instances if instance.node == node)
        message = f"{title} has {times} machines that are node {node} of deployment {deployment}: {same}."
        raise UserError(message)
    return sorted(instances, key=lambda instance: instance.node)


def refuse_foreign(instance: Instance, deployment: str, tags: Mapping[str, str], node_tag: str) -> None:
    """Refuse to act on a machine that is not this node of this deployment.

    Args:
        instance: The machine that is to be acted on.
        deployment: The deployment that acts.
        tags: The machine's tags or labels, as the provider has just shown them.
        node_tag: The tag that holds the node's name.

    Raises:
        UserError: The machine's tags say that it is another's; says which, and that nothing was done.
    """
    found, node = tags.get("deployment"), tags.get(node_tag)
    if found != deployment or node != instance.node:
        message = (
            f"Machine {instance.identifier} at {TITLES[instance.provider]} is not node {instance.node} of "
            f"deployment {deployment}: its tags say deployment={found}, {node_tag}={node}. Nothing was done to it."
        )
        raise UserError(message)


def gone(instance: Instance) -> UserError:
    """The provider knows no such machine (any more)."""
    message = (
        f"{TITLES[instance.provider]} has no machine {instance.identifier} in {instance.region} for node "
        f"{instance.node}: it was deleted, or the settings name another account or region."
    )
    return UserError(message)
