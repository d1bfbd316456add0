"""The comparison of answers finds what it is there to find."""

import pytest
from waldur_comparison import Answer, answer_differences, body_differences, json_type

ONE = "1" * 32
OTHER = "2" * 32
JSON = {"Content-Type": "application/json"}


def body_paths(recorded, answered, identifiers=()):
    return [difference.path for difference in body_differences(recorded, answered, identifiers)]


def answer_paths(recorded: Answer, answered: Answer):
    return [difference.path for difference in answer_differences(recorded, answered)]


@pytest.mark.parametrize(
    ("recorded", "answered", "paths"),
    [
        ({"a": 1}, {"a": 2, "b": 3}, []),
        ({"a": 1, "b": 2}, {"a": 1}, ["body.b"]),
        ({"a": {"b": {"c": ""}}}, {"a": {"b": {}}}, ["body.a.b.c"]),
        ({"a": None}, {"a": "anything"}, []),
        ({"a": None}, {}, ["body.a"]),
        ({"a": ""}, {"a": None}, ["body.a"]),
        ({"a": 1}, {"a": 1.5}, []),
        ({"a": 1}, {"a": "1"}, ["body.a"]),
        ({"a": 1}, {"a": True}, ["body.a"]),
        ({"a": False}, {"a": 0}, ["body.a"]),
        ({"a": {}}, {"a": []}, ["body.a"]),
        ([{"a": 1}], [{"a": 2}, {}], []),
        ([{"a": 1}], [], ["body.0"]),
        ([{"a": 1}, {"a": 1}], [{"a": 1}, {"a": ""}], ["body.1.a"]),
        ([{"a": [{"b": 1}]}], [{"a": [{"c": 1}]}], ["body.0.a.0.b"]),
        ("", {"detail": "x"}, ["body"]),
        ([], {}, ["body"]),
    ],
)
def test_keys_types_and_elements(recorded, answered, paths):
    assert body_paths(recorded, answered) == paths


@pytest.mark.parametrize("form", ["{}", "http://waldur.example/api/users/{}/", "queue_{}_orders"])
def test_a_reference_to_a_known_object_must_lead_to_it(form):
    recorded, answered = {"a": form.format(ONE)}, {"a": form.format(OTHER)}
    assert body_paths(recorded, answered, {ONE}) == ["body.a"]
    assert body_paths(recorded, answered) == []
    assert body_paths(recorded, recorded, {ONE}) == []


def test_a_token_is_no_reference():
    assert body_paths({"token": "1" * 40}, {"token": "2" * 40}, {ONE}) == []


def test_an_unknown_type_is_no_json():
    with pytest.raises(KeyError):
        json_type(object())


def test_another_status_is_all_there_is_to_say():
    assert answer_paths(Answer(200, JSON, {"a": 1}), Answer(500, {}, "")) == ["status"]


@pytest.mark.parametrize(
    ("recorded", "answered", "paths"),
    [
        (JSON, JSON | {"Allow": "GET"}, []),
        (JSON, {"Content-Type": "text/html"}, ["header.Content-Type"]),
        (JSON, {}, ["header.Content-Type"]),
        ({}, JSON, ["header.Content-Type"]),
        ({"X-Result-Count": "2"}, {"X-Result-Count": "2"}, []),
        ({"X-Result-Count": "2"}, {"X-Result-Count": "3"}, ["header.X-Result-Count"]),
        ({"X-Result-Count": "2"}, {}, ["header.X-Result-Count"]),
        ({"Location": "/a"}, {"Location": "/b"}, ["header.Location"]),
        ({}, {"Location": "/b"}, []),
        ({"Link": '<a>; rel="first"'}, {"Link": '<b>; rel="first"'}, []),
        ({"Link": '<a>; rel="next", <b>; rel="last"'}, {"Link": '<b>; rel="last"'}, ["header.Link"]),
        ({}, {"Link": '<a>; rel="next"'}, ["header.Link"]),
    ],
)
def test_headers(recorded, answered, paths):
    assert answer_paths(Answer(200, recorded, {}), Answer(200, answered, {})) == paths


def test_a_refusal_is_worded_as_recorded():
    recorded = Answer(409, JSON, {"detail": "Valid states for operation: executing."})
    assert answer_paths(recorded, Answer(409, JSON, {"detail": "No."})) == ["body"]
    assert answer_paths(recorded, Answer(409, JSON, recorded.body | {"more": 1})) == ["body"]
    assert answer_paths(recorded, recorded) == []


@pytest.mark.parametrize(
    ("recorded", "answered", "paths"),
    [
        ({"state": "done"}, {"state": "erred"}, ["body.state"]),
        ({"limits": {"cpu": 1}}, {"limits": {"cpu": 2}}, ["body.limits"]),
        ([{"type": "Create"}, {"type": "Update"}], [{"type": "Create"}, {"type": "Create"}], ["body.1.type"]),
        ({"name": "a"}, {"name": "b"}, []),
        ([], [{"state": "done"}], []),
    ],
)
def test_objects_are_in_the_recorded_state(recorded, answered, paths):
    assert answer_paths(Answer(200, {}, recorded), Answer(200, {}, answered)) == paths
