"""Which defects a change is tried with: all of the domains that it touches, and a fixed sample of the others."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

from testyard.core.errors import UserError
from testyard.lab.sabotage.defect import Defect

# What only one part of the domains is made of, by parts of paths; whatever is not named here belongs to all.
OWN_PARTS: Mapping[str, tuple[str, ...]] = {
    "federation": ("federation", "waldur", "Waldur", "stomp", "Stomp", "broker"),
    "usernames": ("usernames", "usage", "membership", "daemon", "waldur", "Waldur", "stomp", "Stomp", "broker"),
    "pipelines": ("pipeline", "Pipeline", "sql", "Sql", "servers"),
    "event_bus": (
        *("event_bus", "EventBus", "bridge", "kafka", "Kafka", "ledger", "Ledger", "consul"),
        *("sql", "Sql", "servers"),
    ),
    "cluster": ("cluster", "clouds", "power", "Power", "workflow", "Workflow", "servers"),
}
# Nothing that a suite does depends on these.
OF_NO_DOMAIN = ("README.md", "tests/", ".ci/", ".gitignore")


def sample(defects: Iterable[Defect], suites: Iterable[frozenset[str]]) -> list[Defect]:
    """A few defects that together turn something red in every suite in which all of them do; always the same few.

    A defect that turns red in no suite is always among them, so that whoever runs it can say so.

    Args:
        defects: What is chosen from.
        suites: The scenarios of each suite.
    """
    of_suite = dict(enumerate(suites))
    left = [
        (defect, {suite for suite, scenarios in of_suite.items() if scenarios & defect.turns_red})
        for defect in defects
    ]
    missing = set[int]().union(*(covered for _, covered in left))
    chosen = [defect for defect, covered in left if not covered]
    while missing:
        best, covered = max(left, key=lambda each: len(each[1] & missing))
        chosen.append(best)
        missing -= covered
    return chosen


def touched_domains(paths: Iterable[str], domains: Iterable[str]) -> set[str]:
    """The domains that a change of some files touches."""
    known = set(domains)
    touched: set[str] = set()
    for path in paths:
        if path.startswith(OF_NO_DOMAIN):
            continue
        owners = {domain for domain in known if any(part in path for part in OWN_PARTS[domain])}
        touched |= owners or known
    return touched


def changed_paths(base: str, directory: Path) -> list[str]:
    """The files that differ from a commit.

    Raises:
        UserError: Git does not know the commit, or there is no git.
    """
    command = ["git", "-C", str(directory), "diff", "--name-only", base, "--"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as problem:
        said = getattr(problem, "stderr", "") or str(problem)
        message = f"What has changed since {base!r} cannot be told: {said.strip().splitlines()[-1]}"
        raise UserError(message) from None
    return answer.stdout.splitlines()
