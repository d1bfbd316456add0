"""The outbox's file: what was kept is there after any crash, in order, and belongs to one process at a time."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from testyard.lab.bridge import outbox_file
from testyard.lab.bridge.outbox_file import OutboxFile, Waiting


def waiting(position: int, value: bytes = b"{}") -> Waiting:
    return Waiting(position, "topic", f"key\n{position}", value, (("traceparent", "00-1-2-03"),))


def taken(path: Path) -> OutboxFile:
    file = OutboxFile.take(path)
    assert file is not None
    return file


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "orchestrator.0.jsonl"


def test_what_was_kept_is_there_again_in_order(path):
    file = taken(path)
    events = [waiting(number, bytes(range(256))) for number in (3, 5, 8)]
    file.append(events[:2])
    file.append(events[2:])
    file.close()
    again = taken(path)
    assert list(again.events.values()) == events
    again.close()


def test_what_has_gone_is_gone_also_for_the_next_process(path):
    file = taken(path)
    file.append([waiting(number) for number in range(1, 5)])
    file.forget([2, 3, 99])
    file.close()
    again = taken(path)
    assert list(again.events) == [1, 4]
    again.close()


def test_an_empty_file_takes_no_room(path):
    file = taken(path)
    file.append([waiting(1), waiting(2)])
    file.forget([1])
    assert path.stat().st_size
    file.forget([2])
    assert path.stat().st_size == 0
    file.close()


@pytest.mark.parametrize("cut", [1, 10, 30])
def test_half_a_last_line_spoils_neither_the_lines_before_nor_the_next_one(path, cut):
    file = taken(path)
    file.append([waiting(1), waiting(2)])
    file.close()
    os.truncate(path, path.stat().st_size - cut)
    second = taken(path)
    assert list(second.events) == [1]
    second.append([waiting(3)])
    second.close()
    third = taken(path)
    assert list(third.events) == [1, 3]
    third.close()
    assert not path.with_suffix(".unreadable").exists()


@pytest.mark.parametrize("spoilt", [b"\0" * 20, b"{}", b'[4, "topic"]', b"[]", b'[4, "t", "k", "no base64!", []]'])
def test_a_line_that_cannot_be_read_is_set_aside_and_told(path, caplog, spoilt):
    file = taken(path)
    file.append([waiting(1)])
    file.close()
    path.write_bytes(path.read_bytes() + spoilt + b"\n")
    again = taken(path)
    again.append([waiting(2)])
    assert list(again.events) == [1, 2]
    again.close()
    assert path.with_suffix(".unreadable").read_bytes() == spoilt + b"\n"
    assert "has 1 lines that cannot be read" in caplog.text


def test_only_one_has_it_at_a_time(path):
    file = taken(path)
    assert OutboxFile.take(path) is None
    file.close()
    taken(path).close()


def room_for(room: int) -> Callable[[int, bytes], int]:
    """A disk that is full soon."""
    write = os.write

    def write_what_fits(descriptor: int, content: bytes) -> int:
        nonlocal room
        if not room:
            raise OSError(errno.ENOSPC, "no space left on device")
        written = write(descriptor, content[:room])
        room -= written
        return written

    return write_what_fits


def test_a_full_disk_is_told_and_leaves_no_half_line(path, monkeypatch):
    file = taken(path)
    file.append([waiting(1)])
    with monkeypatch.context() as patched:
        patched.setattr(outbox_file.os, "write", room_for(20))
        with pytest.raises(OSError, match="no space"):
            file.append([waiting(2), waiting(3)])
        assert list(file.events) == [1]
    file.append([waiting(4)])
    file.close()
    again = taken(path)
    assert list(again.events) == [1, 4]
    again.close()


def test_a_full_disk_brings_back_what_has_gone_but_loses_nothing(path, monkeypatch, caplog):
    file = taken(path)
    file.append([waiting(1), waiting(2)])
    with monkeypatch.context() as patched:
        patched.setattr(outbox_file.os, "write", room_for(2))
        file.forget([1])
    assert list(file.events) == [2]
    assert "keeps events that have gone" in caplog.text
    file.append([waiting(3)])
    file.close()
    again = taken(path)
    assert list(again.events) == [1, 2, 3]
    again.close()


def test_what_is_kept_has_reached_the_disk(path, monkeypatch):
    synchronised: list[int] = []
    fsync = os.fsync

    def remember(descriptor: int) -> None:
        fsync(descriptor)
        synchronised.append(os.fstat(descriptor).st_size)

    monkeypatch.setattr(outbox_file.os, "fsync", remember)
    file = taken(path)
    assert len(synchronised) == 1, "the directory, for the file's name"
    file.append([waiting(1)])
    assert synchronised[1:] == [path.stat().st_size]
    file.close()


def test_people_can_read_it(path):
    file = taken(path)
    file.append([waiting(1, b'{"event_id": 1}')])
    assert json.loads(path.read_text())[:2] == [1, "topic"]
    assert path.stat().st_mode & 0o777 == 0o600
    file.close()


class Crashes(RuleBasedStateMachine):
    """Keeping, forgetting and crashing at any byte, against what was promised."""

    @initialize()
    def begin(self) -> None:
        self.directory = tempfile.TemporaryDirectory()
        self.path = Path(self.directory.name) / "service.0.jsonl"
        self.file = taken(self.path)
        self.kept: dict[int, Waiting] = {}
        self.next = 1

    @rule(values=st.lists(st.binary(max_size=40), min_size=1, max_size=3))
    def keep(self, values: list[bytes]) -> None:
        events = [waiting(self.next + index, value) for index, value in enumerate(values)]
        self.next += len(events)
        self.file.append(events)
        self.kept.update((event.position, event) for event in events)

    @precondition(lambda self: self.kept)
    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        gone = data.draw(st.lists(st.sampled_from(sorted(self.kept)), unique=True))
        self.file.forget(gone)
        for position in gone:
            del self.kept[position]

    @rule()
    def next_process(self) -> None:
        self.file.close()
        self.file = taken(self.path)

    @rule(value=st.binary(max_size=40), written=st.integers(0, 80))
    def crash_while_keeping(self, value: bytes, written: int) -> None:
        before = self.path.stat().st_size
        self.file.append([waiting(self.next, value)])
        self.file.close()
        os.truncate(self.path, min(before + written, self.path.stat().st_size - 1))
        self.file = taken(self.path)
        self.next += 1

    @invariant()
    def everything_is_there_in_order(self) -> None:
        assert list(self.file.events.values()) == list(self.kept.values())

    def teardown(self) -> None:
        self.file.close()
        assert not self.path.with_suffix(".unreadable").exists()
        self.directory.cleanup()


Crashes.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
test_nothing_is_lost_by_any_crash = Crashes.TestCase
