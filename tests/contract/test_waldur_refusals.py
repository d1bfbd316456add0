"""What the Waldur double refuses, with the status and the words of the real one.

The refusals that were recorded are compared word for word in test_waldur_samples. Here are the same refusals in
every other state, for every other kind of object, and for bodies that were not recorded.
"""

from http import HTTPStatus
from typing import Any

import httpx
import pytest
from waldur_support import NOBODY, RecordedWorld, sample

NO_TOKEN = sample("unauth_401").answer.body
WRONG_TOKEN = sample("badtoken_401").answer.body
EFFECTIVE_ID = {"effective_id": "effective"}
REQUIRED = ["This field is required."]

# ---- orders in the wrong state

VALID_STATES = {
    "approve_by_consumer": ("pending-consumer",),
    "reject_by_consumer": ("pending-consumer",),
    "approve_by_provider": ("pending-provider",),
    "reject_by_provider": ("pending-provider",),
    "set_state_done": ("executing",),
    "cancel": ("pending-consumer", "pending-provider", "executing"),
}
"""The states that the 409 of an operation names, in its order; of three, the 409 was recorded."""
ORDER_PATHS: dict[str, tuple[tuple[str, str], ...]] = {
    "pending-consumer": (),
    "pending-provider": (("owner", "approve_by_consumer"),),
    "executing": (("owner", "approve_by_consumer"), ("provider", "approve_by_provider")),
    "done": (
        ("owner", "approve_by_consumer"),
        ("provider", "approve_by_provider"),
        ("provider", "set_state_done"),
    ),
    "erred": (
        ("owner", "approve_by_consumer"),
        ("provider", "approve_by_provider"),
        ("provider", "set_state_erred"),
    ),
    "rejected": (("owner", "reject_by_consumer"),),
}
"""How an order comes into each state."""


@pytest.fixture(scope="module")
def orders(recorded_world: RecordedWorld) -> dict[str, dict[str, Any]]:
    """One order in each state."""
    orders = {}
    for state, steps in ORDER_PATHS.items():
        orders[state] = recorded_world.order(f"refused {state}", "manager")
        for caller, action in steps:
            recorded_world.as_(caller).post(f"marketplace-orders/{orders[state]['uuid']}/{action}")
    return orders


@pytest.fixture
def names(recorded_world: RecordedWorld, orders: dict[str, dict[str, Any]]) -> dict[str, str]:
    """What stands for what in paths and bodies."""
    answer = recorded_world.answer
    resource = orders["done"]["marketplace_resource_uuid"]
    recorded_world.as_("provider").post(
        f"marketplace-provider-resources/{resource}/set_effective_id", EFFECTIVE_ID
    )
    return {
        "order": orders["pending-consumer"]["uuid"],
        "executing": orders["executing"]["uuid"],
        "resource": resource,
        "offering": answer("offering_create")["uuid"],
        "offering_url": answer("offering_create")["url"],
        "offering_user": answer("offering_user_create")["uuid"],
        "customer_url": answer("customer_create")["url"],
        "project": answer("project_create")["uuid"],
        "identity": answer("hybrid_agent_identity_create")["uuid"],
        "user": answer("user_get")["uuid"],
        "user_url": answer("user_get")["url"],
    }


def state_of(world: RecordedWorld, collection: str, uuid: str) -> str:
    return str(world.ask("GET", f"{collection}/{uuid}/", "staff").answer.body["state"])


def test_recorded_texts_are_the_ones_below():
    for name, action in (
        ("order_approve_wrong_state_error", "approve_by_provider"),
        ("order_set_state_done_again_error", "set_state_done"),
        ("order_cancel_done_error", "cancel"),
    ):
        assert sample(name).answer.body == wrong_state(*VALID_STATES[action])
    assert sample("order_404").answer.body == {
        "detail": f"No {KINDS['marketplace-orders']} matches the given query."
    }


def wrong_state(*states: str) -> dict[str, str]:
    return {"detail": f"Valid states for operation: {', '.join(states)}."}


