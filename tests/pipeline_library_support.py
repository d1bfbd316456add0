"""What PipelineLibrary talks to, in a few lines: a service behind HTTP, and RequestsLibrary's sessions."""

import json
import threading
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import requests
from PipelineLibrary.running import RUN_COLUMNS

START = datetime(2026, 3, 2, 1, tzinfo=UTC)

# A row of run_transitions, and a line of a worker's own log.
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
            case "POST", ["test-clock", "advance"]:
                self.let_pass(timedelta(seconds=json.loads(request.content)["seconds"]))
                answer = {"now": self.now.isoformat()}
            case "POST", ["customers", "pipelines", "configure"]:
                wanted = json.loads(request.content)
                if wanted["schedule"] == "whenever":
                    return httpx.Response(422, json={"detail": "schedule: five fields are expected"})
                answer = {"timezone": "UTC", "priority": 5, **wanted, "config_id": f"of-{wanted['domain']}"}
            case "POST", ["scheduler", "trigger"]:
                answer = self.trigger()
            case "POST", ["scheduler", "process"]:
                answer = {"processed": self.queued > 0, "run_id": "run-1"}
                self.queued = max(self.queued - 1, 0)
            case "GET", ["scheduler", "queue", "status"]:
                states = Counter(run["state"] for run in self.runs)
                names = {"scheduled": "SCHEDULED", "queued": "PENDING", "running": "RUNNING"}
                ends = {name: name.upper() for name in ("completed", "failed", "skipped")}
                answer = {name: states[state] for name, state in (names | ends).items()}
            case "GET", ["scheduler", "scheduled"]:
                answer = self.page(request.url.params)
            case "GET", ["pipelines", "runs", run]:
                answer = next(it for it in self.runs if it["run_id"] == run)
            case _:
                return httpx.Response(404, json={"detail": "there is no such thing"})
        return httpx.Response(200, json=answer)

    def let_pass(self, time: timedelta) -> None:
        """End the runs whose time has come."""
        self.now += time
        for run in self.runs:
            if run.get("ends_at", self.now + HOUR) <= self.now:
                run["state"] = "COMPLETED"

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

    def create_session(
        self, name: str, url: str, *, headers: dict[str, str], max_retries: int
    ) -> requests.Session:
        """As RequestsLibrary's keyword; a repeated call would hide what the first was answered."""
        assert max_retries == 0
        session = requests.Session()
        session.headers.update(headers)
        session.headers["address"] = url
        self.opened[name] = session
        return session
