"""Events are kept from any thread, whatever they hold, and can be waited for."""

import json
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from testyard.core.deadline import Deadline
from testyard.core.errors import NotMetError
from testyard.core.journal import Journal
from testyard.stomp.capture import Event, EventCapture

HEX = "d629d5e45567425da9cdbdc1af67b32c"
DASHED = "d629d5e4-5567-425d-a9cd-bdc1af67b32c"
OTHER = "0e7b6dc1a9a14d4c8e0c1f0d2b3a4c5d"
PATIENCE = timedelta(seconds=20)
AT_ONCE = timedelta(milliseconds=20)


def body(**content: object) -> str:
    return json.dumps(content)


ORDER = body(object_type="order", order_uuid=HEX, order_state="pending-consumer")


@pytest.fixture
def journal() -> Iterator[Journal]:
    with closing(Journal()) as journal:
        yield journal


@pytest.fixture
def capture(journal: Journal) -> EventCapture:
    return EventCapture("source", journal)


def event(**content: object) -> Event:
    return Event("source", dict(content), {}, datetime(2026, 1, 2, 3, 4, 5, 678000, UTC))


# ---- keeping


def test_an_event_is_kept_with_where_when_and_its_headers(capture):
    before = datetime.now(UTC)
    headers = {"destination": "/queue/x"}
    capture.add(ORDER, headers)
    headers.clear()
    (kept,) = capture.events
    assert kept.channel == "source"
    assert kept.body == {"object_type": "order", "order_uuid": HEX, "order_state": "pending-consumer"}
    assert kept.headers == {"destination": "/queue/x"}
    assert before - timedelta(seconds=1) <= kept.arrived <= datetime.now(UTC) + timedelta(seconds=1)
    assert kept.object_type == "order"


def test_events_come_oldest_first_and_in_a_list_of_ones_own(capture):
    for number in range(3):
        capture.add(body(number=number), {})
    capture.events.clear()
    assert [kept.body["number"] for kept in capture.events] == [0, 1, 2]


@settings(deadline=None)
@given(st.dictionaries(st.text(), st.integers() | st.text() | st.none() | st.lists(st.booleans())))
def test_every_json_object_is_kept_as_it_is(content):
    with closing(Journal()) as journal:
        capture = EventCapture("source", journal)
        capture.add(json.dumps(content), {})
        assert capture.events[0].body == content


@pytest.mark.parametrize("text", ["", "no json", '{"cut": ', "[1, 2]", '"order"', "42", "null"])
def test_what_is_no_json_object_is_kept_as_text(capture, text):
    capture.add(text, {})
    assert capture.events[0].body == {"text": text}
    assert capture.events[0].object_type == ""


def test_the_journal_receives_every_event_too(capture, journal):
    capture.add(ORDER, {})
    capture.add("no json", {})
    entries = journal.entries(source="stomp", kind="event")
    assert [entry.subject for entry in entries] == ["order", ""]
    assert entries[0].data == {"channel": "source", "body": json.loads(ORDER)}
    assert entries[1].data == {"channel": "source", "body": {"text": "no json"}}


def test_a_closed_journal_stops_no_callback(capture, journal):
    journal.close()
    capture.add(ORDER, {})
    assert len(capture.events) == 1


def test_many_threads_lose_nothing(capture):
    start = threading.Barrier(8)

    def add(number: int) -> None:
        start.wait()
        for count in range(100):
            capture.add(body(thread=number, count=count), {})

    threads = [threading.Thread(target=add, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(capture.events) == 800
    for number in range(8):
        mine = [kept.body["count"] for kept in capture.events if kept.body["thread"] == number]
        assert mine == list(range(100))


# ---- what an event is about


@pytest.mark.parametrize("uuid", [HEX, DASHED, HEX.upper()])
@pytest.mark.parametrize("told", [HEX, DASHED])
def test_an_event_is_about_what_it_names_in_whatever_form(uuid, told):
    assert event(order_uuid=told, offering_uuid=OTHER).is_about(uuid)
    assert event(offering_uuid=OTHER, resource_uuid=told).is_about(uuid)


@pytest.mark.parametrize(
    "content", [{}, {"order_uuid": OTHER}, {"order_uuid": None}, {"backend_id": HEX}, {"uuid": 7}]
)
def test_an_event_is_not_about_what_it_does_not_name(content):
    assert not event(**content).is_about(HEX)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ({"object_type": "order", "order_uuid": HEX, "order_state": "done"}, f"source order {HEX} done"),
        (
            {"object_type": "offering_user", "offering_user_uuid": HEX, "action": "create"},
            f"offering_user {HEX} create",
        ),
        ({"object_type": "resource", "resource_uuid": HEX, "state": "OK"}, f"source resource {HEX} OK"),
        ({"text": "no json"}, "source (no type)"),
    ],
)
def test_an_event_is_one_line_with_time_channel_type_subject_and_state(content, line):
    text = str(event(**content))
    assert text.startswith("03:04:05.678000 source ")
    assert line in text
    assert len(text.splitlines()) == 1


