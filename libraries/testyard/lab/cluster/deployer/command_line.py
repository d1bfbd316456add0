"""The deployer's command line; each verb imports only what it needs, as each is a process of its own."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

from testyard.core.errors import UserError
from testyard.lab.cluster.deployer.parameters import PROVIDERS, UsageError, read_options
from testyard.lab.cluster.deployer.settings import duration, read_settings
from testyard.lab.cluster.deployer.states import Status
from testyard.lab.cluster.deployer.verbs import Deployment

PROGRAM: Final = "testyard.lab.cluster"
REFUSED: Final = 1
USAGE: Final = 2
INTERRUPTED: Final = 130
TERMINATED: Final = 143
MISSING: Final = ""


class StandardStreams:
    """The console of a process: answers on standard output, notes on standard error."""

    def show(self, text: str) -> None:
        """Write a line of the verb's answer."""
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()

    def tell(self, text: str) -> None:
        """Write a note, in one line, without any secret in use."""
        redaction = sys.modules.get("testyard.core.redact")
        line = " ".join(text.split())
        sys.stderr.write(f"{PROGRAM}: {redaction.secrets_in_use.mask(line) if redaction else line}\n")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Leave the message to :func:`main`."""
        raise UsageError(message)


def main(arguments: Sequence[str] | None = None) -> int:
    """Do one verb.

    Args:
        arguments: Instead of the process's own.

    Returns:
        The exit status: 0 done (``health``: healthy), 1 refused or failed, 2 a mistake in the call.
    """
    console = StandardStreams()
    try:
        return _run(console, sys.argv[1:] if arguments is None else arguments)
    except UsageError as problem:
        console.tell(f"{problem}; see python -m {PROGRAM} --help")
        return USAGE
    except UserError as problem:
        console.tell(str(problem))
        return REFUSED
    except OSError as problem:
        console.tell(f"{problem.filename or 'the system'}: {problem.strerror or problem}")
        return REFUSED
    except KeyboardInterrupt:
        console.tell("interrupted")
        return INTERRUPTED


def end_orderly_when_terminated() -> None:
    """Let SIGTERM end this process as Ctrl-C does: with the lock released and the state that of a failure.

    Ctrl-C also where the shell that started this in the background has it ignored.
    """

    def end(_number: int, _frame: FrameType | None) -> NoReturn:
        raise SystemExit(TERMINATED)

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _run(console: StandardStreams, arguments: Sequence[str]) -> int:
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if options.verb is None:
        raise UsageError("expected a verb: init, deploy, status, health, stop, start or destroy")
    if rest and options.verb != "init":
        message = f"{options.verb} does not know {rest[0]!r}"
        raise UsageError(message)
    if not options.deployment_dir.strip():
        raise UserError("--deployment-dir has no value")
    deployment = Deployment(Path(options.deployment_dir), read_settings(), console)
    if options.verb == "init":
        parameters = read_options(rest, console.tell)
        if "cloud_provider" not in parameters:
            message = f"init needs --cloud-provider: one of {', '.join(PROVIDERS)}"
            raise UsageError(message)
        deployment.init(parameters)
        return 0
    return _do(deployment, options)


def _do(deployment: Deployment, options: argparse.Namespace) -> int:
    """Do a verb that is not ``init``."""
    match options.verb:
        case "deploy":
            deployment.deploy(_process(options.owner_pid))
        case "status":
            deployment.status()
        case "health":
            return _health(deployment, options)
        case "stop":
            deployment.stop(services_only=options.services_only)
        case "start":
            deployment.start(wait=not options.no_wait)
        case "destroy":
            if not options.auto_approve:
                raise UserError("destroy ends every node and its data; say --auto-approve to have it done")
            deployment.destroy()
    return 0


def _health(deployment: Deployment, options: argparse.Namespace) -> int:
    within = None if options.timeout is None else _seconds(options.timeout)
    waiting = None if options.wait_for is None else _wait_for(options.wait_for)
    from testyard.lab.cluster.deployer.examination import Examination

    examination = Examination(deployment, within)
    if waiting:
        return examination.report_when(*waiting, update=options.update)
    return examination.report(update=options.update)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=f"python -m {PROGRAM}",
        description="Creates, reports, stops, starts and destroys one deployment: embedded nodes with a database.",
        allow_abbrev=False,
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", parser_class=_Parser)
    common = _Parser(add_help=False, allow_abbrev=False)
    common.add_argument(
        "--deployment-dir",
        required=True,
        nargs="?",
        const=MISSING,
        metavar="DIR",
        help="the deployment's directory",
    )

    def add(verb: str, text: str) -> argparse.ArgumentParser:
        return verbs.add_parser(verb, help=text, description=text, parents=[common], allow_abbrev=False)

    add(
        "init",
        f"prepare the directory: --cloud-provider {'|'.join(PROVIDERS)} [--cluster-size N] [--database false] "
        "[--sysrq false] [--any-parameter VALUE ...]",
    )
    deploy = add("deploy", "create the nodes and the database")
    deploy.add_argument(
        "--owner-pid",
        default=str(os.getppid()),
        nargs="?",
        const=MISSING,
        metavar="PID",
        help="the process whose end ends the datacentre, when TESTYARD_DATACENTRE names none; default: the parent",
    )
    add("status", "show the state file as JSON")
    health = add("health", "measure every node and show the result as JSON; exit status 1 when anything is wrong")
    health.add_argument("--update", action="store_true", help="correct the state file by what is measured")
    health.add_argument(
        "--wait-for",
        nargs="?",
        const=MISSING,
        metavar="STATUS,DURATION",
        help="measure until the deployment has a status, such as database_ready,15m",
    )
    health.add_argument(
        "--timeout",
        nargs="?",
        const=MISSING,
        metavar="SECONDS",
        help="what one check of one node may take; default 10",
    )
    stop = add("stop", "stop the database and the admin UI, then shut every node down")
    stop.add_argument("--services-only", action="store_true", help="leave the nodes to the caller")
    start = add("start", "power the nodes on, or say how it is done by hand, and wait until the database is ready")
    start.add_argument("--no-wait", action="store_true", help="leave powering on and waiting to the caller")
    destroy = add("destroy", "end the nodes, and remove their keys and credentials")
    destroy.add_argument("--auto-approve", action="store_true", help="do it without asking")
    return parser


def _process(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        message = f"--owner-pid: expected a process id, got {text!r}"
        raise UserError(message)
    return int(text)


def _seconds(text: str) -> timedelta:
    """A time in seconds, ``5`` or ``2.5``, or with its unit."""
    return duration(f"{text}s" if text.replace(".", "", 1).isdigit() else text, "--timeout")


def _wait_for(text: str) -> tuple[Status, timedelta]:
    name, comma, length = text.partition(",")
    if not comma:
        message = f"--wait-for: expected STATUS,DURATION such as database_ready,15m, got {text!r}"
        raise UserError(message)
    if name not in set(Status):
        message = f"--wait-for: expected one of {', '.join(Status)}, got {name!r}"
        raise UserError(message)
    return Status(name), duration(length, "--wait-for")
