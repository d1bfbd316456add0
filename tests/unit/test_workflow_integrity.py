"""The seeded table and the writer behind data_integrity, on a real PostgreSQL."""

import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from testyard.core.deadline import Deadline, wait_until
from testyard.core.errors import UserError
from testyard.lab.servers.postgresql import PostgresqlServer, ShutdownMode
from testyard.workflow.database import Credentials, LocalCommitError, NoAnswerError, Session, first_value, reason
from testyard.workflow.integrity import (
    SEEDED_TABLE,
    WRITES_TABLE,
    AcknowledgedWriter,
    Outcome,
    Seed,
    Write,
    compare,
    written_rows,
)

WITHIN = timedelta(seconds=20)
NOW = datetime(2025, 1, 1, tzinfo=UTC)
NOBODY = "No such session."


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresqlServer]:
    """A PostgreSQL that these tests may stop."""
    with PostgresqlServer(durable=False) as server:
        yield server


@pytest.fixture
def open_session(server: PostgresqlServer) -> Iterator[Callable[[], Session]]:
    """Opens sessions; nothing of these tests is left in the database."""
    parts = conninfo_to_dict(server.url)
    credentials = Credentials(str(parts["user"]), str(parts["password"]), str(parts["dbname"]))
    opened = []

    def open_one() -> Session:
        opened.append(Session(str(parts["host"]), int(str(parts["port"])), credentials, WITHIN))
        return opened[-1]

    yield open_one
    for session in opened:
        session.close()
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute("alter system reset all")
        connection.execute("select pg_reload_conf()")
        connection.execute(f"drop table if exists {SEEDED_TABLE}, {WRITES_TABLE}")


@pytest.fixture
def session(open_session: Callable[[], Session]) -> Session:
    """One session."""
    return open_session()


def test_a_seeded_table_has_the_rows_and_the_checksum_of_its_seed(session: Session) -> None:
    seed = Seed("lab", 50)
    seed.create(session, WITHIN)
    passed, told = seed.compare(session, WITHIN)
    assert passed
    assert told == f"the seeded table has its 50 rows and its checksum {seed.checksum}"


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (f"delete from {SEEDED_TABLE} where id = 7", "has 49 rows"),
        (f"update {SEEDED_TABLE} set payload = 'x' where id = 7", "has 50 rows"),
        (f"update {SEEDED_TABLE} set id = 51 where id = 7", "has 50 rows"),
        (f"insert into {SEEDED_TABLE} values (0, '')", "has 51 rows"),
        (f"delete from {SEEDED_TABLE}", "has 0 rows with checksum none"),
        (f"drop table {SEEDED_TABLE}", f"the seeded table {SEEDED_TABLE} is missing"),
    ],
)
def test_damage_to_the_seeded_table_is_seen(session: Session, damage: str, told: str) -> None:
    seed = Seed("lab", 50)
    seed.create(session, WITHIN)
    session.run(damage, within=WITHIN)
    passed, found = seed.compare(session, WITHIN)
    assert not passed
    assert told in found


def test_another_seed_gives_other_rows(session: Session) -> None:
    Seed("lab", 50).create(session, WITHIN)
    assert not Seed("other", 50).compare(session, WITHIN)[0]


def test_a_seed_is_noted_in_the_deployments_directory(tmp_path: Path) -> None:
    assert Seed.load(tmp_path) is None
    Seed("lab", 50).save(tmp_path)
    assert Seed.load(tmp_path) == Seed("lab", 50)


def test_a_lost_write_is_named() -> None:
    writes = [
        Write(1, "a", "n11", Outcome.ACKNOWLEDGED, NOW),
        Write(2, "b", "n11", Outcome.ACKNOWLEDGED, NOW),
        Write(3, "c", "n12", Outcome.ACKNOWLEDGED, NOW),
        Write(4, "d", "n12", Outcome.INDETERMINATE, NOW),
        Write(5, "e", "n12", Outcome.INDETERMINATE, NOW),
        Write(6, "f", "n12", Outcome.REFUSED, NOW),
    ]
    comparison = compare(writes, {1: "a", 3: "changed", 4: "d"})
    assert not comparison.passed
    assert [write.number for write in comparison.lost] == [2, 3]
    assert "row 2 (acknowledged by n11 at 00:00:00.000000)" in str(comparison)
    assert "row 3 (acknowledged by n12 at 00:00:00.000000)" in str(comparison)
    assert "3 acknowledged, 2 indeterminate, 1 refused" in str(comparison)


