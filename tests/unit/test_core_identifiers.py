"""UUIDs are the same in whatever form they come."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from testyard.core.errors import UserError
from testyard.core.identifiers import hexadecimal, same_identifier


@settings(deadline=None)
@given(st.uuids())
def test_every_form_of_a_uuid_has_one_hexadecimal_form(uuid):
    for form in (str(uuid), uuid.hex, str(uuid).upper(), uuid.hex.upper()):
        assert hexadecimal(form) == uuid.hex
        assert same_identifier(form, uuid.hex)


@settings(deadline=None)
@given(st.uuids(), st.uuids())
def test_two_uuids_are_the_same_only_if_they_are(one, other):
    assert same_identifier(str(one), other.hex) is (one == other)


@pytest.mark.parametrize("text", ["", "order", "1234", "g" * 32, "0" * 31, "0" * 33, None, 7])
def test_what_is_no_uuid_is_refused_and_shown(text):
    with pytest.raises(UserError) as caught:
        hexadecimal(text)
    assert str(caught.value) == f"Expected a UUID (32 hexadecimal digits, with or without dashes), got {text!r}."
    assert caught.value.__cause__ is None


def test_other_texts_are_compared_as_they_are():
    assert same_identifier("node-1", "node-1")
    assert not same_identifier("node-1", "NODE-1")
    assert not same_identifier("", "0" * 32)
    assert not same_identifier("0" * 32, "none")
