"""Keywords that stamp files and find their stamps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from robot.api import logger
from robot.api.deco import keyword
from testyard.event_bus.files import TextFile
from testyard.event_bus.measuring import timed_each

from EventBusLibrary.session import Session

Row = dict[str, Any]


class StampingKeywords:
    """Keywords that stamp files and find their stamps."""

    _session: Session

    @keyword(tags=["Setup"])
    def stamp_file(self, file: TextFile, *, namespace: str = "omninode.services.metadata", **options: Any) -> Row:
        """Have the stamping service stamp a file.

        Args:
            file: From `Make Files`.
            namespace: Whose file it is.
            options: Further fields of the request, such as `op_id`.

        Returns:
            The stamp: `stamp_id`, `file_hash`, `stamp`, `stamped_content`, `performance_metrics`…

        Example:
            | ${stamp} = | Stamp File | ${files}[0] |
        """
        stamp = self._session.bus.stamp(file, namespace=namespace, **options)
        logger.info(f"Stamped {file.path}: {stamp['file_hash']}")
        return stamp

    @keyword(tags=["Setup"])
    def stamp_files(
        self,
        files: Sequence[TextFile],
        *,
        namespace: str = "omninode.services.metadata",
        concurrent: int = 1,
    ) -> list[Row]:
        """Have the stamping service stamp files, one request for each.

        Args:
            files: From `Make Files`.
            namespace: Whose files they are.
            concurrent: How many requests are under way at a time.

        Returns:
            For each file its stamp, with `began_ns`, `took`, and how long hashing took as `hash_ms`.

        Example:
            | ${stamps} = | Stamp Files | ${files} |
        """
        stamps = timed_each(
            lambda it: self._session.bus.stamp(it, namespace=namespace), files, concurrent=concurrent
        )
        logger.info(f"Stamped {len(stamps)} files")
        return [
            {
                **it.answer,
                "hash_ms": it.answer["performance_metrics"]["execution_time_ms"],
                "began_ns": it.began_ns,
                "took": it.took,
            }
            for it in stamps
        ]

    @keyword(tags=["Getter"])
    def find_stamp(self, file_hash: str, *, namespace: str | None = None) -> Row:
        """Find a stamp by the hash of its file.

        Args:
            file_hash: BLAKE3, 64 hexadecimal digits.
            namespace: Only in this one.

        Raises:
            UnexpectedAnswerError: There is none, or that is no hash; quotes the service.

        Example:
            | ${stamp} = | Find Stamp | ${hash} |
        """
        return self._session.bus.find_stamp(file_hash, namespace)

    @keyword(tags=["Getter"])
    def find_stamps(self, stamps: Sequence[Mapping[str, Any]]) -> list[Row]:
        """Find each stamp by the hash of its file.

        Args:
            stamps: From `Stamp Files`.

        Returns:
            What the service found for each, with `began_ns` and `took`.

        Raises:
            UnexpectedAnswerError: One is not there.

        Example:
            | ${found} = | Find Stamps | ${stamps} |
        """
        hashes = [stamp["file_hash"] for stamp in stamps]
        found = timed_each(self._session.bus.find_stamp, hashes, concurrent=1)
        return [{**it.answer, "began_ns": it.began_ns, "took": it.took} for it in found]
