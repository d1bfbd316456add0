"""Whatever the agent reads from the double parses with the client the agent uses, down to each field's type."""

import importlib
import importlib.util
import re
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import date
from enum import Enum
from functools import cache
from http import HTTPStatus
from typing import Any
from uuid import UUID

import attrs
import httpx
import pytest
from waldur_api_client.client import AuthenticatedClient
from waldur_support import NOBODY, Exchange, RecordedWorld, stored

IMPORTING = "only for importing resources that a backend already has; no documented scenario does"
API_KEYS = "only for offerings whose resources have API keys; no documented scenario has one"
NOT_SERVED: Mapping[str, str] = {
    "GET /api/backend-resource-requests/{uuid}/": IMPORTING,
    "POST /api/backend-resource-requests/{uuid}/set_done/": IMPORTING,
    "POST /api/backend-resource-requests/{uuid}/set_erred/": IMPORTING,
    "POST /api/backend-resource-requests/{uuid}/start_processing/": IMPORTING,
    "GET /api/backend-resources/": IMPORTING,
    "POST /api/backend-resources/": IMPORTING,
    "POST /api/marketplace-provider-offerings/{uuid}/check_unique_backend_id/": "only for backends that make ids",
    "POST /api/marketplace-provider-resources/{uuid}/set_endpoints/": "only for backends that report endpoints",
    "GET /api/marketplace-resource-api-keys/": API_KEYS,
    "POST /api/marketplace-resource-api-keys/report_created/": API_KEYS,
    "POST /api/marketplace-resource-api-keys/{uuid}/set_erred/": API_KEYS,
    "POST /api/marketplace-resource-api-keys/{uuid}/set_key/": API_KEYS,
    "POST /api/marketplace-slurm-periodic-usage-policies/{uuid}/report-command-result/": "only for SLURM backends",
    "GET /api/science-sub-domains/": "only for projects with a science domain",
}
AGENT_ENDPOINTS = frozenset(stored("_agent_endpoint_coverage"))
OTHER_ENDPOINTS = frozenset(
    {
        "GET /api/customers/{uuid}/",
        "GET /api/marketplace-offering-users/{uuid}/",
        "POST /api/marketplace-offering-users/",
        "POST /api/marketplace-orders/{uuid}/approve_by_consumer/",
        "GET /api/marketplace-public-offerings/{uuid}/",
        "GET /api/marketplace-public-offerings/{uuid}/plans/",
        "POST /api/marketplace-provider-offerings/",
        "POST /api/marketplace-service-providers/",
        "GET /api/marketplace-site-agent-identities/{uuid}/",
        "POST /api/marketplace-site-agent-identities/{uuid}/register_event_subscription/",
        "POST /api/event-subscriptions/",
        "POST /api/event-subscriptions/{uuid}/create_queue/",
        "GET /api/projects/{uuid}/",
        "GET /api/users/{uuid}/",
    }
)
"""What the suites read and older agents did."""

CLIENT = AuthenticatedClient(base_url="http://waldur.example", token="")
_SUFFIXES = {"POST": ("", "_create"), "PUT": ("_update",), "PATCH": ("_partial_update",)}


@cache
def client_function(endpoint: str) -> types.ModuleType:
    """The module of the client that calls an endpoint, found by the client's naming rules."""
    method, path = endpoint.split()
    segments = path.replace("-", "_").strip("/").split("/")[1:]
    words = "_".join(segment for segment in segments if not segment.startswith("{"))
    one = segments[-1].startswith("{")
    suffixes = _SUFFIXES.get(method, ("_retrieve",) if one else ("_list", "_retrieve"))
    names = [f"waldur_api_client.api.{segments[0]}.{words}{suffix}" for suffix in suffixes]
    return importlib.import_module(next(name for name in names if importlib.util.find_spec(name)))


def parsed(endpoint: str, exchange: Exchange) -> Any:
    """What the client makes of an answer; it refuses statuses that it does not know, however successful."""
    # The public functions send requests themselves; this is the part of each that reads the answer.
    return client_function(endpoint)._parse_response(client=CLIENT, response=exchange.response)


