"""Keywords about the pipeline service of the lab: where it is, its workers, and what goes wrong around it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from datetime import timedelta
from enum import Enum
from typing import Any, Literal

from robot.api import logger
from robot.api.deco import keyword
from robot.api.types import Secret
from testyard.core.deadline import Deadline, seconds, wait_until
from testyard.core.errors import UserError
from testyard.core.redact import secrets_in_use
from testyard.core.tables import html_table
from testyard.lab.environment import PIPELINE_VARIABLES, Environment

from LabLibrary.world import World

LAST_COMPLAINTS = 5
EXECUTION_COLUMNS = ("run", "attempt", "claim", "worker", "event")


class NetworkFault(Enum):
    """What can be made to go wrong between services and their database."""

    CONNECTIONS_CUT = "cut"
    CONNECTIONS_REFUSED = "refuse"
    SILENCE = "silence"
    SLOW = "slow"


class PipelineKeywords:
    """The pipeline service of the lab."""

    _world: World

    @keyword(tags=["Setup"])
    def start_the_pipeline_service(
        self, *, breakable: bool = False, within: timedelta = timedelta(seconds=20)
    ) -> None:
        """Start PostgreSQL and the pipeline service, and wait until it answers.

        Takes the processes that an earlier suite of the run left behind, which `Stop The Pipeline Service` has
        emptied. Does nothing when it runs already, and nothing on your own systems.

        Args:
            breakable: Whether `Break The Database Connection` is going to be used: the service then reaches its
                database through a proxy.
            within: Give up after this time.

        Raises:
            LabError: A process did not become ready; nothing is left running.

        Example:
            | Start The Pipeline Service |
        """
        if self._world.environment is Environment.OWN or self._world.pipelines.lab is not None:
            return
        lab = self._world.pipelines.hand_out(breakable=breakable, within=within)
        logger.info(f"Pipeline service of the lab: {lab.url}; PostgreSQL: port {lab.postgresql.port}")

    @keyword(tags=["Setup"])
    def stop_the_pipeline_service(self) -> None:
        """Undo every fault, end the workers and empty the service as if it had just been started.

        Its processes wait for the next suite of the run and end with the run.

        Example:
            | Stop The Pipeline Service |
        """
        try:
            self._world.heal()
        finally:
            self._world.pipelines.take_back()

    @keyword(tags=["Getter"])
    def address_of_the_pipeline_service(self) -> str:
        """Where the service's API is: the lab's, or `PIPELINES_URL` on your own systems.

        Example:
            | ${url} = | Address Of The Pipeline Service |
        """
        return self._own("PIPELINES_URL") or self._world.pipeline_lab().url

    @keyword(tags=["Getter"])
    def admin_key_of_the_pipeline_service(self) -> Secret:
        """What admin calls carry: the lab's, or `PIPELINES_ADMIN_KEY` on your own systems.

        Example:
            | ${key} = | Admin Key Of The Pipeline Service |
        """
        return Secret(self._own("PIPELINES_ADMIN_KEY") or self._world.pipeline_lab().admin_key)

    @keyword(tags=["Getter"])
    def database_of_the_pipeline_service(self) -> Secret:
        """The URL of the service's database, with its password: the lab's, or `PIPELINES_DATABASE_URL`.

        Example:
            | ${database} = | Database Of The Pipeline Service |
        """
        return Secret(self._own("PIPELINES_DATABASE_URL") or self._world.pipeline_lab().database_url)

    def _own(self, variable: str) -> str:
        if self._world.environment is not Environment.OWN:
            return ""
        value = os.environ.get(variable, "")
        if not value:
            message = f"Your own pipeline service is not named: set {', '.join(PIPELINE_VARIABLES)}."
            raise UserError(message)
        if variable != "PIPELINES_URL":
            secrets_in_use.add(value)
        return value

    @keyword(tags=["Setup"])
    def start_pipeline_workers(
        self, *names: str, batch: int = 10, within: timedelta = timedelta(seconds=20)
    ) -> None:
        """Start worker processes that claim and execute runs until the suite ends.

        Args:
            names: How the service's rows name them.
            batch: How many runs each claims at once.
            within: Give up after this time.

        Raises:
            LabError: One runs already, or ended instead of becoming ready.

        Example:
            | Start Pipeline Workers | first | second |
        """
        lab = self._world.pipeline_lab()
        lab.start_workers(*names, within=within, options=("--batch", str(batch)))
        for name in names:
            logger.info(f"Worker {name}: process {lab.workers[name].process.pid}")

    @keyword(tags=["Fault"])
    def kill_pipeline_worker(self, name: str) -> None:
        """Kill a worker as a crash would (SIGKILL): what it was doing is neither finished nor reported.

        Args:
            name: As it was started.

        Example:
            | Kill Pipeline Worker | first |
        """
        process = self._world.pipeline_lab().kill_worker(name)
        logger.info(f"Worker {name}, process {process}, killed")

    @keyword(tags=["Setup"])
    def stop_pipeline_workers(self, *names: str) -> None:
        """Let workers report what they have done, and end.

        Args:
            names: As they were started.

        Example:
            | Stop Pipeline Workers | first | second |
        """
        self._world.pipeline_lab().stop_workers(*names)

    @keyword(tags=["Getter", "Evidence"])
    def executions_of_pipeline_workers(
        self, *, among: Iterable[Mapping[str, Any]] | None = None
    ) -> list[dict[str, Any]]:
        """Draw a table of what every worker executed, also those that are gone, as they wrote it down themselves.

        Args:
            among: Rows with a `run_id`; only executions of these runs. All when not given.

        Returns:
            Mappings, one for each start and each success that a worker reported.

        Example:
            | ${executions} = | Executions Of Pipeline Workers |
        """
        executions = []
        for file in self._world.pipeline_lab().executions():
            # A killed worker may have been writing its last line.
            complete = file.read_bytes().rpartition(b"\n")[0]
            executions += [json.loads(line) for line in complete.splitlines()]
        if among is not None:
            runs = {row["run_id"] for row in among}
            executions = [line for line in executions if line["run_id"] in runs]
        rows = [
            (it["run_id"], it["retry_attempt"], it["claim_number"], it["worker"], it["event"]) for it in executions
        ]
        title = f"Executions: {len(rows)}"
        logger.info(html_table(title, EXECUTION_COLUMNS, rows, folded=True), html=True)
        return executions

    @keyword(tags=["Assertion", "Wait"])
    def pipeline_worker_should_say(
        self, name: str, text: str, *, within: timedelta = timedelta(seconds=10)
    ) -> None:
        """Wait until a worker has complained of something.

        Args:
            name: As it was started.
            text: What one of its complaints contains.
            within: Give up after this time.

        Raises:
            NotMetError: None does; tells the last ones.

        Example:
            | Pipeline Worker Should Say | first | statement timeout |
        """
        lab = self._world.pipeline_lab()
        wait_until(
            lambda: lab.complaints_of(name)[-LAST_COMPLAINTS:],
            lambda _: any(text in line for line in lab.complaints_of(name)),
            Deadline(within),
            f"the worker {name} to say {text!r}",
        )

    @keyword(tags=["Assertion", "Wait"])
    def pipeline_service_should_answer_again(self, *, within: timedelta = timedelta(seconds=10)) -> timedelta:
        """Wait until the service's API has its database back.

        Args:
            within: Give up after this time.

        Returns:
            How long it took.

        Raises:
            NotMetError: It says all the time that its database is away.

        Example:
            | Pipeline Service Should Answer Again | within=5s |
        """
        deadline = Deadline(within)
        lab = self._world.pipeline_lab()
        wait_until(lab.answers, bool, deadline, "the pipeline service to have its database back")
        logger.info(f"The pipeline service has its database back after {seconds(deadline.elapsed)}")
        return deadline.elapsed

    # Faults.

    @keyword(tags=["Fault"])
    def restart_postgresql(self, how: Literal["fast", "immediate", "kill"] = "fast") -> None:
        """Stop PostgreSQL and start it again, on the same port and data.

        Args:
            how: `fast` ends its connections in order, `immediate` aborts, `kill` kills its main process.

        Example:
            | Restart PostgreSQL | how=kill |
        """
        lab = self._world.database_lab()
        before = lab.postgresql.pid
        lab.restart_postgresql(how)
        logger.info(f"PostgreSQL restarted ({how}): process {before}, now {lab.postgresql.pid}")

    @keyword(tags=["Fault"])
    def break_the_database_connection(self, fault: NetworkFault, *, delay: timedelta = timedelta(0)) -> None:
        """Break the network between the services and their database, until the test ends or it is mended.

        Args:
            fault: `CONNECTIONS_CUT` resets those that are open and takes new ones; `CONNECTIONS_REFUSED` also
                takes no new ones; `SILENCE` keeps them open but lets nothing through; `SLOW` delays everything.
            delay: How much, for `SLOW`.

        Example:
            | Break The Database Connection | CONNECTIONS_REFUSED |
        """
        proxy = self._world.database_lab().proxy
        self._world.will_undo("the database connection", proxy.heal)
        match fault:
            case NetworkFault.CONNECTIONS_CUT:
                logger.info(f"{proxy.cut()} connections to the database cut")
            case NetworkFault.CONNECTIONS_REFUSED:
                proxy.refuse()
            case NetworkFault.SILENCE:
                proxy.silence()
            case NetworkFault.SLOW:
                proxy.delay(delay)
        logger.info(f"Fault between the services and their database: {fault.name}")

    @keyword(tags=["Fault"])
    def mend_the_database_connection(self) -> None:
        """End `Break The Database Connection` before the test does.

        Example:
            | Mend The Database Connection |
        """
        self._world.undo("the database connection")
        logger.info("The network between the services and their database is whole again")
