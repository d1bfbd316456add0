"""PipelineLibrary and what it calls: what is sent, what is checked, and what a tester is told when it fails."""

import base64
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
import requests
from http_support import answer_with
from PipelineLibrary import RUN_COLUMNS, PipelineLibrary
from robot.api import logger
from robot.api.types import Secret
from testyard.core.errors import NotMetError, UserError
from testyard.core.json_client import JsonClient, UnexpectedAnswerError, UnreachableError
from testyard.core.redact import secrets_in_use
from testyard.pipelines.history import RunState
from testyard.pipelines.secrecy import check_none_is_in
from testyard.pipelines.service import MOST_RUNS, PipelineService, count_by_state

ADDRESS = "http://pipelines.example"
ADMIN_KEY = "admin-key-of-nobody-0001"
API_KEY = "acme_api_key-of-nobody-0002"
AT_ONCE = timedelta()
START = datetime(2026, 3, 2, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


class Service:
    """A pipeline service in a few lines: a clock, hourly times, a queue, and runs as they are told."""

    def __init__(self) -> None:
        self.now = START
        self.times = [START + HOUR, START + 2 * HOUR, START + 3 * HOUR]
        self.is_stuck = False
        self.queued = 0
        self.runs: list[dict[str, Any]] = []
        self.requests: list[httpx.Request] = []
        self.lock = threading.Lock()
        self.broken: Callable[[], httpx.Response] | None = None

    def handle(self, request: httpx.Request) -> httpx.Response:
        """Answer one request."""
        self.requests.append(request)
        if self.broken is not None:
            return self.broken()
        match request.method, request.url.path.removeprefix("/api/v1/").split("/"):
            case "GET", ["test-clock"]:
                answer: Any = {"now": self.now.isoformat()}
            case "PUT", ["test-clock"]:
                self.now = datetime.fromisoformat(json.loads(request.content)["now"])
                answer = {"now": self.now.isoformat()}
            case "POST", ["scheduler", "trigger"]:
                answer = self.trigger()
            case "POST", ["scheduler", "process"]:
                answer = {"processed": self.queued > 0, "run_id": "run-1"}
                self.queued = max(self.queued - 1, 0)
            case "GET", ["scheduler", "scheduled"]:
                answer = self.page(request.url.params)
            case "GET", ["pipelines", "runs", run]:
                answer = next(it for it in self.runs if it["run_id"] == run)
            case _:
                return httpx.Response(404, json={"detail": "there is no such thing"})
        return httpx.Response(200, json=answer)

    def trigger(self) -> dict[str, Any]:
        """Queue what is due."""
        with self.lock:
            return self.trigger_alone()

    def trigger_alone(self) -> dict[str, Any]:
        """Queue what is due, with nobody else at it."""
        due = [time for time in self.times if time <= self.now]
        if not self.is_stuck:
            self.times = [time for time in self.times if time > self.now]
        self.queued += len(due)
        later = self.times[0].isoformat() if self.times else None
        return {"triggered_count": len(due), "next_trigger_time": later}

    def page(self, query: httpx.QueryParams) -> list[dict[str, Any]]:
        """A part of the runs, the latest first."""
        found = [run for run in reversed(self.runs) if query.get("state") in {None, run["state"]}]
        found = [run for run in found if query.get("customer_id") in {None, run["customer_id"]}]
        offset = int(query["offset"])
        return found[offset : offset + int(query["limit"])]

    def add_run(self, state: str, customer: str = "acme", **fields: Any) -> None:
        """A run, later than those before."""
        number = len(self.runs) + 1
        self.runs.append(
            {
                **dict.fromkeys(RUN_COLUMNS),
                "run_id": f"run-{number}",
                "queue_position": number,
                "customer_id": customer,
                "state": state,
                "retry_attempt": 0,
                **fields,
            }
        )

    @property
    def paths(self) -> list[str]:
        """What was asked, without the beginning that all have."""
        return [f"{it.method} {it.url.path.removeprefix('/api/v1/')}" for it in self.requests]


class Sessions:
    """Stands for RequestsLibrary: keeps the sessions that were opened."""

    def __init__(self) -> None:
        self.opened: dict[str, requests.Session] = {}

    def create_session(self, name: str, url: str, *, headers: dict[str, str]) -> requests.Session:
        """As RequestsLibrary's keyword."""
        session = requests.Session()
        session.headers.update(headers)
        session.headers["address"] = url
        self.opened[name] = session
        return session


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Service:
    service = Service()
    answer_with(service.handle, monkeypatch)
    return service


@pytest.fixture
def backend(service: Service) -> Iterator[PipelineService]:
    client = JsonClient(
        ADDRESS,
        headers={"X-Admin-Key": ADMIN_KEY},
        secret=ADMIN_KEY,
        name="the pipeline service",
    )
    backend = PipelineService(client)
    yield backend
    backend.close()


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sessions]:
    sessions = Sessions()

    class BuiltIn:
        """Robot Framework's, as far as it is asked."""

        def get_library_instance(self, name: str) -> Sessions:
            """Of RequestsLibrary."""
            assert name == "RequestsLibrary"
            return sessions

    monkeypatch.setattr("PipelineLibrary.BuiltIn", BuiltIn)
    yield sessions
    for session in sessions.opened.values():
        session.close()


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the library logs."""
    logged: list[str] = []
    monkeypatch.setattr(logger, "info", lambda message, **_: logged.append(message))
    return logged


@pytest.fixture
def library(service: Service, sessions: Sessions, tables: list[str]) -> Iterator[PipelineLibrary]:
    library = PipelineLibrary()
    library.connect_to_pipeline_service(ADDRESS, Secret(ADMIN_KEY))
    yield library
    library.close()


# ---- who calls


def test_the_admin_key_goes_with_every_call_and_session_and_is_masked(library, service, sessions):
    library.trigger_the_scheduler_at_once(1)
    assert service.requests[0].headers["X-Admin-Key"] == ADMIN_KEY
    assert sessions.opened["admin"].headers["X-Admin-Key"] == ADMIN_KEY
    assert sessions.opened["admin"].headers["address"] == ADDRESS
    assert ADMIN_KEY not in secrets_in_use.mask(f"the key {ADMIN_KEY}")


def test_an_admin_key_with_a_line_end_is_refused_without_showing_it(sessions):
    with pytest.raises(UserError, match=r"X-Admin-Key cannot be sent: .* Was it read from a file\?") as refused:
        PipelineLibrary().connect_to_pipeline_service(ADDRESS, Secret("a-key-with\n"))
    assert "a-key-with" not in str(refused.value)
    assert not sessions.opened


def test_a_customers_session_carries_their_key_only(library, sessions):
    library.act_as_customer("acme", Secret(API_KEY))
    assert sessions.opened["acme"].headers["X-API-Key"] == API_KEY
    assert "X-Admin-Key" not in sessions.opened["acme"].headers
    assert API_KEY not in secrets_in_use.mask(f"the key {API_KEY}")


def test_a_key_in_an_answer_is_masked_before_anybody_logs_the_answer(library, sessions):
    answer = requests.Response()
    answer._content = b'{"api_key": "key-in-an-answer-3"}'
    for hook in sessions.opened["admin"].hooks["response"]:
        hook(answer, timeout=1)
    assert secrets_in_use.mask("the key-in-an-answer-3") == "the ***"


@pytest.mark.parametrize("content", [b"<html>", b"[1]", b'{"api_key": null}'])
def test_an_answer_without_a_key_is_left_to_those_who_read_it(library, sessions, content):
    answer = requests.Response()
    answer._content = content
    assert [hook(answer) for hook in sessions.opened["admin"].hooks["response"]] == [None]


@pytest.mark.parametrize("keyword", ["trigger_the_scheduler_at_once", "process_queue_items"])
def test_without_a_service_a_keyword_says_what_to_do(keyword):
    with pytest.raises(UserError, match="No pipeline service is in use: 'Connect To Pipeline Service' first"):
        getattr(PipelineLibrary(), keyword)(1)


def test_after_close_no_service_is_in_use(library):
    library.close()
    with pytest.raises(UserError, match="No pipeline service is in use"):
        library.runs_of()


def test_a_customers_id_is_its_name_with_the_runs_mark():
    one, other = PipelineLibrary(), PipelineLibrary()
    assert one.id_of_customer("acme").startswith("acme_ty")
    assert one.id_of_customer("acme") == one.id_of_customer("acme") != other.id_of_customer("acme")


# ---- secrets that must not be readable


@pytest.mark.parametrize(
    "form",
    [
        lambda clear: clear,
        lambda clear: clear.encode(),
        lambda clear: memoryview(clear.encode()),
        lambda clear: base64.b64encode(clear.encode()).decode(),
        lambda clear: "\\x" + clear.encode().hex(),
        lambda clear: {"nested": [clear]},
    ],
)
def test_a_credential_that_can_be_read_is_found_in_any_form_and_not_shown(form):
    library = PipelineLibrary()
    made_up = library.make_up_credentials("GCP")["private_part"]
    library.made_up_credentials_should_not_be_in([{"provider": "GCP", "row": form("something else")}])
    with pytest.raises(NotMetError, match="The column row holds a credential that can be read") as found:
        library.made_up_credentials_should_not_be_in([{"provider": "GCP"}, {"row": form(made_up)}])
    assert made_up not in str(found.value)
    assert made_up not in secrets_in_use.mask(made_up)


def test_nothing_to_compare_is_no_pass():
    library = PipelineLibrary()
    with pytest.raises(UserError, match="nothing to compare: no credential"):
        library.made_up_credentials_should_not_be_in([{"provider": "GCP"}])
    library.make_up_credentials("GCP")
    with pytest.raises(UserError, match="nothing to compare: no rows"):
        library.made_up_credentials_should_not_be_in([])
    with pytest.raises(UserError, match="nothing to compare: no key"):
        library.api_keys_should_not_be_in([{"key_id": "1"}])


def test_a_key_and_its_hash_are_found_in_a_list_of_keys():
    library = PipelineLibrary()
    key = library.api_key_in({"api_key": API_KEY})
    assert key.value == API_KEY
    library.api_keys_should_not_be_in([{"key_id": "1"}])
    for leak in (API_KEY, hashlib.sha256(API_KEY.encode()).hexdigest()):
        with pytest.raises(NotMetError, match="The column shown holds a key or its hash that can be read"):
            library.api_keys_should_not_be_in([{"key_id": "1"}, {"shown": leak}])


@pytest.mark.parametrize(
    ("answer", "has"),
    [({"key_id": "1", "name": "x"}, "key_id, name"), ({}, "nothing"), ({"api_key": ""}, "api_key")],
)
def test_an_answer_without_a_key_is_told_by_its_fields(answer, has):
    with pytest.raises(UserError, match=f"The answer brings no API key; it has {has}"):
        PipelineLibrary().api_key_in(answer)


def test_a_secret_half_of_which_is_there_is_not_there():
    check_none_is_in([{"row": API_KEY[:-1]}], [API_KEY], "key")


def test_the_only_one_is_returned_and_none_or_several_are_told():
    library = PipelineLibrary()
    items = [{"name": "a"}, {"name": "b"}, {"name": "b"}, {}]
    assert library.only_one_with(iter(items), "name", "a") is items[0]
    with pytest.raises(NotMetError, match=r"2 have name 'b', expected one: \['a', 'b', 'b', None\]"):
        library.only_one_with(items, "name", "b")
    with pytest.raises(NotMetError, match="0 have name 'c', expected one"):
        library.only_one_with(items, "name", "c")


# ---- the queue and the clock


def test_every_caller_triggers(library, service):
    service.now += HOUR
    answers = library.trigger_the_scheduler_at_once(4)
    assert sorted(answer["triggered_count"] for answer in answers) == [0, 0, 0, 1]
    assert service.paths == ["POST scheduler/trigger"] * 4


def test_a_queue_that_is_empty_before_is_told_with_how_many_there_were(library, service):
    service.queued = 2
    with pytest.raises(NotMetError, match="3 items should have been processed, but after 2 the queue had none"):
        library.process_queue_items(3)
    service.queued = 3
    assert len(library.process_queue_items(2)) == 2
    assert service.queued == 1


def test_the_clock_moves_to_a_time_in_utc_or_by_a_duration(library, service):
    assert library.move_the_clock(to=(START + 3 * HOUR).replace(tzinfo=None)) == "2026-03-02T04:00:00+00:00"
    assert service.now == START + 3 * HOUR
    assert library.move_the_clock(by=timedelta(minutes=5)) == "2026-03-02T04:05:00+00:00"
    assert service.now == START + 3 * HOUR + timedelta(minutes=5)


@pytest.mark.parametrize("wanted", [{}, {"to": START, "by": HOUR}])
def test_the_clock_wants_one_of_two(library, service, wanted):
    with pytest.raises(UserError, match="Say either 'to' or 'by'"):
        library.move_the_clock(**wanted)
    assert not service.requests


def test_the_schedule_is_followed_from_time_to_time(library, service, tables):
    assert library.follow_the_schedule(START + 2 * HOUR) == [
        "2026-03-02T02:00:00+00:00",
        "2026-03-02T03:00:00+00:00",
    ]
    assert service.now == START + 2 * HOUR
    assert service.queued == 0
    assert service.times == [START + 3 * HOUR]
    assert "2026-03-02 03:00:00" in tables[-1]


def test_the_schedule_is_followed_until_nothing_is_due_any_more(backend, service):
    assert backend.follow_schedule(START + 9 * HOUR) == [(START + number * HOUR, 1) for number in (1, 2, 3)]


@pytest.mark.parametrize(("times", "later"), [([], "never"), ([START + 5 * HOUR], "2026-03-02T06:00:00")])
def test_a_schedule_without_a_time_is_no_pass(backend, service, times, later):
    service.times = times
    with pytest.raises(NotMetError, match=rf"No pipeline is due until 2026-03-02T04:00:00.*; next: {later}"):
        backend.follow_schedule(START + 3 * HOUR)


def test_a_next_time_that_does_not_move_on_is_told(backend, service):
    service.is_stuck = True
    with pytest.raises(NotMetError, match=r"At 2026-03-02T02.* next time is 2026-03-02T02.*, expected a later"):
        backend.follow_schedule(START + 3 * HOUR)


# ---- runs


def test_runs_are_read_over_all_pages_oldest_first(backend, service):
    for _ in range(MOST_RUNS + 1):
        service.add_run("PENDING")
    assert [run["queue_position"] for run in backend.runs()] == list(range(1, MOST_RUNS + 2))
    assert [it.url.params["offset"] for it in service.requests] == ["0", str(MOST_RUNS)]


def test_runs_are_drawn_as_a_table_in_which_nothing_is_markup(library, service, tables):
    service.add_run("FAILED", error_message="<b>no</b>")
    service.add_run("COMPLETED")
    service.add_run("FAILED", customer="globex")
    assert [run["run_id"] for run in library.runs_of("acme", state=RunState.FAILED)] == ["run-1"]
    assert "Runs: 1" in tables[-1]
    assert "&lt;b&gt;no&lt;/b&gt;" in tables[-1]


def test_runs_in_another_state_are_counted_in_the_message(library, service):
    for state in ("PENDING", "COMPLETED", "PENDING"):
        service.add_run(state)
    service.add_run("COMPLETED", customer="globex")
    assert len(library.runs_should_be("acme", RunState.PENDING, 2, within=AT_ONCE)) == 2
    assert len(library.runs_should_be(None, RunState.COMPLETED, 2, within=AT_ONCE)) == 2
    with pytest.raises(NotMetError, match=r"for 2 runs of acme to be COMPLETED; .*'COMPLETED': 1") as failed:
        library.runs_should_be("acme", RunState.COMPLETED, 2, within=AT_ONCE)
    assert "'PENDING': 2" in str(failed.value)
    with pytest.raises(NotMetError, match="for 1 runs to be FAILED"):
        library.runs_should_be(None, RunState.FAILED, 1, within=AT_ONCE)


def test_a_run_in_another_state_or_retry_is_told_with_both_and_its_message(library, service):
    service.add_run("PENDING", retry_attempt=1, error_message="it was asked to")
    assert library.run_should_become("run-1", RunState.PENDING, within=AT_ONCE)["run_id"] == "run-1"
    assert library.run_should_become("run-1", RunState.PENDING, retry_attempt=1, within=AT_ONCE)
    with pytest.raises(NotMetError, match=r"for run run-1 to be FAILED; .*\('PENDING', 1, 'it was asked to'\)"):
        library.run_should_become("run-1", RunState.FAILED, within=AT_ONCE)
    with pytest.raises(NotMetError, match="for run run-1 to be PENDING at retry 2"):
        library.run_should_become("run-1", RunState.PENDING, retry_attempt=2, within=AT_ONCE)


def test_the_way_of_a_run_is_exactly_the_one_expected(library, service):
    way = (RunState.SCHEDULED, RunState.PENDING, RunState.RUNNING)
    service.add_run("RUNNING", transitions=[{"to_state": state} for state in way])
    library.run_should_have_gone_through("run-1", *way)
    told = "should have gone through {}, but went through SCHEDULED, PENDING, RUNNING"
    with pytest.raises(NotMetError, match=told.format("SCHEDULED, PENDING")):
        library.run_should_have_gone_through("run-1", *way[:2])
    with pytest.raises(NotMetError, match=told.format("PENDING, SCHEDULED, RUNNING")):
        library.run_should_have_gone_through("run-1", way[1], way[0], way[2])


def test_every_run_has_ended_only_when_none_waits_or_runs(library, service):
    for state in ("COMPLETED", "FAILED", "SKIPPED", "COMPLETED"):
        service.add_run(state)
    assert library.every_run_should_end(within=AT_ONCE) == {"COMPLETED": 2, "FAILED": 1, "SKIPPED": 1}
    for state in ("SCHEDULED", "PENDING", "RUNNING"):
        service.add_run(state)
        with pytest.raises(NotMetError, match=f"for every run to end; .*'{state}': 1"):
            library.every_run_should_end(within=AT_ONCE)
        service.runs.pop()


def test_runs_are_counted_by_state():
    assert count_by_state([]) == {}
    assert count_by_state([{"state": "FAILED"}, {"state": "FAILED"}, {"state": "SKIPPED"}]) == {
        "FAILED": 2,
        "SKIPPED": 1,
    }


# ---- a service that does not answer as it should


def _refuse_connection() -> httpx.Response:
    raise httpx.ConnectError("connection refused")


@pytest.mark.parametrize(
    ("broken", "error", "told"),
    [
        (
            _refuse_connection,
            UnreachableError,
            f"at {ADDRESS} cannot be reached: connection",
        ),
        (lambda: httpx.Response(401, json={"detail": "no"}), UnexpectedAnswerError, "answered 401 to POST .*no"),
        (lambda: httpx.Response(503, json={"detail": "away"}), UnexpectedAnswerError, "answered 503 .*away"),
        (
            lambda: httpx.Response(200, text="<html>"),
            UnexpectedAnswerError,
            "expected JSON. Is .* the API's",
        ),
    ],
)
def test_an_unexpected_answer_is_told_with_who_gave_it(library, service, broken, error, told):
    service.broken = broken
    with pytest.raises(error, match=f"the pipeline service {told}|the pipeline service .*{told}"):
        library.process_queue_items(1)


# ---- histories

ROW = {
    "run_id": "run-1",
    "sequence": 1,
    "from_state": None,
    "to_state": "SCHEDULED",
    "at": START,
    "retry_attempt": 0,
    "worker_id": None,
    "not_before": None,
}
LINE = {
    "event": "started",
    "run_id": "run-1",
    "retry_attempt": 0,
    "claim_number": 1,
    "worker": "w",
    "monotonic_ns": 5,
}


def history(*states: str) -> list[dict[str, Any]]:
    """The rows of a run that went through these states."""
    return [
        ROW | {"sequence": number, "from_state": before, "to_state": state, "worker_id": "w"}
        for number, (before, state) in enumerate(zip((None, *states), states, strict=False), 1)
    ]


def test_a_history_that_is_right_says_how_many_executions_were_repeated(library):
    rows = history("SCHEDULED", "PENDING", "RUNNING", "COMPLETED")
    assert library.every_run_should_be_executed_exactly_once(rows) == 0
    lines = [LINE, LINE | {"event": "succeeded", "monotonic_ns": 6}]
    assert library.every_run_should_be_executed_exactly_once(rows, lines) == 0


@pytest.mark.parametrize(
    ("states", "told"),
    [
        (("SCHEDULED", "PENDING", "RUNNING"), "1 violations of exactly once, the first: run-1 is RUNNING"),
        (("SCHEDULED", "RUNNING", "COMPLETED"), "the first: run-1 went from SCHEDULED to RUNNING"),
    ],
)
def test_a_violation_is_told_and_drawn(library, tables, states, told):
    with pytest.raises(NotMetError, match=told):
        library.every_run_should_be_executed_exactly_once(history(*states))
    assert "Violations: 1" in tables[-1]
    assert "run-1" in tables[-1]


def test_no_history_is_no_pass(library):
    with pytest.raises(UserError, match="There are no transitions to check: did any run"):
        library.every_run_should_be_executed_exactly_once([])
