"""Pages, filters, UUID forms, and who sees what on the Waldur double."""

import re
from http import HTTPStatus
from typing import Any
from uuid import UUID

import httpx
import pytest
from testyard.waldur.states import Role
from waldur_comparison import IDENTIFIER
from waldur_support import NOBODY, Exchange, RecordedWorld, every_page

LISTS = {
    "customers": "staff",
    "event-subscriptions": "provider",
    "marketplace-categories": "member",
    "marketplace-component-usages": "provider",
    "marketplace-component-user-usages": "provider",
    "marketplace-offering-users": "provider",
    "marketplace-orders": "manager",
    "marketplace-plans": "provider",
    "marketplace-provider-offerings": "provider",
    "marketplace-provider-resources": "provider",
    "marketplace-public-offerings": "member",
    "marketplace-resources": "owner",
    "marketplace-service-providers": "provider",
    "marketplace-site-agent-identities": "provider",
    "marketplace-site-agent-services": "provider",
    "projects": "owner",
    "roles": "manager",
    "users": "staff",
}
"""Every collection with a list, and somebody who sees something in it."""


def uuids(exchange: Exchange) -> list[str]:
    assert exchange.answer.status == HTTPStatus.OK, exchange.answer
    return [row["uuid"] for row in exchange.answer.body]


def query_of(link: dict[str, str]) -> dict[str, list[str]]:
    url = httpx.URL(link["url"])
    return {name: url.params.get_list(name) for name in url.params}


# ---- pages


@pytest.mark.parametrize(("collection", "caller"), LISTS.items())
def test_the_pages_together_are_the_list(recorded_world: RecordedWorld, collection: str, caller: str):
    whole = recorded_world.ask("GET", f"{collection}/", caller, page_size=300)
    pages = list(every_page(recorded_world.ask("GET", f"{collection}/", caller, page_size=1), recorded_world))
    assert [uuid for page in pages for uuid in uuids(page)] == uuids(whole) != []
    assert all(len(page.answer.body) == 1 for page in pages)
    assert {page.answer.headers["x-result-count"] for page in pages} == {str(len(uuids(whole)))}
    assert list(whole.response.links) == ["first", "last"]


def test_pages_keep_the_filters_of_the_first(recorded_world: RecordedWorld):
    offering = recorded_world.answer("offering_create")["uuid"]
    query = {"offering_uuid": offering, "state": ["done", "erred"], "field": ["uuid", "state"], "page_size": 2}
    pages = list(every_page(recorded_world.ask("GET", "marketplace-orders/", "provider", **query), recorded_world))
    rows = [row for page in pages for row in page.answer.body]
    assert {row["state"] for row in rows} == {"done", "erred"}
    assert all(row.keys() == {"uuid", "state"} for row in rows)
    assert len({row["uuid"] for row in rows}) == len(rows) >= 5
    for number, page in enumerate(pages, start=1):
        for relation, link in page.response.links.items():
            leads_to = {"first": 1, "prev": number - 1, "next": number + 1, "last": len(pages)}[relation]
            own = query_of(link)
            assert own.pop("page", ["1"]) == [str(leads_to)]
            assert own == {
                name: value if isinstance(value, list) else [str(value)] for name, value in query.items()
            }
    assert [list(page.response.links) for page in (pages[0], pages[1], pages[-1])] == [
        ["first", "next", "last"],
        ["first", "prev", "next", "last"],
        ["first", "prev", "last"],
    ]


def test_a_page_has_ten_rows_unless_asked_and_never_more_than_300(recorded_world: RecordedWorld):
    staff = recorded_world.as_("staff")
    for number in range(301):
        staff.post("marketplace-categories", {"title": f"Category {number}"})
    for size, expected in (({}, 10), ({"page_size": 7}, 7), ({"page_size": 1000}, 300)):
        assert len(uuids(recorded_world.ask("GET", "marketplace-categories/", "staff", **size))) == expected


@pytest.mark.parametrize("page", ["0", "1000", "-1", "x"])
def test_a_page_that_does_not_exist(recorded_world: RecordedWorld, page: str):
    answer = recorded_world.ask("GET", "roles/", "staff", page=page).answer
    assert (answer.status, answer.body) == (HTTPStatus.NOT_FOUND, {"detail": "Invalid page."})


def test_an_empty_list_counts_and_links_too(recorded_world: RecordedWorld):
    exchange = recorded_world.ask("GET", "projects/", "provider", backend_id="ext-123")
    assert uuids(exchange) == []
    assert exchange.answer.headers["x-result-count"] == "0"
    assert list(exchange.response.links) == ["first", "last"]


# ---- the field filter


