"""Keywords about OnexTree, which knows projects, and discovery, which knows where services are."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Literal

from robot.api import logger
from robot.api.deco import keyword
from testyard.event_bus.measuring import row_of, timed_each

from EventBusLibrary.session import Session

Row = dict[str, Any]


class KnowledgeKeywords:
    """Keywords about OnexTree, which knows projects, and discovery, which knows where services are."""

    _session: Session

    @keyword(tags=["Setup"])
    def onextree_reads_project(self, directory: str) -> Row:
        """Let OnexTree read the files of a project on its machine.

        Args:
            directory: Where the project is there.

        Returns:
            How many files and directories it has found.

        Example:
            | OnexTree Reads Project | ${EXECDIR} |
        """
        found = self._session.bus.read_project(directory)
        logger.info(f"OnexTree has read {found['total_files']} files")
        return found

    @keyword(tags=["Getter"])
    def locate_service(self, name: str, *, times: int = 1) -> list[Row]:
        """Ask discovery where a service is.

        Args:
            name: As it is registered, such as `metadata-stamping-service`.
            times: How often.

        Returns:
            For each time the `url`, the `source` (`consul` or `fallback`), with `began_ns` and `took`.

        Raises:
            UnexpectedAnswerError: Nobody knows it.

        Example:
            | ${located} = | Locate Service | onextree-service |
        """
        located = timed_each(self._session.bus.locate, [name] * times)
        first = located[0].answer
        logger.info(f"{name} is at {first['url']} ({first['source']})")
        return [row_of(it) for it in located]

    @keyword(tags=["Assertion", "Wait"])
    def service_should_be_located_by(
        self, name: str, source: Literal["consul", "fallback"], *, within: timedelta = timedelta(seconds=5)
    ) -> Row:
        """Wait until discovery says where a service is, and that it knows it from there.

        Args:
            name: As it is registered.
            source: `consul`, or `fallback` when that cannot be asked.
            within: Give up after this time.

        Returns:
            The `url`, the `source`, and the `reason` for a fallback.

        Raises:
            NotMetError: It is told by something else, or not at all.

        Example:
            | Service Should Be Located By | onextree-service | consul |
        """
        return self._session.bus.wait_for_source(name, source, within)
