"""The LedgerLibrary in real runs: sentences that hold, and failures that are told as documented."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from robot.api import ExecutionResult
from robot.libdocpkg import LibraryDocumentation
from robot.result import Result
from robot.result import TestCase as RobotTest

DATA = Path(__file__).parents[1] / "data" / "ledger"
CONVERSION = "ValueError: Argument "


@dataclass
class Run:
    """A finished run."""

    result: Result

    @property
    def tests(self) -> dict[str, RobotTest]:
        """The tests by name."""
        return {test.name: test for test in self.result.suite.all_tests}

    def html(self, test: str) -> list[str]:
        """The drawings and tables in a test's log."""
        return list(_html(self.tests[test]))


def _html(item: object) -> Iterator[str]:
    for child in getattr(item, "body", ()):
        if getattr(child, "html", False):
            yield child.message
        yield from _html(child)


def run(suite: str, directory: Path) -> Run:
    """Run one suite."""
    command = [sys.executable, "-m", "robot", "--loglevel", "TRACE", "--outputdir", str(directory)]
    subprocess.run([*command, str(DATA / suite)], capture_output=True, timeout=60, check=False)
    return Run(ExecutionResult(directory / "output.xml"))


@pytest.fixture(scope="module")
def sentences(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run that passes."""
    return run("sentences.robot", tmp_path_factory.mktemp("sentences"))


@pytest.fixture(scope="module")
def mistakes(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run whose tests all fail."""
    return run("mistakes.robot", tmp_path_factory.mktemp("mistakes"))


def test_every_sentence_holds(sentences: Run):
    assert {test.name: test.message for test in sentences.tests.values() if not test.passed} == {}
    assert len(sentences.tests) == 5
    assert not sentences.result.errors


def test_every_mistake_is_told_as_documented(mistakes: Run):
    assert len(mistakes.tests) == 30
    for test in mistakes.tests.values():
        assert not test.passed, test.name
        wanted = test.doc.replace("\n", "*").replace("[", "[[]")
        assert fnmatchcase(test.message, wanted), (test.name, test.message)


def test_no_message_has_a_traceback_or_a_class_name(mistakes: Run):
    for test in mistakes.tests.values():
        assert "Traceback" not in test.message
        assert test.message.startswith(CONVERSION) or not re.match(r"\w+Error:", test.message), test.message


def test_the_split_of_a_recovery_is_logged(sentences: Run):
    said = [
        message.message
        for item in sentences.tests["Recovery And Throughput Are Measured"].body
        for message in getattr(item, "messages", [])
    ]
    assert any("detect 0.002 s, reconnect 0 s, drain 0 s (backlog: 1 events)" in text for text in said), said


def test_the_summary_is_drawn_into_the_log(sentences: Run):
    counts, summary = sentences.html("Counts Are Read")
    assert "<td>late</td><td>300</td>" in counts
    for part in ("<svg", "broker killed", "<td>lost</td><td>0</td>", "needs 1000 samples"):
        assert part in summary


def test_a_failure_shows_all_counts_or_the_delays(mistakes: Run):
    assert "<td>missing</td><td>2</td>" in mistakes.html("Lost Events")[0]
    assert "<svg" in mistakes.html("Wrong Delay")[0]


def test_every_keyword_is_documented_with_an_example():
    library = LibraryDocumentation("LedgerLibrary")
    assert len(library.keywords) == 16
    for keyword in library.keywords:
        assert "Example" in keyword.doc, keyword.name
        assert [argument.name for argument in keyword.args if argument.name and not argument.type] == [], (
            keyword.name
        )
