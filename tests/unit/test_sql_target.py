"""Where to connect: read from a URL or given in parts; the password is in no text."""

from __future__ import annotations

import pytest
from testyard.core.errors import UserError
from testyard.core.redact import secrets_in_use
from testyard.sql.target import Target


def test_a_url_is_read() -> None:
    target = Target.from_url("postgresql://reader:pass%40word@db.example:5433/runs?sslmode=require")
    assert target == Target("db.example", 5433, "runs", "reader", "pass@word", {"sslmode": "require"})
    assert target.parameters["sslmode"] == "require"
    assert str(target) == "the database 'runs' on db.example port 5433 as 'reader'"


def test_what_a_url_leaves_out_has_the_usual_value() -> None:
    assert Target.from_url("postgres://reader@db.example") == Target("db.example", 5432, "reader", "reader")
    assert Target.from_url("postgresql:///runs").host == "localhost"


def test_a_password_and_options_beside_the_url_win() -> None:
    target = Target.from_url(
        "postgresql://a:first-password@h/d?sslmode=disable",
        password="other-password",
        options={"sslmode": "require"},
    )
    assert target.password == "other-password"
    assert target.parameters["sslmode"] == "require"


def test_the_password_is_registered_and_in_no_text() -> None:
    target = Target.from_url("postgresql://a:registered-by-target@h/d")
    assert "registered-by-target" not in f"{target} {target!r}"
    assert secrets_in_use.mask("registered-by-target") == "***"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://a:my@secret@h/d",
        "postgresql://a:my/secret@h/d",
        "postgresql://a:my:secret@h:port/d",
        "postgresql://a:secret@h:x/d",
        "postgresql://a:secret@h/d?nothing=1",
        "mysql://a:secret@h/d",
        "host=h password=secret",
        "secret",
        "",
    ],
)
def test_what_is_no_url_is_refused_without_quoting_it(url: str) -> None:
    with pytest.raises(UserError, match="expected postgresql://user:password@host:port/database") as told:
        Target.from_url(url)
    assert "secret" not in str(told.value)
    assert told.value.__suppress_context__ or told.value.__context__ is None
