"""Statements, rows, transactions and backends, on a real PostgreSQL."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import timedelta

import psycopg
import pytest
from testyard.core.errors import NotMetError, UserError
from testyard.lab.servers.fault_proxy import FaultProxy
from testyard.lab.servers.postgresql import PostgresqlServer, ShutdownMode, free_port
from testyard.sql.database import Database, IsolationLevel
from testyard.sql.problems import (
    CannotConnectError,
    CredentialRefusedError,
    LostConnectionError,
    StatementError,
    StatementTimeoutError,
)
from testyard.sql.target import Target


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A connection to a schema of the test's own, with three runs in it."""
    database = Database(Target.from_url(database_url))
    database.execute("CREATE TABLE runs (id int PRIMARY KEY, state text)")
    database.execute("INSERT INTO runs VALUES (1, 'DONE'), (2, 'FAILED'), (3, 'DONE')")
    yield database
    database.close()


@pytest.fixture
def other(database_url: str) -> Iterator[Database]:
    """Another connection to the same schema."""
    database = Database(Target.from_url(database_url), application_name="other")
    yield database
    database.close()


# ---- statements


def test_rows_values_and_counts_are_read(database: Database) -> None:
    failed = "SELECT * FROM runs WHERE state = %(state)s ORDER BY id"
    assert database.query(failed, {"state": "FAILED"}) == [{"id": 2, "state": "FAILED"}]
    assert database.query(failed, {"state": "NONE"}) == []
    assert database.query_one("SELECT * FROM runs WHERE id = %s", [3]) == {"id": 3, "state": "DONE"}
    assert database.query_value("SELECT state FROM runs WHERE id = %s", ["2"]) == "FAILED"
    assert database.count("SELECT 1 FROM runs WHERE state LIKE 'D%'") == 2
    assert database.count("SELECT 1 FROM runs WHERE state LIKE 'D%%' AND id > %s", [1]) == 1
    assert database.execute("UPDATE runs SET state = %s", ["X"]) == 3
    assert database.execute("DROP TABLE runs; CREATE TABLE runs (id int); INSERT INTO runs VALUES (1), (2)") == 2
    assert database.execute("CREATE TABLE empty ()") == 0


def test_a_value_is_bound_and_never_part_of_the_statement(database: Database) -> None:
    hostile = "'; DROP TABLE runs; --"
    assert database.query("SELECT * FROM runs WHERE state = %s", [hostile]) == []
    assert database.query_value("SELECT %s::text", [hostile]) == hostile
    assert database.count("SELECT 1 FROM runs") == 3


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("SELECT * FROM runs WHERE id = 9", "should return one row, but it returned none."),
        (
            "SELECT id FROM runs ORDER BY id",
            "should return one row, but it returned 3; the first two: {'id': 1} and {'id': 2}.",
        ),
    ],
)
def test_not_one_row_is_told(database: Database, statement: str, said: str) -> None:
    with pytest.raises(NotMetError) as told:
        database.query_one(statement)
    assert str(told.value).endswith(said)


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("SELECT id, state FROM runs LIMIT 1", "should return one column, but it returned 2: id, state."),
        ("SELECT id, id FROM runs", "Two columns of the result are called id: name one with AS."),
        ("UPDATE runs SET state = 'X'", "The statement returns no rows to read"),
    ],
)
def test_what_is_no_value_is_told(database: Database, statement: str, said: str) -> None:
    with pytest.raises(UserError) as told:
        database.query_value(statement)
    assert said in str(told.value)


def test_a_missing_parameter_is_told_before_anything_is_sent(database: Database) -> None:
    with pytest.raises(UserError, match="needs the parameter state, which is not given; given: id"):
        database.query("SELECT * FROM runs WHERE id = %(id)s AND state = %(state)s", {"id": 1})


def test_a_syntax_error_shows_where(database: Database) -> None:
    with pytest.raises(StatementError) as told:
        database.query("SELECT *\n  FORM runs WHERE id = %(id)s", {"id": 1})
    assert str(told.value) == (
        'The statement is not valid SQL: syntax error at or near "FORM".\n  FORM runs WHERE id = %(id)s\n'
        "  ^ line 2, column 3"
    )


