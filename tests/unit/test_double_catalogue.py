"""Setting up offerings on the Waldur double, and taking everything down again."""

from __future__ import annotations

from typing import Any

import pytest
from double_support import Double, Market


def test_components_and_plans_can_come_later(double: Double) -> None:
    market = Market(double, components=[], plans=[])
    component = {"type": "gpu", "name": "GPU", "measured_unit": "hours", "billing_type": "limit"}

    added = double.call("POST", f"{market.provided}/create_offering_component/", component)
    plan = double.post("marketplace-plans/", {"name": "Later", "offering": market.offering["url"]}, expect=201)
    offering = double.get(f"marketplace-public-offerings/{market.offering['uuid']}/")

    assert (added.status, added.content) == (201, b"")
    assert [each["type"] for each in offering["components"]] == ["gpu"]
    assert offering["plans"][0]["uuid"] == plan["uuid"]
    assert offering["plans"][0]["url"].endswith(f"/{market.offering['uuid']}/plans/{plan['uuid']}/")
    assert (
        double.get(f"marketplace-public-offerings/{market.offering['uuid']}/plans/{plan['uuid']}/")
        == (offering["plans"][0])
    )
    order = market.double.post(
        "marketplace-orders/",
        {
            "offering": offering["url"],
            "project": market.project["url"],
            "plan": offering["plans"][0]["url"],
            "limits": {"gpu": 1},
        },
        expect=201,
    )
    assert (order["plan_uuid"], order["limits"]) == (plan["uuid"], {"gpu": 1})


@pytest.mark.parametrize(
    ("body", "errors"),
    [
        ({}, {"type", "name", "billing_type"}),
        ({"type": "x", "name": "X", "billing_type": "free"}, {"billing_type"}),
        ({"type": "cpu", "name": "CPU", "billing_type": "limit"}, {"type"}),
    ],
)
def test_components_that_are_refused(market: Market, body: dict[str, Any], errors: set[str]) -> None:
    answer = market.double.post(f"{market.provided}/create_offering_component/", body, expect=400)

    assert answer.keys() == errors


@pytest.mark.parametrize(
    ("actions", "refused", "valid"),
    [
        ([], "activate", "Draft, Paused, Unavailable"),
        (["pause"], "pause", "Active"),
        (["archive"], "pause", "Active"),
    ],
)
def test_the_states_of_an_offering(market: Market, actions: list[str], refused: str, valid: str) -> None:
    for action in actions:
        market.double.post(f"{market.provided}/{action}/")

    answer = market.double.call("POST", f"{market.provided}/{refused}/", {})

    assert (answer.status, answer.json) == (409, {"detail": f"Valid states for operation: {valid}."})


def test_activating_tells_the_new_state_and_is_for_staff(market: Market) -> None:
    market.double.post(f"{market.provided}/pause/", token=market.agent.token)

    refused = market.double.call("POST", f"{market.provided}/activate/", {}, token=market.provider.token)
    activated = market.double.post(f"{market.provided}/activate/")

    assert refused.status == 403
    assert activated == {"detail": "Offering state updated.", "state": "Active"}


def test_an_offering_needs_a_service_provider(market: Market) -> None:
    body = {
        "name": "x",
        "type": "Marketplace.Slurm",
        "category": market.category["url"],
        "customer": market.customer["url"],
    }

    assert market.double.post("marketplace-provider-offerings/", body, expect=400).keys() == {"customer"}


def test_service_providers_are_found_by_their_organisation(market: Market) -> None:
    path = "marketplace-service-providers/"

    (found,) = market.double.get(path, token=market.agent.token, customer_uuid=market.provider_customer["uuid"])

    assert found["customer_uuid"] == market.provider_customer["uuid"]
    assert market.double.get(path, customer_uuid=market.customer["uuid"]) == []
    assert market.double.get(f"{path}{found['uuid']}/keys/", token=market.agent.token) == []
    assert market.double.call("GET", f"{path}{found['uuid']}/keys/", token=market.member.token).status == 403


def test_a_provider_sees_the_projects_with_its_resources(market: Market) -> None:
    (provider,) = market.double.get("marketplace-service-providers/")
    path = f"marketplace-service-providers/{provider['uuid']}/projects/"
    before = market.double.get(path, token=market.agent.token)
    market.completed_order()

    found = market.double.get(path, token=market.agent.token, query=market.project["uuid"])

    assert before == []
    assert [project["uuid"] for project in found] == [market.project["uuid"]]
    assert market.double.get(path, token=market.agent.token, query="something else") == []


