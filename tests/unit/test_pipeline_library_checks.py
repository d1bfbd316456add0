"""What PipelineLibrary checks without a service: secrets that can be read, and histories."""

import base64
import hashlib
from typing import Any

import pytest
from pipeline_library_support import LINE, ROW
from PipelineLibrary import PipelineLibrary
from robot.api import logger
from testyard.core.errors import NotMetError, UserError
from testyard.core.redact import secrets_in_use
from testyard.pipelines.secrecy import check_none_is_in

API_KEY = "acme_api_key-of-nobody-0002"


@pytest.fixture
def library() -> PipelineLibrary:
    return PipelineLibrary()


# ---- secrets that must not be readable


@pytest.mark.parametrize(
    "form",
    [
        lambda clear: clear,
        lambda clear: clear.encode(),
        lambda clear: memoryview(clear.encode()),
        lambda clear: base64.b64encode(clear.encode()).decode(),
        lambda clear: "\\x" + clear.encode().hex(),
        lambda clear: {"nested": [clear]},
    ],
)
def test_a_credential_that_can_be_read_is_found_in_any_form_and_not_shown(form):
    library = PipelineLibrary()
    made_up = library.make_up_credentials("GCP")["private_part"]
    library.made_up_credentials_should_not_be_in([{"provider": "GCP", "row": form("something else")}])
    with pytest.raises(NotMetError, match="The column row holds a credential that can be read") as found:
        library.made_up_credentials_should_not_be_in([{"provider": "GCP"}, {"row": form(made_up)}])
    assert made_up not in str(found.value)
    assert made_up not in secrets_in_use.mask(made_up)


def test_nothing_to_compare_is_no_pass():
    library = PipelineLibrary()
    with pytest.raises(UserError, match="nothing to compare: no credential"):
        library.made_up_credentials_should_not_be_in([{"provider": "GCP"}])
    library.make_up_credentials("GCP")
    with pytest.raises(UserError, match="nothing to compare: no rows"):
        library.made_up_credentials_should_not_be_in([])
    with pytest.raises(UserError, match="nothing to compare: no key"):
        library.api_keys_should_not_be_in([{"key_id": "1"}])


def test_a_key_and_its_hash_are_found_in_a_list_of_keys():
    library = PipelineLibrary()
    key = library.api_key_in({"api_key": API_KEY})
    assert key.value == API_KEY
    library.api_keys_should_not_be_in([{"key_id": "1"}])
    for leak in (API_KEY, hashlib.sha256(API_KEY.encode()).hexdigest()):
        with pytest.raises(NotMetError, match="The column shown holds a key or its hash that can be read"):
            library.api_keys_should_not_be_in([{"key_id": "1"}, {"shown": leak}])


@pytest.mark.parametrize(
    ("answer", "has"),
    [({"key_id": "1", "name": "x"}, "key_id, name"), ({}, "nothing"), ({"api_key": ""}, "api_key")],
)
def test_an_answer_without_a_key_is_told_by_its_fields(answer, has):
    with pytest.raises(UserError, match=f"The answer brings no API key; it has {has}"):
        PipelineLibrary().api_key_in(answer)


def test_a_secret_half_of_which_is_there_is_not_there():
    check_none_is_in([{"row": API_KEY[:-1]}], [API_KEY], "key")


def test_the_only_one_is_returned_and_none_or_several_are_told():
    library = PipelineLibrary()
    items = [{"name": "a"}, {"name": "b"}, {"name": "b"}, {}]
    assert library.only_one_with(iter(items), "name", "a") is items[0]
    with pytest.raises(NotMetError, match=r"2 have name 'b', expected one: \['a', 'b', 'b', None\]"):
        library.only_one_with(items, "name", "b")
    with pytest.raises(NotMetError, match="0 have name 'c', expected one"):
        library.only_one_with(items, "name", "c")


# ---- histories


def history(*states: str) -> list[dict[str, Any]]:
    """The rows of a run that went through these states."""
    return [
        ROW | {"sequence": number, "from_state": before, "to_state": state, "worker_id": "w"}
        for number, (before, state) in enumerate(zip((None, *states), states, strict=False), 1)
    ]


def test_a_history_that_is_right_says_how_many_executions_were_repeated(library):
    rows = history("SCHEDULED", "PENDING", "RUNNING", "COMPLETED")
    assert library.every_run_should_be_executed_exactly_once(rows) == 0
    lines = [LINE, LINE | {"event": "succeeded", "monotonic_ns": 6}]
    assert library.every_run_should_be_executed_exactly_once(rows, lines) == 0


@pytest.mark.parametrize(
    ("states", "told"),
    [
        (("SCHEDULED", "PENDING", "RUNNING"), "1 violations of exactly once, the first: run-1 is RUNNING"),
        (("SCHEDULED", "RUNNING", "COMPLETED"), "the first: run-1 went from SCHEDULED to RUNNING"),
    ],
)
def test_a_violation_is_told_and_drawn(library, monkeypatch, states, told):
    tables: list[str] = []
    monkeypatch.setattr(logger, "info", lambda message, **_: tables.append(message))
    with pytest.raises(NotMetError, match=told):
        library.every_run_should_be_executed_exactly_once(history(*states))
    assert "Violations: 1" in tables[-1]
    assert "run-1" in tables[-1]


def test_no_history_is_no_pass(library):
    with pytest.raises(UserError, match="There are no transitions to check: did any run"):
        library.every_run_should_be_executed_exactly_once([])
