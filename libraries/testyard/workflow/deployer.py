"""Drive the deployer: the command line that creates, stops, starts and destroys a deployment (contract 2.1).

Each verb is one process. Its answer is read from files, not pipes: what a deployer leaves running behind it
may keep its standard output open.
"""

from __future__ import annotations

import json
import os
import select
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from testyard.core.deadline import Deadline, seconds
from testyard.core.redact import secrets_in_use
from testyard.workflow.settings import WorkflowSettings

# Parameters whose values never reach a log.
SECRET_PARAMETERS = ("password", "secret", "token", "key")
DIRECTORY_OPTION = "--deployment-dir"


class DeployerError(RuntimeError):
    """The deployer refused, failed, took too long or gave an answer that cannot be read."""

    ROBOT_SUPPRESS_NAME = True


@dataclass(frozen=True)
class Answer:
    """What one call of the deployer gave.

    Attributes:
        status: The exit status.
        output: Its standard output.
        errors: Its standard error.
    """

    status: int
    output: str
    errors: str

    @property
    def reason(self) -> str:
        """The last line that it wrote on standard error, else on standard output."""
        lines = [line.strip() for text in (self.output, self.errors) for line in text.splitlines() if line.strip()]
        return secrets_in_use.mask(lines[-1]) if lines else "it gave no reason"