def unparsed(value: Any, hint: Any, path: str) -> Iterator[str]:
    """Find raw text and objects where the client declares an enum, a UUID, a time or a model of its own.

    It keeps a raw value that it cannot parse. Nulls and numbers in place of text are not looked for: there,
    recorded answers contradict what the client declares.
    """
    alternatives = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    if type(value) in (str, dict):
        if type(value) not in alternatives and any(map(_needs_parsing, alternatives)):
            yield f"{path}: {value!r} is no {hint}"
    elif isinstance(value, list):
        of = next((typing.get_args(each)[0] for each in alternatives if typing.get_origin(each) is list), Any)
        for index, element in enumerate(value):
            yield from unparsed(element, of, f"{path}.{index}")
    elif attrs.has(type(value)):
        for field in attrs.fields(type(value)):
            yield from unparsed(getattr(value, field.name), field.type, f"{path}.{field.name}")


def _needs_parsing(hint: Any) -> bool:
    if isinstance(hint, (str, typing.ForwardRef)):
        return True
    return isinstance(hint, type) and (issubclass(hint, (Enum, UUID, date)) or attrs.has(hint))


def _is_to(endpoint: str, exchange: Exchange) -> bool:
    method, path = endpoint.split()
    pattern = re.sub(r"\{\w+\}", "[0-9a-f-]+", path)
    return exchange.request.method == method and re.fullmatch(pattern, exchange.request.path) is not None


@pytest.fixture(scope="module")
def exchanges(recorded_world: RecordedWorld) -> list[Exchange]:
    """Every exchange of the recorded world, and one for each further thing that the agent asks."""
    for ask_more in (_about_the_offering, _about_an_order_and_its_resource, _about_people, _as_an_agent):
        ask_more(recorded_world)
    return list(recorded_world.exchanges)


def _about_the_offering(world: RecordedWorld) -> None:
    offering, ask = world.answer("offering_create")["uuid"], world.ask
    provider = world.answer("service_provider_create")
    fields = ["components", "customer_uuid", "partitions", "plugin_options"]
    ask("GET", f"marketplace-provider-offerings/{offering}/", "provider", field=fields)
    ask("GET", f"marketplace-public-offerings/{offering}/plans/", "member")
    ask("GET", "marketplace-service-providers/", "provider", customer_uuid=provider["customer_uuid"], field="uuid")
    ask("GET", f"marketplace-service-providers/{provider['uuid']}/keys/", "provider")
    ask("GET", f"marketplace-service-providers/{provider['uuid']}/projects/", "provider")
    ask("GET", f"marketplace-plans/{world.answer('offering_create')['plans'][0]['uuid']}/", "provider")
    offering_path = f"marketplace-provider-offerings/{offering}"
    ask("GET", f"{offering_path}/user-attribute-config/", "provider")
    ask("GET", f"{offering_path}/list_course_accounts/", "provider", page_size=100)
    ask("GET", f"{offering_path}/list_project_service_accounts/", "provider", page_size=100)
    component = {"type": "gpu", "name": "GPU", "measured_unit": "hours", "billing_type": "limit"}
    ask("POST", f"{offering_path}/create_offering_component/", "provider", component)
    details = ask("GET", f"{offering_path}/", "provider").answer.body
    gpu = next(each for each in details["components"] if each["type"] == "gpu")
    ask("POST", f"{offering_path}/update_offering_component/", "provider", gpu | {"max_value": 10})


