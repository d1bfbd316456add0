"""Measures the health of a deployment, once or until its status is the one waited for."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final

from testyard.core.deadline import Deadline, seconds, wait_until
from testyard.core.errors import NotMetError, UserError
from testyard.lab.cluster.deployer.control import DatacentreError, DatacentreGoneError
from testyard.lab.cluster.deployer.datacentre_process import remembered
from testyard.lab.cluster.deployer.files import CREDENTIALS, read_login, read_nodes
from testyard.lab.cluster.deployer.health import Health, HostMeasurement, measured_now
from testyard.lab.cluster.deployer.parameters import has_database
from testyard.lab.cluster.deployer.state_file import read_state
from testyard.lab.cluster.deployer.states import Status, derived_status
from testyard.lab.cluster.deployer.verbs import NOTHING_TO_MEASURE, Deployment

POLL_INTERVAL: Final = timedelta(milliseconds=100)


class Examination:
    """Looks at one deployment.

    Args:
        deployment: Which.
        within: What one check of one node may take; the deployer's setting when not given.

    Raises:
        UserError: It has no nodes.
    """

    def __init__(self, deployment: Deployment, within: timedelta | None = None) -> None:
        state = read_state(deployment.directory)
        if state.status in NOTHING_TO_MEASURE:
            message = f"there is nothing to measure: the deployment is in state '{state.status}'"
            raise UserError(message)
        self._deployment = deployment
        self._within = within or deployment.settings.check
        self._state = state
        self._has_database = has_database(state.parameters)
        read_nodes(deployment.directory)  # or refuse
        if self._has_database and read_login(deployment.directory) is None:
            message = f"the database cannot be asked: {deployment.directory} has no {CREDENTIALS}"
            raise UserError(message)

    def report(self, *, update: bool) -> int:
        """Measure once, show the health JSON, and say what is wrong.

        Args:
            update: Correct the state file.

        Returns:
            The exit status: 0 healthy, 1 not.
        """
        health = self._measure()
        self._finish(health, update=update)
        return 0 if health.healthy else 1

    def report_when(self, status: Status, within: timedelta, *, update: bool) -> int:
        """Wait for a status, and show the health JSON of the last measurement, whether it came or not.

        Args:
            status: The one waited for.
            within: Give up after this.
            update: Correct the state file.

        Returns:
            The exit status: 0 when the status came.
        """
        health, missed = self._wait(self._has_status(status), within, f"status '{status}'")
        self._finish(health, update=update)
        if missed:
            self._deployment.console.tell(missed)
        return 1 if missed else 0

    def wait_for(self, status: Status, within: timedelta, *, update: bool) -> None:
        """Wait for a status without showing anything.

        Raises:
            UserError: It did not come; says what is wrong.
        """
        health, missed = self._wait(self._has_status(status), within, f"status '{status}'")
        self._remember(health, update=update)
        if missed:
            raise UserError(missed)

    def wait_until_complete(self, within: timedelta) -> None:
        """Wait until nothing is wrong and the database takes writes; the state file is left alone.

        Raises:
            UserError: That did not come; says what is wrong.
        """
        health, missed = self._wait(lambda seen: seen.healthy and seen.stage_d, within, "a healthy cluster")
        self._remember(health, update=False)
        if missed:
            raise UserError(missed)

    def _wait(self, accepts: Callable[[Health], bool], within: timedelta, what: str) -> tuple[Health, str]:
        """The last measurement, and what to say when it was not accepted in time."""
        last: list[Health] = []

        def look() -> Health:
            last[:] = [self._measure()]
            return last[0]

        deadline = Deadline(within)
        try:
            return wait_until(look, accepts, deadline, what, interval=POLL_INTERVAL), ""
        except NotMetError:
            issues = "; ".join(map(str, last[0].issues)) or "no issue, but no node takes writes"
            status = self._derived(last[0])(self._deployment.status_now())
            return last[0], f"waited {seconds(deadline.elapsed)} for {what}; it is '{status}': {issues}"

    def _has_status(self, status: Status) -> Callable[[Health], bool]:
        return lambda health: self._derived(health)(self._deployment.status_now()) is status

    def _derived(self, health: Health) -> Callable[[Status], Status]:
        return lambda status: derived_status(
            status, ssh_answers=health.ssh_answers, issues=not health.healthy, stage_d=health.stage_d
        )

    def _finish(self, health: Health, *, update: bool) -> None:
        self._remember(health, update=update)
        self._deployment.console.show(json.dumps(health.as_json(), indent=2))
        for issue in health.issues:
            self._deployment.console.tell(str(issue))

    def _remember(self, health: Health, *, update: bool) -> None:
        health.append_to_history()
        if update:
            self._deployment.update_status(self._derived(health))

    def _measure(self) -> Health:
        hosts = self._hosts()
        seen = self._asked_of_datacentre(self._within, "GET", "")
        return measured_now(
            self._deployment.directory,
            hosts,
            has_database=self._has_database,
            instances=None if seen is None else len(seen["nodes"]),
        )

    def _hosts(self) -> Mapping[str, HostMeasurement]:
        """What is to be seen of each node: by a process that the datacentre forks, or by this one."""
        directory = self._deployment.directory
        question = {
            "directory": str(directory.absolute()),
            "database": self._has_database,
            "within": self._within.total_seconds(),
        }
        answer = self._asked_of_datacentre(self._deployment.settings.control, "POST", "/measurements", question)
        if answer is not None:
            return {name: HostMeasurement(**host) for name, host in answer.items()}
        from testyard.lab.cluster.deployer.measuring import measure

        return measure(directory, database=self._has_database, within=self._within)

    def _asked_of_datacentre(
        self, within: timedelta, method: str, path: str, body: object | None = None
    ) -> Any | None:
        """What the datacentre answers about this deployment; None when it cannot be asked."""
        datacentre = remembered(self._deployment.directory)
        if datacentre is None:
            return None
        with suppress(DatacentreGoneError, DatacentreError):
            control = datacentre.control(within)
            return control.call(method, f"/deployments/{self._state.deployment_id}{path}", body)
        return None
