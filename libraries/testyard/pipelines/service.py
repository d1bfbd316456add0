"""A pipeline scheduling service, as its admin calls it (document 002)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from http import HTTPStatus
from itertools import takewhile
from typing import Any

from testyard.core.deadline import Deadline, wait_until
from testyard.core.errors import NotMetError, UserError
from testyard.core.json_client import JsonClient
from testyard.pipelines.history import ENDS, RunState

API = "/api/v1"
MOST_RUNS = 1000
AT_ONCE = 4
MOST_ROUNDS = 20
MOST_ITEMS = 100
# Document 002, GET /scheduler/queue/status.
QUEUE_STATUS = {
    "scheduled": RunState.SCHEDULED,
    "queued": RunState.PENDING,
    "running": RunState.RUNNING,
    "completed": RunState.COMPLETED,
    "failed": RunState.FAILED,
    "skipped": RunState.SKIPPED,
}


class PipelineService:
    """Reads and drives one service.

    Args:
        client: Calls it with the admin key.
    """

    def __init__(self, client: JsonClient) -> None:
        self._client = client

    def close(self) -> None:
        """Close the pooled connections."""
        self._client.close()

    def runs(self, customer: str | None = None, state: RunState | None = None) -> list[dict[str, Any]]:
        """The runs, oldest first.

        Args:
            customer: Only this customer's; everybody's when None.
            state: Only those in this state.
        """
        filters = {"customer_id": customer, "state": state}
        query = {name: value for name, value in filters.items() if value is not None}
        runs: list[dict[str, Any]] = []
        while True:
            page = {**query, "limit": MOST_RUNS, "offset": len(runs)}
            found = self._client.call("GET", f"{API}/scheduler/scheduled", query=page)
            runs += found
            if len(found) < MOST_RUNS:
                return sorted(runs, key=lambda run: run["queue_position"])

    def counts(self) -> dict[str, int]:
        """How many of everybody's runs are in each state; states without runs are left out.

        Raises:
            UserError: The service does not tell of every state.
        """
        status = self._client.call("GET", f"{API}/scheduler/queue/status")
        if missing := QUEUE_STATUS.keys() - status.keys():
            message = f"GET {API}/scheduler/queue/status does not tell how many runs are {', '.join(missing)}."
            raise UserError(message)
        return {str(state): status[name] for name, state in QUEUE_STATUS.items() if status[name]}

    def run(self, run: str) -> dict[str, Any]:
        """One run with its transitions."""
        answer: dict[str, Any] = self._client.call("GET", f"{API}/pipelines/runs/{run}")
        return answer

    def trigger(self, limit: int | None = None) -> dict[str, Any]:
        """Queue what is due.

        Args:
            limit: How many pipelines at most; all when None.
        """
        query = {} if limit is None else {"limit": limit}
        answer: dict[str, Any] = self._client.call("POST", f"{API}/scheduler/trigger", query=query)
        return answer

    def delete_customer(self, customer: str) -> bool:
        """Delete a customer with all that belongs to them; returns whether there was one."""
        answer = self._client.send("DELETE", f"{API}/customers/{customer}")
        if answer.status_code not in {HTTPStatus.OK, HTTPStatus.NOT_FOUND}:
            message = f"The customer {customer} cannot be deleted: {answer.status_code} {answer.text[:200]}"
            raise UserError(message)
        return answer.status_code == HTTPStatus.OK

    def process(self) -> dict[str, Any]:
        """Process the next item of the queue."""
        answer: dict[str, Any] = self._client.call("POST", f"{API}/scheduler/process")
        return answer

    def process_at_most(self, count: int) -> list[dict[str, Any]]:
        """Process the queue until nothing in it may run, or so many items were; returns the answers for items."""
        answers = (self.process() for _ in range(count))
        return list(takewhile(lambda answer: answer["processed"], answers))

    def process_all(self) -> list[dict[str, Any]]:
        """Process the queue until nothing in it may run; returns the answers, one for each item.

        Raises:
            NotMetError: After very many items there was still one.
        """
        answers = self.process_at_most(MOST_ITEMS + 1)
        if len(answers) > MOST_ITEMS:
            message = f"After {MOST_ITEMS} items the queue still had one that may run."
            raise NotMetError(message)
        return answers

    def work_off_queue(self, step: timedelta, within: timedelta) -> None:
        """Process what waits and let time pass, until nothing waits or runs.

        Args:
            step: How far the clock is moved for what waits for a retry, or takes its time.
            within: How long the runs may need to end, each time.

        Raises:
            NotMetError: Something still does, after many steps; tells how many runs are in each state.
        """
        for _ in range(MOST_ROUNDS):
            busy = self._busy()
            if not busy:
                return
            self.process_at_most(busy.get(RunState.PENDING, 0) + 1)
            self.advance_clock(step)
            wait_until(
                self._busy, lambda busy: RunState.RUNNING not in busy, Deadline(within), "no run to be RUNNING"
            )
        if busy := self._busy():
            left = ", ".join(f"{count} {state}" for state, count in busy.items())
            message = f"After {MOST_ROUNDS} steps of {step} the queue still has runs: {left}."
            raise NotMetError(message)

    def _busy(self) -> dict[str, int]:
        return {state: count for state, count in self.counts().items() if state not in ENDS}

    def now(self) -> datetime:
        """The service's test clock."""
        return datetime.fromisoformat(self._client.call("GET", f"{API}/test-clock")["now"])

    def move_clock(self, to: datetime) -> None:
        """Set the service's test clock, which goes forward only."""
        self._client.call("PUT", f"{API}/test-clock", body={"now": to.isoformat()})

    def advance_clock(self, by: timedelta) -> datetime:
        """Move the service's test clock forward from what it shows; returns its new time."""
        answer = self._client.call("POST", f"{API}/test-clock/advance", body={"seconds": by.total_seconds()})
        return datetime.fromisoformat(answer["now"])

    def follow_schedule(self, until: datetime) -> list[tuple[datetime, int]]:
        """Move the test clock to each time that is due, trigger the scheduler there, and work off its queue.

        Args:
            until: The last time that may be due.

        Returns:
            Each time, and how many runs it made.

        Raises:
            NotMetError: Nothing was due, or the next time is not later than the clock.
        """
        followed: list[tuple[datetime, int]] = []
        moment = self.now()
        answer = self.trigger()
        while answer["next_trigger_time"] is not None:
            due = datetime.fromisoformat(answer["next_trigger_time"])
            if due <= moment:
                shown = due.isoformat()
                message = f"At {moment.isoformat()} the scheduler's next time is {shown}, expected a later one."
                raise NotMetError(message)
            if due > until:
                break
            moment = due
            self.move_clock(moment)
            answer = self.trigger()
            followed.append((moment, answer["triggered_count"]))
            while self.process()["processed"]:
                pass
        if not followed:
            message = (
                f"No pipeline is due until {until.isoformat()}; next: {answer['next_trigger_time'] or 'never'}."
            )
            raise NotMetError(message)
        return followed

    def wait_for_runs(
        self, customer: str | None, state: RunState, count: int, within: timedelta
    ) -> list[dict[str, Any]]:
        """Wait until exactly so many runs are in a state.

        Raises:
            NotMetError: Another number; tells how many are in each state.
        """
        whose = f"of {customer} " if customer else ""
        runs: list[dict[str, Any]] = []

        def look() -> dict[str, int]:
            runs[:] = self.runs(customer)
            return count_by_state(runs)

        wait_until(
            look,
            lambda counts: counts.get(state, 0) == count,
            Deadline(within),
            f"{count} runs {whose}to be {state}",
        )
        return [run for run in runs if run["state"] == state]

    def wait_until_ended(self, within: timedelta, *, retries_fall_due: bool = False) -> dict[str, int]:
        """Wait until no run is waiting or running.

        Args:
            within: Give up after this time.
            retries_fall_due: Whether the test clock is moved when nothing but retries waits.

        Returns:
            How many runs are in each state.

        Raises:
            NotMetError: Some are; tells how many are in each state.
        """

        def look() -> dict[str, int]:
            counts = self.counts()
            if retries_fall_due and set(counts) - ENDS == {RunState.PENDING}:
                self._let_retries_fall_due()
            return counts

        return wait_until(look, lambda counts: not set(counts) - ENDS, Deadline(within), "every run to end")

    def _let_retries_fall_due(self) -> None:
        pending = self.runs(state=RunState.PENDING)
        if pending and all(run["not_before"] for run in pending):
            last = max(datetime.fromisoformat(run["not_before"]) for run in pending)
            if last > self.now():
                self.move_clock(last)

    def wait_for_run(
        self, run: str, state: RunState, within: timedelta, retry_attempt: int | None
    ) -> dict[str, Any]:
        """Wait until a run is in a state, and where asked for, at a certain retry.

        Raises:
            NotMetError: It is not; tells its state, its retry and its message.
        """
        found: dict[str, Any] = {}

        def present() -> tuple[str, int, str | None]:
            found.update(self.run(run))
            return found["state"], found["retry_attempt"], found["error_message"]

        wait_until(
            present,
            lambda seen: seen[0] == state and retry_attempt in {None, seen[1]},
            Deadline(within),
            f"run {run} to be {state}" + ("" if retry_attempt is None else f" at retry {retry_attempt}"),
        )
        return found

    def check_way(self, run: str, *states: RunState) -> None:
        """Check which states a run has gone through.

        Raises:
            NotMetError: Others; names both.
        """
        gone = [step["to_state"] for step in self.run(run)["transitions"]]
        if gone != list(states):
            message = (
                f"Run {run} should have gone through {', '.join(states)}, but went through {', '.join(gone)}."
            )
            raise NotMetError(message)


def configure_pipelines(url: str, api_key: str, pipelines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Configure pipelines of a customer, several at the same time.

    Args:
        url: Where the service is.
        api_key: The customer's.
        pipelines: The bodies of the calls.

    Returns:
        The configurations, in the order of the pipelines.

    Raises:
        UnexpectedAnswerError: One was refused; tells why. Others may have been made.
    """
    with (
        JsonClient(url, headers={"X-API-Key": api_key}, secret=api_key, name="the pipeline service") as customer,
        ThreadPoolExecutor(AT_ONCE) as threads,
    ):

        def configure(pipeline: Mapping[str, Any]) -> dict[str, Any]:
            answer: dict[str, Any] = customer.call("POST", f"{API}/customers/pipelines/configure", body=pipeline)
            return answer

        return list(threads.map(configure, pipelines))


def count_by_state(runs: list[dict[str, Any]]) -> dict[str, int]:
    """How many runs are in each state."""
    return dict(Counter(run["state"] for run in runs))
