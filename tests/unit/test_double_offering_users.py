"""Offering users, the identity bridge and eduTEAMS look-ups of the Waldur double (document 001)."""

from __future__ import annotations

from typing import Any

import pytest
from double_support import Double, Market

PATH = "marketplace-offering-users/"
CREATES_USERS = {"service_provider_can_create_offering_user": True}


@pytest.fixture
def creating(double: Double) -> Market:
    """A market whose offering creates its users, with a live resource in the project."""
    market = Market(double, plugin_options=CREATES_USERS)
    double.shell("create_resource", offering=market.offering["uuid"], project=market.project["uuid"])
    return market


def _states(market: Market) -> dict[str, tuple[str, str]]:
    return {user["user_username"]: (user["username"], user["state"]) for user in market.double.get(PATH)}


def test_a_new_member_of_a_project_gets_an_offering_user(creating: Market) -> None:
    user = creating.user("newcomer", f"projects/{creating.project['uuid']}", "PROJECT.MEMBER")

    assert _states(creating) == {"newcomer": ("", "Requested")}
    assert creating.double.get(PATH, user_uuid=user.uuid)[0]["offering_uuid"] == creating.offering["uuid"]


def test_a_new_resource_brings_users_for_all_members(double: Double) -> None:
    market = Market(double, plugin_options=CREATES_USERS)
    order = market.act(market.order(), "approve_by_provider")
    before = _states(market)
    market.act(order, "set_state_done")

    assert before == {}
    assert _states(market) == {"manager": ("", "Requested"), "member": ("", "Requested")}


def test_without_the_option_nobody_gets_one(market: Market) -> None:
    market.completed_order()
    market.user("newcomer", f"projects/{market.project['uuid']}", "PROJECT.MEMBER")

    assert _states(market) == {}


def test_the_option_can_be_switched_on_and_the_task_run_by_hand(market: Market) -> None:
    market.completed_order()
    options = {"offering": market.offering["uuid"], "plugin_options": CREATES_USERS}
    assert market.double.shell("set_plugin_options", **options)["plugin_options"] == CREATES_USERS
    task = {"user": market.member.uuid, "project": market.project["uuid"]}

    created = market.double.shell("create_or_restore_offering_users_for_user", **task)["offering_users"]
    again = market.double.shell("create_or_restore_offering_users_for_user", **task)["offering_users"]

    assert [user["uuid"] for user in market.double.get(PATH)] == created
    assert again == []


def test_a_deleted_account_is_requested_again(creating: Market) -> None:
    project = {"user": creating.member.uuid, "project": creating.project["uuid"]}
    (user,) = creating.double.shell("create_or_restore_offering_users_for_user", **project)["offering_users"]
    creating.double.patch(f"{PATH}{user}/", {"username": "mia"})
    for action in ("request_deletion", "set_deleting", "set_deleted"):
        creating.double.post(f"{PATH}{user}/{action}/")
    deleted = _states(creating)["member"][1]

    (restored,) = creating.double.shell("create_or_restore_offering_users_for_user", **project)["offering_users"]

    assert (deleted, restored, _states(creating)["member"][1]) == ("Deleted", user, "Requested")


@pytest.mark.parametrize(
    "steps", [[], ["begin_creating"], ["set_pending_account_linking"], ["set_error_creating"]]
)
def test_a_username_ends_the_creation(market: Market, steps: list[str]) -> None:
    user = market.double.post(PATH, {"offering_uuid": market.offering["uuid"], "user": market.member.url})
    for step in steps:
        market.double.post(f"{PATH}{user['uuid']}/{step}/")
    before = market.double.get(f"{PATH}{user['uuid']}/")["state"]

    after = market.double.patch(f"{PATH}{user['uuid']}/", {"username": "mia01"})

    assert before != "OK"
    assert (after["username"], after["state"]) == ("mia01", "OK")


def test_a_user_created_with_a_username_is_ok(market: Market) -> None:
    user = market.double.post(
        PATH, {"offering": market.offering["url"], "user": market.member.url, "username": "mia01"}, expect=201
    )

    assert (user["username"], user["state"]) == ("mia01", "OK")


def test_a_second_account_for_a_user_is_refused(market: Market) -> None:
    body = {"offering": market.offering["url"], "user": market.member.url}
    market.double.post(PATH, body)

    assert market.double.post(PATH, body, expect=400) == {
        "non_field_errors": ["The fields offering, user must make a unique set."]
    }


