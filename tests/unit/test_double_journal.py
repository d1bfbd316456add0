"""The double's journals on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
from testyard.lab.waldur.journal import Journal, masked


@pytest.mark.parametrize("after", [-1, 0, 1, 255, 256, 257, 511, 512, 599, 600, 601, 9999])
def test_reading_continues_after_any_entry(tmp_path: Path, after: int) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    for number in range(1, 601):
        assert journal.append(kind="x", text=f"{number}\n{'ä' * (number % 7)}") == number

    found = [entry["sequence"] for entry in journal.read(after)]

    assert found == list(range(max(after, 0) + 1, 601))
    journal.close()


def test_what_is_written_while_reading_is_there_the_next_time(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append(kind="a")
    first = list(journal.read())
    journal.append(kind="b")

    assert [entry["kind"] for entry in first] == ["a"]
    assert [entry["kind"] for entry in journal.read(first[-1]["sequence"])] == ["b"]
    assert journal.last == 2
    journal.close()


def test_secrets_are_masked_at_any_depth() -> None:
    value = {"a": [{"Token": "x", "b": 1}], "new_password": {"c": "x"}, "d": "token", "passcodes": ["x"]}

    assert masked(value) == {
        "a": [{"Token": "***", "b": 1}],
        "new_password": "***",
        "d": "token",
        "passcodes": "***",
    }
