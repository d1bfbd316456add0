"""The Waldur double for stuck orders and long lists: ages, the filter on them, many objects at once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from double_support import Double, Market

NOBODY = "0" * 32


def ago(**age: float) -> str:
    return (datetime.now(UTC) - timedelta(**age)).isoformat()


def listed(market: Market, **query: Any) -> list[str]:
    return [order["uuid"] for order in market.double.get("marketplace-orders/", **query)]


def test_an_order_can_be_made_older(market: Market) -> None:
    order, other = market.order(), market.order()
    market.double.get("marketplace-orders/")  # the list's cached form must not stay

    answer = market.double.shell("set_order_age", order=order["uuid"], seconds=1860)

    by_identifier = {it["uuid"]: it["modified"] for it in market.double.get("marketplace-orders/")}
    assert by_identifier[order["uuid"]] == answer["modified"]
    age = datetime.now(UTC) - datetime.fromisoformat(answer["modified"])
    assert timedelta(seconds=1860) <= age < timedelta(seconds=1890)
    assert by_identifier[other["uuid"]] > answer["modified"]


def test_an_older_order_that_is_changed_is_young_again(market: Market) -> None:
    order = market.order()
    market.double.shell("set_order_age", order=order["uuid"], seconds=1860)

    market.act(order, "approve_by_provider")

    assert listed(market, modified_before=ago(minutes=30)) == []


def test_orders_are_found_by_when_they_were_last_changed(market: Market) -> None:
    old, older, _new = (market.order()["uuid"] for _ in range(3))
    market.double.shell("set_order_age", order=old, seconds=1740)
    market.double.shell("set_order_age", order=older, seconds=1860)

    assert listed(market, modified_before=ago(minutes=30)) == [older]
    assert listed(market, modified_before=ago(minutes=28)) == [old, older]
    assert len(listed(market, modified_before=ago(minutes=0))) == 3
    assert listed(market, modified_before=ago(minutes=28), state="done") == []


def test_a_moment_without_a_zone_is_utc_and_another_zone_is_converted(market: Market) -> None:
    order, _new = market.order()["uuid"], market.order()
    market.double.shell("set_order_age", order=order, seconds=1860)
    half_an_hour_ago = datetime.now(UTC) - timedelta(minutes=30)
    an_hour_east = (half_an_hour_ago + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%S+01:00")

    assert listed(market, modified_before=half_an_hour_ago.strftime("%Y-%m-%dT%H:%M:%S")) == [order]
    assert listed(market, modified_before=an_hour_east) == [order]
    assert listed(market, modified_before=(half_an_hour_ago - timedelta(minutes=5)).isoformat()) == []


def test_what_is_no_moment_is_refused(market: Market) -> None:
    answer = market.double.get("marketplace-orders/", modified_before="yesterday", expect=400)
    assert answer == {"modified_before": ["Enter a valid date/time."]}


def test_many_users_get_an_account_each_and_nobody_is_told(market: Market) -> None:
    market.double.post("marketplace-site-agent-identities/", {"offering": market.offering["uuid"], "name": "a"})
    made = market.double.shell(
        "create_offering_users", offering=market.offering["uuid"], number=120, active_isds=["isd:x"]
    )["offering_users"]

    rows = market.double.get("marketplace-offering-users/", offering_uuid=market.offering["uuid"], page_size=300)
    names = [f"user-{number:03}" for number in range(1, 121)]
    assert [row["username"] for row in rows] == names
    assert {row["username"]: row["uuid"] for row in rows} == made
    assert {(row["state"], row["user_username"] == row["username"]) for row in rows} == {("OK", True)}
    assert market.double.get(f"users/{rows[0]['user_uuid']}/")["active_isds"] == ["isd:x"]
    assert market.double.events("offering_user") == []


def test_many_orders_are_executing_and_nobody_is_told(market: Market) -> None:
    places = {"offering": market.offering["uuid"], "project": market.project["uuid"]}
    made = market.double.shell("create_executing_orders", number=12, **places)

    rows = market.double.get("marketplace-orders/", page_size=300)
    assert {row["resource_name"]: row["uuid"] for row in rows} == made["orders"]
    assert {row["resource_name"]: row["marketplace_resource_uuid"] for row in rows} == made["resources"]
    assert sorted(made["orders"]) == [f"resource-{number:03}" for number in range(1, 13)]
    assert {(row["state"], row["type"], row["backend_id"]) for row in rows} == {("executing", "Create", "")}
    assert market.double.events("order") == []


def test_many_orders_can_wait_for_those_of_another_waldur(market: Market) -> None:
    places = {"offering": market.offering["uuid"], "project": market.project["uuid"]}
    there = {"orders": {"resource-002": "order-2"}, "resources": {"resource-002": "resource-2"}}
    made = market.double.shell("create_executing_orders", number=2, targets=there, **places)

    orders = [market.double.get(f"marketplace-orders/{uuid}/") for uuid in made["orders"].values()]
    assert [order["backend_id"] for order in orders] == ["", "order-2"]
    assert [market.resource(order)["backend_id"] for order in orders] == ["", "resource-2"]


def test_one_of_many_orders_ends_like_any_other(market: Market) -> None:
    places = {"offering": market.offering["uuid"], "project": market.project["uuid"]}
    made = market.double.shell("create_executing_orders", number=1, **places)["orders"]

    order = market.act(made["resource-001"], "set_state_done")

    assert (order["state"], market.resource(order)["state"]) == ("done", "OK")


@pytest.mark.parametrize(
    ("operation", "arguments", "wrong"),
    [
        ("set_order_age", {"order": NOBODY, "seconds": 1}, "order"),
        ("create_offering_users", {"offering": NOBODY, "number": 1}, "offering"),
        ("create_executing_orders", {"offering": NOBODY, "project": NOBODY, "number": 1}, "offering"),
    ],
)
def test_operations_on_what_does_not_exist_are_refused(
    double: Double, operation: str, arguments: dict[str, Any], wrong: str
) -> None:
    answer = double.control("POST", f"/shell/{operation}", arguments)
    assert answer.status == 400
    assert wrong in answer.json


@pytest.mark.parametrize("operation", ["create_offering_users", "create_executing_orders"])
def test_how_many_must_be_said(market: Market, operation: str) -> None:
    places = {"offering": market.offering["uuid"], "project": market.project["uuid"]}
    answer = market.double.control("POST", f"/shell/{operation}", places)
    assert (answer.status, answer.json) == (400, {"number": ["This field is required."]})
