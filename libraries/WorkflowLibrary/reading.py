"""Keywords that read and check results: what became of a workflow's steps."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from robot.api import logger
from robot.api.deco import keyword
from testyard.core.errors import NotMetError, UserError
from testyard.core.tables import html_table

# What document 003 shows under "Result Structure".
RESULT_KEYS = frozenset({"deployment_id", "success", "duration", "workflow_steps"})
STEP_KEYS = frozenset({"step_type", "description", "status", "duration", "error", "validation_results"})
CHECK_KEYS = frozenset({"check", "passed", "attempts"})
COLUMNS = ("step", "description", "status", "seconds", "error")

Result = dict[str, Any]


class ResultKeywords:
    """Results of workflows, as mappings with the document's keys."""

    @keyword(tags=["Getter"])
    def read_workflow_result(self, file: Path) -> Result:
        """Read a result or a summary that a run has written.

        Args:
            file: The JSON file.

        Raises:
            UserError: There is none, or it is not JSON.

        Example:
            | ${written} = | Read Workflow Result | ${result}[results_path] |
        """
        result = read_result(file)
        if not result:
            message = f"{file} holds no result."
            raise UserError(message)
        return result

    @keyword(tags=["Assertion"])
    def events_should_tell_of_every_step(self, file: Path, result: Result) -> None:
        """Fail unless a hook has written the end of each step of a result, in the order in which they ran.

        Args:
            file: The file that `Run Workflow` was given as `events`: one event for each line.
            result: The workflow's result.

        Raises:
            NotMetError: A step is missing, or there are others; tells which were told.

        Example:
            | Events Should Tell Of Every Step | ${OUTPUT DIR}/events.jsonl | ${result} |
        """
        events = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        told = [event["step"]["step_type"] for event in events if event["event"] == "step_finished"]
        ran = [step["step_type"] for step in _steps(result)]
        if told != ran:
            message = f"{file} tells the end of {', '.join(told) or 'no step'}; expected {', '.join(ran)}."
            raise NotMetError(message)

    @keyword(tags=["Getter"])
    def get_step_result(self, result: Result, step: str) -> Result:
        """One step of a result.

        Args:
            result: A workflow's result, or that of a step with steps inside.
            step: The step's type, id or description; the first that fits.

        Returns:
            The step's result, with the document's keys.

        Raises:
            UserError: There is no such step.

        Example:
            | ${deploy} = | Get Step Result | ${result} | deploy |
        """
        steps = _steps(result)
        for found in steps:
            if step in {found["step_type"], found.get("id"), found["description"]}:
                return found
        message = f"The result has no step {step!r}; it has {', '.join(it['step_type'] for it in steps)}."
        raise UserError(message)

    @keyword(tags=["Assertion", "Evidence"])
    def every_step_should_be_completed(self, result: Result, count: int) -> None:
        """Fail unless a result has exactly so many steps, all of them completed.

        Args:
            result: A workflow's result.
            count: How many.

        Raises:
            NotMetError: There are more or fewer, or one is not completed.

        Example:
            | Every Step Should Be Completed | ${result} | 7 |
        """
        self._expect_statuses(result, [(step["step_type"], "completed") for step in _steps(result)])
        if len(_steps(result)) != count:
            message = f"The result has {len(_steps(result))} steps, expected {count}."
            raise NotMetError(message)

    @keyword(tags=["Assertion", "Evidence"])
    def steps_should_have_ended(self, result: Result, **statuses: str) -> None:
        """Fail unless a result has exactly these steps in this order, each with its status.

        Args:
            result: A workflow's result.
            statuses: `completed`, `failed`, `skipped` or `running`, by the steps' types.

        Raises:
            NotMetError: It has others, or another status; tells which.

        Example:
            | Steps Should Have Ended | ${result} | init=completed | validate=failed |
        """
        self._expect_statuses(result, list(statuses.items()))

    @keyword(tags=["Assertion"])
    def result_should_have_the_documented_keys(self, result: Result) -> None:
        """Fail unless a result, its steps and their checks have every key that document 003 shows.

        Args:
            result: A workflow's result.

        Raises:
            NotMetError: A key is missing; tells where.

        Example:
            | Result Should Have The Documented Keys | ${result} |
        """
        missing = [f"the result: {key}" for key in sorted(RESULT_KEYS - result.keys())]
        for step in _steps(result):
            missing += [f"step {step['step_type']}: {key}" for key in sorted(STEP_KEYS - step.keys())]
            for check in step["validation_results"]:
                missing += [f"check {check['check']}: {key}" for key in sorted(CHECK_KEYS - check.keys())]
        if missing:
            message = f"Documented keys are missing: {'; '.join(missing)}."
            raise NotMetError(message)

    @keyword(tags=["Assertion"])
    def check_result_should_be(
        self, step: Result, check: str, *, passed: bool | None = None, attempts: int | None = None
    ) -> None:
        """Fail unless a check of a step has this verdict, after this many attempts.

        Args:
            step: The step's result.
            check: As the workflow writes it.
            passed: The verdict; any when not given.
            attempts: How often it was tried; any number when not given.

        Raises:
            NotMetError: It has another verdict or another number of attempts.
            UserError: The step has no such check.

        Example:
            | Check Result Should Be | ${step} | cluster_status | passed=${True} | attempts=1 |
        """
        checks = {found["check"]: found for found in step["validation_results"]}
        if check not in checks:
            message = f"The step tried no check {check!r}; it tried {', '.join(checks) or 'none'}."
            raise UserError(message)
        found = checks[check]
        for name, expected in (("passed", passed), ("attempts", attempts)):
            if expected is not None and found[name] != expected:
                message = f"{check}: {name} is {found[name]}, expected {expected}. {found['error'] or ''}".rstrip()
                raise NotMetError(message)

    @keyword(tags=["Assertion"])
    def nodes_should_have_been_seen(self, step: Result, state: str) -> None:
        """Fail unless every node that a step acted on was seen in a state on its way.

        Args:
            step: The result of a step that changes power.
            state: Such as `stopped`.

        Raises:
            NotMetError: A node was not; tells in which states it was seen.

        Example:
            | Nodes Should Have Been Seen | ${restart} | stopped |
        """
        for node in _nodes(step):
            seen = [each["state"] for each in node["states"]]
            if state not in seen:
                message = f"{node['node']} was not seen {state}, only {', '.join(seen)}."
                raise NotMetError(message)

    @keyword(tags=["Assertion"])
    def every_node_should_have_booted_between(self, stop: Result, start: Result, count: int) -> None:
        """Fail unless so many nodes have another boot id after a step than before an earlier one.

        Args:
            stop: The result of the earlier step, such as `stop_cluster`.
            start: The result of the later step, such as `start_cluster`.
            count: How many nodes both acted on.

        Raises:
            NotMetError: They acted on other nodes, or one has the same boot id.

        Example:
            | Every Node Should Have Booted Between | ${stop} | ${start} | 3 |
        """
        before = {node["node"]: node["boot_id_before"] for node in _nodes(stop)}
        after = {node["node"]: node["boot_id_after"] for node in _nodes(start)}
        booted = [node for node, boot in before.items() if boot and after.get(node) not in {None, boot}]
        if len(booted) != count or before.keys() != after.keys():
            message = (
                f"Expected {count} nodes to have booted, but {', '.join(booted) or 'none'} has: {before}, {after}"
            )
            raise NotMetError(message)

    @keyword(tags=["Assertion"])
    def steps_inside_should_be(self, step: Result, *descriptions: str, part: str = "steps") -> None:
        """Fail unless the steps inside a step ran in this order.

        Args:
            step: The result of a `group`, `parallel` or `chaos` step.
            descriptions: Their descriptions.
            part: `steps`, or `rollback` for those that undid them.

        Raises:
            NotMetError: Others ran, or in another order.

        Example:
            | Steps Inside Should Be | ${group} | third | second | first | part=rollback |
        """
        ran = [inner["description"] for inner in step.get(part, [])]
        if ran != list(descriptions):
            message = f"The {part} that ran are {', '.join(ran) or 'none'}, expected {', '.join(descriptions)}."
            raise NotMetError(message)

    @keyword(tags=["Assertion"])
    def steps_inside_should_overlap(self, step: Result) -> None:
        """Fail unless every step inside a `parallel` step began before any of them had ended.

        Args:
            step: The result of the `parallel` step.

        Raises:
            NotMetError: Two of them ran one after the other.

        Example:
            | Steps Inside Should Overlap | ${parallel} |
        """
        expect_overlap([_span(inner["description"] or inner["step_type"], inner) for inner in step["steps"]])

    @keyword(tags=["Assertion"])
    def runs_should_have_overlapped(self, directory: Path, count: int) -> None:
        """Fail unless so many runs wrote into a directory of results, and each began before any had ended.

        Args:
            directory: Where the command line wrote.
            count: How many runs.

        Raises:
            NotMetError: There are more or fewer, or two ran one after the other.

        Example:
            | Runs Should Have Overlapped | ${directory} | 2 |
        """
        results = [read_result(path) for path in sorted(directory.rglob("*.json"))]
        spans = [_span(result["suite"], result) for result in results if "workflow_steps" in result]
        if len(spans) != count:
            message = f"{directory} has the results of {len(spans)} runs, expected {count}."
            raise NotMetError(message)
        expect_overlap(spans)

    @staticmethod
    def _expect_statuses(result: Result, expected: list[tuple[str, str]]) -> None:
        steps = _steps(result)
        rows = [
            (step["step_type"], step["description"], step["status"], step["duration"], step["error"] or "")
            for step in steps
        ]
        logger.info(html_table(f"{len(rows)} steps", COLUMNS, rows), html=True)
        found = [(step["step_type"], step["status"]) for step in steps]
        if found != expected:
            shown, wanted = (", ".join(f"{name} {status}" for name, status in each) for each in (found, expected))
            message = f"The steps are {shown or 'none'}; expected {wanted}."
            raise NotMetError(message)


def read_result(file: Path) -> Result:
    """What a file of results holds; empty when it is not there, or not JSON."""
    with suppress(OSError, ValueError):
        result: Result = json.loads(file.read_text(encoding="utf-8"))
        return result
    return {}


Span = tuple[str, datetime, datetime]


def _span(name: str, result: Result) -> Span:
    started = datetime.fromisoformat(result["timestamp"])
    return name, started, started + timedelta(seconds=result["duration"])


def expect_overlap(spans: list[Span]) -> None:
    """Fail unless everything began before anything had ended."""
    last_name, last_start, _ = max(spans, key=lambda span: span[1])
    first_name, _, first_end = min(spans, key=lambda span: span[2])
    if last_start >= first_end:
        message = f"{last_name} began {last_start - first_end} after {first_name} had ended."
        raise NotMetError(message)


def _nodes(step: Result) -> list[Result]:
    found = step["result"] or {}
    nodes: list[Result] = found.get("nodes", [found])
    return nodes


def _steps(result: Result) -> list[Result]:
    steps: list[Result] = result["workflow_steps"] if "workflow_steps" in result else result.get("steps", [])
    return steps
