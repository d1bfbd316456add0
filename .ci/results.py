"""Planned tests = passed + the SKIPs that variables/expected_skips.yaml lists: nothing is left out silently."""

from __future__ import annotations

import sys
from pathlib import Path

import yaml
from robot.api import ExecutionResult, ResultVisitor, TestSuite


class Outcomes(ResultVisitor):
    """The full names of tests by status, with the reason of each SKIP."""

    def __init__(self) -> None:
        self.passed: list[str] = []
        self.skipped: dict[str, str] = {}
        self.failed: dict[str, str] = {}

    def visit_test(self, test: object) -> None:
        """Note one test."""
        name = f"{test.parent.name}.{test.name}"
        if test.passed:
            self.passed.append(name)
        elif test.skipped:
            self.skipped[name] = test.message
        else:
            self.failed[name] = test.message


def main(output: str, suites: str) -> int:
    """Compare a run's results with what was planned; returns the exit status."""
    planned = TestSuite.from_file_system(suites).test_count
    outcomes = Outcomes()
    ExecutionResult(output).visit(outcomes)
    expected = yaml.safe_load(Path("variables/expected_skips.yaml").read_text(encoding="utf-8"))
    problems = [f"FAIL {name}: {message}" for name, message in outcomes.failed.items()]
    for name, message in outcomes.skipped.items():
        if expected.get(name, "\0") not in message:
            problems.append(f"SKIP that is not listed with this reason: {name}: {message}")
    problems += [f"listed as SKIP but was not: {name}" for name in expected if name not in outcomes.skipped]
    ran = len(outcomes.passed) + len(outcomes.skipped) + len(outcomes.failed)
    if ran != planned:
        problems.append(f"{planned} tests were planned, {ran} are in the results")
    print(f"{planned} planned = {len(outcomes.passed)} passed + {len(outcomes.skipped)} listed SKIPs")
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
