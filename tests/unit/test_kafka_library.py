"""The KafkaLibrary in real runs: sentences that hold, mistakes that are told, and no secret in what is written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from kafka_support import closed_port, refusing_broker
from robot.api import ExecutionResult
from robot.libdocpkg import LibraryDocumentation
from robot.result import Result
from robot.result import TestCase as RobotTest
from testyard.lab.servers.kafka_mock import MockKafka

DATA = Path(__file__).parents[1] / "data" / "kafka"
WRONG = "this-password-is-wrong"
SIGNING_KEY = "this-key-signs-envelopes"
TOPICS = ("one", "many", "rate", "offsets", "group", "transactions")


@dataclass
class Run:
    """A finished run."""

    result: Result
    directory: Path
    said: str

    @property
    def tests(self) -> dict[str, RobotTest]:
        """The tests by name."""
        return {test.name: test for test in self.result.suite.all_tests}


def run(suite: str, directory: Path) -> Run:
    """Run one suite at the most detailed level, against brokers of its own."""
    refusal = refusing_broker(58, "Authentication failed: Invalid username or password")
    with MockKafka() as kafka, closed_port() as closed, refusal as refusing:
        kafka.create_topics(dict.fromkeys(TOPICS, 3))
        process = subprocess.run(
            [
                *(sys.executable, "-m", "robot", "--loglevel", "TRACE", "--debugfile", "debug.txt"),
                *("--outputdir", str(directory), "--xunit", "xunit.xml", str(DATA / suite)),
            ],
            env={
                **os.environ,
                "KAFKA": kafka.bootstrap_servers,
                "CLOSED_PORT": str(closed),
                "REFUSING_PORT": str(refusing),
                "WRONG_PASSWORD": WRONG,
                "SIGNING_KEY": SIGNING_KEY,
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert kafka.topics == dict.fromkeys(TOPICS, 3)
    return Run(ExecutionResult(directory / "output.xml"), directory, process.stdout + process.stderr)


@pytest.fixture(scope="module")
def sentences(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run that passes."""
    return run("sentences.robot", tmp_path_factory.mktemp("sentences"))


@pytest.fixture(scope="module")
def mistakes(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run whose tests all fail."""
    return run("mistakes.robot", tmp_path_factory.mktemp("mistakes"))


def test_every_sentence_holds(sentences: Run) -> None:
    assert {test.name: test.message for test in sentences.tests.values() if not test.passed} == {}
    assert len(sentences.tests) == 9


def test_an_open_transaction_is_told_once_by_name(sentences: Run) -> None:
    (warning,) = [message.message for message in sentences.result.errors]
    assert warning == (
        "Test 'A Transaction Is Left Open' left a transaction open on the Kafka connection 'default'; "
        "it was aborted."
    )


def test_every_mistake_is_told_as_documented(mistakes: Run) -> None:
    assert len(mistakes.tests) == 37
    assert {test.name for test in mistakes.tests.values() if test.passed} == set()
    told_otherwise = {
        test.name: test.message
        for test in mistakes.tests.values()
        if not fnmatchcase(test.message, test.doc.replace("[", "[[]"))
    }
    assert told_otherwise == {}


def test_no_message_has_a_traceback_or_a_class_name(mistakes: Run) -> None:
    for test in mistakes.tests.values():
        assert "Traceback" not in test.message
        assert not re.match(r"\w+Error:", test.message), test.message


def test_collected_events_are_drawn_and_escaped(sentences: Run) -> None:
    drawn = [
        message.message
        for test in sentences.tests.values()
        for item in test.body
        for message in getattr(item, "messages", [])
        if message.html
    ]
    assert any("Events of &#x27;history&#x27;: 300, the last 200" in table for table in drawn)
    assert any("The lag of readers on group" in table for table in drawn)
    assert any("{&quot;event_id&quot;: &quot;e-1&quot;" in table for table in drawn)


@pytest.mark.parametrize("name", ["sentences", "mistakes"])
def test_no_secret_is_in_anything_that_is_written(name: str, request: pytest.FixtureRequest) -> None:
    finished: Run = request.getfixturevalue(name)
    files = {path.name: path.read_text(encoding="utf-8") for path in finished.directory.iterdir()}
    assert {"output.xml", "log.html", "report.html", "debug.txt", "xunit.xml"} <= files.keys()
    for file, text in {**files, "console": finished.said}.items():
        assert WRONG not in text, file
        assert SIGNING_KEY not in text, file


def test_every_keyword_is_documented_with_an_example() -> None:
    library = LibraryDocumentation("KafkaLibrary")
    assert len(library.keywords) == 37
    for keyword in library.keywords:
        assert "Example" in keyword.doc, keyword.name
        assert [argument.name for argument in keyword.args if argument.name and not argument.type] == [], (
            keyword.name
        )