def test_a_position_behind_parameters_is_right(database: Database) -> None:
    with pytest.raises(StatementError, match=r'was refused: column "nope" does not exist') as told:
        database.query("SELECT 1 FROM runs WHERE state = %(s)s OR state = %(s)s OR nope", {"s": "x"})
    line, mark = str(told.value).splitlines()[1:3]
    assert line[mark.index("^") :] == "nope"


def test_detail_and_hint_of_the_server_are_told(database: Database) -> None:
    with pytest.raises(StatementError, match="duplicate key value violates") as told:
        database.execute("INSERT INTO runs VALUES (1, 'AGAIN')")
    assert "Key (id)=(1) already exists." in str(told.value)
    with pytest.raises(StatementError, match="Hint: No function matches"):
        database.query("SELECT no_such_function(1)")
    assert database.count("SELECT 1 FROM runs") == 3


# ---- time


def test_a_statement_is_cancelled_after_its_timeout(database: Database) -> None:
    started = time.monotonic()
    with pytest.raises(StatementTimeoutError, match=r"was cancelled after 0\.\d+ s: canceling statement"):
        database.query("SELECT pg_sleep(20)", timeout=timedelta(milliseconds=200))
    assert time.monotonic() - started < 2
    assert database.query_value("SELECT count(*) FROM pg_sleep(0.3)") == 1


@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
def test_a_timeout_is_right_also_after_a_transaction(database: Database, end: str) -> None:
    shown = "SHOW statement_timeout"
    short = timedelta(seconds=7)
    assert database.query_value(shown) == "30s"
    database.execute("BEGIN")
    assert database.query_value(shown, timeout=short) == "7s"
    database.execute(end, timeout=short)
    assert database.query_value(shown, timeout=short) == "7s"
    assert database.query_value(shown) == "30s"


def test_a_network_that_swallows_answers_does_not_hang(
    postgresql_server: PostgresqlServer, database_url: str
) -> None:
    with FaultProxy("127.0.0.1", postgresql_server.port) as network:
        through = database_url.replace(f":{postgresql_server.port}/", f":{network.port}/")
        database = Database(Target.from_url(through))
        assert database.query_value("SELECT 1") == 1
        network.silence()
        with pytest.raises(LostConnectionError, match=r"lost during the statement: no answer after [\d.]+ s\.$"):
            database.query_value("SELECT 1", timeout=timedelta(milliseconds=100))
        network.speak()
        assert database.query_value("SELECT 2") == 2
        database.close()