def _about_an_order_and_its_resource(world: RecordedWorld) -> None:
    ask = world.ask
    order = world.order("modelled")
    ask("POST", f"marketplace-orders/{order['uuid']}/approve_by_provider/", "provider", {})
    ask("POST", f"marketplace-orders/{order['uuid']}/set_backend_id/", "provider", {"backend_id": "b-order"})
    ask("GET", f"marketplace-orders/{order['uuid']}/", "provider", field=["uuid", "state"])
    ask("POST", f"marketplace-orders/{order['uuid']}/set_state_done/", "provider")

    uuid = order["marketplace_resource_uuid"]
    options = {"enable_membership_sync_status": True}
    offering = world.answer("offering_create")["uuid"]
    world.instance.control.shell("set_plugin_options", offering=offering, plugin_options=options)
    for action, body in (
        ("set_backend_id", {"backend_id": "b-resource"}),
        ("set_effective_id", {"effective_id": "b-effective"}),
        ("set_limits", {"limits": {"cpu": 11}}),
        ("set_end_date", {"end_date": "2099-12-31"}),
        ("set_membership_sync_statuses", {"statuses": []}),
        ("refresh_last_sync", {}),
        ("set_as_erred", {"error_message": "lost", "error_traceback": ""}),
    ):
        ask("POST", f"marketplace-provider-resources/{uuid}/{action}/", "provider", body)
    ask("GET", f"marketplace-provider-resources/{uuid}/", "provider")
    ask("POST", f"marketplace-provider-resources/{uuid}/set_as_ok/", "provider")
    ask("POST", f"marketplace-resources/{uuid}/set_end_date/", "owner", {"end_date": "2099-11-30"})
    ask("GET", f"marketplace-resources/{uuid}/team/", "owner")

    usages = [{"type": "ram", "amount": "2.00", "recurring": False}]
    ask("POST", "marketplace-component-usages/set_usage/", "provider", {"resource": uuid, "usages": usages})
    usage = ask("GET", "marketplace-component-usages/", "provider", resource_uuid=uuid).answer.body[0]
    by_user = {"usages": [{"username": "mia01", "usage": "1.50"}]}
    ask("POST", f"marketplace-component-usages/{usage['uuid']}/set_user_usages/", "provider", by_user)
    ask("GET", "marketplace-component-user-usages/", "provider", resource_uuid=uuid)
    details = ask("GET", f"marketplace-provider-offerings/{offering}/", "provider").answer.body
    limit = {
        "resource": world.as_("staff").link("marketplace-resources", uuid),
        "component": details["components"][0]["uuid"],
        "user": world.answer("offering_user_create")["url"],
        "limit": 5,
    }
    assert ask("POST", "component-user-usage-limits/", "staff", limit).answer.status == 201
    ask("GET", "component-user-usage-limits/", "provider", resource_uuid=uuid)


def _about_people(world: RecordedWorld) -> None:
    ask = world.ask
    world.instance.control.shell("set_federated_identity_sync", enabled=True)
    known = {"username": "mia@identity.example", "source": "isd:modelled", "first_name": "Mia"}
    pushed = ask("POST", "identity-bridge/", "staff", known).answer.body
    ask("POST", "identity-bridge/", "staff", known | {"email": "mia@identity.example"})
    ask("GET", "identity-bridge/allowed-fields/", "staff")
    ask("POST", "remote-eduteams/", "staff", {"cuid": known["username"]})
    ask("GET", "users/", "staff", username=known["username"])

    offering = world.answer("offering_create")["url"]
    user = {"offering": offering, "user": world.as_("staff").link("users", pushed["uuid"])}
    account = ask("POST", "marketplace-offering-users/", "provider", user).answer.body["uuid"]
    for action in (
        *("begin_creating", "set_pending_account_linking", "set_pending_additional_validation"),
        *("set_error_creating", "set_pending_account_linking", "set_validation_complete"),
    ):
        ask("POST", f"marketplace-offering-users/{account}/{action}/", "provider")
        ask("GET", f"marketplace-offering-users/{account}/", "provider")
    ask("POST", "identity-bridge/remove/", "staff", {"username": known["username"], "source": known["source"]})

    project = world.answer("project_create")["uuid"]
    ask("PATCH", f"projects/{project}/", "owner", {"end_date": "2099-12-31"})
    ask("GET", f"projects/{project}/", "owner")
    ask("PATCH", f"projects/{project}/", "owner", {"end_date": None})
    ask("GET", "roles/", "staff", name="PROJECT.ADMIN")


