"""The journal of undos survives a kill, a second process and half a line."""

import fcntl
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from power_support import DEPLOYMENT, write_deployment
from testyard.core.errors import NotMetError, UserError
from testyard.power.engine import replay
from testyard.power.undo import JOURNAL, UndoEntry, UndoJournal, process_started

REGISTER_AND_DIE = """
import os, signal, sys
from pathlib import Path
from testyard.power.undo import UndoEntry, UndoJournal
journal = UndoJournal(Path(sys.argv[1]))
directory = Path(sys.argv[2])
for node in sys.argv[3:]:
    journal.register(UndoEntry(directory=directory, deployment="basic-1", node=node, operation="stop_node"))
os.kill(os.getpid(), signal.SIGKILL)
"""


def entry(node: str = "n12", **changed: object) -> UndoEntry:
    values = {"directory": Path("/deployment"), "deployment": DEPLOYMENT, "node": node, "operation": "stop_node"}
    return UndoEntry.model_validate({**values, **changed})


def killed_run(journal: Path, directory: Path, *nodes: str) -> None:
    """A run that registers faults and is killed."""
    command = [sys.executable, "-c", REGISTER_AND_DIE, str(journal), str(directory), *nodes]
    assert subprocess.run(command, check=False).returncode == -9


@pytest.fixture
def journal(tmp_path: Path) -> UndoJournal:
    """An empty journal."""
    return UndoJournal(tmp_path / JOURNAL)


def test_an_entry_is_on_disk_when_it_is_registered(journal: UndoJournal) -> None:
    registered = journal.register(entry())
    assert UndoJournal(journal.path).pending() == [registered]
    assert journal.path.stat().st_mode & 0o777 == 0o600


def test_an_entry_is_forced_to_the_disk(journal: UndoJournal, monkeypatch: pytest.MonkeyPatch) -> None:
    forced: list[str] = []
    monkeypatch.setattr("os.fsync", lambda _: forced.extend(it.node for it in journal.pending()))
    journal.register(entry("n12"))
    assert forced == ["n12"]


def test_nothing_is_left_when_everything_is_undone(journal: UndoJournal) -> None:
    first, second = journal.register(entry("n11")), journal.register(entry("n12"))
    journal.resolve(first)
    assert journal.pending() == [second]
    journal.resolve(second)
    assert not journal.path.exists()
    assert journal.pending() == []


def test_an_entry_outlives_a_kill(journal: UndoJournal, tmp_path: Path) -> None:
    killed_run(journal.path, tmp_path, "n11", "n12")
    assert [(it.node, it.is_orphaned, it.is_mine) for it in journal.pending()] == [
        ("n11", True, False),
        ("n12", True, False),
    ]


def test_half_a_line_spoils_nothing(journal: UndoJournal) -> None:
    first = journal.register(entry("n11"))
    with journal.path.open("a", encoding="utf-8") as file:
        file.write('{"event": "registered", "identif')
    second = journal.register(entry("n12"))
    assert journal.pending() == [first, second]


def test_the_last_fault_is_undone_first(journal: UndoJournal) -> None:
    for node in ("n11", "n12", "n13"):
        journal.register(entry(node))
    undone: list[str] = []
    outcomes = journal.undo_all(lambda it: undone.append(it.node) or "started")
    assert undone == ["n13", "n12", "n11"]
    assert {(it.outcome, it.ended) for it in outcomes} == {("started", True)}
    assert not journal.path.exists()


@pytest.mark.parametrize("problem", [UserError("no such machine"), NotMetError("not in time")])
def test_what_cannot_be_undone_stays_and_stops_nobody(journal: UndoJournal, problem: Exception) -> None:
    for node in ("n11", "n12"):
        journal.register(entry(node))

    def undo(it: UndoEntry) -> str:
        if it.node == "n12":
            raise problem
        return "started"

    outcomes = journal.undo_all(undo)
    assert [(it.outcome, it.ended) for it in outcomes] == [(str(problem), False), ("started", True)]
    assert [it.node for it in journal.pending()] == ["n12"]


def test_an_interrupt_while_undoing_leaves_the_rest_for_the_next_run(journal: UndoJournal) -> None:
    for node in ("n11", "n12"):
        journal.register(entry(node))

    def undo(it: UndoEntry) -> str:
        if it.node == "n11":
            raise KeyboardInterrupt
        return "started"

    with pytest.raises(KeyboardInterrupt):
        journal.undo_all(undo)
    assert [it.node for it in journal.pending()] == ["n11"]


def test_the_faults_of_a_living_process_are_its_own(journal: UndoJournal) -> None:
    journal.register(entry(owner=os.getppid(), owner_started=process_started(os.getppid())))
    assert journal.undo_all(lambda _: "started") == []
    assert journal.undo_all(lambda _: "started", mine=False) == []
    assert len(journal.pending()) == 1


def test_a_process_id_that_is_used_again_is_another_process(journal: UndoJournal) -> None:
    journal.register(entry(owner=os.getpid(), owner_started=process_started(os.getpid()) - 1))
    (pending,) = journal.pending()
    assert (pending.is_mine, pending.is_orphaned) == (False, True)


def test_writers_at_the_same_time_lose_nothing(journal: UndoJournal) -> None:
    """Also when the file is deleted by one who has undone everything while another waits for the lock."""

    def register_and_resolve(number: int) -> None:
        mine = UndoJournal(journal.path)
        kept = mine.register(entry(f"kept-{number}"))
        for turn in range(4):
            mine.resolve(mine.register(entry(f"{number}-{turn}")))
        if number % 2:
            mine.resolve(kept)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(register_and_resolve, range(4)))
    assert {it.node for it in journal.pending()} == {"kept-0", "kept-2"}


def test_a_file_that_is_deleted_while_one_waits_for_its_lock_is_made_anew(
    journal: UndoJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = fcntl.flock
    waits: list[int] = []

    def deleted_meanwhile(descriptor: int, operation: int) -> None:
        if not waits:
            journal.path.unlink()
        waits.append(descriptor)
        lock(descriptor, operation)

    monkeypatch.setattr("fcntl.flock", deleted_meanwhile)
    registered = journal.register(entry())
    assert len(waits) == 2
    assert journal.pending() == [registered]


def test_a_replay_says_that_a_deployment_is_gone(tmp_path: Path) -> None:
    killed_run(tmp_path / JOURNAL, tmp_path / "gone", "n11")
    (outcome,) = replay(tmp_path / JOURNAL)
    assert (outcome.outcome, outcome.ended) == ("the deployment is gone", True)
    assert not (tmp_path / JOURNAL).exists()


def test_a_replay_says_what_it_could_not_do(tmp_path: Path) -> None:
    directory = write_deployment(tmp_path / "deployment", "hetzner")
    killed_run(directory / JOURNAL, directory, "n11")
    (outcome,) = replay(directory / JOURNAL, environment={})
    assert not outcome.ended
    assert "known_hosts" in outcome.outcome
    assert len(UndoJournal(directory / JOURNAL).pending()) == 1


def test_a_replay_without_a_journal_has_nothing_to_do(tmp_path: Path) -> None:
    assert replay(tmp_path / JOURNAL) == []
    assert not (tmp_path / JOURNAL).exists()