@pytest.mark.parametrize(
    ("path", "caller"),
    [
        ("marketplace-provider-resources/", "provider"),
        ("marketplace-orders/", "provider"),
        ("marketplace-offering-users/", "provider"),
        ("projects/", "owner"),
    ],
)
def test_field_leaves_only_what_is_asked_for(recorded_world: RecordedWorld, path: str, caller: str):
    fields = {"uuid", "created"}
    rows = recorded_world.ask("GET", path, caller, field=[*fields, "no_such_field"]).answer.body
    assert rows
    assert all(row.keys() == fields for row in rows)
    one = recorded_world.ask("GET", f"{path}{rows[0]['uuid']}/", caller, field=list(fields)).answer.body
    assert one == rows[0]


# ---- UUIDs, hexadecimal and dashed


@pytest.mark.parametrize(
    ("path", "sample", "caller"),
    [
        ("marketplace-orders/{}/", "order_create_manager", "provider"),
        ("marketplace-resources/{}/", "resource_get_erred", "owner"),
        ("marketplace-provider-resources/{}/", "resource_get_erred", "provider"),
        ("marketplace-provider-resources/{}/team/", "resource_get_erred", "provider"),
        ("marketplace-provider-offerings/{}/", "offering_create", "provider"),
        ("marketplace-public-offerings/{}/plans/", "offering_create", "member"),
        ("marketplace-offering-users/{}/", "offering_user_create", "provider"),
        ("marketplace-site-agent-identities/{}/", "hybrid_agent_identity_create", "provider"),
        ("projects/{}/", "project_create", "owner"),
        ("projects/{}/list_users/", "project_create", "owner"),
        ("users/{}/", "user_get", "staff"),
        ("marketplace-orders/?offering_uuid={}", "offering_create", "provider"),
        ("marketplace-orders/?resource_uuid={}", "resource_get_erred", "provider"),
        ("marketplace-resources/?offering_uuid={}", "offering_create", "owner"),
        ("marketplace-provider-resources/?project_uuid={}", "project_create", "provider"),
        ("marketplace-offering-users/?offering_uuid={}", "offering_create", "provider"),
        ("marketplace-offering-users/?user_uuid={}", "user_get", "provider"),
        ("marketplace-component-usages/?resource_uuid={}", "provider_resource_keep", "provider"),
        ("marketplace-service-providers/?customer_uuid={}", "service_provider_create", "provider"),
    ],
)
def test_both_forms_of_a_uuid_lead_to_the_same(recorded_world: RecordedWorld, path: str, sample: str, caller: str):
    body = recorded_world.answer(sample)
    identifier = body["customer_uuid"] if "customer_uuid" in path else body["uuid"]
    path, _, filtering = path.partition("?")
    bodies = []
    for form in (identifier, str(UUID(identifier)), identifier.upper()):
        query = {filtering.partition("=")[0]: form} if filtering else {}
        answer = recorded_world.ask("GET", path.format(form), caller, **query).answer
        assert answer.status == HTTPStatus.OK
        bodies.append(answer.body)
    assert bodies[0] == bodies[1] == bodies[2] != []


def test_an_unknown_uuid_in_a_filter_matches_nothing(recorded_world: RecordedWorld):
    assert uuids(recorded_world.ask("GET", "marketplace-orders/", "staff", offering_uuid=NOBODY)) == []


@pytest.mark.parametrize(("collection", "caller"), LISTS.items())
def test_uuids_are_answered_in_hexadecimal(recorded_world: RecordedWorld, collection: str, caller: str):
    found = _all_uuids(recorded_world.ask("GET", f"{collection}/", caller, page_size=300).answer.body)
    assert found
    assert not [uuid for uuid in found if not IDENTIFIER.fullmatch(uuid)]


def _all_uuids(value: Any) -> list[str]:
    if isinstance(value, list):
        return [uuid for element in value for uuid in _all_uuids(element)]
    if not isinstance(value, dict):
        return []
    own = [item for key, item in value.items() if re.search("(^|_)uuid$", key) and isinstance(item, str)]
    return own + [uuid for item in value.values() for uuid in _all_uuids(item)]


@pytest.mark.parametrize("kind", ["order", "resource"])
def test_a_backend_id_is_kept_as_it_was_sent(recorded_world: RecordedWorld, kind: str):
    order = recorded_world.order("verbatim")
    path = {
        "order": f"marketplace-orders/{order['uuid']}/",
        "resource": f"marketplace-provider-resources/{order['marketplace_resource_uuid']}/",
    }[kind]
    for backend_id in (str(UUID(NOBODY)), "A b/c", ""):
        body = {"backend_id": backend_id}
        assert (
            recorded_world.ask("POST", f"{path}set_backend_id/", "provider", body).answer.status == HTTPStatus.OK
        )
        assert recorded_world.ask("GET", path, "provider").answer.body["backend_id"] == backend_id


def test_several_states_are_an_or_and_an_unknown_one_is_refused(recorded_world: RecordedWorld):
    rows = recorded_world.ask("GET", "marketplace-resources/", "owner", state=["OK", "Erred"]).answer.body
    assert {row["state"] for row in rows} == {"OK", "Erred"}
    answer = recorded_world.ask("GET", "marketplace-orders/", "owner", state="finished").answer
    message = "Select a valid choice. finished is not one of the available choices."
    assert (answer.status, answer.body) == (HTTPStatus.BAD_REQUEST, {"state": [message]})


