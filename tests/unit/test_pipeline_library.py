"""PipelineLibrary and what it calls: what is sent, what is checked, and what a tester is told when it fails."""

from collections.abc import Iterator
from datetime import timedelta

import httpx
import pytest
import requests
from http_support import answer_with
from pipeline_library_support import START, Service, Sessions
from PipelineLibrary import PipelineLibrary
from robot.api import logger
from robot.api.types import Secret
from testyard.core.errors import NotMetError, UserError
from testyard.core.json_client import JsonClient, UnexpectedAnswerError, UnreachableError
from testyard.core.redact import secrets_in_use
from testyard.pipelines.history import RunState
from testyard.pipelines.service import MOST_RUNS, PipelineService, count_by_state

ADDRESS = "http://pipelines.example"
ADMIN_KEY = "admin-key-of-nobody-0001"
API_KEY = "acme_api_key-of-nobody-0002"
AT_ONCE = timedelta()
HOUR = timedelta(hours=1)


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

    monkeypatch.setattr("PipelineLibrary.customers.BuiltIn", BuiltIn)
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


def test_pipelines_are_configured_as_their_customer_and_come_back_in_order(library, service, tables):
    library.act_as_customer("acme", Secret(API_KEY))
    domains = ["COST", "SECURITY", "COMPLIANCE", "OBSERVABILITY", "COST"]
    made = library.configure_pipelines("acme", [_pipeline(domain) for domain in domains])
    assert [configuration["config_id"] for configuration in made] == [f"of-{domain}" for domain in domains]
    assert {it.headers["X-API-Key"] for it in service.requests} == {API_KEY}
    assert not any("X-Admin-Key" in it.headers for it in service.requests)
    assert "Configured: 5" in tables[-1]
    assert "of-OBSERVABILITY" in tables[-1]


def test_a_refused_pipeline_is_told(library):
    library.act_as_customer("acme", Secret(API_KEY))
    with pytest.raises(UnexpectedAnswerError, match=r"422.*five fields are expected"):
        library.configure_pipelines("acme", [_pipeline("COST"), _pipeline("COST", schedule="whenever")])


def test_pipelines_of_somebody_unknown_are_not_configured(library, service):
    library.act_as_customer("acme", Secret(API_KEY))
    with pytest.raises(UserError, match="Nobody acts as the customer 'globex', expected one of acme"):
        library.configure_pipelines("globex", [_pipeline("COST")])
    assert not service.requests


def _pipeline(domain: str, schedule: str = "0 * * * *") -> dict[str, str]:
    return {"provider": "GCP", "domain": domain, "template_name": "cost_billing", "schedule": schedule}


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


def test_the_queue_is_processed_until_nothing_may_run(library, service):
    service.queued = 3
    assert [answer["processed"] for answer in library.process_all_that_is_due()] == [True] * 3
    assert service.queued == 0
    assert library.process_all_that_is_due() == []


def test_a_queue_without_an_end_is_told(library, service):
    service.queued = 100
    assert len(library.process_all_that_is_due()) == 100
    service.queued = 101
    with pytest.raises(NotMetError, match="After 100 items the queue still had one that may run"):
        library.process_all_that_is_due()


def test_an_empty_queue_is_worked_off_without_moving_the_clock(library, service):
    service.add_run("COMPLETED")
    library.work_off_the_queue()
    assert service.paths == ["GET scheduler/queue/status"]


def test_the_queue_is_worked_off_step_by_step_as_its_runs_end(library, service):
    for number in (1, 2, 3):
        service.add_run("PENDING", ends_at=START + number * HOUR)
    service.queued = 3
    library.work_off_the_queue(step=HOUR)
    assert service.now == START + 3 * HOUR
    assert {run["state"] for run in service.runs} == {"COMPLETED"}
    assert service.queued == 0


def test_a_queue_that_is_never_empty_is_told_with_what_is_left(library, service):
    service.add_run("PENDING")
    service.add_run("SCHEDULED")
    with pytest.raises(NotMetError, match="steps of 0:10:00 the queue still has runs: 1 SCHEDULED, 1 PENDING"):
        library.work_off_the_queue()


def test_a_run_that_goes_on_forever_is_waited_for_no_longer_than_told(library, service):
    service.add_run("RUNNING")
    with pytest.raises(NotMetError, match=r"no run to be RUNNING; the last value was \{'RUNNING': 1\}"):
        library.work_off_the_queue(within=AT_ONCE)


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


def test_retries_fall_due_when_nothing_else_is_left(library, service):
    for hours in (1, 3):
        service.add_run("PENDING", not_before=(START + hours * HOUR).isoformat())
    service.add_run("RUNNING")
    with pytest.raises(NotMetError):
        library.every_run_should_end(within=AT_ONCE, retries_fall_due=True)
    assert service.now == START
    service.runs.pop()
    with pytest.raises(NotMetError):
        library.every_run_should_end(within=AT_ONCE)
    assert service.now == START
    with pytest.raises(NotMetError):
        library.every_run_should_end(within=AT_ONCE, retries_fall_due=True)
    assert service.now == START + 3 * HOUR


def test_what_waits_for_a_worker_is_no_retry_that_falls_due(library, service):
    service.add_run("PENDING", not_before=(START + HOUR).isoformat())
    service.add_run("PENDING", not_before=None)
    with pytest.raises(NotMetError):
        library.every_run_should_end(within=AT_ONCE, retries_fall_due=True)
    assert service.now == START


def test_a_service_that_does_not_tell_of_every_state_cannot_be_waited_for(library, service):
    service.broken = lambda: httpx.Response(200, json={"queued": 0, "running": 0, "completed": 3})
    with pytest.raises(UserError, match=r"queue/status does not tell how many runs are .*scheduled"):
        library.every_run_should_end(within=AT_ONCE)


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
