"""The run report: what happened, in Markdown, for people without Robot Framework's log."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from testyard.core.redact import secrets_in_use
from testyard.core.tables import markdown_table


class MarkdownReport:
    """A report that grows while the run goes on, so that a killed run leaves what it knew.

    Args:
        path: The file; started anew.
        title: Its first heading.
    """

    def __init__(self, path: Path, title: str) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(secrets_in_use.mask(f"# {title}\n"), encoding="utf-8")

    def heading(self, text: str, level: int = 2) -> None:
        """Start a section."""
        self._append(f"{'#' * level} {text}")

    def line(self, text: str) -> None:
        """Add a paragraph."""
        self._append(text)

    def table(self, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Add a table."""
        self._append(markdown_table(header, rows))

    def _append(self, text: str) -> None:
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(f"\n{secrets_in_use.mask(text)}\n")