def test_an_interrupted_statement_does_not_answer_the_next(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    class TimeoutExceededError(BaseException):
        """As Robot Framework's: no Exception."""

    def interrupted(connection: psycopg.Connection, statement: bytes, parameters: object) -> None:
        connection.pgconn.send_query(b"SELECT 'late'")
        raise TimeoutExceededError

    database.query_value("SELECT 1")
    with monkeypatch.context() as patch:
        patch.setattr(psycopg.Connection, "execute", interrupted)
        with pytest.raises(TimeoutExceededError):
            database.query_value("SELECT 1")
    assert database.query_value("SELECT 'mine'") == "mine"


# ---- transactions


def test_a_transaction_is_seen_by_others_when_it_is_committed(database: Database, other: Database) -> None:
    count = "SELECT count(*) FROM runs"
    database.begin()
    assert database.in_transaction
    database.execute("DELETE FROM runs WHERE id = 1")
    assert (database.query_value(count), other.query_value(count)) == (2, 3)
    database.commit()
    assert not database.in_transaction
    assert other.query_value(count) == 2
    database.begin()
    database.execute("DELETE FROM runs")
    database.roll_back()
    assert database.query_value(count) == 2


@pytest.mark.parametrize("isolation", IsolationLevel)
def test_a_transaction_has_the_asked_isolation(database: Database, isolation: IsolationLevel) -> None:
    database.begin(isolation)
    assert database.query_value("SHOW transaction_isolation") == isolation.value.lower()
    database.roll_back()


def test_a_transaction_that_failed_cannot_be_committed(database: Database) -> None:
    database.begin()
    database.execute("DELETE FROM runs")
    with pytest.raises(StatementError):
        database.execute("SELECT 1 / 0")
    with pytest.raises(StatementError, match="current transaction is aborted"):
        database.query("SELECT 1")
    with pytest.raises(StatementError, match="had failed, so it was rolled back instead of committed"):
        database.commit()
    assert database.count("SELECT 1 FROM runs") == 3


def test_transactions_that_do_not_fit_are_refused(database: Database) -> None:
    for end in (database.commit, database.roll_back):
        with pytest.raises(UserError, match="No transaction is open on this connection"):
            end()
    database.begin()
    with pytest.raises(UserError, match="A transaction is open already"):
        database.begin()
    database.roll_back()


# ---- connecting


def test_nothing_there_is_told(database_url: str) -> None:
    port = free_port()
    with pytest.raises(CannotConnectError) as told:
        Database(Target("127.0.0.1", port, "runs", "reader", "this-password-is-not-told"))
    assert str(told.value) == (
        f"Cannot connect to the database 'runs' on 127.0.0.1 port {port} as 'reader': Connection refused."
    )


def test_a_refused_credential_is_told_without_it(postgresql_server: PostgresqlServer) -> None:
    target = Target("127.0.0.1", postgresql_server.port, "postgres", "testyard", "wrong-password")
    with pytest.raises(CredentialRefusedError) as told:
        Database(target)
    assert str(told.value) == (
        f"The credentials were refused by the database 'postgres' on 127.0.0.1 port {target.port} as 'testyard': "
        'password authentication failed for user "testyard".'
    )


@pytest.mark.parametrize(
    ("database", "options", "said"),
    [
        ("nope", {}, 'database "nope" does not exist'),
        ("postgres", {"sslmode": "require"}, "server does not support SSL"),
        ("postgres", {"sslmod": "x"}, 'invalid connection option "sslmod"'),
    ],
)
def test_other_reasons_are_told(
    postgresql_server: PostgresqlServer, database: str, options: dict[str, str], said: str
) -> None:
    right = Target.from_url(postgresql_server.url)
    with pytest.raises(CannotConnectError, match=said) as told:
        Database(Target(right.host, right.port, database, right.user, right.password, options))
    assert not isinstance(told.value, CredentialRefusedError)
    assert right.password not in str(told.value)


# ---- connections that are lost


def test_backends_are_listed_and_terminated(database: Database, other: Database) -> None:
    (backend,) = database.backends(application_name="other")
    assert backend["pid"] == other.pid
    assert backend["user"] == "testyard"
    assert database.pid not in [each["pid"] for each in database.backends()]
    assert database.terminate_backends(application_name="nobody") == 0
    assert database.terminate_backends(application_name="other") == 1
    assert database.backends(application_name="other") == []
    assert other.query_value("SELECT 1") == 1
    assert database.terminate_backends(pid=other.pid) == 1
    assert database.terminate_backends(pid=database.pid) == 0
    with pytest.raises(UserError, match="by application_name or by pid"):
        database.terminate_backends()


def test_a_connection_lost_during_a_statement_is_told(database: Database, other: Database) -> None:
    caught: list[LostConnectionError] = []

    def wait() -> None:
        with pytest.raises(LostConnectionError) as told:
            other.query("SELECT pg_sleep(20)")
        caught.append(told.value)

    thread = threading.Thread(target=wait)
    thread.start()
    while not database.query("SELECT 1 FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(20)'"):
        pass
    database.terminate_backends(pid=other.pid)
    thread.join()
    assert str(caught[0]) == (
        f"The connection to {other.target} was lost during the statement: "
        "terminating connection due to administrator command."
    )
    assert other.query_value("SELECT 1") == 1


def test_a_lost_connection_takes_its_transaction_along(database: Database, other: Database) -> None:
    other.begin()
    other.execute("DELETE FROM runs")
    database.terminate_backends(pid=other.pid)
    with pytest.raises(LostConnectionError, match="was lost, and its open transaction with it"):
        other.query("SELECT 1")
    assert not other.in_transaction
    assert other.count("SELECT 1 FROM runs") == 3


def test_a_restarted_server_is_found_again() -> None:
    with PostgresqlServer(durable=False) as server:
        database = Database(Target.from_url(server.url))
        first = database.pid
        server.restart(ShutdownMode.KILL)
        assert database.query_value("SELECT 1") == 1
        assert database.pid != first
        server.stop()
        with pytest.raises(CannotConnectError):
            database.query_value("SELECT 1")
        database.close()