def test_a_change_of_state_that_is_not_possible_is_refused_with_those_that_are(market: Market) -> None:
    user = market.double.post(PATH, {"offering": market.offering["url"], "user": market.member.url})

    answer = market.double.call("POST", f"{PATH}{user['uuid']}/request_deletion/", {})

    assert (answer.status, answer.json) == (409, {"detail": "Valid states for operation: OK."})


def test_who_sees_offering_users(market: Market) -> None:
    double = market.double
    double.patch(f"users/{market.member.uuid}/", {"active_isds": ["isd:x"]})
    double.patch(f"users/{market.stranger.uuid}/", {"is_identity_manager": True, "managed_isds": ["isd:x"]})
    double.post(PATH, {"offering": market.offering["url"], "user": market.member.url})
    double.post(PATH, {"offering": market.offering["url"], "user": market.manager.url})

    seen = {
        caller: {user["user_username"] for user in double.get(PATH, token=getattr(market, caller).token)}
        for caller in ("provider", "agent", "member", "stranger", "owner")
    }

    assert seen == {
        "provider": {"member", "manager"},
        "agent": {"member", "manager"},
        "member": {"member"},
        "stranger": {"member"},
        "owner": set(),
    }


def test_the_filters_of_the_username_synchronisation(market: Market) -> None:
    double = market.double
    for member, username in ((market.member, "mia"), (market.manager, ""), (market.owner, "olga")):
        double.post(PATH, {"offering": market.offering["url"], "user": member.url, "username": username})
    restricted = double.get(PATH, user_uuid=market.owner.uuid)[0]["uuid"]
    double.post(f"{PATH}{restricted}/update_restricted/", {"is_restricted": True})

    def found(**query: Any) -> list[str]:
        return [user["user_username"] for user in double.get(PATH, offering_uuid=market.offering["uuid"], **query)]

    assert found() == ["manager", "member", "owner"]
    assert found(is_restricted="false", state="OK") == ["member"]
    assert found(is_restricted="false", state=["OK", "Creating", "Requested"]) == ["manager", "member"]
    assert double.get(PATH, offering_uuid="0" * 32) == []


def test_the_team_of_a_resource_names_roles_and_accounts(market: Market) -> None:
    order = market.completed_order()
    market.double.post(PATH, {"offering": market.offering["url"], "user": market.member.url, "username": "mia"})

    team = market.double.get(f"marketplace-resources/{order['marketplace_resource_uuid']}/team/")

    assert [
        (each["username"], each["role"], each["offering_user_username"], each["offering_user_state"])
        for each in team
    ] == [("manager", "PROJECT.MANAGER", None, None), ("member", "PROJECT.MEMBER", "mia", "OK")]


def test_the_provider_chooses_what_it_sees_of_users(market: Market) -> None:
    path = f"{market.provided}/user-attribute-config/"
    default = market.double.get(path, token=market.agent.token)

    market.double.post(path, {"expose_phone_number": True, "expose_email": False}, token=market.agent.token)
    chosen = market.double.get(path, token=market.agent.token)

    assert (default["is_default"], default["expose_email"], default["expose_phone_number"]) == (True, True, False)
    assert (chosen["is_default"], chosen["expose_email"], chosen["expose_phone_number"]) == (False, False, True)
    assert "phone_number" in chosen["exposed_fields"]


@pytest.fixture
def bridge(market: Market) -> Market:
    """A market with the identity bridge on, whose ``stranger`` manages ``isd:efp``."""
    market.double.shell("set_federated_identity_sync", enabled=True)
    market.double.patch(
        f"users/{market.stranger.uuid}/", {"is_identity_manager": True, "managed_isds": ["isd:efp"]}
    )
    return market


def test_the_bridge_creates_a_user_once_and_then_updates_it(bridge: Market) -> None:
    body = {"username": "cuid-1", "source": "isd:efp", "first_name": "Mia", "affiliations": ["a"]}
    answers = [
        bridge.double.post("identity-bridge/", {**body, **changes}, token=bridge.stranger.token)
        for changes in ({}, {}, {"first_name": "Maria"})
    ]

    assert [answer["created"] for answer in answers] == [True, False, False]
    assert answers[1]["updated_fields"] == []
    assert answers[2]["updated_fields"] == ["first_name"]
    assert len({answer["uuid"] for answer in answers}) == 1
    user = bridge.double.get(f"users/{answers[0]['uuid']}/", token=bridge.stranger.token)
    assert (user["first_name"], user["affiliations"], user["active_isds"]) == ("Maria", ["a"], ["isd:efp"])


