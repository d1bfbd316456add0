"""The SqlLibrary in real runs: sentences that hold, mistakes that are told, and no secret in anything written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from postgresql_support import private_schema
from robot.api import ExecutionResult
from robot.libdocpkg import LibraryDocumentation
from robot.result import Result
from robot.result import TestCase as RobotTest
from testyard.lab.servers.postgresql import PostgresqlServer

DATA = Path(__file__).parents[1] / "data" / "sql"
WRONG = "this-password-is-wrong"
READABLE = "this-password-was-readable"


@dataclass
class Run:
    """A finished run."""

    result: Result
    directory: Path
    said: str
    url: str

    @property
    def tests(self) -> dict[str, RobotTest]:
        """The tests by name."""
        return {test.name: test for test in self.result.suite.all_tests}


def run(server: PostgresqlServer, suite: str, directory: Path) -> Run:
    """Run one suite at the most detailed level."""
    with private_schema(server) as url:
        process = subprocess.run(
            [
                *(sys.executable, "-m", "robot", "--loglevel", "TRACE", "--debugfile", "debug.txt"),
                *("--outputdir", str(directory), "--xunit", "xunit.xml", str(DATA / suite)),
            ],
            env={
                **os.environ,
                "DATABASE_URL": url,
                "DATABASE_HOST": urlsplit(url).hostname or "",
                "DATABASE_PORT": str(server.port),
                "WRONG_PASSWORD": WRONG,
                "READABLE_URL": f"postgresql://reader:{READABLE}@localhost/runs",
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    return Run(ExecutionResult(directory / "output.xml"), directory, process.stdout + process.stderr, url)


@pytest.fixture(scope="module")
def sentences(postgresql_server: PostgresqlServer, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run that passes."""
    return run(postgresql_server, "sentences.robot", tmp_path_factory.mktemp("sentences"))


@pytest.fixture(scope="module")
def mistakes(postgresql_server: PostgresqlServer, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run whose tests all fail."""
    return run(postgresql_server, "mistakes.robot", tmp_path_factory.mktemp("mistakes"))


def test_every_sentence_holds(sentences: Run) -> None:
    assert {test.name: test.message for test in sentences.tests.values() if not test.passed} == {}
    assert len(sentences.tests) == 11


def test_an_open_transaction_is_told_once_by_name(sentences: Run) -> None:
    (warning,) = [message.message for message in sentences.result.errors]
    assert warning == (
        "Test 'A Transaction Is Left Open' left a transaction open on the database connection 'default'; "
        "it was rolled back."
    )


def test_every_mistake_is_told_as_documented(mistakes: Run) -> None:
    assert len(mistakes.tests) == 18
    for test in mistakes.tests.values():
        assert not test.passed, test.name
        assert fnmatchcase(test.message, test.doc.replace("[", "[[]")), (test.name, test.message)


def test_no_message_has_a_traceback_or_a_class_name(mistakes: Run) -> None:
    for test in mistakes.tests.values():
        assert "Traceback" not in test.message
        assert not re.match(r"\w+Error:", test.message), test.message


def test_the_table_of_wrong_rows_is_escaped_in_the_log(mistakes: Run) -> None:
    tables = [
        message.message
        for item in mistakes.tests["Wrong Rows"].body
        for message in getattr(item, "messages", [])
        if message.html
    ]
    assert len(tables) == 1
    assert "&lt;b&gt;DONE&lt;/b&gt;, expected FAILED" in tables[0]
    assert "<b>" not in tables[0]


@pytest.mark.parametrize("name", ["sentences", "mistakes"])
def test_no_password_is_in_anything_that_is_written(name: str, request: pytest.FixtureRequest) -> None:
    finished: Run = request.getfixturevalue(name)
    password = urlsplit(finished.url).password
    assert password
    files = {path.name: path.read_text(encoding="utf-8") for path in finished.directory.iterdir()}
    assert {"output.xml", "log.html", "report.html", "debug.txt", "xunit.xml"} <= files.keys()
    assert "statement_timeout" in files["debug.txt"] or "FORM" in files["debug.txt"]
    for file, text in {**files, "console": finished.said}.items():
        assert password not in text, file
        assert WRONG not in text, file


def test_connections_are_closed_at_the_end(sentences: Run, postgresql_server: PostgresqlServer) -> None:
    with psycopg.connect(postgresql_server.url) as connection:
        left = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name IN ('testyard', 'worker-1')"
        ).fetchone()
    assert left == (0,)


def test_every_keyword_is_documented_with_an_example() -> None:
    library = LibraryDocumentation("SqlLibrary")
    assert len(library.keywords) == 18
    for keyword in library.keywords:
        assert "Example" in keyword.doc, keyword.name
        assert [argument.name for argument in keyword.args if argument.name and not argument.type] == [], (
            keyword.name
        )
