"""The preflight names whatever a federation lacks, one row each, and nothing else."""

import ssl
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from testyard.waldur.api import Waldur
from testyard.waldur.configuration import OfferingConfiguration
from testyard.waldur.preflight import (
    NOT_CONFIGURED,
    REQUIREMENT_COLUMNS,
    Preflight,
    Requirement,
    StompEndpoint,
    probe_stomp,
    requirement_row,
    unmet,
)
from testyard.waldur.states import Side

SOURCE_OFFERING = "11111111111111111111111111111111"
TARGET_OFFERING = "22222222222222222222222222222222"
TARGET_CUSTOMER = "33333333333333333333333333333333"
PROJECT = "44444444444444444444444444444444"
PROVIDER = "55555555555555555555555555555555"
AGENT, CUSTOMER, TARGET_AGENT = "agent-on-a-token-1", "customer-on-a-token", "agent-on-b-token-1"
HTML = {"Content-Type": "text/html; charset=utf-8"}


def configuration(**changes: Any) -> OfferingConfiguration:
    """What the agent is told; ``backend_settings`` are merged."""
    backend_settings = {
        "target_api_url": "http://b.example/api/",
        "target_api_token": TARGET_AGENT,
        "target_offering_uuid": TARGET_OFFERING,
        "target_customer_uuid": TARGET_CUSTOMER,
        "user_match_field": "username",
        "user_resolve_method": "user_field",
    } | changes.pop("backend_settings", {})
    component = {"measured_unit": "h", "unit_factor": 1.0, "accounting_type": "limit", "label": "Hours"}
    content = {
        "name": "Federation",
        "waldur_api_url": "http://a.example/api/",
        "waldur_api_token": AGENT,
        "waldur_offering_uuid": SOURCE_OFFERING,
        "backend_type": "waldur",
        "order_processing_backend": "waldur",
        "websocket_use_tls": False,
        "stomp_ws_port": 15674,
        "backend_settings": backend_settings,
        "backend_components": {
            "node_hours": component | {"target_components": {"cpu_k_hours": {"factor": 128}}},
            "storage": component,
        },
    }
    return OfferingConfiguration.model_validate(content | changes)


def offering(uuid: str, *components: str) -> dict[str, Any]:
    return {
        "uuid": uuid,
        "name": f"Offering {uuid[0]}",
        "type": "Marketplace.Slurm",
        "state": "Active",
        "customer_uuid": PROVIDER,
        "plans": [{"name": "Plan", "archived": False}],
        "components": [{"type": component, "billing_type": "limit"} for component in components],
    }


class Waldurs:
    """A and B, each as what its paths answer; everything a federation needs is there until a test removes it."""

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str], Any] = {
            ("a", "/api/users/me/"): {
                "username": "agent-a",
                "permissions": [{"role_name": "OFFERING.MANAGER", "scope_uuid": SOURCE_OFFERING}],
            },
            ("a", f"/api/marketplace-provider-offerings/{SOURCE_OFFERING}/"): offering(
                SOURCE_OFFERING, "node_hours", "storage"
            ),
            ("a", "/api/marketplace-service-providers/"): [{"uuid": "1"}],
            ("a", f"/api/projects/{PROJECT}/"): {"name": "Simulation"},
            ("b", "/api/users/me/"): {
                "username": "agent-b",
                "permissions": [{"role_name": "CUSTOMER.OWNER", "scope_uuid": TARGET_CUSTOMER}],
                "is_identity_manager": True,
                "managed_isds": ["isd:one", "isd:two"],
            },
            ("b", f"/api/marketplace-public-offerings/{TARGET_OFFERING}/"): offering(
                TARGET_OFFERING, "cpu_k_hours", "storage"
            ),
            ("b", f"/api/customers/{TARGET_CUSTOMER}/"): {"name": "Target"},
        }
        self.stomp: dict[str, Any] = {"a": httpx.Response(426), "b": httpx.Response(426)}
        self.requests: list[httpx.Request] = []

    def __getitem__(self, key: tuple[str, str]) -> Any:
        """What a side answers, by the beginning of the path."""
        side, start = key
        return next(value for (one, path), value in self.answers.items() if one == side and start in path)

    def __setitem__(self, key: tuple[str, str], answer: Any) -> None:
        side, start = key
        path = next(path for one, path in self.answers if one == side and start in path)
        self.answers[side, path] = answer

    def handle(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        side = request.url.host.partition(".")[0]
        stomp = request.url.path == "/rmqws-stomp"
        answer = self.stomp[side] if stomp else self.answers.get((side, request.url.path))
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, httpx.Response):
            return answer
        return httpx.Response(404) if answer is None else httpx.Response(200, json=answer)


