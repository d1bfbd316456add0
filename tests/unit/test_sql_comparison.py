"""Rows are compared with the expected ones, and every difference is explained."""

from __future__ import annotations

import pytest
from testyard.core.errors import UserError
from testyard.core.redact import secrets_in_use
from testyard.sql.comparison import MARK, Verdict, compare, rows_table

RUNS = [
    {"id": 1, "state": "DONE", "ended": "today"},
    {"id": 2, "state": "FAILED", "ended": None},
    {"id": 2, "state": "FAILED", "ended": None},
]


def verdicts(*rows: object, **options: object) -> list[Verdict]:
    return [pair.verdict for pair in compare(list(rows), RUNS, **options).pairs]


def test_equal_rows_in_any_order_are_as_expected() -> None:
    expected = [
        {"id": "2", "state": "FAILED", "ended": "NULL"},
        {"id": "1", "state": "DONE", "ended": "today"},
        {"id": "2", "state": "FAILED", "ended": None},
    ]
    comparison = compare(expected, RUNS)
    assert comparison.differences == ()
    assert comparison.message == ""
    assert compare([], []).differences == ()


def test_only_the_named_columns_count() -> None:
    assert verdicts({"id": 1}, {"id": 2}, {"id": 2}) == [Verdict.SAME] * 3


def test_how_often_a_row_is_there_counts() -> None:
    assert verdicts({"id": 1}, {"id": 2}) == [Verdict.SAME, Verdict.SAME, Verdict.UNEXPECTED]
    assert verdicts(*[{"id": 2}] * 3, {"id": 1}).count(Verdict.MISSING) == 1
    assert verdicts() == [Verdict.UNEXPECTED] * 3


def test_the_order_counts_when_asked_for() -> None:
    swapped = [{"id": 2}, {"id": 1}, {"id": 2}]
    assert verdicts(*swapped) == [Verdict.SAME] * 3
    assert verdicts(*swapped, ordered=True) == [Verdict.DIFFERENT, Verdict.DIFFERENT, Verdict.SAME]
    assert verdicts({"id": 1}, ordered=True) == [Verdict.SAME, Verdict.UNEXPECTED, Verdict.UNEXPECTED]
    assert verdicts(*[{"id": 2}] * 4, ordered=True)[3] is Verdict.MISSING


def test_keys_tell_which_rows_belong_together() -> None:
    expected = [{"id": 2, "state": "DONE"}, {"id": 3, "state": "DONE"}]
    by_key = compare(expected, RUNS[:2], keys=["id"])
    assert [pair.verdict for pair in by_key.pairs] == [Verdict.DIFFERENT, Verdict.MISSING, Verdict.UNEXPECTED]
    assert by_key.pairs[0].different == ("state",)


def test_without_keys_the_most_alike_belong_together() -> None:
    expected = [{"id": 9, "state": "FAILED", "ended": None}]
    comparison = compare(expected, RUNS[:2])
    assert [pair.different for pair in comparison.pairs] == [("id",), ()]
    assert comparison.pairs[0].actual == RUNS[1]
    nothing_alike = compare([{"id": 9, "state": "X", "ended": "X"}], RUNS[:1])
    assert [pair.verdict for pair in nothing_alike.pairs] == [Verdict.MISSING, Verdict.UNEXPECTED]


def test_the_message_tells_every_kind_of_difference() -> None:
    expected = [{"id": 1, "state": "FAILED"}, {"id": 4, "state": "DONE"}]
    assert compare(expected, RUNS[:2], keys=["id"]).message == (
        "3 of 3 rows are not as expected:\n"
        "- id 1: state is DONE, expected FAILED\n"
        "- missing: id 4, state DONE\n"
        "- unexpected: id 2, state FAILED, ended NULL"
    )


def test_a_long_message_is_cut_short() -> None:
    message = compare([{"n": -1}] * 9, [], keys=["n"]).message
    assert message.splitlines()[0] == "9 of 9 rows are not as expected:"
    assert len(message.splitlines()) == 7
    assert message.endswith("- and 4 more")


def test_the_table_escapes_and_marks() -> None:
    html = compare([{"id": 1, "note": "<i>"}], [{"id": 1, "note": "<b>&"}], keys=["id"]).html()
    assert f"<td>different</td><td>1</td><td>{MARK} &lt;b&gt;&amp;, expected &lt;i&gt;</td>" in html
    assert "<b>" not in html
    assert compare([{"<x>": 1}], [{"<x>": 1}]).html().count("<x>") == 0


def test_the_table_shows_differences_first_and_only_the_first_rows() -> None:
    actual = [{"id": number, "state": "DONE"} for number in range(60)]
    expected = [*actual[:59], {"id": 59, "state": "FAILED"}]
    html = compare(expected, actual, keys=["id"]).html()
    assert "1 of 60 rows are not as expected; the first 50:" in html
    assert html.count("<tr>") == 51
    assert html.index(MARK) < html.index("as expected</td>")
    assert rows_table("All", actual).count("<tr>") == 51
    assert "All; the first 50:" in rows_table("All", actual)
    assert "the first" not in rows_table("All", actual[:50])


def test_tables_show_null_and_no_secret() -> None:
    secrets_in_use.add("a-secret-in-a-cell")
    html = rows_table("Rows", [{"a": None, "b": "a-secret-in-a-cell"}])
    assert "<td>NULL</td><td>***</td>" in html


@pytest.mark.parametrize(
    ("expected", "options", "said"),
    [
        ([{"id": 1, "stat": "DONE"}], {}, "The rows have no column stat; their columns: id, state, ended."),
        ([{"id": 1}], {"keys": ["key"]}, "The rows have no column key"),
        ([{"id": 1}, {"state": "DONE"}], {}, "The expected row {'id': 1} says nothing about state."),
        ([{"state": "DONE"}], {"keys": ["id"]}, "The expected row {'state': 'DONE'} says nothing about id."),
        ([{"id": 1}], {"keys": ["id"], "ordered": True}, "by keys or in order, not both."),
    ],
)
def test_what_cannot_be_compared_is_refused(expected: list, options: dict, said: str) -> None:
    with pytest.raises(UserError) as told:
        compare(expected, RUNS, **options)
    assert said in str(told.value)
