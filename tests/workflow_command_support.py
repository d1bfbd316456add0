"""Somebody's directory with workflows, a fake deployer, and `testyard workflow` to run there."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from testyard.workflow.command_line import add_commands

FAKE = [sys.executable, "-IS", str(Path(__file__).parent / "fake_deployer.py")]
WITHIN = timedelta(seconds=60)
# What `python -m testyard` does with the commands.
PROGRAM = """
import sys
from workflow_command_support import run_command
try:
    sys.exit(run_command(sys.argv[1:]))
except KeyboardInterrupt:
    sys.exit(130)
"""
START = [{"step": "init"}, {"step": "deploy"}]
RUN_KEYS = {
    "timestamp",
    "execution_dir",
    "db_version",
    "provider",
    "total_tests",
    "passed",
    "failed",
    "total_time",
    "results",
    "resource_plan",
    "notifications",
}


def run_command(arguments: list[str]) -> int:
    """Parse and run one command, as testyard's own parser does."""
    parser = argparse.ArgumentParser(prog="testyard")
    add_commands(parser.add_subparsers(required=True))
    options = parser.parse_args(arguments)
    status: int = options.run(options)
    return status


def command(*arguments: str) -> dict[str, Any]:
    """A step that runs a program."""
    return {"step": "custom_command", "custom_command": list(arguments)}


PASSES = command("true")
FAILS = command("false")


class Desk:
    """Somebody's directory, with workflows and a fake deployer."""

    def __init__(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        self.directory = directory
        self._capfd = capfd
        self._environment = monkeypatch
        self.calls_file = directory / "calls"
        self.results = directory / "results"
        self.set("FAKE_DEPLOYER_CALLS", str(self.calls_file))
        self.settings()
        monkeypatch.chdir(directory)

    def set(self, name: str, value: str) -> None:
        self._environment.setenv(name, value)

    def settings(self, **settings: Any) -> None:
        file = self.directory / "settings.config"
        file.write_text(json.dumps({"deployer": FAKE, "deadlines": {"grace": 2}, **settings}))
        self.set("TESTYARD_WORKFLOW_SETTINGS", str(file))

    def write(self, name: str, **suites: Any) -> str:
        """Write a workflow file: a suite's steps, or the whole suite."""
        path = self.directory / f"{name}.json"
        whole = {
            suite: steps if isinstance(steps, dict) else {"provider": "aws", "workflow": [*START, *steps]}
            for suite, steps in suites.items()
        }
        path.write_text(json.dumps({"test_suites": whole}))
        return str(path)

    def run(self, *arguments: str) -> tuple[int, str]:
        """Run ``testyard workflow``; status and what was printed."""
        self._capfd.readouterr()
        status = run_command(["workflow", *arguments])
        return status, self._capfd.readouterr().out

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Run ``testyard workflow`` in a process of its own."""
        path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM, "workflow", *arguments],
            env={**os.environ, "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    @property
    def calls(self) -> list[str]:
        """The verbs that the deployer was called with."""
        if not self.calls_file.exists():
            return []
        return [json.loads(line)[0] for line in self.calls_file.read_text().splitlines()]

    @property
    def runs(self) -> list[Path]:
        return sorted(self.results.glob("run-*"), key=lambda it: it.stat().st_mtime_ns)

    def summary(self) -> dict[str, Any]:
        """The newest run's."""
        newest = max(self.results.glob("run-*/results.json"), key=lambda it: it.stat().st_mtime_ns)
        content: dict[str, Any] = json.loads(newest.read_text())
        return content