# ---- waiting


def is_order(told: Event) -> bool:
    return told.object_type == "order"


def test_an_event_from_before_the_wait_counts(capture):
    capture.add(ORDER, {})
    assert capture.wait_for(is_order, Deadline(timedelta()), "the order").is_about(HEX)


def test_the_oldest_accepted_event_is_returned(capture):
    for number in range(3):
        capture.add(body(object_type="order", number=number), {})
    found = capture.wait_for(lambda told: told.body["number"] > 0, Deadline(PATIENCE), "the second")
    assert found.body["number"] == 1


class Unhurried(threading.Condition):
    """Never looks again by itself: only a notification ends its wait."""

    def wait(self, timeout: float | None = None) -> bool:
        return super().wait(PATIENCE.total_seconds())


def test_an_event_that_another_thread_adds_ends_the_wait_at_once(capture, monkeypatch):
    monkeypatch.setattr(capture, "_changed", Unhurried())
    waiting = threading.Event()
    deadline = Deadline(PATIENCE)

    def accepts(told: Event) -> bool:
        waiting.set()
        return is_order(told)

    def tell() -> None:
        waiting.wait()
        capture.add(body(object_type="resource"), {})
        capture.add(ORDER, {})

    capture.add(body(object_type="user_role"), {})
    thread = threading.Thread(target=tell)
    thread.start()
    try:
        assert capture.wait_for(accepts, deadline, "the order").is_about(HEX)
    finally:
        waiting.set()
        thread.join()
    assert deadline.elapsed < PATIENCE / 2
    assert len(capture.events) == 3


def test_a_failed_wait_names_what_where_how_long_and_what_did_arrive(capture):
    capture.add(body(object_type="order", order_uuid=OTHER, order_state="done"), {})
    capture.add("no json", {})
    with pytest.raises(NotMetError) as caught:
        capture.wait_for(lambda _: False, Deadline(AT_ONCE), "An event about order 7")
    first, second, third = str(caught.value).splitlines()
    assert first == "An event about order 7 did not arrive on source within 0.02 s. Arrived:"
    assert second.endswith(f"source order {OTHER} done")
    assert "(no type)" in third


def test_a_failed_wait_says_when_nothing_arrived_at_all(capture):
    with pytest.raises(NotMetError, match=r"did not arrive on source within 0 s\. Arrived:\nnothing$"):
        capture.wait_for(is_order, Deadline(timedelta()), "The order")


def test_a_failed_wait_lasts_as_long_as_it_says(capture):
    deadline = Deadline(timedelta(milliseconds=250))
    with pytest.raises(NotMetError):
        capture.wait_for(is_order, deadline, "The order")
    assert deadline.expired
    assert deadline.elapsed < PATIENCE


def test_an_event_that_is_not_accepted_does_not_end_the_wait(capture):
    capture.add(ORDER, {})
    with pytest.raises(NotMetError, match="pending-consumer"):
        capture.wait_for(lambda told: told.body["order_state"] == "done", Deadline(AT_ONCE), "The end")


def test_a_question_that_fails_is_not_hidden_and_leaves_the_capture_usable(capture):
    capture.add(body(object_type="order"), {})
    with pytest.raises(KeyError, match="order_state"):
        capture.wait_for(lambda told: told.body["order_state"] == "done", Deadline(PATIENCE), "The end")
    adding = threading.Thread(target=capture.add, args=(ORDER, {}))
    adding.start()
    adding.join(PATIENCE.total_seconds())
    assert len(capture.events) == 2