# ---- who sees what


@pytest.fixture(scope="module")
def others(recorded_world: RecordedWorld) -> dict[str, str]:
    """Another organisation that orders from the recorded offering, its people, and somebody with no role."""
    world, staff = recorded_world, recorded_world.as_("staff")
    organisation = staff.post("customers", {"name": "Another Org"})
    world.add_person("another owner", "", (Role.CUSTOMER_OWNER, organisation["uuid"]))
    project = staff.post("projects", {"name": "Another Project", "customer": organisation["url"]})
    world.add_person("another member", "", (Role.PROJECT_MEMBER, project["uuid"]))
    world.add_person("nobody")
    offering = world.answer("offering_get_public")
    order = world.as_("another owner").post(
        "marketplace-orders",
        {
            "offering": offering["url"],
            "project": project["url"],
            "plan": offering["plans"][0]["url"],
            "attributes": {"name": "another"},
            "limits": {"cpu": 1},
        },
    )
    return {
        "customers": organisation["uuid"],
        "projects": project["uuid"],
        "marketplace-orders": order["uuid"],
        "marketplace-resources": order["marketplace_resource_uuid"],
        "marketplace-provider-resources": order["marketplace_resource_uuid"],
    }


RECORDED = {
    "customers": "customer_create",
    "projects": "project_create",
    "marketplace-orders": "order_create_owner",
    "marketplace-resources": "resource_get_erred",
    "marketplace-provider-resources": "resource_get_erred",
}
BOTH, OWN, ANOTHER, NEITHER = (True, True), (True, False), (False, True), (False, False)
VISIBLE = {
    "staff": dict.fromkeys(RECORDED, BOTH),
    "provider": {
        "customers": NEITHER,
        "projects": NEITHER,
        "marketplace-orders": BOTH,
        "marketplace-resources": BOTH,
        "marketplace-provider-resources": BOTH,
    },
    "owner": dict.fromkeys(RECORDED, OWN) | {"marketplace-provider-resources": NEITHER},
    "manager": dict.fromkeys(RECORDED, OWN) | {"marketplace-provider-resources": NEITHER},
    "another owner": dict.fromkeys(RECORDED, ANOTHER) | {"marketplace-provider-resources": NEITHER},
    "another member": dict.fromkeys(RECORDED, ANOTHER) | {"marketplace-provider-resources": NEITHER},
    "nobody": dict.fromkeys(RECORDED, NEITHER),
}
"""For each caller whether the recorded organisation's object and the other's are seen."""
KINDS = {
    "customers": "Customer",
    "projects": "Project",
    "marketplace-orders": "Order",
    "marketplace-resources": "Resource",
    "marketplace-provider-resources": "Resource",
}


@pytest.mark.parametrize("collection", RECORDED)
@pytest.mark.parametrize("caller", VISIBLE)
def test_a_token_restricts_what_is_seen(
    recorded_world: RecordedWorld, others: dict[str, str], caller: str, collection: str
):
    listed = uuids(recorded_world.ask("GET", f"{collection}/", caller, page_size=300))
    for uuid, visible in zip(
        (recorded_world.answer(RECORDED[collection])["uuid"], others[collection]),
        VISIBLE[caller][collection],
        strict=True,
    ):
        answer = recorded_world.ask("GET", f"{collection}/{uuid}/", caller).answer
        assert (uuid in listed) is visible
        if visible:
            assert answer.status == HTTPStatus.OK
        else:
            assert answer.status == HTTPStatus.NOT_FOUND
            assert answer.body == {"detail": f"No {KINDS[collection]} matches the given query."}


def test_an_offering_user_is_seen_by_the_provider_and_the_user(
    recorded_world: RecordedWorld, others: dict[str, str]
):
    mine = recorded_world.answer("offering_user_create")["uuid"]
    of_manager = recorded_world.answer("offering_user_create_empty")["uuid"]
    for caller, seen in (
        ("staff", {mine, of_manager}),
        ("provider", {mine, of_manager}),
        ("member", {mine}),
        ("manager", {of_manager}),
        ("owner", set()),
        ("another owner", set()),
    ):
        exchange = recorded_world.ask("GET", "marketplace-offering-users/", caller, page_size=300)
        assert {mine, of_manager}.intersection(uuids(exchange)) == seen
        for uuid in (mine, of_manager):
            answer = recorded_world.ask("GET", f"marketplace-offering-users/{uuid}/", caller).answer
            assert (answer.status == HTTPStatus.OK) is (uuid in seen)


def test_an_own_token_is_shown_to_nobody_else(recorded_world: RecordedWorld):
    assert recorded_world.ask("GET", "users/me/", "member").answer.body["token"] == recorded_world.tokens["member"]
    for exchange in recorded_world.exchanges:
        for caller, token in recorded_world.tokens.items():
            assert exchange.request.caller == caller or token not in exchange.response.text
