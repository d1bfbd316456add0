"""The command line: ``python -m testyard``, also installed as ``testyard``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from testyard import __version__
from testyard.core.errors import UserError


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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="testyard", description="Tests of distributed systems.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    controls = commands.add_parser("controls", help="run the suites under each known defect: is it caught?")
    controls.add_argument("--domain", default=None, help="only the defects of one domain, such as federation")
    controls.add_argument("--defect", action="append", default=[], help="only this defect; may be repeated")
    controls.add_argument("--suites", type=Path, default=Path("suites"), help="the directory of the suites")
    controls.add_argument("--whole", action="store_true", help="run every suite under each defect")
    controls.add_argument("--processes", type=int, default=2, help="how many runs at a time")
    controls.set_defaults(run=_controls)
    return parser


def _controls(options: argparse.Namespace) -> int:
    from testyard.lab.sabotage import DOMAINS, defect_named
    from testyard.lab.sabotage.controls import run_controls

    if options.domain and options.domain not in DOMAINS:
        message = f"there is no domain {options.domain!r}, expected one of {', '.join(DOMAINS)}."
        raise UserError(message)
    try:
        defects = [defect_named(name) for name in options.defect]
    except LookupError as problem:
        raise UserError(problem.args[0]) from None
    if not defects:
        domains = [options.domain] if options.domain else list(DOMAINS)
        defects = [defect for domain in domains for defect in DOMAINS[domain]]
    caught = 0
    for verdict in run_controls(defects, options.suites, whole=options.whole, processes=options.processes):
        print(verdict, flush=True)  # noqa: T201 a command line prints
        caught += verdict.caught
    print(f"{caught} of {len(defects)} defects caught")  # noqa: T201 a command line prints
    return 0 if caught == len(defects) else 1


if __name__ == "__main__":
    sys.exit(main())
