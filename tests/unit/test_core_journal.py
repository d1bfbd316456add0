"""The journal keeps everything that any thread appends, in order, on disk, and leaves nothing behind."""

import gc
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from testyard.core.journal import Journal

THREADS = 8
ENTRIES = 300

NAMES = st.text(min_size=1).filter(lambda name: name not in {"self", "source", "kind", "subject"})
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=8,
)


@pytest.fixture
def journal() -> Iterator[Journal]:
    with closing(Journal()) as journal:
        yield journal


def subjects(journal: Journal, **filters: object) -> list[str]:
    return [entry.subject for entry in journal.entries(**filters)]


@settings(deadline=None)
@given(st.text(), st.text(), st.text(), st.dictionaries(NAMES, JSON_VALUES, max_size=4))
def test_whatever_is_appended_is_read_back(source, kind, subject, data):
    with closing(Journal()) as journal:
        journal.append(source, kind, subject, **data)
        (entry,) = journal.entries()
    assert (entry.source, entry.kind, entry.subject, entry.data) == (source, kind, subject, data)


def test_an_entry_says_when_on_both_clocks(journal):
    earliest, utc = time.monotonic_ns(), datetime.now(UTC)
    journal.append("lab", "fault", "no_stomp")
    (entry,) = journal.entries()
    assert earliest <= entry.monotonic_ns <= time.monotonic_ns()
    written = datetime.fromisoformat(entry.utc)
    assert written.utcoffset() == timedelta()
    assert abs(written - utc) < timedelta(minutes=1)


def test_values_that_json_does_not_know_are_kept_as_text(journal):
    journal.append("lab", "fault", "late", path=Path("/nowhere"), took=timedelta(seconds=1))
    assert journal.entries()[0].data == {"path": "/nowhere", "took": "0:00:01"}


def test_entries_come_oldest_first_and_only_after_the_mark(journal):
    journal.append("lab", "event", "before")
    mark = journal.mark()
    journal.append("lab", "event", "first")
    journal.append("lab", "event", "second")
    assert subjects(journal, since=mark) == ["first", "second"]
    assert subjects(journal) == ["before", "first", "second"]
    assert subjects(journal, since=journal.mark()) == []


def test_reading_does_not_disturb_later_appends(journal):
    journal.append("lab", "event", "first")
    journal.entries()
    journal.append("lab", "event", "second")
    journal.entries(since=journal.mark())
    journal.append("lab", "event", "third")
    assert subjects(journal) == ["first", "second", "third"]


def test_entries_can_be_chosen_by_source_and_kind(journal):
    for source in ("agent", "stomp"):
        for kind in ("request", "event"):
            journal.append(source, kind, f"{source} {kind}")
    assert subjects(journal, source="agent") == ["agent request", "agent event"]
    assert subjects(journal, kind="event") == ["agent event", "stomp event"]
    assert subjects(journal, source="stomp", kind="event") == ["stomp event"]
    assert subjects(journal, source="nobody") == []


def test_an_empty_name_is_a_name_like_any_other(journal):
    journal.append("stomp", "event", "told", channel="source")
    assert subjects(journal, source="") == []


def test_many_threads_append_without_losing_or_mixing_anything(journal):
    start = threading.Barrier(THREADS + 1)

    def write(number: int) -> None:
        start.wait()
        for count in range(ENTRIES):
            journal.append(f"thread {number}", "count", str(count), padding="x" * (count % 97))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    start.wait()
    # Readers move the file's position while others append.
    while any(thread.is_alive() for thread in threads):
        journal.entries(source="thread 0")
    for thread in threads:
        thread.join()
    assert len(journal.entries()) == THREADS * ENTRIES
    for number in range(THREADS):
        assert subjects(journal, source=f"thread {number}") == [str(count) for count in range(ENTRIES)]


def test_nobody_moves_in_the_file_without_the_lock(journal, monkeypatch):
    # Two threads that do would overwrite each other, but so seldom that the test above may not see it.
    file, moves = journal._file, []

    class Guarded:
        closed = False

        def __getattr__(self, name: str) -> object:
            moves.append((name, journal._lock.locked()))
            return getattr(file, name)

    monkeypatch.setattr(journal, "_file", Guarded())
    journal.append("lab", "fault", "one")
    journal.entries(since=journal.mark())
    monkeypatch.undo()
    assert {name for name, _ in moves} == {"seek", "write", "read"}
    assert all(locked for _, locked in moves)


def test_appends_after_the_end_are_ignored_as_late_callbacks_may_come():
    journal = Journal()
    journal.append("stomp", "event", "in time")
    journal.close()
    journal.append("stomp", "event", "too late")
    journal.close()


def test_a_journal_that_nobody_closes_gives_its_file_back_quietly():
    # Libdoc, for one, makes a library and never closes it.
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Journal().append("lab", "fault", "forgotten")
        gc.collect()
    assert [str(warning.message) for warning in caught] == []


def test_the_journal_has_no_name_on_disk_that_a_kill_could_leave_behind(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with closing(Journal()) as journal:
        journal.append("lab", "fault", "killed", padding="x" * 100_000)
        journal.mark()
        assert list(tmp_path.iterdir()) == []


def test_entries_are_json_and_therefore_survive_line_ends(journal):
    subject = "one\r\ntwo\u2028three\x85"
    journal.append("agent", "log", subject)
    journal.append("agent", "log", "next")
    assert subjects(journal) == [subject, "next"]
