"""Every REST call of a watched client is recorded, whatever becomes of it."""

from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta

import httpx
import pytest
from testyard.core.journal import Journal
from testyard.waldur.calls import CALL_COLUMNS, Call, CallRecorder, split_call
from testyard.waldur.states import Side


@pytest.fixture
def journal() -> Iterator[Journal]:
    with closing(Journal()) as journal:
        yield journal


@pytest.fixture
def recorder(journal: Journal) -> CallRecorder:
    return CallRecorder(journal)


def answer(request: httpx.Request) -> httpx.Response:
    if request.url.path == "/refused":
        raise httpx.ConnectError("[Errno 111] Connection refused")
    if request.url.path == "/moved":
        return httpx.Response(302, headers={"Location": "/orders"})
    return httpx.Response(404 if request.url.path == "/missing" else 200, json=[request.url.path])


def client_of(recorder: CallRecorder, side: Side = Side.A, **options: object) -> httpx.Client:
    client = httpx.Client(transport=httpx.MockTransport(answer), base_url="http://waldur.example", **options)
    recorder.watch(client, side)
    return client


def told(calls: list[Call]) -> list[tuple[object, ...]]:
    return [(call.side, call.method, call.path, call.status) for call in calls]


def test_calls_are_recorded_oldest_first_with_side_method_path_and_status(recorder):
    with client_of(recorder) as a, client_of(recorder, Side.B) as b:
        a.get("/orders", params={"state": ["done", "erred"]})
        b.post("/orders", json={})
        a.patch("/missing")
    assert told(recorder.calls()) == [
        (Side.A, "GET", "/orders?state=done&state=erred", 200),
        (Side.B, "POST", "/orders", 200),
        (Side.A, "PATCH", "/missing", 404),
    ]


def test_a_call_tells_how_long_it_took(recorder):
    with client_of(recorder) as client:
        client.get("/orders")
    (call,) = recorder.calls()
    assert call.took is not None
    assert timedelta() <= call.took < timedelta(seconds=10)


def test_a_call_without_an_answer_is_recorded_too(recorder):
    with client_of(recorder) as client:
        with pytest.raises(httpx.ConnectError):
            client.get("/refused")
        client.get("/orders")
    assert told(recorder.calls()) == [(Side.A, "GET", "/refused", None), (Side.A, "GET", "/orders", 200)]


def test_only_calls_after_the_mark_are_told(recorder, journal):
    with client_of(recorder) as client:
        client.get("/before")
        mark = journal.mark()
        client.get("/after")
    assert [call.path for call in recorder.calls(mark)] == ["/after"]


def test_a_call_is_recorded_when_its_answer_has_come_to_its_end():
    order: list[str] = []

    class Body(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            order.append("body")
            yield b"[]"

    class Listening(Journal):
        def append(self, source: str, kind: str, subject: str, **data: object) -> None:
            order.append("recorded")

    transport = httpx.MockTransport(lambda _: httpx.Response(200, stream=Body()))
    with closing(Listening()) as journal, httpx.Client(transport=transport) as client:
        CallRecorder(journal).watch(client, Side.A)
        client.get("http://waldur.example/")
    assert order == ["body", "recorded"]


def test_other_entries_of_the_journal_are_no_calls(recorder, journal):
    journal.append("agent", "log", "/a/warning", level="WARNING")
    journal.append("lab", "request", "/somebody/elses")
    assert recorder.calls() == []


def test_the_watched_client_still_gets_its_answer_and_its_own_hooks(recorder):
    heard: list[str] = []
    hooks = {
        "request": [lambda request: heard.append(request.method)],
        "response": [lambda response: heard.append(str(response.status_code))],
    }
    with client_of(recorder, event_hooks=hooks) as client:
        assert client.get("/orders").json() == ["/orders"]
    assert heard == ["GET", "200"]
    assert len(recorder.calls()) == 1


def test_each_step_of_a_redirect_is_a_call(recorder):
    with client_of(recorder, follow_redirects=True) as client:
        client.get("/moved")
    assert told(recorder.calls()) == [(Side.A, "GET", "/moved", 302), (Side.A, "GET", "/orders", 200)]


def test_a_streamed_answer_can_still_be_read(recorder):
    with client_of(recorder) as client, client.stream("GET", "/orders") as response:
        assert b"".join(response.iter_bytes()) == b'["/orders"]'
    assert len(recorder.calls()) == 1


@pytest.mark.parametrize(
    ("call", "row"),
    [
        (Call(Side.A, "GET", "/x", 200, timedelta(milliseconds=12.34)), ("A", "GET", "/x", 200, "12.3")),
        (Call(Side.B, "POST", "/y", None, None), ("B", "POST", "/y", "no answer", "")),
        (Call(Side.B, "GET", "/z", 500, timedelta()), ("B", "GET", "/z", 500, "0.0")),
        (Call(Side.B, "GET", "/z?field=a&field=b", 200, None), ("B", "GET", "/z?(2 fields)", 200, "")),
        (Call(Side.B, "GET", "/z?field=a&page=2", 200, None), ("B", "GET", "/z?page=2&(1 fields)", 200, "")),
        (Call(Side.B, "GET", "/z?fields=a&x=1", 200, None), ("B", "GET", "/z?fields=a&x=1", 200, "")),
    ],
)
def test_a_call_is_a_row_of_a_table(call, row):
    assert split_call(call) == row
    assert len(CALL_COLUMNS) == len(row)
