"""Compares an answer with a recorded one: status, headers, keys and JSON types, and the few values that matter."""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

IDENTIFIER = re.compile(r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])")

_JSON_TYPES: Mapping[type, str] = {
    type(None): "null",
    bool: "boolean",
    int: "number",
    float: "number",
    str: "string",
    list: "array",
    dict: "object",
}
_SAME_VALUES = ("state", "type", "limits")
_RELATION = re.compile(r'rel="(\w+)"')


class Difference(NamedTuple):
    """Where an answer differs, as a dotted path (``status``, ``header.Link``, ``body.0.uuid``), and how."""

    path: str
    problem: str


@dataclass(frozen=True)
class Answer:
    """Status, headers and JSON body of an answer; a body that is no JSON is text, an absent one empty text."""

    status: int
    headers: Mapping[str, str]
    body: Any


def json_type(value: object) -> str:
    """What JSON calls the type of a value."""
    return _JSON_TYPES[type(value)]


def body_differences(
    recorded: Any, answered: Any, identifiers: Collection[str] = (), path: str = "body"
) -> Iterator[Difference]:
    """Find keys, elements and types of a recorded body that an answered one lacks.

    Args:
        recorded: The recorded body. Its nulls tell nothing about a type, so anything is right in their place.
        answered: The body to look at; it may have more keys and more elements.
        identifiers: UUIDs that stand for the same objects in both: text with one of them must be equal.
        path: How the differences call the place.
    """
    if recorded is None:
        return
    expected, got = json_type(recorded), json_type(answered)
    if expected != got:
        yield Difference(path, f"recorded {expected}, answered {got}")
    elif isinstance(recorded, dict):
        for key, value in recorded.items():
            if key in answered:
                yield from body_differences(value, answered[key], identifiers, f"{path}.{key}")
            else:
                yield Difference(f"{path}.{key}", "missing")
    elif isinstance(recorded, list):
        for index, value in enumerate(recorded):
            if index < len(answered):
                yield from body_differences(value, answered[index], identifiers, f"{path}.{index}")
            else:
                yield Difference(f"{path}.{index}", "missing")
    elif isinstance(recorded, str) and recorded != answered:
        named = IDENTIFIER.findall(recorded)
        if named and all(name in identifiers for name in named):
            yield Difference(path, f"should refer to {recorded}, refers to {answered}")


def value_differences(recorded: Any, answered: Any) -> Iterator[Difference]:
    """Find objects, the body or the rows of a list, that are in another state than the recorded ones."""
    rows = zip(recorded, answered, strict=False) if isinstance(recorded, list) else [(recorded, answered)]
    for index, (before, now) in enumerate(rows):
        for key in _SAME_VALUES:
            if isinstance(before, dict) and key in before and before[key] != now.get(key):
                path = f"body.{index}.{key}" if isinstance(recorded, list) else f"body.{key}"
                yield Difference(path, f"recorded {before[key]}, answered {now.get(key)}")


def header_differences(recorded: Mapping[str, str], answered: Mapping[str, str]) -> Iterator[Difference]:
    """Find recorded headers that an answer lacks or that say something else.

    An answer without a content type must have none; a list must count as many results and link to the same
    relations; a created object must be where it was. ``Allow`` is not compared: agents do not read it.
    """
    for name in ("Content-Type", "X-Result-Count", "Location"):
        if recorded.get(name) != answered.get(name) and (name in recorded or name == "Content-Type"):
            yield Difference(f"header.{name}", f"recorded {recorded.get(name)}, answered {answered.get(name)}")
    expected, got = (_RELATION.findall(headers.get("Link", "")) for headers in (recorded, answered))
    if expected != got:
        yield Difference("header.Link", f"recorded relations {expected}, answered {got}")


def answer_differences(
    recorded: Answer, answered: Answer, identifiers: Collection[str] = ()
) -> Iterator[Difference]:
    """Find what of a recorded answer an answer lacks.

    Objects must be in the recorded state, and a refusal must be worded as recorded.
    """
    if recorded.status != answered.status:
        yield Difference(
            "status", f"recorded {recorded.status}, answered {answered.status}: {answered.body}"[:300]
        )
        return
    yield from header_differences(recorded.headers, answered.headers)
    if recorded.status < 400:
        in_shape = list(body_differences(recorded.body, answered.body, identifiers))
        yield from in_shape
        if not any(difference.path == "body" for difference in in_shape):
            yield from value_differences(recorded.body, answered.body)
    elif recorded.body != answered.body:
        yield Difference("body", f"recorded {recorded.body}, answered {answered.body}")
