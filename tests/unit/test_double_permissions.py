"""What each role of the Waldur double sees and may do."""

from __future__ import annotations

from typing import Any

import pytest
from double_support import Double, Market

FORBIDDEN = {"detail": "You do not have permission to perform this action."}
CALLERS = ("owner", "manager", "member", "provider", "agent", "stranger")


def _seeing(market: Market, path: str) -> set[str]:
    return {
        caller
        for caller in CALLERS
        if market.double.call("GET", path, token=getattr(market, caller).token).status == 200
    }


def _listing(market: Market, path: str) -> set[str]:
    return {caller for caller in CALLERS if market.double.get(path, token=getattr(market, caller).token)}


def _doing(market: Market, path: str, body: Any = None) -> dict[str, int]:
    return {
        caller: market.double.call("POST", path, body or {}, token=getattr(market, caller).token).status
        for caller in CALLERS
    }


@pytest.mark.parametrize(
    ("collection", "who"),
    [
        ("marketplace-orders", {"owner", "manager", "member", "provider", "agent"}),
        ("marketplace-resources", {"owner", "manager", "member", "provider", "agent"}),
        ("marketplace-provider-resources", {"provider", "agent"}),
        ("marketplace-provider-offerings", {"provider", "agent"}),
        ("marketplace-public-offerings", set(CALLERS)),
        ("projects", {"owner", "manager", "member"}),
        ("marketplace-plans", {"provider", "agent"}),
    ],
)
def test_lists_and_objects_show_the_same_to_the_same(market: Market, collection: str, who: set[str]) -> None:
    order = market.completed_order()
    identifiers = {
        "marketplace-orders": order["uuid"],
        "marketplace-resources": order["marketplace_resource_uuid"],
        "marketplace-provider-resources": order["marketplace_resource_uuid"],
        "marketplace-provider-offerings": market.offering["uuid"],
        "marketplace-public-offerings": market.offering["uuid"],
        "projects": market.project["uuid"],
        "marketplace-plans": market.offering["plans"][0]["uuid"],
    }

    assert _listing(market, f"{collection}/") == who
    assert _seeing(market, f"{collection}/{identifiers[collection]}/") == who


def test_what_is_not_seen_is_not_found(market: Market) -> None:
    order = market.order()

    answer = market.double.call("GET", f"marketplace-orders/{order['uuid']}/", token=market.stranger.token)

    assert (answer.status, answer.json) == (404, {"detail": "No Order matches the given query."})


@pytest.mark.parametrize(("collection", "scope"), [("customers", "customer"), ("projects", "project")])
def test_organisations_are_seen_by_their_members_and_those_of_their_projects(
    market: Market, collection: str, scope: str
) -> None:
    path = f"{collection}/{getattr(market, scope)['uuid']}/"

    assert _seeing(market, path) == {"owner", "manager", "member"}


@pytest.mark.parametrize("state", ["Draft", "Archived"])
def test_unpublished_offerings_are_for_their_provider(market: Market, state: str) -> None:
    market.double.post(f"{market.provided}/{'draft' if state == 'Draft' else 'archive'}/")

    assert _listing(market, "marketplace-public-offerings/") == {"provider", "agent"}


def test_private_offerings_are_for_their_provider(double: Double) -> None:
    market = Market(double, shared=False)

    assert _listing(market, "marketplace-public-offerings/") == {"provider", "agent"}


@pytest.mark.parametrize(
    ("action", "first", "statuses"),
    [
        (
            "approve_by_provider",
            "owner",
            {"owner": 403, "manager": 403, "member": 403, "provider": 200, "agent": 409, "stranger": 404},
        ),
        (
            "approve_by_consumer",
            "member",
            {"owner": 200, "manager": 403, "member": 403, "provider": 403, "agent": 403, "stranger": 404},
        ),
        (
            "set_state_erred",
            "owner",
            {"owner": 403, "manager": 403, "member": 403, "provider": 200, "agent": 200, "stranger": 404},
        ),
    ],
)
def test_each_side_approves_for_itself(market: Market, action: str, first: str, statuses: dict[str, int]) -> None:
    order = market.order(getattr(market, first).token)

    assert _doing(market, f"marketplace-orders/{order['uuid']}/{action}/") == statuses


def test_who_may_not_is_told_so(market: Market) -> None:
    order = market.order()

    answer = market.double.call(
        "POST", f"marketplace-orders/{order['uuid']}/approve_by_provider/", {}, token=market.member.token
    )

    assert (answer.status, answer.json) == (403, FORBIDDEN)
    assert market.act(order)["state"] == "pending-provider"


@pytest.mark.parametrize(
    ("action", "body", "allowed"),
    [
        ("marketplace-resources/{}/update_limits", {"limits": {"cpu": 2}}, {"owner", "manager"}),
        ("marketplace-resources/{}/terminate", {}, {"owner", "manager"}),
        ("marketplace-provider-resources/{}/set_backend_id", {"backend_id": "x"}, {"provider", "agent"}),
        ("marketplace-provider-resources/{}/set_limits", {"limits": {"cpu": 2}}, {"provider", "agent"}),
        ("marketplace-provider-resources/{}/set_as_erred", {}, {"provider", "agent"}),
    ],
)
def test_customers_order_and_providers_set(
    market: Market, action: str, body: dict[str, Any], allowed: set[str]
) -> None:
    # What a second allowed caller gets depends on what the first did: any answer but a refusal of rights will do.
    identifier = market.completed_order()["marketplace_resource_uuid"]

    statuses = _doing(market, f"{action.format(identifier)}/", body)

    assert {caller for caller, status in statuses.items() if status not in (403, 404)} == allowed
    assert 200 in statuses.values()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("customers/", {"name": "x"}),
        ("users/", {"username": "x"}),
        ("marketplace-categories/", {"title": "x"}),
        ("marketplace-service-providers/", {}),
    ],
)
def test_foundations_are_laid_by_staff(market: Market, path: str, body: dict[str, Any]) -> None:
    assert set(_doing(market, path, body).values()) == {403}


