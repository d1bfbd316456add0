"""Keywords that stamp files and find their stamps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from robot.api import logger
from robot.api.deco import keyword
from testyard.event_bus.files import TextFile
from testyard.event_bus.measuring import row_of, timed, timed_each

from EventBusLibrary.connecting import Service, bare_request_of
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
        beside: Service | None = None,
    ) -> list[Row]:
        """Have the stamping service stamp files, one request for each.

        Args:
            files: From `Make Files`.
            namespace: Whose files they are.
            concurrent: How many requests are under way at a time.
            beside: A service to which a bare request is made right before each, for comparison.

        Returns:
            For each file its stamp, with `began_ns` and `took`, and what the bare request took as `bare`.

        Example:
            | ${stamps} = | Stamp Files | ${files} |
        """
        stamps = timed_each(
            lambda it: self._session.bus.stamp(it, namespace=namespace),
            files,
            concurrent=concurrent,
            bare=bare_request_of(self._session.bus, beside),
        )
        logger.info(f"Stamped {len(stamps)} files")
        return [row_of(it) for it in stamps]

    @keyword(tags=["Setup"])
    def stamp_files_together(
        self, files: Sequence[TextFile], *, namespace: str = "omninode.services.metadata"
    ) -> Row:
        """Have the stamping service stamp several files with one request.

        Args:
            files: From `Make Files`.
            namespace: Whose files they are.

        Returns:
            How many there were (`total`), `successful`, `failed`, the `results`, with `began_ns` and `took`.

        Example:
            | ${batch} = | Stamp Files Together | ${files} |
        """
        batch = timed(lambda it: self._session.bus.stamp_together(it, namespace=namespace), files)
        logger.info(f"Stamped {batch.answer['successful']} of {batch.answer['total']} files")
        return row_of(batch)

    @keyword(tags=["Setup"])
    def hash_files(self, files: Sequence[TextFile]) -> list[Row]:
        """Have the stamping service hash files, one request for each.

        Args:
            files: From `Make Files` or `Text File`.

        Returns:
            For each file its `file_hash`, with `began_ns`, `took`, and how long the hash alone took as `hash_ms`.

        Example:
            | ${hashes} = | Hash Files | ${files} |
        """
        hashes = timed_each(self._session.bus.hash, files)
        logger.info(f"Hashed {len(hashes)} files")
        return [{**row_of(it), "hash_ms": it.answer["performance_metrics"]["execution_time_ms"]} for it in hashes]

    @keyword(tags=["Getter"])
    def text_file(self, path: str, content: str) -> TextFile:
        """A file of this content.

        Args:
            path: Its path.
            content: What is in it.

        Example:
            | ${file} = | Text File | abc.txt | abc |
        """
        return TextFile(path, content)

    @keyword(tags=["Getter"])
    def validation_of(self, content: str) -> Row:
        """What the stamping service says of a stamped content.

        Args:
            content: With its stamp.

        Returns:
            Whether it `is_valid`, how many `stamps_found`, the `current_hash`, and `details`.

        Example:
            | ${validation} = | Validation Of | ${stamp}[stamped_content] |
        """
        return self._session.bus.validate(content)

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
    def find_stamps(self, stamps: Sequence[Mapping[str, Any]], *, beside: Service | None = None) -> list[Row]:
        """Find each stamp by the hash of its file.

        Args:
            stamps: From `Stamp Files`.
            beside: A service to which a bare request is made right before each, for comparison.

        Returns:
            What the service found for each, with `began_ns` and `took`, and what the bare request took as `bare`.

        Raises:
            UnexpectedAnswerError: One is not there.

        Example:
            | ${found} = | Find Stamps | ${stamps} |
        """
        hashes = [stamp["file_hash"] for stamp in stamps]
        found = timed_each(self._session.bus.find_stamp, hashes, bare=bare_request_of(self._session.bus, beside))
        return [row_of(it) for it in found]