def test_a_user_without_an_isd_is_deactivated_and_does_not_come_back(bridge: Market) -> None:
    body = {"username": "cuid-1", "source": "isd:efp"}
    pushed = bridge.double.post("identity-bridge/", {**body, "first_name": "Mia", "affiliations": ["a"]})

    removed = bridge.double.post("identity-bridge/remove/", body)
    gone = bridge.double.get(f"users/{pushed['uuid']}/")
    again = bridge.double.call("POST", "identity-bridge/", body)

    assert removed == {"uuid": pushed["uuid"], "deactivated": True}
    assert (gone["is_active"], gone["active_isds"]) == (False, [])
    assert (gone["first_name"], gone["affiliations"]) == ("", [])
    assert (again.status, again.json) == (400, {"detail": "User cuid-1 is deactivated."})


def test_a_user_of_two_isds_stays_active_and_keeps_what_the_other_one_pushed(bridge: Market) -> None:
    efp, other = ({"username": "cuid-1", "source": source} for source in ("isd:efp", "isd:other"))
    pushed = bridge.double.post("identity-bridge/", {**efp, "first_name": "Mia", "email": "mia@example.org"})
    bridge.double.post("identity-bridge/", {**other, "first_name": "Maria", "email": ""})

    removed = bridge.double.post("identity-bridge/remove/", efp)
    user = bridge.double.get(f"users/{pushed['uuid']}/")

    assert removed == {"uuid": pushed["uuid"], "deactivated": False}
    assert (user["is_active"], user["active_isds"]) == (True, ["isd:other"])
    assert (user["first_name"], user["email"]) == ("Maria", "")


def test_the_bridge_passes_over_what_it_does_not_know(bridge: Market) -> None:
    body = {"username": "cuid-1", "source": "isd:efp", "full_name": "Mia Muster", "shoe_size": 43}

    pushed = bridge.double.post("identity-bridge/", body)

    assert bridge.double.get(f"users/{pushed['uuid']}/")["full_name"] == ""


@pytest.mark.parametrize(
    ("caller", "changes", "status", "text"),
    [
        ("stranger", {"source": "isd:other"}, 403, "not in your managed ISDs"),
        ("member", {}, 403, "Only staff and identity managers"),
        ("stranger", {"source": "nonsense"}, 400, "source"),
        ("stranger", {"username": ""}, 400, "This field may not be blank."),
        ("stranger", {"uid_number": 43}, 400, "Fields not allowed by Identity Bridge configuration: uid_number"),
    ],
)
def test_pushes_that_are_refused(
    bridge: Market, caller: str, changes: dict[str, Any], status: int, text: str
) -> None:
    body = {"username": "cuid-1", "source": "isd:efp", **changes}

    answer = bridge.double.call("POST", "identity-bridge/", body, token=getattr(bridge, caller).token)

    assert answer.status == status
    assert text in answer.content.decode()


def test_the_bridge_is_off_until_it_is_switched_on(market: Market) -> None:
    answer = market.double.call("POST", "identity-bridge/", {"username": "x", "source": "isd:efp"})

    assert (answer.status, answer.json) == (403, "Identity Bridge is disabled.")


def test_eduteams_knows_the_users_of_the_instance(bridge: Market) -> None:
    token = bridge.stranger.token

    found = bridge.double.post("remote-eduteams/", {"cuid": "member"}, token=token)
    unknown = bridge.double.call("POST", "remote-eduteams/", {"cuid": "nobody"}, token=token)
    refused = bridge.double.call("POST", "remote-eduteams/", {"cuid": "member"}, token=bridge.member.token)

    assert found == {"uuid": bridge.member.uuid}
    assert (unknown.status, refused.status) == (404, 403)


def test_users_are_found_by_email_and_username(market: Market) -> None:
    market.double.patch(f"users/{market.member.uuid}/", {"email": "Mia@peer"})

    for query in ({"email": "mia@peer"}, {"username": "member"}):
        assert [user["uuid"] for user in market.double.get("users/", **query)] == [market.member.uuid]


def test_deleting_a_user_takes_its_roles_and_accounts_along(market: Market) -> None:
    market.double.post(PATH, {"offering": market.offering["url"], "user": market.member.url})

    market.double.delete(f"users/{market.member.uuid}/")

    assert market.double.get(PATH) == []
    members = market.double.get(f"projects/{market.project['uuid']}/list_users/")
    assert [member["user_username"] for member in members] == ["manager"]
    assert market.double.call("GET", "users/me/", token=market.member.token).status == 401
