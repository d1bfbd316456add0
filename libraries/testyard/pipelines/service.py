"""A pipeline scheduling service, as its admin calls it (document 002)."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from testyard.core.deadline import Deadline, wait_until
from testyard.core.errors import NotMetError
from testyard.core.json_client import JsonClient
from testyard.pipelines.history import ENDS, RunState

API = "/api/v1"
MOST_RUNS = 1000


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
                return runs

    def run(self, run: str) -> dict[str, Any]:
        """One run with its transitions."""
        answer: dict[str, Any] = self._client.call("GET", f"{API}/pipelines/runs/{run}")
        return answer

    def trigger(self) -> dict[str, Any]:
        """Queue what is due."""
        answer: dict[str, Any] = self._client.call("POST", f"{API}/scheduler/trigger")
        return answer

    def process(self) -> dict[str, Any]:
        """Process the next item of the queue."""
        answer: dict[str, Any] = self._client.call("POST", f"{API}/scheduler/process")
        return answer

    def now(self) -> datetime:
        """The service's test clock."""
        return datetime.fromisoformat(self._client.call("GET", f"{API}/test-clock")["now"])

    def move_clock(self, to: datetime) -> None:
        """Set the service's test clock, which goes forward only."""
        self._client.call("PUT", f"{API}/test-clock", body={"now": to.isoformat()})

    def wait_for_runs(
        self, customer: str | None, state: RunState, count: int, within: timedelta
    ) -> list[dict[str, Any]]:
        """Wait until exactly so many runs are in a state.

        Raises:
            NotMetError: Another number; tells how many are in each state.
        """
        whose = f"of {customer} " if customer else ""
        wait_until(
            lambda: count_by_state(self.runs(customer)),
            lambda counts: counts.get(state, 0) == count,
            Deadline(within),
            f"{count} runs {whose}to be {state}",
        )
        return self.runs(customer, state)

    def wait_until_ended(self, within: timedelta) -> list[dict[str, Any]]:
        """Wait until no run is waiting or running.

        Raises:
            NotMetError: Some are; tells how many are in each state.
        """
        wait_until(
            lambda: count_by_state(self.runs()),
            lambda counts: not set(counts) - ENDS,
            Deadline(within),
            "every run to end",
        )
        return self.runs()

    def wait_for_run(
        self, run: str, state: RunState, within: timedelta, retry_attempt: int | None
    ) -> dict[str, Any]:
        """Wait until a run is in a state, and where asked for, at a certain retry.

        Raises:
            NotMetError: It is not; tells its state, its retry and its message.
        """

        def present() -> tuple[str, int, str | None]:
            found = self.run(run)
            return found["state"], found["retry_attempt"], found["error_message"]

        wait_until(
            present,
            lambda seen: seen[0] == state and retry_attempt in {None, seen[1]},
            Deadline(within),
            f"run {run} to be {state}" + ("" if retry_attempt is None else f" at retry {retry_attempt}"),
        )
        return self.run(run)

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


def count_by_state(runs: list[dict[str, Any]]) -> dict[str, int]:
    """How many runs are in each state."""
    counts: dict[str, int] = {}
    for run in runs:
        counts[run["state"]] = counts.get(run["state"], 0) + 1
    return counts
