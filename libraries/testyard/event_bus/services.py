"""The services' HTTP interfaces, as a tester sees them (document 004; contract page "event-bus", 3.8 and 3.9)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from testyard.core.deadline import Deadline, wait_until
from testyard.core.errors import NotMetError, UserError
from testyard.core.json_client import JsonClient, UnexpectedAnswerError, UnreachableError
from testyard.event_bus.files import TextFile
from testyard.event_bus.measuring import requests_not_logged
from testyard.event_bus.traces import Caller, Trace, only_trace

STAMPING_API: Final = "/api/v1/metadata-stamping"
WORKFLOWS: Final = "/api/v1/workflows"
EVENTS: Final = "/api/v1/events"
MOST_AT_ONCE: Final = 1000
FINAL: Final = ("COMPLETED", "FAILED")
STATES: Final = ("closed", "open", "half_open")


@dataclass
class EventBus:
    """The services of one event bus.

    Args:
        urls: Where each service answers, by its name.
        timeout: For each request.
    """

    urls: Mapping[str, str]
    timeout: timedelta = timedelta(seconds=30)
    _clients: dict[str, JsonClient] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        for name, url in self.urls.items():
            if url:
                self._clients[name] = JsonClient(
                    url, headers={}, secret="", name=f"The {name}", timeout=self.timeout
                )

    def close(self) -> None:
        """Close the pooled connections."""
        for client in self._clients.values():
            client.close()

    def client(self, service: str) -> JsonClient:
        """Calls one service.

        Raises:
            UserError: It was not named.
        """
        found = self._clients.get(service)
        if found is None:
            named = ", ".join(self._clients) or "none"
            message = f"The service {service!r} of the event bus was not named when connecting; named: {named}."
            raise UserError(message)
        return found

    # Workflows.

    def run_workflow(
        self, file: TextFile, *, headers: Mapping[str, str] | None = None, **options: Any
    ) -> dict[str, Any]:
        """Have a file stamped by a workflow, and wait until it has ended."""
        answer: dict[str, Any] = self.client("orchestrator").call(
            "POST", WORKFLOWS, body=_request(file, options), headers=headers
        )
        return answer

    def submit_workflows(self, files: Sequence[TextFile], **options: Any) -> list[dict[str, Any]]:
        """Have files stamped, without waiting; returns the workflows' ids."""
        accepted: list[dict[str, Any]] = []
        for start in range(0, len(files), MOST_AT_ONCE):
            body = {"workflows": [_request(file, options) for file in files[start : start + MOST_AT_ONCE]]}
            answer = self.client("orchestrator").call("POST", f"{WORKFLOWS}/batch", body=body, expect=(202,))
            accepted += answer["workflows"]
        return accepted

    def workflow(self, workflow_id: str) -> dict[str, Any]:
        """How a workflow is."""
        answer: dict[str, Any] = self.client("orchestrator").call("GET", f"{WORKFLOWS}/{workflow_id}")
        return answer

    def wait_for_the_end(self, count: int, within: timedelta) -> dict[str, Any]:
        """Wait until no workflow is in flight and so many have ended since the orchestrator started.

        Raises:
            NotMetError: Some have not, in time.
        """

        def ended(metrics: dict[str, Any]) -> bool:
            return not metrics["in_flight"] and metrics["completed"] + metrics["failed"] >= count

        return wait_until(
            lambda: {
                name: value
                for name, value in self.metrics("orchestrator").items()
                if name in {"in_flight", "most_in_flight", "accepted", "completed", "failed", "resumed"}
            },
            ended,
            Deadline(within),
            f"{count} workflows to have ended",
        )

    def publish(self, events: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Publish events by the orchestrator's publisher; each answer says whether it was sent or waits."""
        answers: list[dict[str, Any]] = []
        for start in range(0, len(events), MOST_AT_ONCE):
            body = {"events": list(events[start : start + MOST_AT_ONCE])}
            answers += self.client("orchestrator").call("POST", EVENTS, body=body)["events"]
        return answers

    # Stamping.

    def stamp(self, file: TextFile, **options: Any) -> dict[str, Any]:
        """Stamp a file; returns the answer's data."""
        return self._stamping("POST", "/stamp", {"content": file.content, "file_path": file.path, **options})

    def hash(self, file: TextFile) -> dict[str, Any]:
        """Have a file hashed; returns the answer's data."""
        files = {"file": (file.path, file.content.encode())}
        answer = self.client("stamping").call("POST", f"{STAMPING_API}/hash", files=files)
        data: dict[str, Any] = answer["data"]
        return data

    def stamp_together(self, files: Sequence[TextFile], **options: Any) -> dict[str, Any]:
        """Stamp several files with one request; returns the answer's data."""
        items = [{"content": file.content, "file_path": file.path, **options} for file in files]
        return self._stamping("POST", "/batch", {"items": items})

    def validate(self, content: str) -> dict[str, Any]:
        """Check a stamped content; returns the answer's data."""
        return self._stamping("POST", "/validate", {"content": content})

    def find_stamp(self, file_hash: str, namespace: str | None = None) -> dict[str, Any]:
        """Find a stamp by its file's hash; returns the answer's data."""
        query = {"namespace": namespace} if namespace else {}
        answer = self.client("stamping").call("GET", f"{STAMPING_API}/stamp/{file_hash}", query=query)
        data: dict[str, Any] = answer["data"]
        return data

    def _stamping(self, method: str, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        data: dict[str, Any] = self.client("stamping").call(method, f"{STAMPING_API}{path}", body=body)["data"]
        return data

    # OnexTree and discovery.

    def read_project(self, directory: str) -> dict[str, Any]:
        """Let OnexTree read a project; returns how much it has found."""
        answer: dict[str, Any] = self.client("onextree").call(
            "POST", "/generate", body={"project_root": directory}
        )
        return answer

    def locate(self, name: str) -> dict[str, Any]:
        """Where a service is, as discovery tells."""
        answer: dict[str, Any] = self.client("discovery").call("GET", f"/services/{name}")
        return answer

    def wait_for_source(self, name: str, source: str, within: timedelta) -> dict[str, Any]:
        """Wait until discovery knows a service from a source.

        Raises:
            NotMetError: It does not, in time.
        """

        def located() -> dict[str, Any]:
            try:
                return self.locate(name)
            except UnexpectedAnswerError as problem:
                return {"source": None, "problem": str(problem)}

        return wait_until(
            located,
            lambda found: bool(found["source"] == source),
            Deadline(within),
            f"the service {name} to be located by {source}",
        )

    # Traces.

    def spans_of(self, trace_id: str) -> list[dict[str, Any]]:
        """What all services keep of a trace."""
        spans: list[dict[str, Any]] = []
        for client in self._clients.values():
            spans += client.call("GET", "/traces", query={"trace_id": trace_id})["spans"]
        return spans

    def wait_for_trace(self, caller: Caller, services: Sequence[str], within: timedelta) -> Trace:
        """Wait until services have done their part of a trace, and have ended whatever caused something in it.

        Args:
            caller: Who began it from outside.
            services: Such as ``orchestrator``.
            within: Give up after this time; a cause that is missing then is missing in what is returned.

        Raises:
            NotMetError: A service has no part in it, in time; tells who has.
        """
        deadline = Deadline(within)
        wait_until(
            lambda: sorted({span["service"] for span in self.spans_of(caller.trace_id)}),
            lambda found: set(services) <= set(found),
            deadline,
            f"the trace {caller.trace_id} to go through {', '.join(services)}",
        )
        try:
            # A cause ends after what it has caused, and is told of only then.
            return wait_until(
                lambda: only_trace(self.spans_of(caller.trace_id)),
                lambda found: all(it.parent_id == caller.span_id for it in found.orphans()),
                deadline,
                "every cause to end",
            )
        except NotMetError:
            return only_trace(self.spans_of(caller.trace_id))

    # Operations.

    def health(self, service: str) -> dict[str, Any]:
        """What a service says of itself."""
        answer: dict[str, Any] = self.client(service).call("GET", "/health")
        return answer

    def metrics(self, service: str) -> dict[str, Any]:
        """What a service counts."""
        answer: dict[str, Any] = self.client(service).call("GET", "/metrics")
        return answer

    def answers(self, service: str) -> bool:
        """Whether a service answers at all."""
        try:
            self.health(service)
        except (UnreachableError, UnexpectedAnswerError):
            return False
        return True

    def wait_for_status(self, service: str, status: str, reason: str, within: timedelta) -> dict[str, Any]:
        """Wait until a service says how it is.

        Args:
            service: Which one.
            status: ``healthy``, ``degraded`` or ``unhealthy``.
            reason: What one of its reasons contains; empty: any.
            within: Give up after this time.

        Raises:
            NotMetError: It does not, in time; tells what it says.
        """
        return wait_until(
            lambda: self.health(service),
            lambda told: told["status"] == status and (not reason or any(reason in it for it in told["reasons"])),
            Deadline(within),
            f"the {service} to be {status}" + (f" because of {reason!r}" if reason else ""),
        )

    def breaker(self, service: str, name: str) -> dict[str, Any]:
        """What a circuit breaker of a service knows.

        Raises:
            UserError: It has none of that name.
        """
        found: dict[str, Any] = self.client(service).call("GET", "/breakers")
        if name not in found:
            message = f"The {service} has no circuit breaker {name!r}, expected one of {', '.join(found)}."
            raise UserError(message)
        told: dict[str, Any] = found[name]
        return told

    def wait_for_breaker(self, service: str, name: str, state: str, within: timedelta) -> dict[str, Any]:
        """Wait until a circuit breaker is in a state.

        Raises:
            NotMetError: It is not, in time; tells its state and its failures.
            UserError: There is no such state or breaker.
        """
        if state not in STATES:
            message = f"A circuit breaker is {', '.join(STATES)}, found {state!r}."
            raise UserError(message)
        deadline = Deadline(within)
        interval = timedelta(milliseconds=10)
        try:
            wait_until(
                lambda: self.breaker(service, name)["state"],
                lambda found: found == state,
                deadline,
                f"the circuit breaker {name} of the {service} to be {state}",
                interval=interval,
            )
        except NotMetError as problem:
            transitions = self.breaker(service, name)["transitions"]
            message = f"{problem} Its last changes: {transitions[-3:]}."
            raise NotMetError(message) from None
        return self.breaker(service, name)

    def wait_for_changes(self, service: str, name: str, states: Sequence[str], within: timedelta) -> None:
        """Wait until the last changes of a circuit breaker led from one state to the next.

        Raises:
            NotMetError: They did not, in time; tells its last changes.
        """
        wait_until(
            lambda: [it["to"] for it in self.breaker(service, name)["transitions"]][-len(states) :],
            lambda found: found == list(states),
            Deadline(within),
            f"the circuit breaker {name} of the {service} to have been {', then '.join(states)}",
            interval=timedelta(milliseconds=10),
        )

    def reset_breaker(self, service: str, name: str) -> None:
        """Close a circuit breaker, as an operator does."""
        self.client(service).call("POST", f"/breakers/{name}/reset")

    def opening_times(self, service: str, name: str, file: TextFile, count: int) -> list[timedelta]:
        """Let a circuit breaker open again and again: workflows that fail open it, then an operator resets it.

        Whom the breaker protects must be away, so that workflows fail there at once.

        Args:
            service: Whose breaker.
            name: Which one.
            file: What the workflows stamp.
            count: How often.

        Returns:
            How long it took each time from when its number of workflows was submitted until the breaker was seen
            open: more than from the last failure.

        Raises:
            NotMetError: It did not open after its number of failures.
        """
        failures = self.breaker(service, name)["configuration"]["failures"]
        times = []
        with requests_not_logged():
            for _ in range(count):
                self.reset_breaker(service, name)
                deadline = Deadline(timedelta(seconds=1))
                self.submit_workflows([file] * failures)
                self.wait_for_breaker(service, name, "open", timedelta(seconds=1))
                times.append(deadline.elapsed)
        return times


def _request(file: TextFile, options: Mapping[str, Any]) -> dict[str, Any]:
    return {"content": file.content, "file_path": file.path, **options}
