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
    head = "".join(f"<th>{html.escape(name)}</th>" for name in _shown(header))
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in _shown(row)) + "</tr>" for row in rows
    )
    state = "" if folded else " open"
    return (
        f"<details{state}><summary>{html.escape(_shown([title])[0])}</summary>"
        f'<table border="1" cellpadding="3" style="border-collapse:collapse">'
        f"<tr>{head}</tr>{body}</table></details>"
    )


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; pipes and line ends in cells are escaped."""

    def line(cells: Iterable[object]) -> str:
        shown = (" ".join(cell.split("\n")).replace("\r", " ").replace("|", "\\|") for cell in _shown(cells))
        return f"| {' | '.join(shown)} |"

    return "\n".join([line(header), line("---" for _ in header), *(line(row) for row in rows)])


def _shown(cells: Iterable[object]) -> list[str]:
    # Masked before they are escaped: an escaped secret is another text than the registered one.
    texts = [str(cell) for cell in cells]
    # All at once, unless a cell has what is put between them.
    between = "\0"
    if any(between in text for text in texts):
        return [secrets_in_use.mask(text) for text in texts]
    return secrets_in_use.mask(between.join(texts)).split(between) if texts else []
