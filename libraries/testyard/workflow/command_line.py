"""``testyard workflow run|list|validate|rerun``: the document's test runner (003, "Running Workflow Tests"; 2.8).

Exit status: 0 all passed (or were skipped, with a reason), 1 some failed, 2 a mistake in the call or in a
workflow file (nothing was started), 130 Ctrl-C (faults undone, deployments ended).
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from testyard.core.errors import UserError
from testyard.core.redact import mask_log_records, secrets_in_use

# What runs workflows is imported by the commands: the other commands of testyard must not wait for it.
if TYPE_CHECKING:
    from testyard.workflow.selection import EarlierRun, WorkflowTest
    from testyard.workflow.settings import WorkflowSettings

DEFAULT_RESULTS = Path("results/workflows")
FAILED = "failed"


def add_commands(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add ``workflow`` and its commands.

    Args:
        subparsers: What ``add_subparsers`` of testyard's parser gave; ``options.run(options)`` runs a command.
    """
    parser = subparsers.add_parser("workflow", help="run workflows of a cluster's life, written as JSON")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="run workflows")
    _add_selection(run)
    _add_running(run)
    run.add_argument("--rerun", metavar="failed|ID", help="only what failed in an earlier run, or this id of it")
    run.add_argument("--list-tests", "--list-test", action="store_true", help="only list what would be run")
    run.set_defaults(run=_run)

    rerun = commands.add_parser("rerun", help="run again what failed in an earlier run")
    _add_selection(rerun)
    _add_running(rerun)
    rerun.add_argument("--rerun", metavar="failed|ID", default=FAILED, help="this id, not what failed")
    rerun.set_defaults(run=_run, list_tests=False)

    listing = commands.add_parser("list", help="list workflows, and with --names the known steps and checks")
    _add_selection(listing)
    listing.add_argument("--names", action="store_true", help="the steps and checks that a workflow may name")
    listing.set_defaults(run=_list)

    validate = commands.add_parser("validate", help="say all that is wrong with workflow files")
    _add_selection(validate)
    validate.set_defaults(run=_validate)


def _add_selection(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="*", type=Path, metavar="FILE|DIR", help="workflow files, or directories")
    parser.add_argument("--provider", metavar="A,B", help="only workflows of these providers")
    parser.add_argument(
        "--run-test", "--run-tests", metavar="ID,ID", help="only these, such as libvirt-workflow-failsafety_basic"
    )


