"""Connections by alias, what a database notifies, and reading until a value is right."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from datetime import timedelta

import pytest
from testyard.core.deadline import Deadline
from testyard.core.errors import NotMetError, UserError
from testyard.lab.servers.postgresql import PostgresqlServer, ShutdownMode
from testyard.sql.connections import Connections
from testyard.sql.notifications import Notification
from testyard.sql.problems import (
    CannotConnectError,
    CredentialRefusedError,
    LostConnectionError,
    StatementError,
    StatementTimeoutError,
)
from testyard.sql.retrying import read_until
from testyard.sql.target import Target

SOON = timedelta(seconds=5)
A_MOMENT = timedelta(milliseconds=100)


@pytest.fixture
def connections(database_url: str) -> Iterator[Connections]:
    """One connection, called ``default``."""
    connections = Connections()
    connections.open(Target.from_url(database_url))
    yield connections
    connections.close_all()


# ---- aliases


def test_a_missing_alias_is_told_with_the_known_ones(connections: Connections) -> None:
    connections.open(connections.get().target, alias="second")
    for act in (connections.get, connections.close, connections.listener):
        with pytest.raises(UserError) as told:
            act("third")
        assert str(told.value) == (
            "There is no database connection called 'third'; open connections: default, second."
        )
    connections.close_all()
    with pytest.raises(UserError, match="open connections: none"):
        connections.get()


def test_an_alias_that_is_used_again_closes_the_old_connection(connections: Connections) -> None:
    first = connections.open(connections.get().target, alias="second", application_name="first")
    watcher = connections.get()
    assert [each["pid"] for each in watcher.backends(application_name="first")] == [first.pid]
    connections.open(watcher.target, alias="second", application_name="again")
    while watcher.backends(application_name="first"):
        pass
    assert len(watcher.backends(application_name="again")) == 1


def test_a_refused_connection_keeps_the_old_one(connections: Connections) -> None:
    target = connections.get().target
    with pytest.raises(CredentialRefusedError):
        connections.open(Target(target.host, target.port, target.database, target.user, "wrong-password"))
    assert connections.get().query_value("SELECT 1") == 1


def test_open_transactions_are_listed(connections: Connections) -> None:
    assert connections.open_transactions() == {}
    connections.get().begin()
    assert list(connections.open_transactions()) == ["default"]
    connections.get().roll_back()
    assert connections.open_transactions() == {}


# ---- notifications


def notify(connections: Connections, channel: str, payload: str) -> None:
    connections.get().query("SELECT pg_notify(%s, %s)", [channel, payload])


def wait(connections: Connections, payload: str | dict | None = None, within: timedelta = SOON) -> Notification:
    listener = connections.listener()
    return listener.wait_for("runs", lambda it: it.carries(payload), Deadline(within), "A notification")


def test_a_notification_arrives_also_when_it_was_sent_before(connections: Connections) -> None:
    connections.listen("runs")
    notify(connections, "runs", "first")
    assert wait(connections).payload == "first"
    threading.Timer(0.2, notify, [connections, "runs", "later"]).start()
    assert wait(connections, "later").pid == connections.get().pid


def test_each_notification_is_given_once(connections: Connections) -> None:
    connections.listen("runs")
    for _ in range(2):
        notify(connections, "runs", json.dumps({"id": 7, "state": "DONE"}))
    for _ in range(2):
        wait(connections, {"id": "7", "state": "DONE"})
    with pytest.raises(NotMetError, match=r"^A notification did not arrive within 0\.1 s; nothing else did\.$"):
        wait(connections, within=A_MOMENT)


def test_what_arrived_instead_is_told(connections: Connections) -> None:
    connections.listen("runs")
    connections.listen('odd "channel"')
    notify(connections, 'odd "channel"', "elsewhere")
    with pytest.raises(NotMetError, match="nothing else did"):
        wait(connections, "elsewhere", within=A_MOMENT)
    notify(connections, "runs", "other")
    with pytest.raises(NotMetError, match=r"within 0\.1 s; 1 others did: 'other'\.$"):
        wait(connections, "mine", within=A_MOMENT)


@pytest.mark.parametrize(
    ("payload", "wanted", "carried"),
    [
        ("text", None, True),
        ("text", "text", True),
        ("text", "tex", False),
        ("", "", True),
        ('{"a": 1, "b": "x"}', {"a": 1}, True),
        ('{"a": 1}', {"a": "1"}, True),
        ('{"a": 1}', {"a": 2}, False),
        ('{"a": 1}', {"b": "None"}, False),
        ("[1]", {"a": 1}, False),
        ("text", {"a": 1}, False),
    ],
)
def test_a_payload_is_a_text_or_values(payload: str, wanted: str | dict | None, carried: bool) -> None:
    notification = Notification("runs", payload, 1, None)  # type: ignore[arg-type] # the moment does not matter
    assert notification.carries(wanted) is carried


def test_a_notification_that_must_not_arrive(connections: Connections) -> None:
    connections.listen("runs")
    listener = connections.listener()
    listener.never("runs", lambda it: True, Deadline(A_MOMENT), "A notification")
    notify(connections, "runs", "unwanted")
    listener.never("runs", lambda it: it.carries("another"), Deadline(A_MOMENT), "A notification")
    with pytest.raises(NotMetError, match=r"A notification must not happen, but did after .*\['unwanted'\]"):
        listener.never("runs", lambda it: True, Deadline(SOON), "A notification")


def test_a_channel_that_nobody_listens_on_is_told(connections: Connections) -> None:
    with pytest.raises(UserError, match="Nobody listens to the database connection 'default'"):
        wait(connections)
    connections.listen("other")
    with pytest.raises(UserError, match="Nobody listens on 'runs'; channels: other"):
        wait(connections)


def test_a_listener_that_was_cut_says_so_until_it_listens_again(connections: Connections) -> None:
    connections.listen("runs")
    database = connections.get()
    assert database.terminate_backends(application_name="testyard") >= 1
    with pytest.raises(LostConnectionError, match=r"notifications may be missing: .*Listen again\.$"):
        wait(connections)
    connections.listen("runs")
    notify(connections, "runs", "again")
    assert wait(connections).payload == "again"


# ---- retries


def test_a_value_may_take_its_time() -> None:
    values = iter([1, 2, 3])

    def verify(value: int) -> str:
        assert value == 3, f"{value} is not 3"
        return "right"

    assert read_until(lambda _: next(values), verify, retry_for=SOON, timeout=SOON) == "right"


def test_without_retry_it_is_read_once() -> None:
    def verify(value: int) -> None:
        raise NotMetError(f"{value} is wrong")

    with pytest.raises(NotMetError, match=r"^1 is wrong$"):
        read_until(lambda _: 1, verify, retry_for=timedelta(), timeout=SOON)


def test_a_value_that_stays_wrong_is_told_with_how_often_and_how_long() -> None:
    def verify(value: int) -> None:
        assert value == 2, f"{value} is not 2"

    with pytest.raises(NotMetError) as told:
        read_until(lambda _: 1, verify, retry_for=A_MOMENT, timeout=SOON)
    assert str(told.value).startswith("1 is not 2")
    assert re.search(r" \(tried \d times in 0\.\d+ s\)$", str(told.value))


def test_the_time_of_slow_statements_counts(connections: Connections) -> None:
    database = connections.get()
    started = time.monotonic()

    def read(timeout: timedelta) -> int:
        return database.query_value("SELECT count(*) FROM pg_sleep(0.4)", timeout=timeout)

    def verify(value: int) -> None:
        assert value == 2, "wrong"

    with pytest.raises((NotMetError, StatementTimeoutError), match=r"\(tried \d times in"):
        read_until(read, verify, retry_for=timedelta(seconds=1), timeout=SOON)
    assert 1 <= time.monotonic() - started < 2.5


def test_a_statement_that_hangs_ends_with_the_retries(connections: Connections) -> None:
    started = time.monotonic()
    with pytest.raises(StatementTimeoutError, match=r"was cancelled after .*\(tried \d times in"):
        read_until(
            lambda timeout: connections.get().query_value("SELECT 1 FROM pg_sleep(20)", timeout=timeout),
            lambda value: value,
            retry_for=timedelta(seconds=1),
            timeout=SOON,
        )
    assert time.monotonic() - started < 2.5


def test_what_time_does_not_heal_is_not_retried(connections: Connections) -> None:
    tries = []

    def read(timeout: timedelta) -> object:
        tries.append(timeout)
        return connections.get().query("SELECT * FORM runs")

    with pytest.raises(StatementError, match="not valid SQL"):
        read_until(read, lambda value: value, retry_for=SOON, timeout=SOON)
    assert len(tries) == 1


def test_a_restart_is_survived_by_a_retry(connections: Connections) -> None:
    with PostgresqlServer(durable=False) as server:
        connections.open(Target.from_url(server.url), alias="own")
        database = connections.get("own")
        restart = threading.Timer(0.1, server.restart, [ShutdownMode.KILL])
        tries = []

        def read(timeout: timedelta) -> int:
            tries.append(timeout)
            if len(tries) == 1:
                restart.start()
                return database.query_value("SELECT count(*) FROM pg_sleep(20)", timeout=timeout)
            return database.query_value("SELECT 42", timeout=timeout)

        assert read_until(read, lambda value: value, retry_for=timedelta(seconds=20), timeout=SOON) == 42
        assert len(tries) > 1
        restart.join()
        server.stop()
        with pytest.raises(CannotConnectError, match=r"Cannot connect .* \(tried"):
            read_until(
                lambda timeout: database.query_value("SELECT 1", timeout=timeout),
                lambda value: value,
                retry_for=A_MOMENT,
                timeout=SOON,
            )
