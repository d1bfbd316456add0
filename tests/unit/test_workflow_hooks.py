"""Hooks are told about each step and check; nothing that goes wrong with them fails or delays a run."""

import json
import threading
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from testyard.core.redact import secrets_in_use
from testyard.workflow import hooks
from testyard.workflow.hooks import EventFile, Webhook
from workflow_engine_support import World

INIT = {"step": "init"}
LOOK = {"step": "validate", "checks": ["cluster_status"]}
EVENTS = [
    *("suite_started", "step_started", "step_finished", "step_started"),
    *("check_finished", "step_finished", "suite_finished"),
]
SECRET = "0b5c9b1e-hook-secret"


class Receiver:
    """A monitoring system.

    Attributes:
        received: The events that came, in order.
        status: What it answers.
        answers: Cleared, it does not answer.
    """

    def __init__(self):
        receiver = self
        self.received, self.status, self.answers = [], 204, threading.Event()
        self.answers.set()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.received.append((self.path, self.headers["Content-Type"], json.loads(body)))
                receiver.answers.wait(20)
                self.send_response(receiver.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hooks/{SECRET}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()

    def close(self):
        self.answers.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


@pytest.fixture
def receiver():
    receiver = Receiver()
    yield receiver
    receiver.close()


def run(world, *steps, **suite):
    return world.executor().run(world.parse(*steps, **suite).suite())


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_file_gets_a_line_for_each_event_beside_the_results(world):
    result = run(world, INIT, LOOK, hooks=[{"file": "logs/events.jsonl"}])
    events = lines(world.directory / "logs" / "events.jsonl")
    assert [event["event"] for event in events] == EVENTS
    assert all(event["deployment_id"] == result.deployment_id for event in events)
    assert {(event["suite"], event["provider"]) for event in events} == {("basic", "libvirt")}
    assert events[2]["step"]["status"] == "completed"
    assert events[4]["check"] == {
        "check": "cluster_status",
        "passed": True,
        "attempts": 1,
        "allow_failure": False,
        "error": None,
        "measured": "as it should be",
    }
    assert events[6]["result"]["success"] is True
    assert result.logs == []


def test_a_webhook_gets_each_event_in_order(world, receiver):
    result = run(world, INIT, LOOK, hooks=[{"webhook": receiver.url}])
    assert [event["event"] for _, _, event in receiver.received] == EVENTS
    assert {(path, kind) for path, kind, _ in receiver.received} == {(f"/hooks/{SECRET}", "application/json")}
    assert result.success
    assert result.logs == []


def test_a_hook_gets_only_the_events_that_it_asks_for(world, receiver):
    wanted = ["step_finished", "suite_finished"]
    run(
        world,
        INIT,
        LOOK,
        hooks=[{"webhook": receiver.url, "events": wanted}, {"file": "e.jsonl", "events": wanted}],
    )
    expected = ["step_finished", "step_finished", "suite_finished"]
    assert [event["event"] for _, _, event in receiver.received] == expected
    assert [event["event"] for event in lines(world.directory / "e.jsonl")] == expected


def test_hooks_are_told_of_a_run_that_fails_or_is_aborted(world):
    world.fail("init", RuntimeError("it broke"), KeyboardInterrupt())
    run(world, INIT, hooks=[{"file": "e.jsonl"}])
    with pytest.raises(KeyboardInterrupt):
        run(world, INIT, hooks=[{"file": "e.jsonl"}])
    ends = [event["result"]["error"] for event in lines(world.directory / "e.jsonl") if "result" in event]
    assert ends == ["1 workflow step(s) failed", "Aborted: KeyboardInterrupt"]


def test_a_webhook_that_refuses_does_not_fail_the_run_but_is_told_without_its_path(world, receiver):
    receiver.status = 403
    result = run(world, INIT, LOOK, hooks=[{"webhook": receiver.url}])
    assert result.success
    assert result.logs == ["Hook http://127.0.0.1: 7 of 7 events were not sent: answered 403."]
    assert world.written()["logs"] == result.logs


def test_a_webhook_that_keeps_failing_is_given_up(world, receiver):
    receiver.status = 500
    run(world, *[INIT] * 10, hooks=[{"webhook": receiver.url}])
    assert len(receiver.received) == hooks.MOST_FAILURES


def test_a_webhook_that_nobody_answers_is_told(world, receiver):
    url = receiver.url
    receiver.close()
    assert run(world, INIT, hooks=[{"webhook": url}]).logs == [
        "Hook http://127.0.0.1: 4 of 4 events were not sent: ConnectError."
    ]


@pytest.mark.parametrize(
    "url", ["http://[broken", "http://127.0.0.1:99999/x", "http:///x", "https://:443", "http://h:0"]
)
def test_a_webhook_with_a_wrong_address_is_told_before_anything_starts(world, url):
    problems = world.problems(INIT, hooks=[{"webhook": url}])
    assert len(problems) == 1
    assert problems[0].startswith("hooks[0].webhook: ")


def test_a_webhook_that_does_not_answer_delays_no_step_and_ends_by_itself(receiver, monkeypatch):
    monkeypatch.setattr(hooks, "FLUSH", timedelta(seconds=0.2))
    receiver.answers.clear()
    hook = Webhook(receiver.url, timeout=timedelta(seconds=30))
    for _ in range(3):
        hook.tell({"event": "step_started"})
    assert hook.close() == [
        "Hook http://127.0.0.1: 3 of 3 events were not sent: not done 0.2 s after the end of the run."
    ]


def test_a_file_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    hook = EventFile(tmp_path / "file" / "events.jsonl")
    hook.tell({"event": "step_started"})
    hook.tell({"event": "step_finished"})
    assert len(hook.close()) == 1
    hook = EventFile(tmp_path)
    hook.tell({"event": "step_started"})
    assert hook.close() == [f"Hook {tmp_path}: 1 events were not written: Is a directory."]


def test_a_secret_reaches_no_hook(world, receiver):
    secrets_in_use.add(SECRET)
    world.steps.register("leak", "Leak", lambda context, step: {"token": SECRET})
    run(world, {"step": "leak"}, hooks=[{"webhook": receiver.url}], parameters={"password": SECRET})
    assert SECRET not in json.dumps([event for _, _, event in receiver.received])


def test_hooks_of_the_caller_are_told_too_and_closed(world):
    hook = EventFile(world.directory / "mine.jsonl", ["suite_finished"])
    world.run(INIT, hooks=[hook])
    assert [event["event"] for event in lines(world.directory / "mine.jsonl")] == ["suite_finished"]