def _add_running(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--parallel", type=int, default=1, metavar="N", help="workflows at a time; 0: automatic")
    parser.add_argument(
        "--results-dir", type=Path, default=DEFAULT_RESULTS, help=f"default {DEFAULT_RESULTS}", metavar="DIR"
    )
    parser.add_argument("--results-file", type=Path, metavar="FILE", help="the earlier run's results.json")
    parser.add_argument("--dry-run", action="store_true", help="say every step, target and call; make none")
    parser.add_argument("--stop-on-error", action="store_true", help="begin nothing more after a failure")
    parser.add_argument(
        "--retain",
        nargs="?",
        choices=("never", "failure", "always"),
        const="failure",
        default="never",
        help="keep the deployment, after a failure or always (an embedded one ends with this process)",
    )
    parser.add_argument("--debug", action="store_true", help="show what the libraries log, too")


def _run(options: argparse.Namespace) -> int:
    from testyard.workflow.lifecycle import Retain, RunOptions
    from testyard.workflow.loading import default_checks, default_steps
    from testyard.workflow.runner import Runner
    from testyard.workflow.settings import load_settings

    if options.parallel < 0:
        message = f"--parallel must not be negative, got {options.parallel}."
        raise UserError(message)
    mask_log_records()
    if options.debug:
        logging.basicConfig(level=logging.DEBUG)
    steps, checks = default_steps(), default_checks()
    earlier = _earlier(options)
    tests = _selected(options, earlier)
    if options.list_tests:
        return _show(tests)
    settings = load_settings()
    for difference in settings.differences():
        _say(f"Setting {difference}")
    if options.dry_run:
        return _dry_run(tests, settings)
    numbers = {it.identifier: earlier.run_number(it.identifier) + 1 for it in tests} if earlier else {}
    run_options = RunOptions(
        options.results_dir,
        options.parallel,
        stop_on_error=options.stop_on_error,
        retain=Retain(options.retain),
        run_numbers=numbers,
    )
    # A shell that starts this in the background has it ignore Ctrl-C; what ends a job of a CI is SIGTERM.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    summary = Runner(settings, steps, checks, say=_say).run(tests, run_options)
    _say(str(summary))
    return 0 if summary.passed else 1


def _list(options: argparse.Namespace) -> int:
    if not options.names:
        return _show(_selected(options))
    from testyard.workflow.loading import default_checks, default_steps

    for step in default_steps():
        _say(f"step   {step.name:<40} {step.description}")
    for check in default_checks():
        _say(f"check  {check.grammar:<40} {check.description}")
    return 0


def _validate(options: argparse.Namespace) -> int:
    tests = _selected(options)
    files = {test.file for test in tests}
    _say(f"{len(tests)} workflows in {len(files)} files are valid.")
    return 0


def _dry_run(tests: Sequence[WorkflowTest], settings: WorkflowSettings) -> int:
    from testyard.workflow.cluster import Cluster
    from testyard.workflow.context import Context
    from testyard.workflow.plan import plan_suite

    for test in tests:
        suite = test.suite
        directory = Path("<deployment>")
        cluster = Cluster(directory, settings, provider=suite.provider, parameters=suite.parameters)
        context = Context(
            deploy_dir=directory, parameters=dict(suite.parameters), provider=suite.provider, cluster=cluster
        )
        _say(f"{test.identifier}: {suite.description}")
        for planned in plan_suite(suite, context):
            _say(str(planned))
    return 0


def _show(tests: Sequence[WorkflowTest]) -> int:
    width = max(len(test.identifier) for test in tests)
    for test in tests:
        what = f"{test.nodes} nodes, {len(test.suite.workflow)} steps"
        _say(f"{test.identifier:<{width}}  {what}  {test.suite.description}".rstrip())
    return 0


def _earlier(options: argparse.Namespace) -> EarlierRun | None:
    from testyard.workflow.selection import EarlierRun

    if options.rerun is None:
        if options.results_file is not None:
            raise UserError("--results-file names an earlier run: say with --rerun what of it to run again.")
        return None
    if options.results_file is not None:
        return EarlierRun.read(options.results_file)
    return EarlierRun.latest(options.results_dir)


def _selected(options: argparse.Namespace, earlier: EarlierRun | None = None) -> list[WorkflowTest]:
    from testyard.workflow.loading import default_checks, default_steps
    from testyard.workflow.selection import find_tests, select

    paths = options.paths or (earlier.files() if earlier else [])
    if not paths:
        raise UserError("Name workflow files, or directories that hold some.")
    identifiers = _names(options.run_test, "--run-test")
    if earlier is not None:
        again = earlier.tests(options.rerun)
        identifiers = [name for name in again if not identifiers or name in identifiers]
    tests = find_tests(paths, default_steps(), default_checks())
    return select(tests, providers=_names(options.provider, "--provider"), identifiers=identifiers)


def _names(text: str | None, option: str) -> list[str]:
    """The names of a list with commas.

    Raises:
        UserError: A name is empty.
    """
    if text is None:
        return []
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        message = f"{option} needs a name, or several with commas between them, got {text!r}."
        raise UserError(message)
    return names


def _say(line: str) -> None:
    """Print a line in one write, as several processes may print."""
    os.write(sys.stdout.fileno(), f"{secrets_in_use.mask(line)}\n".encode())
