"""Federate two Waldurs with the real site agent, and check both sides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from robot.api import logger
from robot.api.deco import library
from robot.libraries.BuiltIn import BuiltIn, RobotNotRunningError
from testyard import __version__
from testyard.core.listening import MaskingListener
from testyard.core.tables import html_table

from WaldurLibrary.daemon import DaemonKeywords
from WaldurLibrary.driving import DrivingKeywords
from WaldurLibrary.membership import MembershipKeywords
from WaldurLibrary.provisioning import ProvisioningKeywords
from WaldurLibrary.session import Session
from WaldurLibrary.usage import UsageKeywords
from WaldurLibrary.usernames import UsernameKeywords
from WaldurLibrary.verification import VerificationKeywords


@library(scope="GLOBAL", version=__version__, listener="SELF", doc_format="MARKDOWN")
class WaldurLibrary(
    ProvisioningKeywords,
    DrivingKeywords,
    VerificationKeywords,
    UsernameKeywords,
    UsageKeywords,
    MembershipKeywords,
    DaemonKeywords,
    MaskingListener,
):
    """Prepare two Waldurs, let the real site agent federate orders from A to B, and check both sides.

    *A* is the source, where customers order; *B* is the target, where the resources are. The agent is the
    PyPI package `waldur-site-agent` with its Waldur plugin, run in this process, one cycle at a time.

    Every REST call of the agent is in the log, cycle by cycle, and the run's story is in the Markdown file
    `federation-report.md` next to Robot Framework's own results.
    """

    def __init__(self) -> None:
        MaskingListener.__init__(self)
        self._session = Session()

    def start_suite(self, data: Any, result: Any) -> None:
        """Start this suite's section of the report."""
        if data.tests and not BuiltIn().dry_run_active:
            self._session.places.clear()
            self._session.report_in(_output_directory()).heading(result.full_name)

    def start_test(self, data: Any, result: Any) -> None:
        """Remember where the journal stands, so that the test's own story can be told."""
        self._session.start_test(result.name)

    def end_test(self, data: Any, result: Any) -> None:
        """Show what the agent's own threads complained about, name a known issue, end the test's report."""
        complaints = self._session.complaints_of_test()
        if complaints:
            rows = [(complaint,) for complaint in complaints]
            title = f"The agent's warnings and errors: {len(rows)}"
            logger.info(html_table(title, ("message",), rows, folded=True), html=True)
        issue = self._session.known_issue
        if issue and result.failed:
            result.message = f"Known issue {issue} has another outcome now: {result.message}"
        super().end_test(data, result)
        self._session.end_test(result.status, result.message)

    def close(self) -> None:
        """Disconnect the agent and every client."""
        self._session.leave_federation()


def _output_directory() -> Path:
    try:
        return Path(BuiltIn().get_variable_value("${OUTPUT DIR}"))
    except RobotNotRunningError:
        return Path.cwd()
