"""Each step of preparing a side is the request that Waldur wants; names carry the run's id, tokens are masked."""

import json
import secrets
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from http_support import answer_with
from testyard.core.json_client import UnexpectedAnswerError
from testyard.core.redact import secrets_in_use
from testyard.waldur.api import Waldur
from testyard.waldur.provisioning import Provisioner
from testyard.waldur.states import OfferingState, Role

UUID = "d629d5e45567425da9cdbdc1af67b32c"
OTHER = "0e7b6dc1a9a14d4c8e0c1f0d2b3a4c5d"
API = "http://waldur.example/api"
NEW = {"uuid": OTHER}


class Server:
    """Creates whatever is asked for; answers GETs with what a test gives; keeps method, path and body."""

    def __init__(self) -> None:
        self.lists: dict[str, list[dict[str, Any]]] = {}
        self.created: dict[str, Any] = NEW
        self.status = 201
        self.seen: list[tuple[str, str, Any]] = []

    def handle(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content) if request.content else None
        self.seen.append((request.method, request.url.path, body))
        if request.method == "GET":
            return httpx.Response(200, json=self.lists[request.url.path])
        return httpx.Response(200 if request.method == "PATCH" else self.status, json=self.created)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    server = Server()
    answer_with(server.handle, monkeypatch)
    return server


@pytest.fixture
def provisioner(server: Server) -> Iterator[Provisioner]:
    with Waldur("http://waldur.example", "staff-token-of-nobody", name="Waldur B") as waldur:
        yield Provisioner(waldur, "ty0001")


@pytest.mark.parametrize(
    ("step", "path", "body"),
    [
        (lambda it: it.create_organisation("Provider"), "/api/customers/", {"name": "ty0001 Provider"}),
        (
            lambda it: it.make_service_provider(UUID),
            "/api/marketplace-service-providers/",
            {"customer": f"{API}/customers/{UUID}/"},
        ),
        (lambda it: it.create_category("HPC"), "/api/marketplace-categories/", {"title": "ty0001 HPC"}),
        (
            lambda it: it.create_offering("Cluster", UUID, OTHER),
            "/api/marketplace-provider-offerings/",
            {
                "name": "ty0001 Cluster",
                "category": f"{API}/marketplace-categories/{UUID}/",
                "customer": f"{API}/customers/{OTHER}/",
                "type": "Marketplace.Slurm",
                "shared": True,
                "plugin_options": {"service_provider_can_create_offering_user": True},
            },
        ),
        (
            lambda it: it.add_plan(UUID, "Free"),
            "/api/marketplace-plans/",
            {"name": "Free", "offering": f"{API}/marketplace-provider-offerings/{UUID}/"},
        ),
        (
            lambda it: it.create_project("Simulation", UUID),
            "/api/projects/",
            {"name": "ty0001 Simulation", "customer": f"{API}/customers/{UUID}/"},
        ),
    ],
)
def test_a_thing_is_created_and_its_uuid_returned(server, provisioner, step, path, body):
    assert step(provisioner) == OTHER
    assert server.seen == [("POST", path, body)]


def test_a_component_is_added_by_its_type(server, provisioner):
    provisioner.add_component(UUID, "cpu", "hours", billing="usage")
    path = f"/api/marketplace-provider-offerings/{UUID}/create_offering_component/"
    body = {"type": "cpu", "name": "cpu", "measured_unit": "hours", "billing_type": "usage"}
    assert server.seen == [("POST", path, body)]


@pytest.mark.parametrize(
    ("state", "action"), [("ACTIVE", "activate"), ("DRAFT", "draft"), ("PAUSED", "pause"), ("ARCHIVED", "archive")]
)
def test_every_state_of_an_offering_has_its_action(server, provisioner, state, action):
    provisioner.set_offering_state(UUID, OfferingState[state])
    assert server.seen[0][:2] == ("POST", f"/api/marketplace-provider-offerings/{UUID}/{action}/")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            {"username": "manager"},
            ("ty0001-manager", "ty0001-manager@example.org", "ty0001-manager", "", "ty0001-manager"),
        ),
        (
            {"username": "manager", "full_name": "Ada King Lovelace"},
            ("ty0001-manager", "ty0001-manager@example.org", "Ada", "King Lovelace", "Ada King Lovelace"),
        ),
        (
            {"username": "ada@example.org", "email": "ada@home.example"},
            ("ty0001-ada@example.org", "ada@home.example", "ty0001-ada@example.org", "", "ty0001-ada@example.org"),
        ),
    ],
)
def test_a_user_has_a_name_and_an_address(server, provisioner, given, expected):
    assert provisioner.create_user(**given) == OTHER
    ((_, path, body),) = server.seen
    assert path == "/api/users/"
    assert tuple(body[key] for key in ("username", "email", "first_name", "last_name", "full_name")) == expected


