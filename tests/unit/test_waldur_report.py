"""The report tells a run's story in Markdown, also of a run that was killed, and never a secret."""

from pathlib import Path

import pytest
from testyard.core.redact import secrets_in_use
from testyard.waldur.report import MarkdownReport

TOKEN = "ace00000ace11111ace22222ace33333ace44444"


@pytest.fixture
def report(tmp_path: Path) -> MarkdownReport:
    secrets_in_use.add(TOKEN)
    return MarkdownReport(tmp_path / "results" / "report.md", "Federation run")


def text_of(report: MarkdownReport) -> str:
    return report.path.read_text(encoding="utf-8")


def test_a_report_grows_line_by_line_on_disk(report):
    assert text_of(report) == "# Federation run\n"
    report.heading("Setup")
    assert text_of(report).endswith("\n## Setup\n")
    report.heading("A test", 3)
    report.line("**PASS**")
    report.table(("side", "status"), [("A", 200)])
    assert text_of(report) == (
        "# Federation run\n\n## Setup\n\n### A test\n\n**PASS**\n\n| side | status |\n| --- | --- |\n| A | 200 |\n"
    )


def test_a_report_replaces_the_one_of_the_run_before(report):
    report.line("of the run before")
    again = MarkdownReport(report.path, "Next run")
    assert text_of(again) == "# Next run\n"


def test_texts_of_any_language_are_kept(report):
    report.line("Föderation 連合")
    assert "Föderation 連合" in text_of(report)


def test_no_secret_is_written_anywhere(report):
    MarkdownReport(report.path, f"Run of {TOKEN}")
    report.heading(f"Heading {TOKEN}")
    report.line(f"Line {TOKEN}")
    report.table((f"Column {TOKEN}",), [(f"Cell {TOKEN}",), ({"token": TOKEN},)])
    text = text_of(report)
    assert TOKEN not in text
    for word in ("Run of ***", "Heading ***", "Line ***", "Column ***", "Cell ***", "'token': '***'"):
        assert word in text


@pytest.mark.parametrize("secret", ["pass|word-with-a-pipe", "pass\nword-with-a-line-end"])
def test_a_secret_that_a_table_must_escape_is_masked_too(report, secret):
    secrets_in_use.add(secret)
    report.table(("passcode",), [(secret,)])
    assert "word-with-a" not in text_of(report)
