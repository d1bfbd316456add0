"""Which workflows of which files are run: by provider, by id, or those that failed last time (contract 2.8)."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testyard.core.errors import UserError
from testyard.power.protocol import ProviderName
from testyard.workflow.loading import load_workflow
from testyard.workflow.model import Requirements, Suite
from testyard.workflow.problems import Problem, WorkflowInvalidError, nearest
from testyard.workflow.registry import CheckRegistry, StepRegistry
from testyard.workflow.results import workflow_test_id

SUMMARY_FILE = "results.json"
FAILED = "failed"
SCHEMA_ENDING = ".schema.json"
GIGABYTE = 1024**3


@dataclass(frozen=True)
class WorkflowTest:
    """One suite of one file.

    Attributes:
        file: The file, as it was named or found.
        suite: The suite.
    """

    file: Path
    suite: Suite

    @property
    def identifier(self) -> str:
        """How listings and options name it, such as ``libvirt-workflow-failsafety_basic``."""
        return workflow_test_id(self.suite.provider, self.suite.name)

    @property
    def nodes(self) -> int:
        """How many nodes it deploys; 1 where the suite does not say."""
        size = self.suite.parameters.get("cluster_size")
        return size if isinstance(size, int) else 1


def find_tests(paths: Sequence[Path], steps: StepRegistry, checks: CheckRegistry) -> list[WorkflowTest]:
    """All suites of files, and of the JSON files of directories.

    Args:
        paths: Files and directories; in a directory, schemas are left out.
        steps: The step types that they may name.
        checks: The checks that they may name.

    Raises:
        WorkflowInvalidError: Lists all that is wrong with all files.
        UserError: There is no such path, no file in it, or two suites have the same id.
    """
    tests: list[WorkflowTest] = []
    problems: list[Problem] = []
    for file in _files(paths):
        try:
            suites = load_workflow(file, steps, checks).suites
        except WorkflowInvalidError as invalid:
            problems += invalid.problems
        else:
            tests += [WorkflowTest(file, suite) for suite in suites.values()]
    if problems:
        raise WorkflowInvalidError(problems)
    seen: dict[str, Path] = {}
    for test in tests:
        if test.identifier in seen:
            message = (
                f"Two workflows have the id {test.identifier!r}: in {seen[test.identifier]} and in {test.file}."
            )
            raise UserError(message)
        seen[test.identifier] = test.file
    return tests


def select(
    tests: Sequence[WorkflowTest], *, providers: Sequence[str] = (), identifiers: Sequence[str] = ()
) -> list[WorkflowTest]:
    """Those of some providers, and of those the ones with these ids.

    Args:
        tests: To choose from.
        providers: Names of providers; of all when there are none.
        identifiers: Ids, or a suite's names; all when there are none.

    Raises:
        UserError: A provider or an id is not known, or nothing is left.
    """
    known = [provider.value for provider in ProviderName]
    for provider in providers:
        if provider not in known:
            message = f"There is no provider {provider!r}{nearest(provider, known)}"
            raise UserError(message)
    chosen = [test for test in tests if not providers or test.suite.provider in providers]
    for identifier in identifiers:
        if not any(identifier in {test.identifier, test.suite.name} for test in chosen):
            message = f"There is no workflow {identifier!r}{nearest(identifier, (it.identifier for it in chosen))}"
            raise UserError(message)
    chosen = [it for it in chosen if not identifiers or {it.identifier, it.suite.name} & set(identifiers)]
    if not chosen:
        of = f" for {', '.join(providers)}" if providers else ""
        message = f"There is nothing to run: no workflow{of} among {len(tests)}."
        raise UserError(message)
    return chosen


@dataclass(frozen=True)
class EarlierRun:
    """What a run left in its summary.

    Attributes:
        file: The summary.
        results: Its results: each with ``test``, ``success``, ``config_path`` and ``run_number``.
    """

    file: Path
    results: Sequence[dict[str, Any]]

    @classmethod
    def read(cls, file: Path) -> EarlierRun:
        """Read a summary.

        Raises:
            UserError: There is none, or it is not one.
        """
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            results = [dict(it) for it in content["results"]]
            for result in results:
                _ = str(result["test"]), bool(result["success"]), Path(result["config_path"])
        except OSError as problem:
            message = f"The results of the earlier run cannot be read: {file}: {problem.strerror}."
            raise UserError(message) from None
        except (KeyError, TypeError, ValueError):
            message = f"{file} is not the summary of a run."
            raise UserError(message) from None
        return cls(file, results)

    @classmethod
    def latest(cls, directory: Path) -> EarlierRun:
        """The newest summary below a directory of results.

        Raises:
            UserError: There is none.
        """
        files = sorted(directory.glob(f"*/{SUMMARY_FILE}"), key=lambda file: (file.stat().st_mtime_ns, file))
        if not files:
            message = f"There is no earlier run in {directory}: name its {SUMMARY_FILE} with --results-file."
            raise UserError(message)
        return cls.read(files[-1])

    def tests(self, which: str) -> list[str]:
        """The ids to run again.

        Args:
            which: ``failed``, or ids with commas between them.

        Raises:
            UserError: None failed, or there was no such test.
        """
        ran = [str(result["test"]) for result in self.results]
        if which == FAILED:
            chosen = [str(it["test"]) for it in self.results if not it["success"] and not it.get("skipped")]
            if not chosen:
                message = f"Nothing failed in {self.file}: there is nothing to run again."
                raise UserError(message)
            return chosen
        chosen = [name.strip() for name in which.split(",")]
        for name in chosen:
            if name not in ran:
                message = f"{self.file} has no test {name!r}{nearest(name, ran)}"
                raise UserError(message)
        return chosen

    def files(self) -> list[Path]:
        """The workflow files that were run."""
        return list(dict.fromkeys(Path(result["config_path"]) for result in self.results))

    def run_number(self, test: str) -> int:
        """Which run of a test was that; 0 when it was not in it."""
        return next((int(it.get("run_number", 1)) for it in self.results if it["test"] == test), 0)


def unmet(requirements: Requirements) -> list[str]:
    """What a suite needs and this machine does not have.

    Args:
        requirements: The suite's.

    Returns:
        One sentence for each; empty when the suite can be run here.
    """
    missing = []
    if requirements.libvirt_available and shutil.which("virsh") is None:
        missing.append("libvirt: there is no virsh")
    if requirements.kvm_available and not os.access("/dev/kvm", os.R_OK | os.W_OK):
        missing.append("KVM: /dev/kvm cannot be opened")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIGABYTE
    disk = shutil.disk_usage(Path.cwd()).free / GIGABYTE
    for what, needed, there, unit in (
        ("memory", requirements.min_memory_gb, memory, " GB"),
        ("processors", requirements.min_cpus, float(os.cpu_count() or 1), ""),
        ("free disk space", requirements.min_disk_gb, disk, " GB"),
    ):
        if needed is not None and there < needed:
            missing.append(f"{what}: needs {needed:g}{unit}, there is {there:.3g}{unit}")
    return missing


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(it for it in path.rglob("*.json") if not it.name.endswith(SCHEMA_ENDING))
            if not inside:
                message = f"There is no workflow file (*.json) in {path}."
                raise UserError(message)
            found += inside
        elif path.exists():
            found.append(path)
        else:
            message = f"There is no {path}: name workflow files, or directories that hold some."
            raise UserError(message)
    yield from {file.resolve(): file for file in found}.values()
