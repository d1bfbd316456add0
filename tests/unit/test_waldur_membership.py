"""Members, identities and end dates: each request is what Waldur wants, each agent function the right one."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from http_support import answer_with
from testyard.core.errors import UserError
from testyard.waldur import membership
from testyard.waldur.api import Waldur
from testyard.waldur.calls import Call
from testyard.waldur.membership import EndDates, IdentityBridge
from testyard.waldur.states import Role, Side

UUID = "d629d5e45567425da9cdbdc1af67b32c"
DASHED = "d629d5e4-5567-425d-a9cd-bdc1af67b32c"
OTHER = "0e7b6dc1a9a14d4c8e0c1f0d2b3a4c5d"
ROLE = "1f7b6dc1a9a14d4c8e0c1f0d2b3a4c5d"
MIA = {"user_uuid": UUID, "user_username": "mia", "role_name": "PROJECT.MEMBER", "role_uuid": ROLE}


class Server:
    """Answers GETs with what a test gives, keeps what is to change something."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.changes: list[tuple[str, str, Any]] = []

    def handle(self, request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return httpx.Response(200, json=self.answers[request.url.path])
        self.changes.append((request.method, request.url.path, json.loads(request.content)))
        return httpx.Response(200, json={})


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    server = Server()
    answer_with(server.handle, monkeypatch)
    return server


@pytest.fixture
def waldur(server: Server) -> Iterator[Waldur]:
    with Waldur("http://waldur.example", "staff-token-of-nobody", name="Waldur B") as waldur:
        yield waldur


class Agent:
    """Notes what is made of the agent and done with it; a cycle may fail."""

    def __init__(self, *, broken: bool = False) -> None:
        self.events: list[str] = []
        self.broken = broken
        self.offering = SimpleNamespace(uuid=UUID)
        self.client = "client"
        self.backend = self.make_backend("shared")
        self.made = 0
        self.modules = SimpleNamespace(
            utils=SimpleNamespace(
                get_backend_for_offering=self.backend_for_offering,
                get_username_management_backend=self.username_backend,
            ),
            processors=SimpleNamespace(OfferingMembershipProcessor=self.processor),
        )

    def make_backend(self, name: str) -> SimpleNamespace:
        http = SimpleNamespace(close=lambda: self.events.append(f"close {name}"))
        return SimpleNamespace(
            name=name, client=SimpleNamespace(_api_client=SimpleNamespace(get_httpx_client=lambda: http))
        )

    def backend_for_offering(self, offering: Any, key: str) -> tuple[Any, str]:
        assert offering is self.offering
        self.made += 1
        return self.make_backend(f"{key} {self.made}"), "1.0.7"

    def username_backend(self, offering: Any) -> tuple[Any, str]:
        assert offering is self.offering
        self.events.append("make bridge")
        return SimpleNamespace(sync_user_profiles=lambda users: self.events.append(f"push {users}")), "1.0.7"

    def processor(self, offering: Any, client: str, *, resource_backend: Any, **_: Any) -> SimpleNamespace:
        assert (offering, client) == (self.offering, self.client)

        def process() -> None:
            self.events.append(f"process with {resource_backend.name}")
            if self.broken:
                raise RuntimeError

        def role_changed(user: str, project: str, granted: bool, role: str) -> None:
            self.events.append(f"{resource_backend.name}: {user} {role} on {project}: {granted}")

        return SimpleNamespace(
            process_offering=process,
            process_user_role_changed=role_changed,
            _get_waldur_offering_users=lambda: ["mia"],
        )

    @contextmanager
    def working(self) -> Iterator[list[Call]]:
        yield [Call(Side.B, "GET", "/api/roles/", 200, None)]


# The agent.


def test_each_cycle_has_a_backend_of_its_own_and_closes_it() -> None:
    agent = Agent()

    done = membership.sync_members(agent)
    membership.sync_members(agent)

    assert agent.events == [
        "process with membership_sync_backend 1",
        "close membership_sync_backend 1",
        "process with membership_sync_backend 2",
        "close membership_sync_backend 2",
    ]
    assert [call.path for call in done.calls] == ["/api/roles/"]


def test_a_cycle_that_breaks_closes_its_backend_too() -> None:
    agent = Agent(broken=True)

    with pytest.raises(RuntimeError):
        membership.sync_members(agent)

    assert agent.events[-1] == "close membership_sync_backend 1"


@pytest.mark.parametrize("granted", [True, False])
def test_the_agent_is_told_of_a_role_as_a_message_tells_it(granted: bool) -> None:
    agent = Agent()

    membership.tell_of_role(agent, DASHED, OTHER, Role.PROJECT_MEMBER, granted=granted)

    assert agent.events == [f"shared: {UUID} PROJECT.MEMBER on {OTHER}: {granted}"]


def test_a_bridge_is_kept_from_one_sync_to_the_next() -> None:
    agent = Agent()
    bridge = IdentityBridge(agent)

    bridge.sync()
    bridge.sync()

    assert agent.events == ["make bridge", "push ['mia']", "push ['mia']"]


def test_changes_are_the_calls_of_one_side_but_get_without_identifiers() -> None:
    paths = [
        (Side.B, "GET", "/api/roles/?name=PROJECT.ADMIN"),
        (Side.A, "POST", f"/api/marketplace-provider-resources/{UUID}/set_end_date/"),
        (Side.B, "POST", "/api/identity-bridge/"),
        (Side.B, "POST", f"/api/projects/{DASHED}/add_user/?x=1"),
        (Side.B, "PATCH", f"/api/projects/{UUID}/"),
    ]
    calls = [Call(side, method, path, 200, None) for side, method, path in paths]

    found = membership.changes(calls, Side.B)

    assert found == ["POST identity-bridge", "POST projects/add_user", "PATCH projects"]
    assert membership.changes(calls, Side.A) == ["POST marketplace-provider-resources/set_end_date"]


# What people do.


def test_a_role_is_revoked_by_its_uuid(server: Server, waldur: Waldur) -> None:
    other = {**MIA, "user_uuid": OTHER, "role_uuid": OTHER}
    server.answers[f"/api/projects/{OTHER}/list_users/"] = [other, MIA]

    membership.revoke_role(waldur, Role.PROJECT_MEMBER, DASHED, OTHER)

    assert server.changes == [("POST", f"/api/projects/{OTHER}/delete_user/", {"role": ROLE, "user": UUID})]


@pytest.mark.parametrize("held", [{**MIA, "user_uuid": OTHER}, {**MIA, "role_name": "PROJECT.ADMIN"}])
def test_a_role_that_nobody_holds_is_not_revoked(server: Server, waldur: Waldur, held: dict[str, str]) -> None:
    server.answers[f"/api/projects/{OTHER}/list_users/"] = [held]

    with pytest.raises(UserError, match=r"does not hold PROJECT\.MEMBER"):
        membership.revoke_role(waldur, Role.PROJECT_MEMBER, UUID, OTHER)

    assert server.changes == []


def test_the_role_says_which_kind_of_scope_it_is_revoked_on(server: Server, waldur: Waldur) -> None:
    server.answers[f"/api/customers/{OTHER}/list_users/"] = [{**MIA, "role_name": "CUSTOMER.OWNER"}]

    membership.revoke_role(waldur, Role.CUSTOMER_OWNER, UUID, OTHER)

    assert [path for _, path, _ in server.changes] == [f"/api/customers/{OTHER}/delete_user/"]


def test_a_user_gets_another_name(server: Server, waldur: Waldur) -> None:
    membership.rename_user(waldur, DASHED, "Mia Maria Muster")

    assert server.changes == [("PATCH", f"/api/users/{UUID}/", {"first_name": "Mia", "last_name": "Maria Muster"})]


@pytest.mark.parametrize("restricted", [True, False])
def test_a_resource_is_restricted_by_its_provider(server: Server, waldur: Waldur, restricted: bool) -> None:
    membership.restrict_members(waldur, DASHED, restricted=restricted)

    path = f"/api/marketplace-provider-resources/{UUID}/set_restrict_member_access/"
    assert server.changes == [("POST", path, {"restrict_member_access": restricted})]


@pytest.mark.parametrize(
    ("dates", "resource", "project"),
    [
        (EndDates(end_date=date(2099, 3, 1), project_end_date=date(2099, 4, 1)), "2099-03-01", "2099-04-01"),
        (EndDates(), None, None),
    ],
)
def test_end_dates_are_said_and_taken_back(
    server: Server, waldur: Waldur, dates: EndDates, resource: str | None, project: str | None
) -> None:
    membership.set_end_dates(waldur, UUID, OTHER, dates)

    assert server.changes == [
        ("POST", f"/api/marketplace-resources/{UUID}/set_end_date/", {"end_date": resource}),
        ("PATCH", f"/api/projects/{OTHER}/", {"end_date": project}),
    ]


# What is true afterwards.


def test_end_dates_are_those_of_the_resource_and_its_project(server: Server, waldur: Waldur) -> None:
    server.answers[f"/api/marketplace-resources/{UUID}/"] = {"end_date": "2099-03-01", "project_end_date": None}

    dates = membership.end_dates(waldur, DASHED)

    assert dates == EndDates(end_date=date(2099, 3, 1))
    assert str(dates) == "resource 2099-03-01, project never"


def test_an_identity_is_found_by_its_exact_name(server: Server, waldur: Waldur) -> None:
    server.answers["/api/users/"] = [{"uuid": OTHER, "username": "mia2"}, {"uuid": UUID, "username": "mia"}]

    found = membership.identity_named(waldur, "mia")

    assert found is not None
    assert (found.uuid, found.is_active, found.active_isds) == (UUID, True, [])
    assert membership.identity_named(waldur, "omar") is None


def test_a_source_vouches_only_for_whom_it_pushed(server: Server, waldur: Waldur) -> None:
    server.answers["/api/users/"] = [
        {"uuid": UUID, "username": "mia", "active_isds": ["isd:x", "isd:testyard"]},
        {"uuid": OTHER, "username": "omar", "active_isds": ["isd:x"]},
    ]

    assert [identity.username for identity in membership.identities_from(waldur, "isd:testyard")] == ["mia"]