def test_a_token_owner_of_document_000_can_work_in_its_organisation(market: Market) -> None:
    double, token = market.double, market.owner.token
    double.patch(f"users/{market.owner.uuid}/", {"is_identity_manager": True, "managed_isds": ["isd:efp"]})

    project = double.post(
        "projects/", {"name": "fed", "customer": market.customer["url"], "backend_id": "a_b"}, token=token
    )
    order = market.order(token, project=project["url"])

    assert [found["uuid"] for found in double.get("projects/", token=token, backend_id="a_b")] == [project["uuid"]]
    assert [found["uuid"] for found in double.get("marketplace-orders/", token=token)] == [order["uuid"]]
    resource = double.get(f"marketplace-resources/{order['marketplace_resource_uuid']}/", token=token)
    assert resource["project_uuid"] == project["uuid"]


def test_a_role_reaches_only_what_it_was_granted_on(market: Market) -> None:
    other = market.double.post("projects/", {"name": "Other", "customer": market.customer["url"]})
    order = market.order(project=other["url"])

    assert _seeing(market, f"marketplace-orders/{order['uuid']}/") == {"owner", "provider", "agent"}


def test_a_revoked_role_takes_the_sight_with_it(market: Market) -> None:
    market.order()
    members = f"projects/{market.project['uuid']}"
    subject = {"user": market.member.uuid, "role": "PROJECT.MEMBER"}
    before = market.double.get("marketplace-orders/", token=market.member.token)

    market.double.post(f"{members}/delete_user/", subject)
    again = market.double.call("POST", f"{members}/delete_user/", subject)

    assert len(before) == 1
    assert market.double.get("marketplace-orders/", token=market.member.token) == []
    assert (again.status, again.content) == (200, b"")


def test_a_role_that_has_expired_counts_no_more(market: Market) -> None:
    for name, expiration in (("past", "2020-01-01T00:00:00Z"), ("future", "2999-01-01T00:00:00Z")):
        user = market.user(name)
        body = {"user": user.uuid, "role": "PROJECT.MEMBER", "expiration_time": expiration}
        answer = market.double.post(f"projects/{market.project['uuid']}/add_user/", body)
        assert answer == {"expiration_time": expiration}
        expected = 1 if name == "future" else 0
        assert len(market.double.get("projects/", token=user.token)) == expected


@pytest.mark.parametrize(
    ("changes", "errors"),
    [
        ({"user": "0" * 32}, {"user": ["User is not found."]}),
        ({"role": "CALL.MANAGER"}, {"non_field_errors": ["Role is not valid for this scope."]}),
        ({"role": "PROJECT.MEMBER"}, {"non_field_errors": ["User has already the same role in this scope."]}),
        ({"role": "NO.SUCH"}, {"role": ["Role is not found."]}),
        (
            {"expiration_time": "soon"},
            {
                "expiration_time": [
                    "Datetime has wrong format. Use one of these formats instead: YYYY-MM-DDThh:mm[:ss]."
                ]
            },
        ),
    ],
)
def test_grants_that_are_refused(market: Market, changes: dict[str, str], errors: dict[str, Any]) -> None:
    body = {"user": market.member.uuid, "role": "PROJECT.MANAGER", **changes}

    assert market.double.post(f"projects/{market.project['uuid']}/add_user/", body, expect=400) == errors


def test_a_role_shows_in_users_me(market: Market) -> None:
    me = market.double.get("users/me/", token=market.agent.token)

    assert me["token"] == market.agent.token
    assert [(each["role_name"], each["scope_type"], each["scope_uuid"]) for each in me["permissions"]] == [
        ("OFFERING.MANAGER", "offering", market.offering["uuid"])
    ]
    assert "token" not in market.double.get(f"users/{market.agent.uuid}/")


def test_rights_are_not_for_users_to_give_themselves(market: Market) -> None:
    path = f"users/{market.member.uuid}/"

    own = market.double.patch(path, {"is_staff": True, "email": "new@x"}, token=market.member.token)
    foreign = market.double.call("PATCH", path, {"email": "x"}, token=market.manager.token)

    assert (own["is_staff"], own["email"]) == (False, "new@x")
    assert foreign.status == 403


def test_tokens_are_for_staff_and_oneself(market: Market) -> None:
    path = f"users/{market.member.uuid}"

    assert market.double.get(f"{path}/token/", token=market.member.token)["token"] == market.member.token
    assert market.double.call("GET", f"{path}/token/", token=market.manager.token).status == 403
    renewed = market.double.post(f"{path}/refresh_token/", token=market.member.token)["token"]
    assert market.double.call("GET", "users/me/", token=market.member.token).status == 401
    assert market.double.get("users/me/", token=renewed)["uuid"] == market.member.uuid


def test_a_password_gives_the_token(market: Market) -> None:
    login = {"username": "member", "password": "correct horse"}
    assert market.double.call("POST", "/api-auth/password/", login, token=None).status == 401
    market.double.post(f"users/{market.member.uuid}/set_password/", {"password": login["password"]})

    wrong = market.double.call("POST", "/api-auth/password/", {**login, "password": "x"}, token=None)
    right = market.double.call("POST", "/api-auth/password/", login, token=None)

    assert wrong.status == 401
    assert (right.status, right.json) == (200, {"token": market.member.token})
