"""Defects of the workflow engine (FLOW-S, R, X, E, V, F), put in place in Robot Framework's process."""

from __future__ import annotations

import dataclasses
from typing import Any

from testyard.lab.sabotage.defect import Defect, defect, wrap

# Steps.


@defect("init-deploys", "init brings the machines up at once", "FLOW-S1")
def init_deploys() -> None:
    from testyard.workflow.deployer import Deployer

    deploy = Deployer.deploy
    answers: dict[object, object] = {}

    def init(original: Any, self: Any, *arguments: Any) -> Any:
        answer = original(self, *arguments)
        answers[self.directory] = deploy(self)
        return answer

    wrap(Deployer, "init", init)
    wrap(Deployer, "deploy", lambda _, self: answers.pop(self.directory))


@defect(
    "status-of-commands-ignored",
    "a custom command passes, whatever its exit status",
    *("FLOW-S10", "FLOW-F2", "FLOW-F3"),
)
def status_of_commands_ignored() -> None:
    from testyard.workflow import commands

    def end(original: Any, process: Any) -> None:
        original(process)
        process.returncode = 0

    wrap(commands, "_end", end)


@defect("variables-left-in", "the variables of a custom command are not filled in", "FLOW-S10")
def variables_left_in() -> None:
    from testyard.workflow import commands

    wrap(commands, "filled_in", lambda _, arguments, __: list(arguments))


# Attempts, and what may fail.


@defect("one-attempt-too-few", "the last attempt is never made", "FLOW-S3", "FLOW-S10")
def one_attempt_too_few() -> None:
    from testyard.workflow.execution import Execution
    from testyard.workflow.model import Retry

    def retry(original: Any, self: Any, *arguments: Any) -> Any:
        chosen = original(self, *arguments)
        return Retry(max_attempts=max(1, chosen.max_attempts - 1), delay_seconds=chosen.delay_seconds)

    wrap(Execution, "_retry", retry)


@defect("never-retried", "there is only ever one attempt", "FLOW-S3", "FLOW-S10")
def never_retried() -> None:
    from testyard.workflow.execution import Execution
    from testyard.workflow.model import Retry

    wrap(Execution, "_retry", lambda *_: Retry(max_attempts=1))


@defect("all-may-fail", "where one check may fail, every check of the step may", "FLOW-S3")
def all_may_fail() -> None:
    from testyard.workflow.execution import Execution

    def validate(original: Any, self: Any, step: Any, *arguments: Any) -> None:
        allowed = step.checks if step.allow_failures else []
        original(self, step.model_copy(update={"allow_failures": allowed}), *arguments)

    wrap(Execution, "validate", validate)


@defect("only-own-checks-may-fail", "allow_failures may only name checks of the same step", "FLOW-E3")
def only_own_checks_may_fail() -> None:
    from testyard.workflow.problems import below
    from testyard.workflow.validation import Validation

    def names(original: Any, self: Any, raw: Any, path: str, entry: Any) -> None:
        original(self, raw, path, entry)
        for text in raw.get("allow_failures", []):
            if text not in raw.get("checks", []):
                self._report(below(path, "allow_failures"), f"{text} is none of the checks")

    wrap(Validation, "_names", names)


# Results, and what users add.


@defect("result-without-its-deployment", "the result lacks a documented key", "FLOW-R1")
def result_without_its_deployment() -> None:
    from testyard.workflow.results import SuiteResult

    def head(original: Any, self: Any) -> dict[str, Any]:
        return {name: value for name, value in original(self).items() if name != "deployment_id"}

    wrap(SuiteResult, "head", head)


@defect(
    "failed-step-omitted",
    "a step that failed after others is not in the result",
    *("FLOW-R2", "FLOW-X1", "FLOW-X2", "FLOW-F3"),
)
def failed_step_omitted() -> None:
    from testyard.workflow.results import SuiteResult

    def to_json(original: Any, self: Any) -> dict[str, Any]:
        first, *others = self.workflow_steps
        kept = [first, *(step for step in others if not step.stops)]
        whole: dict[str, Any] = original(dataclasses.replace(self, workflow_steps=kept))
        return whole

    wrap(SuiteResult, "to_json", to_json)


@defect("own-checks-always-pass", "what a team's own check returns is not looked at", "FLOW-X1", "FLOW-X2")
def own_checks_always_pass() -> None:
    from testyard.workflow import execution

    def judged(original: Any, check: str, found: object) -> Any:
        return original(check, True if isinstance(found, bool) else found)

    wrap(execution, "judged", judged)