class Deployer:
    """The deployer of one deployment.

    Args:
        directory: The deployment's directory.
        settings: The command and the deadlines.
        environment: Of the deployer's processes; this process's own when not given.

    Example:
        >>> Deployer(Path("d"), WorkflowSettings(deployer=("exasol",))).command("status")
        ('exasol', 'status', '--deployment-dir', 'd')
    """

    def __init__(
        self, directory: Path, settings: WorkflowSettings, *, environment: Mapping[str, str] | None = None
    ) -> None:
        self.directory = directory
        self._settings = settings
        self._environment = environment

    def command(self, verb: str, *options: str) -> tuple[str, ...]:
        """The command line of a verb."""
        return (*self._settings.deployer, verb, DIRECTORY_OPTION, str(self.directory), *options)

    def init_command(self, provider: str, parameters: Mapping[str, Any]) -> tuple[str, ...]:
        """The command line of ``init``: ``cluster_size: 3`` becomes ``--cluster-size 3``.

        Args:
            provider: Where to deploy.
            parameters: The suite's parameters; one without a value (``null``) is left out.
        """
        return self.command("init", "--cloud-provider", provider, *_options(parameters))

    def init(self, provider: str, parameters: Mapping[str, Any]) -> Answer:
        """Prepare the directory for a deployment.

        Raises:
            DeployerError: It was refused, or took too long.
        """
        return self._call(self.init_command(provider, parameters), self._settings.deadlines.init)

    def deploy(self) -> Answer:
        """Create the nodes and the database.

        Raises:
            DeployerError: It failed, or took too long.
        """
        return self._call(self.command("deploy"), self._settings.deadlines.deploy)

    def status(self) -> dict[str, Any]:
        """What the state file says, and ``<operation>_in_progress`` while an operation runs.

        Raises:
            DeployerError: There is no deployment, or the answer is not JSON.
        """
        answer = self._call(self.command("status"), self._settings.deadlines.status)
        return self._json(answer, "status")

    def health(self, *, update: bool = False, wait_for: str | None = None) -> dict[str, Any]:
        """Measure the deployment now.

        Args:
            update: Also correct the state file by what is seen.
            wait_for: Wait until the deployment has this status, ``database_ready`` for example.

        Returns:
            The health JSON: ``status``, ``checks``, ``issues_count``, ``issues``...

        Raises:
            DeployerError: It cannot be measured, or the status was not reached in time.
        """
        deadlines = self._settings.deadlines
        within = deadlines.status if wait_for is None else deadlines.ready + deadlines.status
        answer = self._run(self.health_command(update=update, wait_for=wait_for), within)
        # Exit status 1 says that there are issues, which the JSON names; a wait that failed is an error.
        if answer.status not in {0, 1} or (wait_for is not None and answer.status):
            raise self._refusal("health", answer)
        return self._json(answer, "health")

    def health_command(self, *, update: bool = False, wait_for: str | None = None) -> tuple[str, ...]:
        """The command line of ``health``; its wait is the deadline ``ready``."""
        options = ["--update"] if update else []
        if wait_for is not None:
            options += ["--wait-for", f"{wait_for},{_duration(self._settings.deadlines.ready)}"]
        return self.command("health", *options)

    def stop(self, *, services_only: bool = False) -> Answer:
        """Stop the cluster.

        Args:
            services_only: Only the database and the admin UI; powering the nodes off is left to the caller.

        Raises:
            DeployerError: The deployment is in a state that cannot be stopped, or it took too long.
        """
        options = ("--services-only",) if services_only else ()
        return self._call(self.command("stop", *options), self._settings.deadlines.stop)

    def start(self, *, wait: bool = True) -> Answer:
        """Start the cluster.

        Args:
            wait: False: only check that it may be started, and note it; powering on is left to the caller.

        Raises:
            DeployerError: The deployment is in a state that cannot be started, or it took too long.
        """
        options = () if wait else ("--no-wait",)
        return self._call(self.command("start", *options), self._settings.deadlines.start)

    def destroy(self) -> Answer:
        """End the deployment and everything that belongs to it.

        Raises:
            DeployerError: It failed, or took too long.
        """
        return self._call(self.command("destroy", "--auto-approve"), self._settings.deadlines.destroy)

    def _call(self, command: Sequence[str], within: timedelta) -> Answer:
        answer = self._run(command, within)
        if answer.status:
            raise self._refusal(self._verb(command), answer)
        return answer

    def run_operator(self, nodes: Sequence[str]) -> None:
        """Have whoever starts machines by hand start these: the settings' command, if there is one.

        Args:
            nodes: The nodes' names.

        Raises:
            DeployerError: The command failed, or took too long.
        """
        if not self._settings.operator:
            return
        answer = self._run((*self._settings.operator, str(self.directory), *nodes), self._settings.deadlines.start)
        if answer.status:
            message = f"The operator's command failed (exit status {answer.status}): {answer.reason}"
            raise DeployerError(message)

    def _run(self, command: Sequence[str], within: timedelta) -> Answer:
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
            try:
                # A group of its own: Ctrl-C is for this process, which ends the deployer first.
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=errors,
                    env=self._environment,
                    process_group=0,
                )
            except OSError as problem:
                message = f"{command[0]} cannot be run: {problem.strerror}."
                raise DeployerError(message) from None
            try:
                status = _wait(process, within)
            except subprocess.TimeoutExpired:
                self._end(process)
                message = f"'{shlex.join(command)}' had not ended after {seconds(within)}."
                raise DeployerError(secrets_in_use.mask(message)) from None
            except BaseException:
                self._end(process)
                raise
            return Answer(status, *(_text(each.fileno()) for each in (output, errors)))

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(self._settings.deadlines.grace.total_seconds())
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _verb(self, command: Sequence[str]) -> str:
        return command[len(self._settings.deployer)]

    def _refusal(self, verb: str, answer: Answer) -> DeployerError:
        message = f"The deployer's '{verb}' failed (exit status {answer.status}): {answer.reason}"
        return DeployerError(message)

    def _json(self, answer: Answer, verb: str) -> dict[str, Any]:
        try:
            content = json.loads(answer.output)
        except json.JSONDecodeError:
            content = None
        if not isinstance(content, dict):
            message = f"The deployer's '{verb}' gave no JSON object (exit status {answer.status}): {answer.reason}"
            raise DeployerError(message)
        return content


def _options(parameters: Mapping[str, Any]) -> Iterator[str]:
    for name, value in parameters.items():
        if value is None:
            continue
        if name.endswith(SECRET_PARAMETERS):
            secrets_in_use.add(str(value))
        yield "--" + name.replace("_", "-")
        match value:
            case bool():
                yield str(value).lower()
            case dict() | list():
                yield json.dumps(value)
            case _:
                yield str(value)


def _wait(process: subprocess.Popen[bytes], within: timedelta) -> int:
    """The exit status as soon as there is one: ``Popen.wait`` with a timeout looks only every 50 ms."""
    deadline = Deadline(within)
    with suppress(OSError), _opened(os.pidfd_open(process.pid)) as descriptor:  # a kernel may not have it
        select.select([descriptor], [], [], within.total_seconds())
    return process.wait(deadline.remaining.total_seconds())


@contextmanager
def _opened(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _duration(duration: timedelta) -> str:
    """As the deployer's options have it: ``15m``, ``7.500s``."""
    minutes, rest = divmod(duration, timedelta(minutes=1))
    return f"{duration.total_seconds():.3f}s" if rest else f"{minutes}m"


def _text(descriptor: int) -> str:
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0).decode(errors="replace")
