"""What the library's keywords share: the clusters of the run, and what steps and checks there are."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robot.api import logger
from robot.libraries.BuiltIn import BuiltIn, RobotNotRunningError
from testyard.core.errors import UserError
from testyard.core.leftover import Leftover
from testyard.workflow.cluster import Cluster
from testyard.workflow.context import Context
from testyard.workflow.loading import default_checks, default_steps
from testyard.workflow.settings import chosen_settings

from WorkflowLibrary.showing import StepKeywords

# As the lab's own directories are named: the next run removes those of runs that were killed.
DIRECTORY_PREFIX = "testyard-"


@dataclass
class OpenCluster:
    """A deployment that this run has made.

    Attributes:
        cluster: The deployment.
        context: What its steps and checks are given.
    """

    cluster: Cluster
    context: Context


class Session:
    """One robot process's state.

    Args:
        settings: What differs from the defaults.

    Attributes:
        settings: How workflows are run here.
        steps: The step types that workflows may name.
        checks: The checks that workflows may name.
        clusters: The clusters, by alias.
        current: The alias of the cluster in use.
        shown: Shows each step as a keyword.
        last_step: The result of the last single step; empty when none was run.
        verdicts: What checks said, by the state of the cluster that they were noted under.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = chosen_settings(settings)
        self.steps = default_steps()
        self.checks = default_checks()
        self.clusters: dict[str, OpenCluster] = {}
        self.current = ""
        self.shown = StepKeywords()
        self.last_step: dict[str, Any] = {}
        self.verdicts: dict[str, dict[str, bool]] = {}
        self._place: Path | None = None

    @property
    def here(self) -> OpenCluster:
        """The cluster in use.

        Raises:
            UserError: There is none.
        """
        if self.current not in self.clusters:
            message = "No cluster is in use: 'Deploy Cluster' first."
            raise UserError(message)
        return self.clusters[self.current]

    def open(self, alias: str, provider: str, parameters: Mapping[str, Any]) -> OpenCluster:
        """A cluster that is still to be deployed, in a directory of its own.

        Raises:
            UserError: The alias is taken.
        """
        if alias in self.clusters:
            message = f"There is a cluster {alias!r} already: destroy it first, or give another alias."
            raise UserError(message)
        opened = self.prepare(self.new_directory(provider), provider, parameters)
        self.clusters[alias] = opened
        self.current = alias
        return opened

    def prepare(self, directory: Path, provider: str, parameters: Mapping[str, Any]) -> OpenCluster:
        """A cluster in a directory, and the context of its steps."""
        cluster = Cluster(directory, self.settings, provider=provider, parameters=parameters, log=logger.info)
        context = Context(
            deploy_dir=directory,
            parameters=dict(parameters),
            provider=provider,
            cluster=cluster,
            log=logger.info,
        )
        return OpenCluster(cluster, context)

    def new_directory(self, name: str) -> Path:
        """A new, empty directory for a deployment."""
        if self._place is None:
            self._place = Path(tempfile.mkdtemp(prefix=f"{DIRECTORY_PREFIX}{os.getpid()}-"))
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self._place))

    def results_path(self, name: str) -> Path:
        """Where a result of this run goes: below the output directory."""
        try:
            output = BuiltIn().get_variable_value("${OUTPUT DIR}")
        except RobotNotRunningError:
            output = None
        return Path(output or self.new_directory("results")) / "workflows" / f"{name}.json"

    def destroy(self, alias: str) -> None:
        """Destroy one cluster and forget it.

        Raises:
            UserError: The deployer refused.
        """
        opened = self.clusters.pop(alias)
        if self.current == alias:
            self.current = next(iter(self.clusters), "")
        try:
            opened.cluster.destroy()
        finally:
            shutil.rmtree(opened.cluster.directory, ignore_errors=True)

    def destroy_all(self) -> list[str]:
        """Destroy every cluster, and forget what was seen of them; gives what went wrong."""
        self.last_step = {}
        self.verdicts = {}
        problems = []
        for alias in list(self.clusters):
            try:
                self.destroy(alias)
            except UserError as problem:
                problems.append(f"The cluster {alias} was not destroyed: {problem}")
        if self._place is not None:
            shutil.rmtree(self._place, ignore_errors=True)
            self._place = None
        return problems

    def undo(self) -> list[Leftover]:
        """Put back every node that is down because of a fault, the last one first."""
        return [leftover for opened in self.clusters.values() for leftover in opened.cluster.undo()]
