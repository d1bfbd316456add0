"""Texts that two rooms have of their own, as neither may import the other, are the same."""

import asyncio
import importlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from testyard.lab.cluster import shell
from testyard.lab.cluster.deployer import files, state_file
from testyard.lab.cluster.deployer.states import Status
from testyard.lab.cluster.files import NodeFiles
from testyard.power import cloud_settings, deployment, engine
from testyard.power import shell as words
from testyard.power.cloud_settings import SETTINGS, why_not_asked
from testyard.power.planning import API_CALLS, BY_HAND
from testyard.power.protocol import ProviderName
from testyard.workflow import builtin_checks, builtin_steps, database, lifecycle, measurements


def answered(line: str, directory: Path) -> shell.Answer:
    """What a node's shell answers."""
    node = SimpleNamespace(
        boot_id="a boot", uptime_seconds=5.25, hostname="n11", services={}, files=NodeFiles(directory)
    )
    return asyncio.run(shell.Shell(cast(Any, node)).run(line))


def test_the_nodes_know_the_crash_command() -> None:
    assert words.CRASH == shell.CRASH


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        (words.BOOT_ID, shell.Answer("a boot\n")),
        (words.UPTIME, shell.Answer("5.25 5.25\n")),
        (words.REBOOT, shell.Answer(change=shell.PowerChange.REBOOT)),
        (words.SHUTDOWN, shell.Answer(change=shell.PowerChange.SHUTDOWN)),
        (words.CRASH, shell.Answer(change=shell.PowerChange.CRASH)),
    ],
)
def test_the_nodes_know_every_line_that_power_says(line: str, answer: shell.Answer, tmp_path: Path) -> None:
    assert answered(line, tmp_path) == answer
    assert answered(f"{line} ", tmp_path).status == shell.NOT_FOUND


def test_the_deployers_files_are_the_ones_that_power_and_workflows_read() -> None:
    there = {
        deployment.STATE_FILE: state_file.STATE_FILE,
        deployment.INVENTORY: files.INVENTORY,
        deployment.SSH_CONFIG: files.SSH_CONFIG,
        deployment.KNOWN_HOSTS: files.KNOWN_HOSTS,
        deployment.PRIVATE_KEY: files.PRIVATE_KEY,
        cloud_settings.CLOUD_FILE: files.CLOUD,
        database.CREDENTIALS_FILE: files.CREDENTIALS,
        measurements.CERTIFICATE_FILE: files.ADMIN_UI_CERTIFICATE,
    }
    assert list(there) == list(there.values())


def test_the_deployers_states_are_the_ones_that_power_and_workflows_know() -> None:
    assert engine.DESTROYED == lifecycle.DESTROYED == Status.DESTROYED
    assert builtin_steps.STOPPED == builtin_checks.STOPPED == Status.STOPPED
    assert builtin_steps.READY == Status.DATABASE_READY
    assert Status.DATABASE_READY in builtin_checks.READY


@pytest.mark.parametrize("provider", ProviderName)
def test_a_plan_names_the_calls_that_the_provider_makes(provider: ProviderName) -> None:
    module = importlib.import_module(f"testyard.power.providers.{provider}")
    (offered,) = (
        it
        for it in vars(module).values()
        if isinstance(it, type) and it.__module__ == module.__name__ and hasattr(it, "calls")
    )
    assert (offered.name, dict(offered.calls)) == (provider, dict(API_CALLS[provider]))


def test_every_provider_has_settings_and_a_way_by_hand() -> None:
    assert set(SETTINGS) == set(BY_HAND) == set(API_CALLS) == set(ProviderName)
    assert all(why_not_asked(provider, {}) for provider in ProviderName)