@defect("own-results-dropped", "what a team's own step returns is not in the result", "FLOW-X1", "FLOW-X2")
def own_results_dropped() -> None:
    from testyard.workflow.execution import Execution

    def work(original: Any, self: Any, step: Any, *arguments: Any) -> Any:
        found = original(self, step, *arguments)
        function = self._type(step).function
        return found if function is None or function.__module__.startswith("testyard.") else None

    wrap(Execution, "_work", work)


# Files with mistakes.


@defect("unknown-steps-skipped", "a step that nobody knows is skipped", "FLOW-V1", "FLOW-V5")
def unknown_steps_skipped() -> None:
    from testyard.workflow.validation import Validation

    def type_of(original: Any, self: Any, raw: Any, path: str) -> Any:
        return original(self, raw, path) if self._steps.find(raw["step"]) else None

    wrap(Validation, "_type_of", type_of)


@defect("unknown-checks-skipped", "a check that nobody knows is skipped", "FLOW-V2", "FLOW-V5")
def unknown_checks_skipped() -> None:
    from testyard.workflow.validation import Validation

    def check(original: Any, self: Any, text: str, path: str) -> None:
        if self._checks.find(text.split(":", maxsplit=1)[0]):
            original(self, text, path)

    wrap(Validation, "_check", check)


@defect("any-node-will-do", "a step that names no node is done to the first one", "FLOW-V3", "FLOW-V5")
def any_node_will_do() -> None:
    from testyard.workflow.validation import Validation

    def made(original: Any, self: Any, model: Any, values: Any, path: str) -> Any:
        known = {"target_node": "n11"} if "target_node" in model.model_fields else {}
        return original(self, model, {**known, **values}, path)

    wrap(Validation, "_made", made)


@defect("unknown-method-is-ssh", "a method that nobody knows becomes the default one", "FLOW-V4", "FLOW-V5")
def unknown_method_is_ssh() -> None:
    from testyard.workflow.validation import Validation

    def made(original: Any, self: Any, model: Any, values: Any, path: str) -> Any:
        known = values.get("method") in {"ssh", "graceful", "destroy"}
        return original(
            self, model, {**values, "method": "ssh"} if "method" in values and not known else values, path
        )

    wrap(Validation, "_made", made)


@defect("first-mistake-only", "only the first mistake in a file is told", "FLOW-V2", "FLOW-V5")
def first_mistake_only() -> None:
    from testyard.workflow.validation import Validation

    def suites(original: Any, self: Any, *arguments: Any, **options: Any) -> Any:
        found = original(self, *arguments, **options)
        del self.problems[1:]
        return found

    wrap(Validation, "suites", suites)


# Beyond the document.


@defect("parallel-is-serial", "steps that are to run beside each other run one after the other", "FLOW-F1")
def parallel_is_serial() -> None:
    from testyard.workflow import composites
    from testyard.workflow.model import ParallelFields

    def one_by_one(execution: Any, step: Any, result: Any, scope: Any) -> None:
        result.steps.clear()
        execution.run_all(step.own(ParallelFields).steps, dataclasses.replace(scope, results=result.steps))

    composites.COMPOSITES["parallel"] = one_by_one


@defect("when-ignored", "every step is run, whatever its condition", "FLOW-F2")
def when_ignored() -> None:
    from testyard.workflow.execution import Execution

    wrap(Execution, "_unmet", lambda *_: "")


@defect("undone-in-order", "what was done first is undone first", "FLOW-F3")
def undone_in_order() -> None:
    from testyard.workflow import composites

    def roll_back(original: Any, execution: Any, begun: list[Any], *arguments: Any) -> Any:
        begun.reverse()
        return original(execution, begun, *arguments)

    wrap(composites, "roll_back", roll_back)


@defect("failed-step-not-undone", "the step that failed is not undone", "FLOW-F3")
def failed_step_not_undone() -> None:
    from testyard.workflow import composites

    def roll_back(original: Any, execution: Any, begun: list[Any], *arguments: Any) -> Any:
        if len(begun) > 1:
            begun.pop()
        return original(execution, begun, *arguments)

    wrap(composites, "roll_back", roll_back)


@defect("webhook-misses-the-end", "a webhook does not hear of the end of a run", "FLOW-F4")
def webhook_misses_the_end() -> None:
    from testyard.workflow.hooks import Webhook

    _lose(Webhook, "suite_finished")


@defect("event-file-misses-steps", "the file of events has no ends of steps", "FLOW-F4")
def event_file_misses_steps() -> None:
    from testyard.workflow.hooks import EventFile

    _lose(EventFile, "step_finished")


def _lose(hook: Any, name: str) -> None:
    def tell(original: Any, self: Any, event: Any) -> None:
        if event["event"] != name:
            original(self, event)

    wrap(hook, "tell", tell)


WORKFLOW_DEFECTS: tuple[Defect, ...] = tuple(
    value for value in dict(globals()).values() if isinstance(value, Defect)
)
