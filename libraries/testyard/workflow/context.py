"""What a step or a check is given: the documented ``context`` mapping, its contents also as typed attributes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, cast

from testyard.core.errors import UserError

if TYPE_CHECKING:
    from testyard.workflow.cluster import Cluster
    from testyard.workflow.results import StepResult


def _say_nothing(_: str) -> None:
    """The log of a context that nobody listens to."""


class Context(dict[str, Any]):
    """The documented mapping (``context["parameters"]``, ``context["deploy_dir"]``; contract 2.2), and attributes.

    Custom steps and checks may keep things of their own in it for later ones. In a ``parallel`` step each
    branch gets a copy, so that what one keeps is not seen by its neighbours.

    Args:
        deploy_dir: The deployment's directory.
        parameters: The suite's parameters.
        provider: The provider's name, such as ``aws``.
        cluster: The deployment; only custom steps and checks do without one.
        log: Called with each line that steps and checks have to say.

    Attributes:
        log: See above.
        results: The results of the steps before this one, set by the engine.
        cancelled: Set when the run is being aborted: what takes long should look at it.

    Example:
        >>> context = Context(deploy_dir=Path("/tmp/d"), parameters={"cluster_size": 3}, provider="libvirt")
        >>> context["parameters"]["cluster_size"], context.provider
        (3, 'libvirt')
    """

    def __init__(
        self,
        *,
        deploy_dir: Path,
        parameters: dict[str, Any] | None = None,
        provider: str = "libvirt",
        cluster: Cluster | None = None,
        log: Callable[[str], None] = _say_nothing,
    ) -> None:
        super().__init__(parameters=dict(parameters or {}), deploy_dir=Path(deploy_dir), provider=provider)
        self._cluster = cluster
        self.log = log
        self.results: Sequence[StepResult] = ()
        self.cancelled = Event()

    @property
    def parameters(self) -> dict[str, Any]:
        """The suite's parameters."""
        return cast(dict[str, Any], self["parameters"])

    @property
    def deploy_dir(self) -> Path:
        """The deployment's directory."""
        return cast(Path, self["deploy_dir"])

    @property
    def provider(self) -> str:
        """The provider's name, such as ``aws``."""
        return cast(str, self["provider"])

    @property
    def cluster(self) -> Cluster:
        """The deployment.

        Raises:
            UserError: The context was made without one.
        """
        if self._cluster is None:
            message = "This step needs a cluster, and the context was made without one: give Context(cluster=...)."
            raise UserError(message)
        return self._cluster

    def branch(self, log: Callable[[str], None], *, follows: bool = True) -> Context:
        """A copy for steps that run beside others, or after the run was aborted.

        Args:
            log: The copy's own log.
            follows: It is aborted together with this one.
        """
        copy = Context(deploy_dir=self.deploy_dir, provider=self.provider, cluster=self._cluster, log=log)
        copy.update(self)
        copy.results = self.results
        if follows:
            copy.cancelled = self.cancelled
        return copy