@pytest.fixture
def waldurs(monkeypatch: pytest.MonkeyPatch) -> Waldurs:
    waldurs = Waldurs()
    transport = httpx.MockTransport(waldurs.handle)
    real = httpx.Client

    def get(url: str, *, timeout: float, verify: ssl.SSLContext | bool) -> httpx.Response:
        with real(transport=transport, timeout=timeout, verify=verify) as client:
            return client.get(url)

    monkeypatch.setattr(httpx, "Client", lambda **options: real(transport=transport, **options))
    monkeypatch.setattr(httpx, "get", get)
    return waldurs


@pytest.fixture
def customer(waldurs: Waldurs) -> Iterator[Waldur]:
    with Waldur("http://a.example", CUSTOMER, name="Waldur A") as customer:
        yield customer


@pytest.fixture
def missing(waldurs, customer):
    """Runs the preflight; returns the lines that are not met."""

    def run(project: str = PROJECT, **changes: Any) -> list[str]:
        rows = Preflight(configuration(**changes), project, customer).run()
        return [str(row) for row in rows if not row.met]

    return run


# ---- everything is there


def test_a_federation_that_has_everything_lacks_nothing(missing):
    assert missing() == []


def test_every_set_up_step_and_both_sides_are_checked(waldurs, customer):
    rows = Preflight(configuration(), PROJECT, customer).run()
    assert {row.step for row in rows} == {"FED-S1", "FED-S2", "FED-S3", "FED-S4", "FED-S5"}
    assert {row.side for row in rows} == {Side.A, Side.B, None}
    assert unmet(rows) == []


def test_each_side_is_asked_with_the_token_of_who_needs_it(waldurs, customer):
    Preflight(configuration(), PROJECT, customer).run()
    tokens = {
        (request.url.host, request.url.path): request.headers.get("Authorization") for request in waldurs.requests
    }
    assert tokens["a.example", "/api/users/me/"] == f"Token {AGENT}"
    assert tokens["a.example", f"/api/projects/{PROJECT}/"] == f"Token {CUSTOMER}"
    assert tokens["b.example", "/api/users/me/"] == f"Token {TARGET_AGENT}"
    assert tokens["a.example", "/rmqws-stomp"] is None


def test_only_reads(waldurs, customer):
    Preflight(configuration(), PROJECT, customer).run()
    assert {request.method for request in waldurs.requests} == {"GET"}


def test_dashed_identifiers_are_the_same_as_hexadecimal_ones(missing):
    dashed = "11111111-1111-1111-1111-111111111111"
    assert missing("44444444-4444-4444-4444-444444444444", waldur_offering_uuid=dashed) == []


def test_staff_needs_no_roles(waldurs, missing):
    for side in ("a", "b"):
        waldurs[side, "users/me"] = {"username": "staff", "is_staff": True}
    assert missing() == []


# ---- one thing is missing, one row names it


