"""Run cluster workflows, step by step and check by check, and know what each of them has really done."""

from __future__ import annotations

from typing import Any

from robot.api import logger
from robot.api.deco import library
from testyard import __version__
from testyard.core.listening import MaskingListener

from WorkflowLibrary.checking import CheckKeywords
from WorkflowLibrary.commanding import CommandKeywords
from WorkflowLibrary.deploying import DeploymentKeywords
from WorkflowLibrary.reading import ResultKeywords
from WorkflowLibrary.refusing import RefusalKeywords
from WorkflowLibrary.running import WorkflowKeywords
from WorkflowLibrary.session import Session


@library(scope="GLOBAL", version=__version__, listener="SELF", doc_format="MARKDOWN")
class WorkflowLibrary(
    DeploymentKeywords,
    WorkflowKeywords,
    CheckKeywords,
    RefusalKeywords,
    ResultKeywords,
    CommandKeywords,
    MaskingListener,
):
    """Run the JSON workflows of document 003, or single steps and checks of them.

    A workflow is a file of suites, each a list of steps: `init`, `deploy`, `validate`, `stop_cluster`,
    `start_cluster`, `stop_node`, `start_node`, `restart_node`, `crash_node`, `custom_command`, and beyond the
    document `destroy`, `parallel`, `group` and `chaos`. It is checked as a whole before anything starts. In the
    log every step is a keyword of its own, with its checks, what they saw, and how often they were tried.

    Clusters are deployed by the deployer's command line, and their machines stopped, started and crashed by
    `testyard.power`. Every cluster that the run has deployed is destroyed at its end, also after Ctrl-C.
    """

    def __init__(self, *, settings: dict[str, Any] | None = None) -> None:
        """Choose how workflows are run here.

        Args:
            settings: What differs from the documented defaults, as a settings file would say it: `deployer`,
                `operator`, `deadlines`, `power_deadlines`, `delay_scale`. The log says what differs.
        """
        MaskingListener.__init__(self)
        self._session = Session(settings or {})
        self._told = False

    # What Robot Framework calls as it runs.

    def start_suite(self, data: Any, result: Any) -> None:
        """Say once in which way this environment is not as documented."""
        if not self._told:
            self._told = True
            for line in self._session.settings.differences():
                logger.info(f"Workflow setting {line}")

    def end_test(self, data: Any, result: Any) -> None:
        """Put back every node that the test took down and did not start again."""
        for leftover in self._session.undo():
            tell = logger.info if leftover.ended else logger.warn
            tell(f"Put back: {leftover.name}: {leftover.outcome}")
        super().end_test(data, result)

    def close(self) -> None:
        """Destroy what the run left deployed."""
        for problem in self._session.destroy_all():
            logger.warn(problem)
