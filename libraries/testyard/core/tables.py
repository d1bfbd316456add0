"""Tables for logs (HTML) and reports (Markdown)."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from testyard.core.redact import secrets_in_use


def html_table(
    title: str, header: Sequence[str], rows: Iterable[Sequence[object]], *, folded: bool = False
) -> str:
    """An HTML table for Robot Framework's log; every cell is escaped.

    Args:
        title: Shown above the table.
        header: The columns' names.
        rows: The cells, in the columns' order.
        folded: Show only the title until it is clicked.
    """
    head = "".join(f"<th>{html.escape(_shown(name))}</th>" for name in header)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(_shown(cell))}</td>" for cell in row) + "</tr>" for row in rows
    )
    state = "" if folded else " open"
    return (
        f"<details{state}><summary>{html.escape(_shown(title))}</summary>"
        f'<table border="1" cellpadding="3" style="border-collapse:collapse">'
        f"<tr>{head}</tr>{body}</table></details>"
    )


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; pipes and line ends in cells are escaped."""

    def line(cells: Iterable[object]) -> str:
        shown = (" ".join(_shown(cell).split("\n")).replace("\r", " ").replace("|", "\\|") for cell in cells)
        return f"| {' | '.join(shown)} |"

    return "\n".join([line(header), line("---" for _ in header), *(line(row) for row in rows)])


def _shown(cell: object) -> str:
    # Masked before it is escaped: an escaped secret is another text than the registered one.
    return secrets_in_use.mask(str(cell))