@pytest.mark.parametrize(
    ("action", "state"),
    [(action, state) for action, valid in VALID_STATES.items() for state in ORDER_PATHS if state not in valid],
)
def test_an_order_in_the_wrong_state(recorded_world, orders, action, state):
    uuid = orders[state]["uuid"]
    events = len(recorded_world.instance.control.events())
    answer = recorded_world.ask("POST", f"marketplace-orders/{uuid}/{action}/", "staff", {}).answer
    assert (answer.status, answer.body) == (HTTPStatus.CONFLICT, wrong_state(*VALID_STATES[action]))
    assert state_of(recorded_world, "marketplace-orders", uuid) == state
    assert len(recorded_world.instance.control.events()) == events


RESOURCE_STATES = {"update_limits": ("OK",), "terminate": ("OK", "Erred")}


@pytest.mark.parametrize(
    ("action", "state"),
    [
        *(("update_limits", state) for state in ("Creating", "Updating", "Terminating", "Terminated", "Erred")),
        *(("terminate", state) for state in ("Creating", "Updating", "Terminating", "Terminated")),
    ],
)
def test_a_resource_in_the_wrong_state(recorded_world, orders, action, state):
    uuid = orders["done"]["marketplace_resource_uuid"]
    recorded_world.instance.control.shell("set_resource", resource=uuid, state=state)
    body = {"limits": {"cpu": 20}} if action == "update_limits" else {}
    answer = recorded_world.ask("POST", f"marketplace-resources/{uuid}/{action}/", "owner", body).answer
    assert (answer.status, answer.body) == (HTTPStatus.CONFLICT, wrong_state(*RESOURCE_STATES[action]))
    assert state_of(recorded_world, "marketplace-resources", uuid) == state
    recorded_world.instance.control.shell("set_resource", resource=uuid, state="OK")


# ---- nobody, and people without the right

PLACES = (
    ("GET", "users/me/"),
    ("GET", "marketplace-orders/"),
    ("POST", "marketplace-orders/"),
    ("GET", f"marketplace-orders/{NOBODY}/"),
    ("POST", f"marketplace-orders/{NOBODY}/approve_by_provider/"),
    ("GET", "marketplace-provider-resources/"),
    ("POST", "marketplace-component-usages/set_usage/"),
    ("PATCH", f"marketplace-offering-users/{NOBODY}/"),
    ("PUT", f"marketplace-site-agent-identities/{NOBODY}/"),
    ("POST", "identity-bridge/"),
    ("DELETE", f"projects/{NOBODY}/"),
)


@pytest.mark.parametrize(("caller", "body"), [("anonymous", NO_TOKEN), ("stranger", WRONG_TOKEN)])
@pytest.mark.parametrize(("method", "path"), PLACES)
def test_no_token_and_a_wrong_one(recorded_world, method, path, caller, body):
    answer = recorded_world.ask(method, path, caller, {} if method != "GET" else None).answer
    assert (answer.status, answer.body) == (HTTPStatus.UNAUTHORIZED, body)


