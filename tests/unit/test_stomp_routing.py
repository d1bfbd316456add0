"""The routing table tells each mistake, and accepts exactly what was expected."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import pytest
from testyard.core.errors import UserError
from testyard.stomp.capture import Event
from testyard.stomp.routing import Route, RoutingTable

CHANNELS = ("manager", "identity manager")


def event(action: str, username: str = "") -> Event:
    return Event("some", {"action": action, "username": username}, {}, datetime.now(UTC))


def table(routes: Sequence[str], arrived: Mapping[str, Sequence[Event]]) -> RoutingTable:
    return RoutingTable([Route.parse(route, CHANNELS) for route in routes], arrived)


def both(*events: Event) -> dict[str, Sequence[Event]]:
    return dict.fromkeys(CHANNELS, events)


@pytest.mark.parametrize(
    ("text", "action", "username", "receivers"),
    [
        ("create: manager", "create", "", ("manager",)),
        ("update jdoe: manager, identity manager", "update", "jdoe", CHANNELS),
        ("delete: nobody", "delete", "", ()),
        (" create :  manager ", "create", "", ("manager",)),
    ],
)
def test_a_route_is_an_action_a_username_and_its_receivers(
    text: str, action: str, username: str, receivers: tuple[str, ...]
) -> None:
    route = Route.parse(text, CHANNELS)
    assert (route.action, route.username, route.receivers) == (action, username, receivers)


@pytest.mark.parametrize("text", ["", "create", "create:", ": manager", "create manager"])
def test_another_form_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UserError, match="is no route; expected 'action username: channel, channel'"):
        Route.parse(text, CHANNELS)


def test_an_unknown_channel_is_named() -> None:
    with pytest.raises(UserError, match=r"unknown channels: owner\.$"):
        Route.parse("create: manager, owner", CHANNELS)


def test_what_was_expected_is_no_mistake() -> None:
    seen = table(
        ["create: manager, identity manager", "update new: manager", "delete: manager, identity manager"],
        {
            "manager": [event("create"), event("update", "new"), event("delete", "new")],
            "identity manager": [event("create"), event("delete", "new")],
        },
    )
    assert seen.mistakes == []
    assert seen.is_complete
    assert seen.header == ("message", *CHANNELS)
    assert seen.rows == [
        ("create", "once", "once"),
        ("update new", "once", "-"),
        ("delete", "once", "once"),
    ]


@pytest.mark.parametrize(
    ("arrived", "mistake", "complete"),
    [
        (
            {"manager": [event("create")], "identity manager": []},
            "should have received 'create' once, not never",
            False,
        ),
        (both(event("create"), event("create")), "manager should have received 'create' once, not 2 times", True),
        (
            both(event("create"), event("update", "x")),
            "received {'action': 'update', 'username': 'x'} as well",
            True,
        ),
    ],
)
def test_each_mistake_is_told(arrived: dict[str, Sequence[Event]], mistake: str, complete: bool) -> None:
    seen = table(["create: manager, identity manager"], arrived)
    assert mistake in "; ".join(seen.mistakes)
    assert seen.is_complete is complete


def test_what_reaches_somebody_it_must_not_is_a_mistake() -> None:
    seen = table(["create: manager"], both(event("create")))
    assert seen.mistakes == ["identity manager should have received 'create' never, not once"]
    assert seen.rows == [("create", "once", "once (expected never)")]


def test_another_order_is_a_mistake() -> None:
    arrived = {"manager": [event("update"), event("create")], "identity manager": []}
    assert table(["create: manager", "update: manager"], arrived).mistakes == [
        "manager received the messages in another order"
    ]


def test_another_username_is_another_message() -> None:
    arrived = {"manager": [event("update", "old")], "identity manager": []}
    mistakes = "; ".join(table(["update new: manager"], arrived).mistakes)
    assert "should have received 'update new' once, not never" in mistakes
    assert "received {'action': 'update', 'username': 'old'} as well" in mistakes
