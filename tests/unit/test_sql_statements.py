"""Placeholders and parameters are compared before anything is sent; positions are told in the test's own text."""

from __future__ import annotations

from typing import Any

import pytest
from testyard.core.errors import UserError
from testyard.sql.statements import Statement


@pytest.mark.parametrize(
    ("text", "parameters"),
    [
        ("SELECT 1", None),
        ("SELECT 'LIKE %s'", None),
        ("SELECT %s, %b", [1, 2]),
        ("SELECT %(a)s, %(a)t, %(b)b", {"a": 1, "b": 2}),
        ("SELECT '%%', %s", ("x",)),
        ("SELECT 1", {}),
        ("SELECT 1", []),
    ],
)
def test_what_fits_is_fine(text: str, parameters: Any) -> None:
    Statement(text, parameters).check()


@pytest.mark.parametrize(
    ("text", "parameters", "said"),
    [
        ("SELECT %(run)s", None, "needs the parameter run, which is not given; given: none."),
        ("SELECT %(a)s, %(b)s", {"c": 1}, "needs the parameters a, b, which is not given; given: c."),
        ("SELECT %(a)s", {}, "needs the parameter a, which is not given; given: none."),
        ("SELECT %(a)s", [1], "needs the parameter a, which is not given; given: values without a name."),
        ("SELECT %(a)s", {"a": 1, "retry_four": 2}, "does not use the given parameter retry_four; it uses: a."),
        ("SELECT 1", {"a": 1, "b": 1}, "does not use the given parameters a, b; it uses: none."),
        ("SELECT %s, '%%'", [1, 2], "has 1 placeholders, but 2 values are given."),
        ("SELECT %s", [], "has 1 placeholders, but 0 values are given."),
        ("SELECT %s", ["Token <secret>"], "The text '<secret>' was about to be sent"),
        ("SELECT %(a)s", {"a": "<secret>"}, "The text '<secret>' was about to be sent"),
    ],
)
def test_what_does_not_fit_is_refused(text: str, parameters: Any, said: str) -> None:
    with pytest.raises(UserError) as told:
        Statement(text, parameters).check()
    assert said in str(told.value)


@pytest.mark.parametrize(
    ("text", "parameters", "sent", "marked"),
    [
        ("SELECT * FORM runs", None, 10, "SELECT * FORM runs\n         ^ line 1, column 10"),
        ("SELECT 1,\n  2 FORM\nx", None, 15, "  2 FORM\n    ^ line 2, column 5"),
        # Sent as: SELECT $1, $1, $2 FORM
        (
            "SELECT %(a)s, %(a)s, %(b)s FORM",
            {"a": 1, "b": 2},
            len("SELECT $1, $1, $2 F"),
            "SELECT %(a)s, %(a)s, %(b)s FORM\n" + " " * 27 + "^ line 1, column 28",
        ),
        ("SELECT '%%' FORM", [], len("SELECT '%' F"), "SELECT '%%' FORM\n            ^ line 1, column 13"),
        ("SELECT FORM %s", [1], len("SELECT F"), "SELECT FORM %s\n       ^ line 1, column 8"),
        ("SELECT", None, 99, "SELECT\n      ^ line 1, column 7"),
    ],
)
def test_a_position_is_marked_in_the_own_text(text: str, parameters: Any, sent: int, marked: str) -> None:
    assert Statement(text, parameters).marked(sent) == marked
