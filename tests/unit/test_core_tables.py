"""Tables show every cell as text, whatever is in it."""

import re
from xml.etree import ElementTree

from hypothesis import given, settings
from hypothesis import strategies as st
from testyard.core.redact import secrets_in_use
from testyard.core.tables import html_table, markdown_table

# What XML, and so Robot Framework's output, can hold.
CELLS = st.text(st.characters(min_codepoint=32, exclude_categories=["Cs", "Cn"]))


# CommonMark's, which are fewer than Python's.
LINE_END = re.compile(r"\r\n|\r|\n")


def cells_of(table: str) -> list[list[str]]:
    rows = ElementTree.fromstring(table).findall(".//tr")
    return [["".join(cell.itertext()) for cell in row] for row in rows]


@settings(deadline=None)
@given(st.lists(st.tuples(CELLS, CELLS), max_size=4), CELLS)
def test_html_shows_every_cell_as_it_is_and_nothing_as_markup(rows, title):
    table = html_table(title, ("one", "<b>two</b>"), rows, folded=True)
    assert cells_of(table) == [["one", "<b>two</b>"], *map(list, rows)]
    assert ElementTree.fromstring(table).findtext("summary", default="") == title


def test_html_takes_values_that_are_no_texts():
    assert cells_of(html_table("t", ("a", "b"), [(None, 1.5)], folded=True)) == [["a", "b"], ["None", "1.5"]]


def test_every_cell_is_masked_before_it_is_escaped_also_beside_one_with_a_null_character():
    secrets_in_use.add("a&secret<of>tables")
    for other in ("plain", "nu\0ll"):
        table = html_table("a&secret<of>tables", ("a", "b"), [(other, "x a&secret<of>tables")])
        assert "secret" not in table
        assert "<td>x ***</td>" in table
        assert "x ***" in markdown_table(("a", "b"), [(other, "x a&secret<of>tables")])


def test_html_is_open_unless_folded():
    assert html_table("t", ("a",), []).startswith("<details open>")
    assert html_table("t", ("a",), [], folded=True).startswith("<details>")


def test_markdown_has_a_header_a_rule_and_a_line_per_row():
    table = markdown_table(("a", "b"), [(1, "x"), (None, "y")])
    assert table.splitlines() == ["| a | b |", "| --- | --- |", "| 1 | x |", "| None | y |"]


def test_markdown_without_rows_is_only_a_header():
    assert markdown_table(("a",), []).splitlines() == ["| a |", "| --- |"]


def test_markdown_cells_stay_in_their_cell():
    table = markdown_table(("a",), [("x|y\nz",)])
    assert table.splitlines()[2:] == ["| x\\|y z |"]


@settings(deadline=None)
@given(st.text())
def test_markdown_keeps_a_row_on_one_line(text):
    assert len(LINE_END.split(markdown_table(("a",), [(text,)]))) == 3