@pytest.mark.parametrize(
    ("caller", "sent", "status"),
    [
        ("manager", ("POST", "marketplace-orders/{order}/approve_by_consumer/", {}), 403),
        ("owner", ("POST", "marketplace-orders/{order}/approve_by_provider/", {}), 403),
        ("owner", ("POST", "marketplace-orders/{order}/set_backend_id/", {"backend_id": "x"}), 403),
        ("provider", ("POST", "marketplace-orders/{order}/approve_by_consumer/", {}), 403),
        ("owner", ("POST", "marketplace-provider-resources/{resource}/set_backend_id/", {"backend_id": "x"}), 404),
        ("provider", ("POST", "users/", {"username": "x"}), 403),
        ("provider", ("POST", "customers/", {"name": "x"}), 403),
        ("provider", ("POST", "marketplace-categories/", {"title": "x"}), 403),
        ("manager", ("POST", "projects/", {"name": "x", "customer": "{customer_url}"}), 403),
        ("owner", ("POST", "marketplace-provider-offerings/{offering}/activate/", {}), 404),
        (
            "owner",
            ("POST", "marketplace-offering-users/", {"offering": "{offering_url}", "user": "{user_url}"}),
            403,
        ),
        ("owner", ("POST", "marketplace-site-agent-identities/", {"offering": "{offering}", "name": "x"}), 403),
        ("manager", ("PATCH", "users/{user}/", {"first_name": "X"}), 404),
        ("manager", ("POST", "identity-bridge/", {"username": "x", "source": "isd:x"}), 403),
    ],
)
def test_a_token_without_the_right(recorded_world: RecordedWorld, names, caller, sent, status):
    method, path, body = sent
    body = {key: value.format(**names) for key, value in body.items()}
    answer = recorded_world.ask(method, path.format(**names), caller, body).answer
    assert answer.status == status, answer
    assert state_of(recorded_world, "marketplace-orders", names["order"]) == "pending-consumer"


# ---- what is not there

KINDS = {
    "customers": "Customer",
    "projects": "Project",
    "users": "User",
    "marketplace-orders": "Order",
    "marketplace-resources": "Resource",
    "marketplace-provider-resources": "Resource",
    "marketplace-provider-offerings": "Offering",
    "marketplace-public-offerings": "Offering",
    "marketplace-offering-users": "OfferingUser",
    "marketplace-service-providers": "ServiceProvider",
    "marketplace-site-agent-identities": "AgentIdentity",
    "marketplace-plans": "Plan",
}


@pytest.mark.parametrize("identifier", [NOBODY, "no-uuid", "1"])
@pytest.mark.parametrize(("collection", "kind"), KINDS.items())
def test_an_object_that_does_not_exist(recorded_world, collection, kind, identifier):
    answer = recorded_world.ask("GET", f"{collection}/{identifier}/", "staff").answer
    assert answer.status == HTTPStatus.NOT_FOUND
    assert answer.body == {"detail": f"No {kind} matches the given query."}


@pytest.mark.parametrize("path", ["no-such-thing/", f"marketplace-orders/{NOBODY}/no_such_action/"])
def test_an_address_that_does_not_exist_is_a_page(recorded_world, path):
    answer = recorded_world.ask("GET", path, "staff").answer
    page = sample("absent_event_subscriptions").answer
    assert (answer.status, answer.body) == (page.status, page.body)
    assert answer.headers["content-type"] == page.headers["Content-Type"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "marketplace-orders/", "GET, POST, HEAD, OPTIONS"),
        ("PATCH", "users/me/", "GET, HEAD, OPTIONS"),
        ("GET", f"marketplace-orders/{NOBODY}/approve_by_provider/", "POST, OPTIONS"),
    ],
)
def test_a_method_that_is_not_allowed(recorded_world, method, path, allowed):
    answer = recorded_world.ask(method, path, "staff").answer
    assert (answer.status, answer.body) == (405, {"detail": f'Method "{method}" not allowed.'})
    assert answer.headers["allow"] == allowed


# ---- bodies that are no good


RESOURCE = "marketplace-provider-resources/{resource}/"
IDENTITY = "marketplace-site-agent-identities/{identity}/"
UPDATE_LIMITS = "marketplace-resources/{resource}/update_limits/"


