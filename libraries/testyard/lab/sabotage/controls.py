"""Runs suites under each defect and tells which defects were caught."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from testyard.core.errors import UserError
from testyard.lab.sabotage.defect import Defect

SAFEGUARD_SECONDS = 300
TAGS_LINE = re.compile(r"^(?:\s+\[Tags\]|Test Tags)\s+(.+)$", re.MULTILINE)
SCENARIO = re.compile(r"[A-Z]+-[A-Z]*[0-9.]+[a-z]?")


@dataclass(frozen=True)
class Verdict:
    """How the suites fared under one defect.

    Attributes:
        defect: The defect.
        missed: Scenarios that should have failed and did not.
        wrong: Scenarios that failed and should not have.
        problem: Why the run itself could not be judged; empty when it could.
    """

    defect: Defect
    missed: frozenset[str] = frozenset()
    wrong: frozenset[str] = frozenset()
    problem: str = ""

    @property
    def caught(self) -> bool:
        """Whether exactly the right scenarios turned red."""
        return not (self.missed or self.wrong or self.problem)

    def __str__(self) -> str:
        scenarios = ", ".join(sorted(self.defect.turns_red))
        line = f"{'caught' if self.caught else 'missed'}  {self.defect.name}: {self.defect.what} [{scenarios}]"
        if self.missed:
            line += f"; not red: {', '.join(sorted(self.missed))}"
        if self.wrong:
            line += f"; red as well: {', '.join(sorted(self.wrong))}"
        return line + (f"; {self.problem}" if self.problem else "")


def run_controls(
    defects: Iterable[Defect], suites: Path, *, whole: bool, processes: int, known_to_pass: bool = False
) -> Iterator[Verdict]:
    """Run the suites of each defect's scenarios under that defect.

    Args:
        defects: The defects.
        suites: The directory of the suites.
        whole: Run every suite, not only those with the defect's scenarios.
        processes: How many runs at a time.
        known_to_pass: Whether the suites need not be run without any defect first.

    Yields:
        A verdict for each defect, as it is known, in the order given.

    Raises:
        UserError: A scenario has no suite, or a scenario fails without any defect.
    """
    chosen = list(defects)
    scenarios = scenarios_by_suite(suites)
    files = {
        defect.name: sorted(file for file, tags in scenarios.items() if whole or tags & defect.turns_red)
        for defect in chosen
    }
    for defect in chosen:
        unknown = defect.turns_red.difference(*scenarios.values()) if scenarios else defect.turns_red
        if unknown or not files[defect.name]:
            message = f"Defect {defect.name}: no suite below {suites} has {', '.join(sorted(unknown))}."
            raise UserError(message)
    every_file = [] if known_to_pass else sorted({file for names in files.values() for file in names})
    with ThreadPoolExecutor(processes) as pool:
        shares = [every_file[first::processes] for first in range(min(processes, len(every_file)))]
        for healthy in pool.map(lambda files: run_suites(files, None), shares):
            if healthy.problem or healthy.failed:
                reason = healthy.problem or f"{', '.join(sorted(healthy.failed))} fail"
                message = f"Without any defect the suites must pass, but {reason}."
                raise UserError(message)
        yield from pool.map(lambda defect: judge(defect, run_suites(files[defect.name], defect)), chosen)


@dataclass(frozen=True)
class Outcome:
    """The scenarios of a run by what became of them."""

    failed: frozenset[str]
    ran: frozenset[str]
    problem: str = ""


def run_suites(files: list[Path], defect: Defect | None) -> Outcome:
    """Run suites in a process of their own, under a defect or none."""
    with tempfile.TemporaryDirectory(prefix="testyard-controls-") as directory:
        output = Path(directory) / "output.xml"
        command = [sys.executable, "-m", "robot", "--output", str(output), "--log", "NONE", "--report", "NONE"]
        command += ["--outputdir", directory, "--variable", "ENV:controls", "--console", "none"]
        if defect is not None:
            command += ["--listener", f"testyard.lab.sabotage.Saboteur:{defect.name}"]
            command += [text for variable in defect.variables for text in ("--variable", variable)]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("WALDUR_E2E_")}
        try:
            run = subprocess.run(
                [*command, *map(str, files)],
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=SAFEGUARD_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return Outcome(frozenset(), frozenset(), f"the run did not end within {SAFEGUARD_SECONDS} s")
        if not output.exists():
            last = (run.stderr.strip().splitlines() or ["no message"])[-1]
            return Outcome(frozenset(), frozenset(), f"the run wrote no results: {last}")
        return _outcome(output)


def _outcome(output: Path) -> Outcome:
    failed: set[str] = set()
    ran: set[str] = set()
    for test in ElementTree.parse(output).getroot().iter("test"):
        status = test.find("status")
        ids = {tag.text for tag in test.findall("tag") if tag.text and SCENARIO.fullmatch(tag.text)}
        if status is None or status.get("status") == "SKIP":
            continue
        ran |= ids
        if status.get("status") == "FAIL":
            failed |= ids
    return Outcome(frozenset(failed), frozenset(ran))


def judge(defect: Defect, outcome: Outcome) -> Verdict:
    """Compare what failed under a defect with what had to fail."""
    return Verdict(
        defect,
        missed=defect.turns_red - outcome.failed,
        wrong=outcome.failed - defect.turns_red,
        problem=outcome.problem,
    )


def scenarios_by_suite(suites: Path) -> dict[Path, frozenset[str]]:
    """The scenario ids that each suite file's tests carry as tags."""
    return {
        file: frozenset(
            tag
            for line in TAGS_LINE.findall(file.read_text(encoding="utf-8"))
            for tag in line.split()
            if SCENARIO.fullmatch(tag)
        )
        for file in sorted(suites.rglob("*.robot"))
    }