def test_a_row_from_nowhere_and_a_refused_row_are_unexpected() -> None:
    writes = [Write(1, "a", "n11", Outcome.ACKNOWLEDGED, NOW), Write(2, "b", "n11", Outcome.REFUSED, NOW)]
    assert compare(writes, {1: "a"}).passed
    comparison = compare(writes, {1: "a", 2: "b", 3: "c"})
    assert not comparison.passed
    assert comparison.unexpected == {2: "b", 3: "c"}
    assert "2 unexpected rows: row 2 (b), row 3 (c)" in str(comparison)


def test_only_the_first_lost_writes_are_named_and_the_others_counted() -> None:
    writes = [Write(number, "a", "n11", Outcome.ACKNOWLEDGED, NOW) for number in range(1, 31)]
    assert "30 acknowledged writes are lost" in str(compare(writes, {}))
    assert str(compare(writes, {})).endswith("and 10 more")


def test_what_the_writer_was_told_is_what_the_database_has(open_session: Callable[[], Session]) -> None:
    with AcknowledgedWriter(lambda: ("n11", open_session()), pace=timedelta()) as writer:
        writer.wait_for_acknowledged(50, Deadline(WITHIN))
    comparison = compare(writer.writes, written_rows(open_session(), WITHIN))
    assert comparison.passed
    assert comparison.count(Outcome.ACKNOWLEDGED) == len(writer.writes) >= 51
    assert not writer.running


def test_a_deleted_row_of_the_writers_is_a_lost_write(open_session: Callable[[], Session]) -> None:
    with AcknowledgedWriter(lambda: ("n11", open_session())) as writer:
        writer.wait_for_acknowledged(3, Deadline(WITHIN))
    session = open_session()
    session.run(f"delete from {WRITES_TABLE} where id = 2", within=WITHIN)
    assert [write.number for write in compare(writer.writes, written_rows(session, WITHIN)).lost] == [2]


def test_the_writer_goes_on_after_a_crash_and_loses_nothing(
    server: PostgresqlServer, open_session: Callable[[], Session]
) -> None:
    with AcknowledgedWriter(lambda: ("n11", open_session()), pace=timedelta()) as writer:
        writer.wait_for_acknowledged(20, Deadline(WITHIN))
        server.restart(ShutdownMode.KILL)
        writer.wait_for_acknowledged(20, Deadline(WITHIN))
    comparison = compare(writer.writes, written_rows(open_session(), WITHIN))
    assert comparison.passed, comparison
    assert comparison.count(Outcome.INDETERMINATE) <= 2
    assert comparison.count(Outcome.ACKNOWLEDGED) >= 41


def test_a_read_only_primary_refuses_and_nothing_is_indeterminate(open_session: Callable[[], Session]) -> None:
    opened = []

    def open_primary() -> tuple[str, Session]:
        session = open_session()
        opened.append(session)
        if len(opened) == 2:  # the first one of the writer's thread
            session.run("set default_transaction_read_only = on", within=WITHIN)
        return "n11", session

    with AcknowledgedWriter(open_primary) as writer:
        pass
    comparison = compare(writer.writes, written_rows(open_session(), WITHIN))
    assert comparison.passed, comparison
    assert [write.outcome for write in writer.writes[:2]] == [Outcome.REFUSED, Outcome.ACKNOWLEDGED]
    assert "read-only" in writer.writes[0].detail


def test_writes_that_no_standby_confirms_are_indeterminate_and_never_counted_as_lost(
    session: Session, open_session: Callable[[], Session]
) -> None:
    answer = timedelta(milliseconds=500)
    with AcknowledgedWriter(lambda: ("n11", open_session()), pace=timedelta(), answer=answer) as writer:
        _wait_for_a_standby_that_is_not_there(session)
        silent = "a write without an answer"
        last = Outcome.INDETERMINATE
        wait_until(lambda: writer.writes[-1].outcome is last, bool, Deadline(WITHIN), silent)
        session.run("alter system reset synchronous_standby_names", within=WITHIN)
        session.run("select pg_reload_conf()", within=WITHIN)
        writer.wait_for_acknowledged(5, Deadline(WITHIN))
    comparison = compare(writer.writes, written_rows(open_session(), WITHIN))
    assert comparison.passed, comparison
    assert comparison.count(Outcome.INDETERMINATE) >= 1