@pytest.mark.parametrize(
    ("caller", "sent", "refusal"),
    [
        ("owner", ("marketplace-orders/", {}), {"offering": REQUIRED, "project": REQUIRED}),
        ("owner", ("projects/", {}), {"name": REQUIRED, "customer": REQUIRED}),
        ("staff", ("users/", {}), {"username": REQUIRED}),
        ("provider", ("marketplace-site-agent-identities/", {}), {"offering": REQUIRED, "name": REQUIRED}),
        ("owner", ("projects/{project}/add_user/", {}), {"user": REQUIRED, "role": REQUIRED}),
        ("provider", ("marketplace-orders/{executing}/set_backend_id/", {}), {"backend_id": REQUIRED}),
        ("provider", (f"{RESOURCE}set_backend_id/", {}), {"backend_id": REQUIRED}),
        ("provider", (f"{RESOURCE}set_effective_id/", {}), {"effective_id": REQUIRED}),
        ("provider", (f"{RESOURCE}set_limits/", {}), {"limits": REQUIRED}),
        ("owner", (UPDATE_LIMITS, {}), {"limits": REQUIRED}),
        ("owner", (UPDATE_LIMITS, {"limits": {"nope": 1}}), sample("order_create_err_bad_component").answer.body),
        (
            "provider",
            (f"{IDENTITY}register_queue/", {"object_types": ["x"]}),
            {"object_types": ['"x" is not a valid choice.']},
        ),
    ],
)
def test_a_body_that_lacks_something(recorded_world: RecordedWorld, names, caller, sent, refusal):
    path, body = sent
    answer = recorded_world.ask("POST", path.format(**names), caller, body).answer
    assert (answer.status, answer.body) == (HTTPStatus.BAD_REQUEST, refusal)


@pytest.mark.parametrize("content", [b"{", b"[]", b'"text"', b"\xff"])
def test_a_body_that_is_no_object(recorded_world: RecordedWorld, content: bytes):
    response = httpx.post(
        f"{recorded_world.url}/api/marketplace-orders/",
        content=content,
        headers={
            "Authorization": f"Token {recorded_world.tokens['owner']}",
            "Content-Type": "application/json",
        },
    )
    assert response.status_code == HTTPStatus.BAD_REQUEST
    assert response.json().keys() <= {"detail", "non_field_errors"}


@pytest.mark.parametrize(
    ("item", "sent"),
    [
        (IDENTITY, ("PUT", "", {"name": "", "version": "9"})),
        (IDENTITY, ("POST", "register_queue/", {"object_types": ["order", "x"]})),
        (RESOURCE, ("POST", "set_effective_id/", {"effective_id": None})),
        (RESOURCE, ("POST", "set_backend_id/", {"backend_id": None})),
        (RESOURCE, ("POST", "set_limits/", {"limits": {"cpu": 1, "nope": 1}})),
        (RESOURCE, ("POST", "set_end_date/", {"end_date": 5})),
        (RESOURCE, ("POST", "set_end_date/", {"end_date": "tomorrow"})),
        (
            "marketplace-offering-users/{offering_user}/",
            ("PATCH", "", {"username": "new", "is_restricted": "maybe"}),
        ),
        ("projects/{project}/", ("PATCH", "", {"name": "", "description": "new"})),
    ],
)
def test_a_refused_change_changes_nothing(recorded_world: RecordedWorld, names, item, sent):
    method, action, body = sent
    caller = "owner" if item.startswith("projects/") else "provider"
    item = item.format(**names)
    before = recorded_world.ask("GET", item, caller).answer.body
    refused = recorded_world.ask(method, item + action, caller, body).answer
    assert refused.status == HTTPStatus.BAD_REQUEST, refused
    assert recorded_world.ask("GET", item, caller).answer.body == before


def test_a_second_order_for_a_resource_waits_for_the_first(recorded_world: RecordedWorld, orders):
    resource = orders["done"]["marketplace_resource_uuid"]
    path = f"marketplace-resources/{resource}"
    assert (
        recorded_world.ask("POST", f"{path}/update_limits/", "manager", {"limits": {"cpu": 3}}).answer.status
        == 200
    )
    refused = recorded_world.ask("POST", f"{path}/terminate/", "owner", {}).answer
    assert (refused.status, refused.body) == (400, ["Pending order for resource already exists."])
    pending = recorded_world.ask("GET", "marketplace-orders/", "owner", resource_uuid=resource)
    assert [row["type"] for row in pending.answer.body] == ["Create", "Update"]
