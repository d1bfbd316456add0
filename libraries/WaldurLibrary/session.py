"""What the library's keywords share: connected Waldurs, the federation, the resource under test, the report."""

from __future__ import annotations

import secrets
from collections import Counter
from pathlib import Path
from typing import Any

from testyard.core.errors import UserError
from testyard.core.journal import Journal
from testyard.waldur.api import Resource, Waldur
from testyard.waldur.calls import CALL_COLUMNS, Call, split_call
from testyard.waldur.federation import Federation
from testyard.waldur.provisioning import Provisioner
from testyard.waldur.report import MarkdownReport
from testyard.waldur.states import Side

REPORT_NAME = "federation-report.md"


class Session:
    """One robot process's state."""

    def __init__(self) -> None:
        self.journal = Journal()
        self.run = f"ty{secrets.token_hex(3)}"
        self._provisioners: dict[Side, Provisioner] = {}
        self._provisioned = Counter[Side]()
        self.known_issue = ""
        self._federation: Federation | None = None
        self._resource: str | None = None
        self.places: dict[Side, dict[str, Any]] = {}
        self._report: MarkdownReport | None = None
        self._mark = 0

    @property
    def federation(self) -> Federation:
        """The federation in use.

        Raises:
            UserError: None was joined.
        """
        if self._federation is None:
            message = "There is no federation: 'Join Federation' first."
            raise UserError(message)
        return self._federation

    def join_federation(self, federation: Federation) -> None:
        """Use a federation from now on; the one before was left."""
        self._federation = federation

    def leave_federation(self) -> None:
        """Close the federation in use, if any."""
        if self._federation is not None:
            self._federation.close()
        self._federation = None
        self._resource = None

    def connect(self, side: Side, waldur: Waldur) -> None:
        """Provision a side from now on; a second federation's names differ from the first one's."""
        if side in self._provisioners:
            self._provisioners[side].waldur.close()
        self._provisioned[side] += 1
        number = self._provisioned[side]
        prefix = self.run if number == 1 else f"{self.run}-{number}"
        self._provisioners[side] = Provisioner(waldur, prefix)

    def provisioner(self, side: Side) -> Provisioner:
        """The provisioner of a side.

        Raises:
            UserError: That side was not connected.
        """
        if side not in self._provisioners:
            message = f"Waldur {side.value} is not connected: 'Connect To Waldur' first."
            raise UserError(message)
        return self._provisioners[side]

    def staff(self, side: Side) -> Waldur:
        """A side as its staff, who prepares it.

        Raises:
            UserError: That side was not connected.
        """
        return self.provisioner(side).waldur

    def disconnect(self) -> None:
        """Close the connections that provisioning used."""
        for provisioner in self._provisioners.values():
            provisioner.waldur.close()
        self._provisioners.clear()
        self._provisioned.clear()

    def use_resource(self, uuid: str) -> None:
        """Make a resource on A the one that keywords mean when none is named."""
        self._resource = uuid

    def resource_on_a(self, uuid: str | None = None) -> Resource:
        """A resource on A: the named one, or the last one ordered."""
        chosen = uuid or self._resource
        if chosen is None:
            message = "No resource was ordered yet in this federation."
            raise UserError(message)
        return self.federation.source.resource(chosen)

    def resource_on_b(self, uuid: str | None = None) -> Resource:
        """The resource on B that belongs to a resource on A.

        Raises:
            UserError: A's resource carries no backend id.
        """
        resource = self.resource_on_a(uuid)
        if not resource.backend_id:
            message = f"The resource {resource.name!r} on A has no backend id, so it has no resource on B."
            raise UserError(message)
        return self.federation.target.resource(resource.backend_id)

    def resource_on(self, side: Side, uuid: str | None = None) -> Resource:
        """A side's resource for a resource on A: the named one, or the last one ordered.

        Raises:
            UserError: No resource was ordered, or it has none on B.
        """
        return self.resource_on_a(uuid) if side is Side.A else self.resource_on_b(uuid)

    def waldur(self, side: Side) -> Waldur:
        """A side as the test's own user there."""
        return self.federation.source if side is Side.A else self.federation.target

    # The report.

    def report_in(self, directory: Path) -> MarkdownReport:
        """The run's report, started when first asked for."""
        if self._report is None:
            self._report = MarkdownReport(directory / REPORT_NAME, "Federation run")
        return self._report

    @property
    def report(self) -> MarkdownReport | None:
        """The run's report, or None outside a run."""
        return self._report

    def start_test(self, name: str) -> None:
        """A test starts."""
        self.known_issue = ""
        self._mark = self.journal.mark()
        if self._report:
            self._report.heading(name, 3)

    def tell(self, line: str) -> None:
        """Add a line to the report."""
        if self._report:
            self._report.line(line)

    def tell_calls(self, title: str, calls: list[Call]) -> None:
        """Add a table of REST calls to the report."""
        if self._report and calls:
            self._report.line(title)
            self._report.table(CALL_COLUMNS, map(split_call, calls))

    def complaints_of_test(self) -> list[str]:
        """The agent's warnings and errors since the test started."""
        return self._federation.agent.complaints(self._mark) if self._federation else []

    def calls_of_test(self) -> list[Call]:
        """The agent's REST calls since the test started."""
        return self.federation.agent.calls(self._mark)

    def end_test(self, status: str, message: str) -> None:
        """A test ended."""
        self.tell(f"**{status}** {message}".strip())
