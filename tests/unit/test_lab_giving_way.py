"""A lab that gives way slows nothing else on its machine down."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from testyard.lab.supervisor.event_bus import STORING, BridgeService, EventBusLab
from testyard.lab.supervisor.event_bus_options import EventBusOptions, GivesWay
from testyard.lab.supervisor.giving_way import BEHIND_OTHERS, give_way


@pytest.fixture
def other() -> Iterator[subprocess.Popen[bytes]]:
    """A process with a session of its own, that waits."""
    command = [sys.executable, "-c", "input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as process:
        yield process
        process.kill()


def niceness(process: int) -> int:
    """How nice a process is, and its session, where the kernel knows sessions."""
    nice = os.getpriority(os.PRIO_PROCESS, process)
    session = Path(f"/proc/{process}/autogroup")
    if session.exists():
        assert session.read_text().split("nice")[1].strip() == str(nice)
    return nice


def test_a_process_and_its_session_give_way(other: subprocess.Popen[bytes]) -> None:
    own = os.getpriority(os.PRIO_PROCESS, 0)
    give_way([other.pid])
    assert niceness(other.pid) == BEHIND_OTHERS
    assert os.getpriority(os.PRIO_PROCESS, 0) == own


def test_one_that_has_ended_is_passed_over(other: subprocess.Popen[bytes]) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    give_way([ended.pid, other.pid])
    assert niceness(other.pid) == BEHIND_OTHERS


@pytest.mark.parametrize("gives_way", [GivesWay.EVERYTHING, GivesWay.NOTHING])
def test_the_services_and_the_database_of_a_lab_give_way(gives_way: GivesWay) -> None:
    expected = BEHIND_OTHERS if gives_way is GivesWay.EVERYTHING else os.getpriority(os.PRIO_PROCESS, 0)
    with EventBusLab(EventBusOptions(gives_way=gives_way)) as lab:
        processes = [*clients_of(lab), *map(lab.pid_of, BridgeService)]
        assert len(processes) > len(BridgeService)
        assert {niceness(it) for it in processes} == {expected}
        lab.kill(BridgeService.STAMPING)
        lab.start_again(BridgeService.STAMPING)
        lab.restart_postgresql("fast")
        assert niceness(lab.pid_of(BridgeService.STAMPING)) == niceness(lab.postgresql.pid) == expected


def test_what_stores_gives_way_to_who_is_waited_for() -> None:
    own = os.getpriority(os.PRIO_PROCESS, 0)
    expected = dict.fromkeys(BridgeService, own) | dict.fromkeys(STORING, BEHIND_OTHERS)
    with EventBusLab(EventBusOptions(gives_way=GivesWay.STORING)) as lab:
        lab.kill(BridgeService.ADAPTER)
        lab.start_again(BridgeService.ADAPTER)
        assert {it: niceness(lab.pid_of(it)) for it in BridgeService} == expected
        assert {niceness(it) for it in clients_of(lab)} == {own}


def clients_of(lab: EventBusLab) -> list[int]:
    """The process ids of what serves the services in PostgreSQL."""
    query = """SELECT pid FROM pg_stat_activity
        WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"""
    with psycopg.connect(lab.database_url) as connection:
        return [row[0] for row in connection.execute(query).fetchall()]
