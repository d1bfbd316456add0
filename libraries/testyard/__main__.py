"""The command line: ``python -m testyard``, also installed as ``testyard``."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from testyard import __version__
from testyard.core.errors import UserError
from testyard.workflow.command_line import add_commands

if TYPE_CHECKING:
    from testyard.core.leftover import Leftover

CLEANUP_CYCLES = 15


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status: 0 fine, 1 not fine, 2 a mistake in the call.

    Args:
        arguments: Instead of the process's own.
    """
    options = _parser().parse_args(arguments)
    try:
        status: int = options.run(options)
    except UserError as problem:
        print(f"testyard: {problem}", file=sys.stderr)  # noqa: T201 a command line prints
        return 2
    except KeyboardInterrupt:
        return 130
    return status


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Say a mistake in one line."""
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="testyard", description="Tests of distributed systems.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    controls = commands.add_parser("controls", help="run the suites under each known defect: is it caught?")
    controls.add_argument("--domain", default=None, help="only the defects of one domain, such as federation")
    controls.add_argument("--defect", action="append", default=[], help="only this defect; may be repeated")
    controls.add_argument("--sample", action="store_true", help="only a few that turn every suite red once")
    controls.add_argument(
        "--changed-since", metavar="COMMIT", help="with --sample: all of the domains changed since"
    )
    controls.add_argument(
        "--known-to-pass", action="store_true", help="do not run the suites without any defect first"
    )
    controls.add_argument("--suites", type=Path, default=Path("suites"), help="the directory of the suites")
    controls.add_argument("--whole", action="store_true", help="run every suite under each defect")
    controls.add_argument("--processes", type=int, default=2, help="how many runs at a time")
    controls.set_defaults(run=_controls)

    lab = commands.add_parser("lab", help="start Waldur A and Waldur B and keep them until Ctrl-C")
    lab.add_argument("--port", type=int, default=0, help="the TCP port of both; a free one when not given")
    lab.set_defaults(run=_lab)
    servers = lab.add_subparsers(metavar="COMMAND")
    install = servers.add_parser("install", help="install a server that pip does not have, for -v LAB:servers")
    install.add_argument("server", choices=["kafka"], help="kafka: Apache Kafka from Maven Central; needs Java 17")
    install.set_defaults(run=_install)

    cleanup = commands.add_parser("cleanup", help="end what a killed run left on your own systems")
    cleanup.add_argument("--run", required=True, dest="run_id", help="the run's id, as its log says it")
    cleanup.add_argument(
        "--pause",
        dest="delay",
        type=lambda text: timedelta(seconds=float(text)),
        default=timedelta(seconds=3),
        help="seconds between two cycles of the agent; 3 when not given",
    )
    cleanup.set_defaults(run=_cleanup)

    add_commands(commands)
    return parser


def _controls(options: argparse.Namespace) -> int:
    from testyard.lab.sabotage import DOMAINS, defect_named
    from testyard.lab.sabotage.controls import run_controls, scenarios_by_suite
    from testyard.lab.sabotage.selection import changed_paths, sample, touched_domains

    if options.domain and options.domain not in DOMAINS:
        message = f"there is no domain {options.domain!r}, expected one of {', '.join(DOMAINS)}."
        raise UserError(message)
    try:
        defects = [defect_named(name) for name in options.defect]
    except LookupError as problem:
        raise UserError(problem.args[0]) from None
    if not defects:
        domains = [options.domain] if options.domain else list(DOMAINS)
        whole = set(domains)
        suites: list[frozenset[str]] = []
        if options.sample:
            paths = changed_paths(options.changed_since, Path()) if options.changed_since else []
            whole = touched_domains(paths, domains)
            suites = list(scenarios_by_suite(options.suites).values())
        chosen = (DOMAINS[name] if name in whole else sample(DOMAINS[name], suites) for name in domains)
        defects = [it for some in chosen for it in some]
        known = sum(len(DOMAINS[name]) for name in domains)
        print(f"{len(defects)} of {known} defects; all of {', '.join(sorted(whole)) or 'no domain'}", flush=True)  # noqa: T201 a command line prints
    caught = 0
    verdicts = run_controls(
        defects,
        options.suites,
        whole=options.whole,
        processes=options.processes,
        known_to_pass=options.known_to_pass,
    )
    for verdict in verdicts:
        print(verdict, flush=True)  # noqa: T201 a command line prints
        caught += verdict.caught
    print(f"{caught} of {len(defects)} defects caught")  # noqa: T201 a command line prints
    return 0 if caught == len(defects) else 1


def _lab(options: argparse.Namespace) -> int:
    from testyard.lab.supervisor import Supervisor

    with Supervisor() as supervisor:
        for instance in supervisor.start_waldurs(port=options.port):
            print(f"Waldur {instance.name}: {instance.url}/api/  staff token {instance.staff_token}", flush=True)  # noqa: T201 a command line prints
        signal.sigwait({signal.SIGINT, signal.SIGTERM})
    return 0


def _install(_: argparse.Namespace) -> int:
    from testyard.lab.servers.kafka_classes import archive_classes
    from testyard.lab.servers.kafka_install import install_kafka, locked_release

    def say(text: str) -> None:
        print(text, flush=True)  # noqa: T201 a command line prints

    directory = install_kafka(say)
    archive_classes(say)
    say(f"Apache Kafka {locked_release().version} is installed in {directory}")
    return 0


def _cleanup(options: argparse.Namespace) -> int:
    from testyard.lab.environment import DATABASE_VARIABLE, PIPELINE_VARIABLES, STAFF_VARIABLES
    from testyard.waldur.federation import CONFIGURATION_VARIABLE

    def are_set(*names: str) -> bool:
        return all(os.environ.get(name) for name in names)

    leftovers: list[Iterator[Leftover]] = []
    if are_set(CONFIGURATION_VARIABLE):
        leftovers.append(_ended_in_federation(options))
    if are_set(*STAFF_VARIABLES):
        leftovers.append(_deleted_as_staff(options))
    if are_set(*PIPELINE_VARIABLES, DATABASE_VARIABLE):
        leftovers.append(_deleted_customers(options))
    # Without any the first says which variables are missing.
    ended = [_report_leftovers(each) for each in leftovers or [_ended_in_federation(options)]]
    return 0 if all(ended) else 1


def _deleted_customers(options: argparse.Namespace) -> Iterator[Leftover]:
    from testyard.core.json_client import JsonClient
    from testyard.pipelines.cleanup import customers_of, delete_customers
    from testyard.pipelines.service import PipelineService

    key = os.environ["PIPELINES_ADMIN_KEY"]
    client = JsonClient(
        os.environ["PIPELINES_URL"], headers={"X-Admin-Key": key}, secret=key, name="the pipeline service"
    )
    with client:
        customers = customers_of(options.run_id, os.environ["PIPELINES_DATABASE_URL"])
        yield from delete_customers(PipelineService(client), customers)


def _ended_in_federation(options: argparse.Namespace) -> Iterator[Leftover]:
    from testyard.core.journal import Journal
    from testyard.waldur.cleanup import end_leftovers
    from testyard.waldur.federation import open_own_federation

    federation = open_own_federation(os.environ, Journal())
    try:
        yield from end_leftovers(federation, options.run_id, cycles=CLEANUP_CYCLES, delay=options.delay)
    finally:
        federation.close()


def _deleted_as_staff(options: argparse.Namespace) -> Iterator[Leftover]:
    from testyard.waldur.api import Waldur
    from testyard.waldur.cleanup import delete_prepared

    for side in ("A", "B"):
        url, token = os.environ[f"WALDUR_URL_{side}"], os.environ[f"WALDUR_STAFF_TOKEN_{side}"]
        with Waldur(url, token, name=f"Waldur {side}") as waldur:
            yield from delete_prepared(waldur, options.run_id)


def _report_leftovers(leftovers: Iterator[Leftover]) -> bool:
    all_ended = True
    for leftover in leftovers:
        print(f"{leftover.name}: {leftover.outcome}", flush=True)  # noqa: T201 a command line prints
        all_ended = all_ended and leftover.ended
    return all_ended


if __name__ == "__main__":
    sys.exit(main())