def _as_an_agent(world: RecordedWorld) -> None:
    identity = world.answer("hybrid_agent_identity_create")
    world.ask("GET", "marketplace-site-agent-identities/", "provider", name=identity["name"])
    changed = {"offering": identity["offering"], "name": identity["name"], "version": "1.0.7", "dependencies": []}
    path = f"marketplace-site-agent-identities/{identity['uuid']}"
    world.ask("PUT", f"{path}/", "provider", changed | {"last_restarted": "2026-11-21T04:58:19+00:00"})
    world.ask("POST", f"{path}/register_queue/", "provider", {"object_types": ["order", "offering_user"]})
    world.ask("POST", f"{path}/register_queue/", "provider", {"object_types": []})


def test_every_endpoint_of_the_agent_is_read_or_listed_with_the_reason():
    assert NOT_SERVED.keys() <= AGENT_ENDPOINTS
    assert not OTHER_ENDPOINTS & AGENT_ENDPOINTS


@pytest.mark.parametrize("endpoint", sorted((AGENT_ENDPOINTS | OTHER_ENDPOINTS) - NOT_SERVED.keys()))
def test_the_client_reads_every_answer(exchanges: list[Exchange], endpoint: str):
    answers = [
        each for each in exchanges if _is_to(endpoint, each) and each.answer.status < HTTPStatus.BAD_REQUEST
    ]
    assert answers, [each.answer for each in exchanges if _is_to(endpoint, each)]
    wrong = [problem for answer in answers for problem in unparsed(parsed(endpoint, answer), Any, endpoint)]
    assert not wrong


@pytest.mark.parametrize("endpoint", sorted(NOT_SERVED))
def test_what_is_not_served_is_still_not_there(recorded_world: RecordedWorld, endpoint: str):
    method, path = endpoint.split()
    path = re.sub(r"\{\w+\}", NOBODY, path).removeprefix("/api/")
    answer = recorded_world.ask(method, path, "staff", {} if method == "POST" else None).answer
    assert answer.status == HTTPStatus.NOT_FOUND
    assert "text/html" in answer.headers["content-type"]


@pytest.mark.parametrize(
    ("sample", "endpoint", "key", "value"),
    [
        ("order_get_done", "GET /api/marketplace-orders/{uuid}/", "state", "finished"),
        ("order_get_done", "GET /api/marketplace-orders/{uuid}/", "type", "Remove"),
        ("order_get_done", "GET /api/marketplace-orders/{uuid}/", "uuid", "me"),
        ("order_get_done", "GET /api/marketplace-orders/{uuid}/", "limits", None),
        ("order_get_done", "GET /api/marketplace-orders/{uuid}/", "completed_at", "yesterday"),
        ("resource_get_ok", "GET /api/marketplace-resources/{uuid}/", "state", "ok"),
        ("resource_get_ok", "GET /api/marketplace-resources/{uuid}/", "creation_order", {"state": "finished"}),
        ("offering_user_get", "GET /api/marketplace-offering-users/{uuid}/", "state", "ok"),
        (
            "hybrid_register_queue",
            "POST /api/marketplace-site-agent-identities/{uuid}/register_queue/",
            "vhost",
            ...,
        ),
        ("order_approve_by_provider", "POST /api/marketplace-orders/{uuid}/approve_by_provider/", "detail", ...),
    ],
)
def test_a_wrong_value_is_noticed(recorded_world: RecordedWorld, sample: str, endpoint: str, key: str, value: Any):
    exchange = recorded_world.replayed[sample]
    body = exchange.answer.body | {key: value}
    if value is ...:
        del body[key]
    changed = replace(exchange, response=httpx.Response(exchange.answer.status, json=body))
    try:
        problems = list(unparsed(parsed(endpoint, changed), Any, "answer"))
    except (KeyError, TypeError, ValueError) as problem:
        problems = [str(problem)]
    assert problems
