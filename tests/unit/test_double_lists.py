"""Lists of the Waldur double: pages, links, counts, filters and fields."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from double_support import BASE, Double, Market
from testyard.lab.waldur.model import User

ORDERS = f"{BASE}marketplace-orders/"


def _links(double: Double, **query: Any) -> list[str]:
    answer = double.call("GET", "marketplace-orders/", query=query)
    return answer.headers["link"].split(", ")


def test_the_default_page_has_ten_rows_in_order_of_creation(market: Market) -> None:
    placed = [market.order()["uuid"] for _ in range(12)]

    answer = market.double.call("GET", "marketplace-orders/")

    assert [order["uuid"] for order in answer.json] == placed[:10]
    assert answer.headers["x-result-count"] == "12"


def test_links_keep_every_other_parameter_in_alphabetical_order(market: Market) -> None:
    for _ in range(5):
        market.order()
    query = {"state": ["pending-provider", "done"], "page_size": 2, "offering_uuid": market.offering["uuid"]}
    start = f"<{ORDERS}?offering_uuid={market.offering['uuid']}"
    end = "page_size=2&state=pending-provider&state=done>"

    assert _links(market.double, **query) == [
        f'{start}&{end}; rel="first"',
        f'{start}&page=2&{end}; rel="next"',
        f'{start}&page=3&{end}; rel="last"',
    ]
    assert _links(market.double, **query, page=2) == [
        f'{start}&{end}; rel="first"',
        f'{start}&{end}; rel="prev"',
        f'{start}&page=3&{end}; rel="next"',
        f'{start}&page=3&{end}; rel="last"',
    ]


def test_an_empty_list_links_to_itself(market: Market) -> None:
    assert _links(market.double) == [f'<{ORDERS}>; rel="first"', f'<{ORDERS}>; rel="last"']


def test_pages_cover_every_row_once(market: Market) -> None:
    placed = [market.order()["uuid"] for _ in range(5)]

    pages = [market.double.get("marketplace-orders/", page_size=2, page=page) for page in (1, 2, 3)]

    assert [order["uuid"] for page in pages for order in page] == placed


@pytest.mark.parametrize("page", ["0", "4", "-1", "x"])
def test_a_page_that_does_not_exist_is_not_found(market: Market, page: str) -> None:
    market.order()

    assert market.double.get("marketplace-orders/", expect=404, page=page) == {"detail": "Invalid page."}


def test_the_page_size_is_ten_unless_a_number_up_to_300_is_asked_for(double: Double) -> None:
    users = double.instance.world.store.users
    for number in range(301):
        users.add(User(username=f"user-{number}", slug=f"user-{number}"))

    rows = {size: len(double.get("users/", page_size=size)) for size in ("0", "x", "-3", "7", "300", "1000")}

    assert rows == {"0": 10, "x": 10, "-3": 10, "7": 7, "300": 300, "1000": 300}


def test_only_the_fields_asked_for_are_given_in_the_order_of_the_object(market: Market) -> None:
    market.order()

    (order,) = market.double.get("marketplace-orders/", field=["state", "uuid", "nonsense"])

    assert list(order) == ["uuid", "state"]


def test_fields_also_narrow_a_single_object(market: Market) -> None:
    order = market.double.get(f"marketplace-orders/{market.order()['uuid']}/", field=["uuid", "state"])

    assert list(order) == ["uuid", "state"]


def test_repeated_states_add_up(market: Market) -> None:
    pending, done = market.order(), market.completed_order()
    market.act(market.order(), "reject_by_provider")

    found = market.double.get("marketplace-orders/", state=["done", "pending-provider"])

    assert [order["uuid"] for order in found] == [pending["uuid"], done["uuid"]]


def test_an_unknown_state_is_refused(market: Market) -> None:
    assert market.double.get("marketplace-orders/", expect=400, state="ready") == {
        "state": ["Select a valid choice. ready is not one of the available choices."]
    }


@pytest.mark.parametrize("dashed", [True, False])
def test_filters_take_identifiers_in_both_forms(market: Market, dashed: bool) -> None:
    order = market.order()
    other = market.double.post("projects/", {"name": "Other", "customer": market.customer["url"]})
    market.order(project=other["url"])

    for name, value in {
        "resource_uuid": order["marketplace_resource_uuid"],
        "project_uuid": market.project["uuid"],
    }.items():
        text = str(uuid.UUID(value)) if dashed else value
        found = market.double.get("marketplace-orders/", **{name: text, "offering_uuid": market.offering["uuid"]})
        assert [each["uuid"] for each in found] == [order["uuid"]], name


def test_a_filter_that_is_no_identifier_is_refused(market: Market) -> None:
    assert market.double.get("marketplace-orders/", expect=400, offering_uuid="x") == {
        "offering_uuid": ["Enter a valid UUID."]
    }


@pytest.mark.parametrize("stored_dashed", [True, False])
@pytest.mark.parametrize("asked_dashed", [True, False])
def test_a_backend_id_that_is_an_identifier_is_found_in_both_forms(
    market: Market, stored_dashed: bool, asked_dashed: bool
) -> None:
    order = market.order()
    backend_id = uuid.uuid4()
    path = f"marketplace-provider-resources/{order['marketplace_resource_uuid']}/set_backend_id/"
    market.double.post(path, {"backend_id": str(backend_id) if stored_dashed else backend_id.hex})

    found = market.double.get(
        "marketplace-provider-resources/", backend_id=str(backend_id) if asked_dashed else backend_id.hex
    )

    assert [resource["uuid"] for resource in found] == [order["marketplace_resource_uuid"]]
    assert found[0]["backend_id"] == (str(backend_id) if stored_dashed else backend_id.hex)


def test_resources_are_filtered_by_state(market: Market) -> None:
    market.order()
    done = market.completed_order()

    found = market.double.get("marketplace-resources/", state=["OK", "Erred"])

    assert [resource["uuid"] for resource in found] == [done["marketplace_resource_uuid"]]
    assert market.double.get("marketplace-resources/", expect=400, state="Fine").keys() == {"state"}


def test_projects_are_found_by_their_exact_backend_id(market: Market) -> None:
    for backend_id in ("a_b", "a_b_c"):
        market.double.post(
            "projects/", {"name": backend_id, "customer": market.customer["url"], "backend_id": backend_id}
        )

    assert [project["name"] for project in market.double.get("projects/", backend_id="a_b")] == ["a_b"]


def test_a_renamed_project_is_found_by_its_new_backend_id_only(market: Market) -> None:
    path = f"projects/{market.project['uuid']}/"
    market.double.patch(path, {"backend_id": "old"})
    market.double.patch(path, {"backend_id": "new"})

    assert market.double.get("projects/", backend_id="old") == []
    assert len(market.double.get("projects/", backend_id="new")) == 1


def test_roles_are_found_by_name(double: Double) -> None:
    (role,) = double.get("roles/", name="PROJECT.ADMIN")

    assert role["name"] == "PROJECT.ADMIN"


def test_a_list_shows_changes_of_everything_it_shows(market: Market) -> None:
    order = market.order()
    shown = [market.double.get("marketplace-orders/")[0]]

    market.act(order, "approve_by_provider")
    shown.append(market.double.get("marketplace-orders/")[0])
    market.double.patch(f"projects/{market.project['uuid']}/", {"name": "Renamed"})
    shown.append(market.double.get("marketplace-orders/")[0])
    market.double.patch(f"{market.provided}/", {"name": "New name"})
    shown.append(market.double.get("marketplace-orders/")[0])

    assert [each["state"] for each in shown] == ["pending-provider", "executing", "executing", "executing"]
    assert [each["project_name"] for each in shown] == ["Peer Project", "Peer Project", "Renamed", "Renamed"]
    assert [each["offering_name"] for each in shown][-2:] == ["Peer Slurm", "New name"]


def test_a_list_of_resources_shows_changes_too(market: Market) -> None:
    order = market.completed_order()
    path = f"marketplace-provider-resources/{order['marketplace_resource_uuid']}"
    before = market.double.get("marketplace-resources/")[0]

    market.double.post(f"{path}/set_limits/", {"limits": {"cpu": 3}})

    assert (before["limits"], market.double.get("marketplace-resources/")[0]["limits"]) == (
        {"cpu": 10},
        {"cpu": 3},
    )


def test_a_list_shows_what_was_set_on_an_order_or_reported_for_a_resource(market: Market) -> None:
    order = market.completed_order()
    before = market.double.get("marketplace-orders/")[0], market.double.get("marketplace-resources/")[0]

    market.act(order, "set_backend_id", body={"backend_id": "target"})
    report = {"resource": order["marketplace_resource_uuid"], "usages": [{"type": "ram", "amount": 1}]}
    market.double.post("marketplace-component-usages/set_usage/", report)
    after = market.double.get("marketplace-orders/")[0], market.double.get("marketplace-resources/")[0]

    assert [each["backend_id"] for each in (before[0], after[0])] == ["", "target"]
    assert [each["current_usages"] for each in (before[1], after[1])] == [{}, {"ram": "1.00"}]


def test_links_follow_the_host_that_the_client_used(market: Market) -> None:
    order = market.order()
    by_name = market.double.get("marketplace-orders/")[0]["offering"]
    store = market.double.instance.world.store
    (row,) = store.orders

    forms = [
        store.fragments("order", base, [row], lambda _, base=base: base.encode())  # type: ignore[misc]
        for base in ("http://one", "http://two", "http://one")
    ]

    assert by_name.startswith(BASE)
    assert forms == [[b"http://one"], [b"http://two"], [b"http://one"]]
    assert order["uuid"] == row.uuid