def test_usage_is_reported_by_month_and_shown_on_the_resource(market: Market) -> None:
    order = market.completed_order()
    resource = order["marketplace_resource_uuid"]
    usages = "marketplace-component-usages/"

    def report(amount: Any, date: str, token: str = market.agent.token) -> int:
        body = {"resource": resource, "date": date, "usages": [{"type": "ram", "amount": amount}]}
        return market.double.call("POST", f"{usages}set_usage/", body, token=token).status

    assert report("1.00", "2026-10-31T23:59:59+00:00") == 201
    assert report(5, "2026-11-01T00:00:00Z") == 201
    assert report("7.5", "2026-11-21T12:00:00Z") == 201
    assert report("7.555", "2026-11-21T12:00:00Z") == 400
    assert report("8", "2026-11-21T12:00:00Z", market.member.token) == 403

    (november,) = market.double.get(usages, resource_uuid=resource, billing_period="2026-11-01")
    assert (november["usage"], november["type"], november["billing_period"]) == ("7.50", "ram", "2026-11-01")
    assert len(market.double.get(usages, billing_period_year=2026, billing_period_month=10)) == 1
    assert market.resource(order)["current_usages"] == {"ram": "7.50"}


def test_usage_per_user_belongs_to_a_usage(market: Market) -> None:
    resource = market.completed_order()["marketplace_resource_uuid"]
    usages = "marketplace-component-usages/"
    body = {"resource": resource, "date": "2026-11-01T00:00:00Z", "usages": [{"type": "ram", "amount": "7"}]}
    market.double.post(f"{usages}set_usage/", body, token=market.agent.token)
    (usage,) = market.double.get(usages)
    path = f"{usages}{usage['uuid']}/set_user_usages/"

    for amount in ("3.00", "4.00"):
        market.double.post(
            path, {"usages": [{"username": "mia", "usage": amount}, {"username": "mart", "usage": 1}]}
        )

    query = {"resource_uuid": resource, "component_usage__billing_period": "2026-11-01"}
    found = market.double.get("marketplace-component-user-usages/", **query)
    assert {each["username"]: each["usage"] for each in found} == {"mia": "4.00", "mart": "1.00"}
    query["component_usage__billing_period"] = "2026-12-01"
    assert market.double.get("marketplace-component-user-usages/", **query) == []


def test_limits_per_user_name_the_account(market: Market) -> None:
    resource = market.completed_order()["marketplace_resource_uuid"]
    account = market.double.post(
        "marketplace-offering-users/",
        {"offering": market.offering["url"], "user": market.member.url, "username": "mia"},
    )
    component = market.offering["components"][0]["uuid"]
    body = {"resource": resource, "component": component, "user": account["uuid"], "limit": "5"}

    created = market.double.post("component-user-usage-limits/", body, token=market.owner.token)

    (found,) = market.double.get("component-user-usage-limits/", token=market.agent.token, resource_uuid=resource)
    assert (found["user"], found["component_type"], found["limit"]) == ("mia", "cpu", "5.00")
    market.double.delete(f"component-user-usage-limits/{created['uuid']}/", token=market.owner.token)
    assert market.double.get("component-user-usage-limits/") == []


def test_a_clean_up_leaves_nothing(market: Market) -> None:
    market.completed_order()
    market.double.post(
        "marketplace-offering-users/", {"offering": market.offering["url"], "user": market.member.url}
    )
    body = {"offering": market.offering["uuid"], "name": "agent"}
    market.double.post("marketplace-site-agent-identities/", body)
    collections = (
        *("customers/", "projects/", "marketplace-service-providers/", "marketplace-provider-offerings/"),
        *("marketplace-orders/", "marketplace-resources/", "marketplace-offering-users/"),
        "marketplace-site-agent-identities/",
    )
    assert all(market.double.get(collection) for collection in collections)

    for customer in (market.provider_customer, market.customer):
        market.double.delete(f"customers/{customer['uuid']}/")

    assert [collection for collection in collections if market.double.get(collection)] == []
    assert market.double.get("users/me/", token=market.owner.token)["permissions"] == []