def test_an_address_made_from_a_username_is_one(server, provisioner):
    provisioner.create_user("ada@home.example")
    assert server.seen[0][2]["email"].count("@") == 1


def test_a_new_token_is_masked_from_now_on(server, provisioner):
    token = secrets.token_hex(20)
    server.created = {"token": token}
    assert provisioner.create_token(UUID) == token
    assert server.seen[0][:2] == ("POST", f"/api/users/{UUID}/refresh_token/")
    assert secrets_in_use.mask(token) == "***"


@pytest.mark.parametrize(
    ("role", "collection"),
    [
        (Role.CUSTOMER_OWNER, "customers"),
        (Role.CUSTOMER_MANAGER, "customers"),
        (Role.OFFERING_MANAGER, "marketplace-provider-offerings"),
        (Role.PROJECT_ADMIN, "projects"),
        (Role.PROJECT_MANAGER, "projects"),
        (Role.PROJECT_MEMBER, "projects"),
    ],
)
def test_a_role_is_granted_where_its_first_word_says(server, provisioner, role, collection):
    # The name filter matches nothing or everything on some versions.
    server.lists["/api/roles/"] = [{"name": other.value, "uuid": other.name} for other in Role]
    provisioner.grant_role(role, UUID, OTHER)
    assert server.seen[-1] == ("POST", f"/api/{collection}/{OTHER}/add_user/", {"role": role.name, "user": UUID})


def test_a_role_that_is_not_there_is_named_with_its_waldur(server, provisioner):
    server.lists["/api/roles/"] = [{"name": "PROJECT.ADMIN", "uuid": "1"}]
    with pytest.raises(LookupError, match=r"Waldur B knows no role PROJECT\.MEMBER\."):
        provisioner.grant_role(Role.PROJECT_MEMBER, UUID, OTHER)
    assert [method for method, _, _ in server.seen] == ["GET"]


def test_an_offering_user_is_renamed_when_there_is_one(server, provisioner):
    known = {"uuid": UUID, "user_uuid": OTHER, "user_username": "ada", "username": "", "state": "Requested"}
    server.lists["/api/marketplace-offering-users/"] = [known]
    provisioner.name_offering_user(UUID, OTHER, "ada")
    assert server.seen[1:] == [("PATCH", f"/api/marketplace-offering-users/{UUID}/", {"username": "ada"})]


def test_an_offering_user_is_created_when_there_is_none(server, provisioner):
    server.lists["/api/marketplace-offering-users/"] = []
    provisioner.name_offering_user(UUID, OTHER, "ada")
    body = {
        "offering": f"{API}/marketplace-provider-offerings/{UUID}/",
        "user": f"{API}/users/{OTHER}/",
        "username": "ada",
    }
    assert server.seen[1:] == [("POST", "/api/marketplace-offering-users/", body)]


def test_an_identity_manager_manages_sources(server, provisioner):
    provisioner.make_identity_manager(UUID, ["isd:x"])
    body = {"is_identity_manager": True, "managed_isds": ["isd:x"]}
    assert server.seen == [("PATCH", f"/api/users/{UUID}/", body)]


def test_an_identity_source_is_a_list_of_one(server, provisioner):
    provisioner.add_identity_source(UUID, "isd:x")
    assert server.seen == [("PATCH", f"/api/users/{UUID}/", {"active_isds": ["isd:x"]})]


def test_a_refused_step_says_which_and_why(server, provisioner):
    server.status, server.created = 400, {"name": ["This field may not be blank."]}
    with pytest.raises(
        UnexpectedAnswerError, match=r"Waldur B answered 400 to POST /api/customers/.*may not be blank"
    ):
        provisioner.create_organisation("")