def test_a_writer_without_a_primary_says_what_it_waits_for(open_session: Callable[[], Session]) -> None:
    gone = threading.Event()

    def open_primary() -> tuple[str, Session]:
        if gone.is_set():
            raise psycopg.OperationalError(NOBODY)
        return "n11", open_session()

    ending = open_session()
    with AcknowledgedWriter(open_primary) as writer:
        gone.set()
        others = "select pg_terminate_backend(pid) from pg_stat_activity where query like 'insert into testyard%'"
        ending.run(others, within=WITHIN)
        with pytest.raises(psycopg.OperationalError, match=r"100 more writes were not .* such session"):
            writer.wait_for_acknowledged(100, Deadline(timedelta(milliseconds=300)))


def test_a_writer_that_breaks_is_not_silent(open_session: Callable[[], Session]) -> None:
    opened = []

    def open_primary() -> tuple[str, Session]:
        if opened:
            raise UserError(NOBODY)
        opened.append(open_session())
        return "n11", opened[0]

    writer = AcknowledgedWriter(open_primary)
    with pytest.raises(UserError, match=NOBODY):
        writer.start()
    with pytest.raises(UserError, match=NOBODY):
        writer.stop()


def test_the_writers_rows_are_none_where_there_is_no_table(session: Session) -> None:
    assert written_rows(session, WITHIN) == {}


def test_a_commit_that_no_standby_confirms_has_no_answer(
    session: Session, open_session: Callable[[], Session]
) -> None:
    session.run(f"create table {WRITES_TABLE} (id bigint, payload text)", within=WITHIN)
    _wait_for_a_standby_that_is_not_there(session)
    with pytest.raises(NoAnswerError, match=r"had not answered after 0\.3 s"):
        open_session().run(f"insert into {WRITES_TABLE} values (1, 'a')", within=timedelta(milliseconds=300))


def test_a_commit_on_the_primary_alone_is_no_acknowledgement(
    session: Session, open_session: Callable[[], Session]
) -> None:
    session.run(f"create table {WRITES_TABLE} (id bigint, payload text)", within=WITHIN)
    _wait_for_a_standby_that_is_not_there(session)
    writing = open_session()
    pid = first_value(writing.run("select pg_backend_pid()", within=WITHIN))
    cancelling = threading.Thread(target=_cancel_when_it_waits, args=(session, pid))
    cancelling.start()
    with pytest.raises(LocalCommitError, match="on the primary alone"):
        writing.run(f"insert into {WRITES_TABLE} values (1, 'a')", within=WITHIN)
    cancelling.join()
    assert written_rows(session, WITHIN) == {1: "a"}


def test_a_session_says_in_one_line_why_it_is_refused() -> None:
    with pytest.raises(psycopg.OperationalError) as refused:
        Session("127.0.0.1", 1, Credentials("user", "password", "name"), WITHIN)
    assert reason(refused.value) == "Connection refused"


def test_credentials_are_read_and_never_shown(tmp_path: Path) -> None:
    content = {"database": {"user": "sys", "password": "quite-secret-password", "name": "exa"}}
    (tmp_path / ".credentials.json").write_text(json.dumps(content))
    credentials = Credentials.read(tmp_path)
    assert credentials == Credentials("sys", "quite-secret-password", "exa")
    assert "quite-secret-password" not in repr(credentials)


@pytest.mark.parametrize("content", ["{}", "[]", "no JSON", '{"database": {"user": "a"}}', '{"database": null}'])
def test_credentials_that_are_not_understood_are_told(tmp_path: Path, content: str) -> None:
    (tmp_path / ".credentials.json").write_text(content)
    with pytest.raises(UserError, match="should hold an object 'database'"):
        Credentials.read(tmp_path)


def test_a_deployment_without_a_database_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no database"):
        Credentials.read(tmp_path)


def _wait_for_a_standby_that_is_not_there(session: Session) -> None:
    session.run("alter system set synchronous_standby_names = 'nobody'", within=WITHIN)
    session.run("select pg_reload_conf()", within=WITHIN)
    waited = "select current_setting('synchronous_standby_names')"
    wait_until(lambda: first_value(session.run(waited, within=WITHIN)), bool, Deadline(WITHIN), "the setting")


def _cancel_when_it_waits(session: Session, pid: str) -> None:
    waits = "select count(*) from pg_stat_activity where pid = $1::int and wait_event = 'SyncRep'"
    wait_until(
        lambda: session.run(waits, pid, within=WITHIN), [("1",)].__eq__, Deadline(WITHIN), "a waiting commit"
    )
    session.run("select pg_cancel_backend($1::int)", pid, within=WITHIN)
