"""Orders of the Waldur double: what is accepted, what each operation does, what is refused and how."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from double_support import BASE, Double, Market

NOBODY = "0" * 32


@pytest.mark.parametrize(
    ("caller", "state"),
    [("owner", "pending-provider"), ("manager", "pending-consumer"), ("member", "pending-consumer")],
)
def test_only_who_may_approve_gets_an_order_past_the_consumer(market: Market, caller: str, state: str) -> None:
    order = market.order(getattr(market, caller).token)

    assert order["state"] == state
    assert (order["consumer_reviewed_by"] is not None) == (state == "pending-provider")
    assert market.resource(order)["state"] == "Creating"


@pytest.mark.parametrize(
    "changes", [{"limits": {"cpu": -1}}, {"limits": {}}, {"attributes": {}}], ids=["negative", "none", "nameless"]
)
def test_odd_orders_that_the_real_server_accepts(market: Market, changes: dict[str, Any]) -> None:
    assert market.order(**changes)["limits"] == changes.get("limits", {"cpu": 10})


@pytest.mark.parametrize(
    ("changes", "errors"),
    [
        ({"limits": {"nope": 1, "cpu": 1}}, {"limits": ["Invalid types: nope"]}),
        ({"limits": {"ram": 1}}, {"limits": ["Invalid types: ram"]}),
        ({"limits": {"cpu": "many"}}, {"limits": {"cpu": ["A valid integer is required."]}}),
        ({"limits": []}, {"limits": ['Expected a dictionary of items but got type "list".']}),
        ({"plan": None}, {"plan": ["This field may not be null."]}),
        (
            {"offering": f"{BASE}marketplace-public-offerings/{NOBODY}/"},
            {"offering": ["Invalid hyperlink - Object does not exist."]},
        ),
        ({"offering": f"{BASE}customers/{NOBODY}/"}, {"offering": ["Invalid hyperlink - No URL match."]}),
        ({"offering": "what"}, {"offering": ["Invalid hyperlink - No URL match."]}),
    ],
)
def test_orders_that_are_refused(market: Market, changes: dict[str, Any], errors: dict[str, Any]) -> None:
    answer = market.double.call("POST", "marketplace-orders/", market.order_body(**changes))

    assert (answer.status, answer.json) == (400, errors)


def test_missing_fields_are_named(market: Market) -> None:
    assert market.double.post("marketplace-orders/", {}, expect=400) == {
        "offering": ["This field is required."],
        "project": ["This field is required."],
    }


def test_a_project_that_the_caller_does_not_see_does_not_exist(market: Market) -> None:
    answer = market.double.call("POST", "marketplace-orders/", market.order_body(), token=market.provider.token)

    assert (answer.status, answer.json) == (400, {"project": ["Invalid hyperlink - Object does not exist."]})


@pytest.mark.parametrize("action", ["pause", "archive", "draft"])
def test_an_offering_that_is_not_active_takes_no_orders(market: Market, action: str) -> None:
    market.double.post(f"{market.provided}/{action}/")

    assert market.double.post("marketplace-orders/", market.order_body(), expect=400) == [
        "Offering is not available."
    ]


def test_identifiers_are_taken_dashed_and_given_in_hexadecimal(market: Market) -> None:
    body = market.order_body()
    for name in ("offering", "project", "plan"):
        *path, identifier, _ = body[name].split("/")
        body[name] = "/".join([*path, str(uuid.UUID(identifier)), ""])

    order = market.double.post("marketplace-orders/", body, expect=201)
    again = market.double.get(f"marketplace-orders/{uuid.UUID(order['uuid'])}/")

    assert again["uuid"] == order["uuid"] == uuid.UUID(order["uuid"]).hex
    assert again["offering_uuid"] == market.offering["uuid"]


def test_the_life_of_a_creation(market: Market) -> None:
    order = market.order(market.member.token)
    states = [(order["state"], market.resource(order)["state"])]
    for action in ("approve_by_consumer", "approve_by_provider", "set_state_done"):
        after = market.act(order, action)
        states.append((after["state"], market.resource(order)["state"]))

    assert states == [
        ("pending-consumer", "Creating"),
        ("pending-provider", "Creating"),
        ("executing", "Creating"),
        ("done", "OK"),
    ]
    assert market.resource(order)["order_in_progress"] is None


@pytest.mark.parametrize("side", ["consumer", "provider"])
def test_a_rejected_creation_leaves_a_terminated_resource(market: Market, side: str) -> None:
    order = market.order(market.member.token if side == "consumer" else market.owner.token)
    comment = {f"{side}_rejection_comment": "no room"}

    after = market.act(order, f"reject_by_{side}", body=comment)

    assert (after["state"], after[f"{side}_rejection_comment"]) == ("rejected", "no room")
    assert after[f"{side}_reviewed_by"] == "staff"
    assert market.resource(order)["state"] == "Terminated"


def test_new_limits_take_effect_when_the_order_is_done_and_not_before(market: Market) -> None:
    order = market.completed_order()
    path = f"marketplace-resources/{order['marketplace_resource_uuid']}/update_limits/"
    update = market.double.post(path, {"limits": {"cpu": 25}}, token=market.owner.token)["order_uuid"]

    seen = [(market.resource(order)["state"], market.resource(order)["limits"])]
    for action in ("approve_by_provider", "set_state_done"):
        market.act(update, action)
        seen.append((market.resource(order)["state"], market.resource(order)["limits"]))

    assert seen == [("OK", {"cpu": 10}), ("Updating", {"cpu": 10}), ("OK", {"cpu": 25})]
    assert market.act(update)["attributes"] == {"old_limits": {"cpu": 10}}


@pytest.mark.parametrize(("action", "state", "limits"), [("reject_by_provider", "OK", 10), (None, "Erred", 10)])
def test_an_update_that_fails_leaves_the_old_limits(
    market: Market, action: str | None, state: str, limits: int
) -> None:
    order = market.completed_order()
    path = f"marketplace-resources/{order['marketplace_resource_uuid']}/update_limits/"
    update = market.double.post(path, {"limits": {"cpu": 25}})["order_uuid"]

    if action:
        market.act(update, action)
    else:
        market.act(update, "approve_by_provider")
        market.act(update, "set_state_erred", body={"error_message": "boom", "error_traceback": "tb"})

    assert (market.resource(order)["state"], market.resource(order)["limits"]) == (state, {"cpu": limits})


def test_the_life_of_a_termination(market: Market) -> None:
    order = market.completed_order()
    path = f"marketplace-resources/{order['marketplace_resource_uuid']}/terminate/"
    termination = market.double.post(path, {"attributes": {}}, token=market.owner.token)["order_uuid"]

    executing = market.act(termination, "approve_by_provider")
    terminating = market.resource(order)["state"]
    market.act(termination, "set_state_done")

    assert (executing["plan"], executing["limits"], executing["cost"]) == (None, {}, None)
    assert (terminating, market.resource(order)["state"]) == ("Terminating", "Terminated")


@pytest.mark.parametrize(
    ("steps", "action", "valid"),
    [
        (["approve_by_provider"], "approve_by_provider", "pending-provider"),
        (["approve_by_provider"], "reject_by_provider", "pending-provider"),
        ([], "approve_by_consumer", "pending-consumer"),
        ([], "reject_by_consumer", "pending-consumer"),
        ([], "set_state_done", "executing"),
        (["approve_by_provider", "set_state_done"], "set_state_done", "executing"),
        (["approve_by_provider", "set_state_done"], "cancel", "pending-consumer, pending-provider, executing"),
        (["approve_by_provider", "set_state_done"], "set_state_executing", "pending-provider, erred"),
        (
            ["approve_by_provider", "set_state_done"],
            "set_state_erred",
            "pending-consumer, pending-provider, executing, erred",
        ),
    ],
)
def test_wrong_states_are_refused_with_the_valid_ones(
    market: Market, steps: list[str], action: str, valid: str
) -> None:
    order = market.order()
    before = market.act(order, *steps)

    answer = market.double.call("POST", f"marketplace-orders/{order['uuid']}/{action}/", {})

    assert (answer.status, answer.json) == (409, {"detail": f"Valid states for operation: {valid}."})
    assert market.act(order)["state"] == before["state"]


def test_an_error_reported_while_pending_leaves_only_its_message(market: Market) -> None:
    after = market.act(market.order(), "set_state_erred", body={"error_message": "boom"})

    assert (after["state"], after["error_message"]) == ("pending-provider", "boom")


def test_an_erred_order_can_be_started_again(market: Market) -> None:
    order = market.act(market.order(), "approve_by_provider")
    erred = market.act(order, "set_state_erred", body={"error_message": "boom", "error_traceback": "tb"})
    erred_resource = market.resource(order)["state"]

    after = market.act(order, "set_state_executing")

    assert (erred["state"], erred["error_message"], erred["error_traceback"]) == ("erred", "boom", "tb")
    assert (erred_resource, after["state"], market.resource(order)["state"]) == ("Erred", "executing", "Creating")


def test_orders_of_site_agents_cannot_be_cancelled(market: Market) -> None:
    answer = market.double.call("POST", f"marketplace-orders/{market.order()['uuid']}/cancel/", {})

    detail = "The order's offering with Marketplace.Slurm type does not support this action"
    assert (answer.status, answer.json) == (405, {"detail": f'Method "{detail}" not allowed.'})


def test_orders_of_other_offerings_can(double: Double) -> None:
    market = Market(double, type="Marketplace.Basic")
    order = market.order()

    assert market.act(order, "cancel")["state"] == "canceled"
    assert market.resource(order)["state"] == "Terminated"


def test_a_resource_takes_one_order_at_a_time(market: Market) -> None:
    order = market.completed_order()
    path = f"marketplace-resources/{order['marketplace_resource_uuid']}"
    market.double.post(f"{path}/update_limits/", {"limits": {"cpu": 25}})

    assert market.double.post(f"{path}/terminate/", {}, expect=400) == [
        "Pending order for resource already exists."
    ]


@pytest.mark.parametrize(
    ("action", "body", "valid"),
    [("update_limits", {"limits": {"cpu": 1}}, "OK"), ("terminate", {}, "OK, Erred")],
)
def test_a_resource_that_is_being_created_takes_no_order(
    market: Market, action: str, body: dict[str, Any], valid: str
) -> None:
    order = market.order()

    answer = market.double.call(
        "POST", f"marketplace-resources/{order['marketplace_resource_uuid']}/{action}/", body
    )

    assert (answer.status, answer.json) == (409, {"detail": f"Valid states for operation: {valid}."})


def test_the_backend_id_of_an_order_is_kept_as_it_is(market: Market) -> None:
    order = market.order()
    dashed = str(uuid.uuid4())

    after = market.act(order, "set_backend_id", body={"backend_id": dashed})

    assert after["backend_id"] == dashed


def test_setting_an_order_done_fails_as_often_as_asked(market: Market) -> None:
    market.double.fault("order_set_state_done_error", times=2)
    order = market.act(market.order(), "approve_by_provider")
    path = f"marketplace-orders/{order['uuid']}/set_state_done/"

    statuses = []
    for _ in range(2):
        statuses.append(market.double.call("POST", path, {}).status)
        assert market.act(order)["state"] == "executing"
    statuses.append(market.double.call("POST", path, {}).status)

    assert statuses == [500, 500, 200]
    assert market.double.control("GET", "/faults").json == {"active": {}}


def test_a_shadow_resource_takes_the_order_and_the_original_stays(market: Market) -> None:
    order = market.completed_order()
    market.double.fault("shadow_resource")
    path = f"marketplace-resources/{order['marketplace_resource_uuid']}/terminate/"

    termination = market.act(market.double.post(path, {})["order_uuid"], "approve_by_provider", "set_state_done")
    shadow = market.resource(termination)

    assert shadow["uuid"] != order["marketplace_resource_uuid"]
    assert (shadow["name"], shadow["backend_id"], shadow["state"]) == ("", "", "Terminated")
    assert market.resource(order)["state"] == "OK"