@pytest.mark.parametrize(
    ("where", "value", "line"),
    [
        ("a offerings state", "Paused", "the offering's state: expected Active, found Paused"),
        ("b offerings state", "Draft", "the offering's state: expected Active, found Draft"),
        ("a offerings type", "Support.OfferingTemplate", "found Support.OfferingTemplate"),
        ("b offerings type", "OpenStack.Tenant", "expected Marketplace.Slurm, found OpenStack.Tenant"),
        ("a offerings plans", [], "a plan: expected at least one, found none"),
        ("b offerings plans", [{"name": "Old", "archived": True}], "expected at least one, found none"),
        ("a users/me permissions", [], "role of agent-a: expected OFFERING.MANAGER, found no role there"),
        ("a users/me permissions", None, "found no role there"),
        (
            "b users/me permissions",
            [{"role_name": "CUSTOMER.MANAGER", "scope_uuid": TARGET_CUSTOMER}],
            "role of agent-b: expected CUSTOMER.OWNER, found CUSTOMER.MANAGER",
        ),
        (
            "b users/me permissions",
            [{"role_name": "CUSTOMER.OWNER", "scope_uuid": PROVIDER}],
            "found no role there",
        ),
        (
            "b users/me is_identity_manager",
            False,
            "identity manager with managed ISDs: expected yes, found no",
        ),
        ("b users/me managed_isds", [], "identity manager with managed ISDs: expected yes, found no"),
        ("b users/me managed_isds", None, "identity manager with managed ISDs: expected yes, found no"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_else(waldurs, missing, where, value, line):
    side, path, key = where.split()
    waldurs[side, path] = waldurs[side, path] | {key: value}
    (only,) = missing()
    assert f"Waldur {side.upper()}: " in only
    assert line in only


@pytest.mark.parametrize(
    ("side", "path", "line"),
    [
        (
            "a",
            "offerings",
            f"Waldur A: the offering is visible to the token: expected {SOURCE_OFFERING}, found nothing",
        ),
        (
            "b",
            "offerings",
            f"Waldur B: the offering is visible to the token: expected {TARGET_OFFERING}, found nothing",
        ),
        ("a", "projects", f"the ordering project is visible to who orders: expected {PROJECT}, found nothing"),
        ("b", "customers", f"the target organisation is visible: expected {TARGET_CUSTOMER}, found nothing"),
    ],
)
def test_what_is_not_there_is_named_and_nothing_else(waldurs, missing, side, path, line):
    waldurs[side, path] = None
    (only,) = missing()
    assert line in only


def test_an_organisation_that_provides_nothing_is_named(waldurs, missing):
    waldurs["a", "service-providers"] = []
    (only,) = missing()
    assert "the offering's organisation is a service provider: expected yes, found no" in only


@pytest.mark.parametrize(
    ("side", "component", "line"),
    [
        (
            "a",
            "node_hours",
            "FED-S3 Waldur A: component node_hours: expected billed by limit, found no such component",
        ),
        (
            "b",
            "cpu_k_hours",
            "FED-S3 Waldur B: component cpu_k_hours = node_hours x 128: expected billed by limit",
        ),
    ],
)
def test_a_component_that_is_not_there_is_named(waldurs, missing, side, component, line):
    there = waldurs[side, "offerings"]
    kept = [one for one in there["components"] if one["type"] != component]
    waldurs[side, "offerings"] = there | {"components": kept}
    (only,) = missing()
    assert only.startswith(line)


def test_a_component_billed_by_usage_cannot_have_limits(waldurs, missing):
    usage = [{"type": "cpu_k_hours", "billing_type": "usage"}, {"type": "storage", "billing_type": "limit"}]
    waldurs["b", "offerings"] = waldurs["b", "offerings"] | {"components": usage}
    (only,) = missing()
    assert "component cpu_k_hours = node_hours x 128: expected billed by limit, found billed by usage" in only


@pytest.mark.parametrize(
    ("settings", "met"),
    [
        ({"user_resolve_method": "user_field"}, True),
        ({"user_resolve_method": "remote_eduteams"}, True),
        ({"user_resolve_method": "identity_bridge"}, False),
        ({"user_resolve_method": "identity_bridge", "identity_bridge_source": ""}, False),
        ({"user_resolve_method": "identity_bridge", "identity_bridge_source": "isd:x"}, True),
    ],
)
def test_users_must_be_matched_somehow(waldurs, customer, settings, met):
    rows = Preflight(configuration(backend_settings=settings), PROJECT, customer).run()
    (users,) = [row for row in rows if row.step == "FED-S5"]
    assert users.met is met
    assert users.found == f"{settings['user_resolve_method']} by username"


@pytest.mark.parametrize(
    ("url", "dialled"),
    [
        ("http://a.example/api/", "http://a.example"),
        ("http://a.example/", "http://a.example"),
        ("http://a.example:8080", "http://a.example:8080"),
        ("http://a.example.ai/api/", "http://a.example."),
        ("http://a.example.pi", "http://a.example."),
    ],
)
def test_an_address_that_the_agent_shortens_too_much_is_named(url, dialled):
    # Agent 1.0.7 calls str.rstrip("/api"), which strips letters, not the word.
    with Waldur(url, CUSTOMER) as customer:
        rows = Preflight(configuration(waldur_api_url=url), PROJECT, customer)._configured()
    address = next(iter(rows))
    assert address.found == dialled
    assert address.met is (dialled == url.rstrip("/").removesuffix("/api"))


# ---- a side that says nothing


@pytest.mark.parametrize("side", ["a", "b"])
def test_a_side_that_cannot_be_reached_gets_one_row(waldurs, missing, side):
    waldurs[side, "users/me"] = httpx.ConnectError("[Errno 111] Connection refused")
    waldurs.stomp[side] = httpx.ConnectError("[Errno 111] Connection refused")
    (only,) = missing()
    assert "the API answers and accepts the token" in only
    assert f"Waldur {side.upper()} at http://{side}.example cannot be reached: [Errno 111]" in only


@pytest.mark.parametrize("side", ["a", "b"])
def test_a_side_that_refuses_the_token_gets_one_row(waldurs, missing, side):
    waldurs[side, "users/me"] = httpx.Response(401, json={"detail": "Invalid token."})
    (only,) = missing()
    assert f"Waldur {side.upper()}: the API answers and accepts the token" in only
    assert 'HTTP 401 {"detail":"Invalid token."}' in only


def test_an_address_of_web_pages_is_named_as_such(waldurs, missing):
    # The frontend answers every path with its page: the most likely wrong address.
    waldurs["b", "users/me"] = httpx.Response(200, text="<!doctype html>", headers=HTML)
    (only,) = missing()
    assert "text/html" in only or "HTML" in only


def test_a_customer_whose_token_is_refused_gets_one_row(waldurs, missing):
    waldurs["a", "projects"] = httpx.Response(401, json={"detail": "Invalid token."})
    (only,) = missing()
    assert "the ordering project is visible to who orders" in only
    assert "401" in only


@pytest.mark.parametrize("status", [403, 500])
def test_an_error_about_one_thing_does_not_hide_what_else_is_missing(waldurs, missing, status):
    waldurs["b", "offerings"] = httpx.Response(status, json={"detail": "No."})
    waldurs["b", "customers"] = None
    offering_row, organisation_row = missing()
    assert str(status) in offering_row
    assert "the target organisation is visible" in organisation_row


def test_a_project_that_is_no_uuid_gets_one_row_that_shows_it(missing):
    (only,) = missing("my project")
    assert "the ordering project" in only
    assert "'my project'" in only


# ---- STOMP over WebSocket


@pytest.mark.parametrize(
    ("changes", "side", "url"),
    [
        ({}, Side.A, "http://a.example:15674/rmqws-stomp"),
        ({}, Side.B, "http://b.example:15674/rmqws-stomp"),
        ({"stomp_ws_host": "mq.example"}, Side.B, "http://mq.example:15674/rmqws-stomp"),
        ({"stomp_ws_path": "/ws"}, Side.A, "http://a.example:15674/ws"),
        ({"websocket_use_tls": True}, Side.A, "https://a.example:15674/rmqws-stomp"),
        ({"stomp_ws_port": None}, Side.A, "http://a.example:443/rmqws-stomp"),
        ({"stomp_ws_port": None, "verify_ssl": False}, Side.A, "http://a.example:80/rmqws-stomp"),
        ({"waldur_api_url": "https://a.example:8443/api/"}, Side.A, "http://a.example:15674/rmqws-stomp"),
        ({"waldur_api_url": "http://[::1]:8080/api/"}, Side.A, "http://[::1]:15674/rmqws-stomp"),
    ],
)
def test_the_endpoint_is_the_one_that_the_agent_dials(monkeypatch, changes, side, url):
    asked: list[tuple[str, bool]] = []

    def get(url: str, *, timeout: float, verify: object) -> httpx.Response:
        assert 0 < timeout <= 30
        asked.append((url, verify is not False))
        return httpx.Response(426)

    monkeypatch.setattr(httpx, "get", get)
    assert probe_stomp(configuration(**changes), side) == StompEndpoint(url, 426, "")
    assert asked == [(url, changes.get("verify_ssl", True))]


@pytest.mark.parametrize(
    ("answer", "available", "text"),
    [
        (httpx.Response(426), True, "HTTP 426"),
        (httpx.Response(426, text="Upgrade Required", headers=HTML), True, "HTTP 426"),
        (httpx.Response(200, text="<html>", headers=HTML), False, "HTTP 200 text/html"),
        (httpx.Response(404, json={}), False, "HTTP 404 application/json"),
        (httpx.Response(502), False, "HTTP 502"),
        (httpx.Response(101), False, "HTTP 101"),
        (httpx.ConnectError("refused"), False, "no answer"),
        (httpx.ConnectTimeout("slow"), False, "no answer"),
        (httpx.RemoteProtocolError("not HTTP"), False, "no answer"),
    ],
)
def test_only_a_demand_for_an_upgrade_is_an_endpoint(waldurs, answer, available, text):
    waldurs.stomp["a"] = answer
    endpoint = probe_stomp(configuration(), Side.A)
    assert endpoint.available is available
    assert str(endpoint).strip() == text


@pytest.mark.parametrize(
    ("side", "enabled", "optional"),
    [
        (Side.A, {"stomp_enabled": True}, False),
        (Side.A, {"stomp_enabled": False}, True),
        (Side.B, {"stomp_enabled": True, "backend_settings": {"target_stomp_enabled": True}}, True),
        (Side.B, {"stomp_enabled": True, "backend_settings": {"target_stomp_enabled": False}}, True),
    ],
)
def test_a_missing_endpoint_is_named_and_stops_only_who_needs_it(waldurs, customer, side, enabled, optional):
    host = side.value.lower()
    waldurs.stomp[host] = httpx.Response(200, text="<html>", headers=HTML)
    rows = Preflight(configuration(**enabled), PROJECT, customer).run()
    (row,) = [row for row in rows if not row.met]
    assert row.optional is optional
    assert (unmet(rows) == []) is optional
    assert str(row) == (
        f"FED-S4 Waldur {side.value}: STOMP over WebSocket at http://{host}.example:15674/rmqws-stomp: "
        f"expected HTTP 426, found HTTP 200 text/html: {NOT_CONFIGURED}"
    )


# ---- rows


@pytest.mark.parametrize(
    ("met", "optional", "verdict"),
    [(True, False, "yes"), (True, True, "yes"), (False, True, "no, optional"), (False, False, "NO")],
)
def test_a_row_tells_whether_it_is_met_and_whether_it_matters(met, optional, verdict):
    requirement = Requirement("FED-S1", Side.B, "a plan", "at least one", "none", met, optional)
    assert requirement_row(requirement) == ("FED-S1", "B", "a plan", "at least one", "none", verdict)
    assert len(REQUIREMENT_COLUMNS) == len(requirement_row(requirement))


def test_a_row_about_the_configuration_names_no_side():
    requirement = Requirement("FED-S5", None, "users can be matched", "x", "y", met=False)
    assert requirement_row(requirement)[1] == ""
    assert str(requirement) == "FED-S5 configuration: users can be matched: expected x, found y"


def test_what_is_optional_or_met_is_not_missing():
    rows = [
        Requirement("FED-S1", Side.A, name, "x", "y", met, optional)
        for name, met, optional in [("met", True, False), ("optional", False, True), ("missing", False, False)]
    ]
    assert [row.name for row in unmet(rows)] == ["missing"]
