"""Site agents on the Waldur double: who may register, and what registering gives."""

from __future__ import annotations

from typing import Any

import pytest
from double_support import Double, Market, Member

IDENTITIES = "marketplace-site-agent-identities/"


def _register(market: Market, user: Member, **changes: Any) -> Any:
    body = {
        "offering": market.offering["uuid"],
        "name": "agent",
        "version": "1.0.7",
        "dependencies": [],
        **changes,
    }
    return market.double.call("POST", IDENTITIES, body, token=user.token)


@pytest.mark.parametrize(
    ("caller", "status"),
    [("provider", 201), ("agent", 201), ("owner", 403), ("manager", 403), ("stranger", 403)],
)
def test_agents_are_registered_by_the_providers_side(market: Market, caller: str, status: int) -> None:
    assert _register(market, getattr(market, caller)).status == status


@pytest.mark.parametrize(
    ("rights", "action", "status"),
    [
        ({"is_identity_manager": True, "managed_isds": ["isd:x"]}, None, 201),
        ({"is_identity_manager": True, "managed_isds": ["isd:x"]}, "pause", 201),
        ({"is_identity_manager": True, "managed_isds": ["isd:x"]}, "draft", 403),
        ({"is_identity_manager": True, "managed_isds": []}, None, 403),
        ({"managed_isds": ["isd:x"]}, None, 403),
    ],
)
def test_identity_managers_register_agents_for_offerings_that_are_offered(
    market: Market, rights: dict[str, Any], action: str | None, status: int
) -> None:
    market.double.patch(f"users/{market.owner.uuid}/", rights)
    if action:
        market.double.post(f"{market.provided}/{action}/")

    assert _register(market, market.owner).status == status


def test_identity_managers_change_only_their_own_agents(market: Market) -> None:
    rights = {"is_identity_manager": True, "managed_isds": ["isd:x"]}
    for user in (market.owner, market.stranger):
        market.double.patch(f"users/{user.uuid}/", rights)
    path = f"{IDENTITIES}{_register(market, market.owner).json['uuid']}/register_queue/"

    foreign = market.double.call("POST", path, {}, token=market.stranger.token)
    own = market.double.call("POST", path, {}, token=market.owner.token)

    assert (foreign.status, own.status) == (404, 201)


def test_an_offering_of_a_type_without_agents_is_not_found(double: Double) -> None:
    market = Market(double, type="Support.OfferingTemplate")

    answer = _register(market, market.provider)

    assert answer.status == 400
    assert answer.json == {"offering": [f"Object with uuid={market.offering['uuid']} does not exist."]}


def test_an_agent_that_restarts_finds_and_updates_itself(market: Market) -> None:
    created = _register(market, market.agent).json
    token = market.agent.token

    (found,) = market.double.get(IDENTITIES, token=token, name="agent")
    body = {"offering": market.offering["uuid"], "name": "agent", "version": "1.0.8"}
    answer = market.double.call("PUT", f"{IDENTITIES}{created['uuid']}/", body, token=token)

    assert found["uuid"] == created["uuid"]
    assert (answer.status, answer.json["version"]) == (200, "1.0.8")
    assert market.double.get(IDENTITIES, token=token, name="age") == []
    assert _register(market, market.agent).status == 400


def test_a_queue_is_registered_once_and_belongs_to_one_user(market: Market) -> None:
    path = f"{IDENTITIES}{_register(market, market.agent).json['uuid']}/register_queue/"

    first = market.double.call("POST", path, {"object_types": ["order"]}, token=market.agent.token)
    again = market.double.call("POST", path, {}, token=market.agent.token)
    everything = market.double.call("POST", path, {"object_types": []}, token=market.agent.token)
    foreign = market.double.call("POST", path, {}, token=market.provider.token)

    assert (first.status, again.status, everything.status) == (201, 200, 200)
    assert first.json == again.json
    assert first.json["observable_object_types"] == ["order"]
    assert {"order", "user_role", "service_account"} <= set(everything.json["observable_object_types"])
    assert first.json["vhost"] == market.agent.uuid
    assert first.json["queue_name"].startswith("consumer_")
    assert (foreign.status, foreign.json) == (
        409,
        {"detail": "Agent identity is already registered by a different user."},
    )


def test_an_object_type_that_there_is_not_is_refused(market: Market) -> None:
    path = f"{IDENTITIES}{_register(market, market.agent).json['uuid']}/register_queue/"

    assert market.double.post(path, {"object_types": ["order", "bogus"]}, expect=400) == {
        "object_types": ['"bogus" is not a valid choice.']
    }


def test_the_passcode_of_a_queue_is_the_owners_token_as_it_is_now(market: Market) -> None:
    double = market.double
    path = f"{IDENTITIES}{_register(market, market.agent).json['uuid']}/register_queue/"
    queue = double.post(path, {}, token=market.agent.token)

    def may_connect(passcode: str) -> bool:
        return (
            double.instance.broker.authenticate(queue["vhost"], queue["rmq_username"], passcode).name == "GRANTED"
        )

    assert may_connect(market.agent.token)
    assert not may_connect(market.provider.token)
    double.fault("revoked_token", user=market.agent.uuid)
    assert not may_connect(market.agent.token)
    double.control("DELETE", "/faults/revoked_token")
    renewed = double.post(f"users/{market.agent.uuid}/refresh_token/")["token"]
    assert not may_connect(market.agent.token)
    assert may_connect(renewed)
    double.patch(f"users/{market.agent.uuid}/", {"is_active": False})
    assert not may_connect(renewed)


def test_deleting_an_agent_takes_its_queue_away(market: Market) -> None:
    identity = _register(market, market.agent).json
    queue = market.double.post(f"{IDENTITIES}{identity['uuid']}/register_queue/", {}, token=market.agent.token)

    market.double.delete(f"{IDENTITIES}{identity['uuid']}/", token=market.agent.token)

    broker = market.double.instance.broker
    assert broker.authenticate(queue["vhost"], queue["rmq_username"], market.agent.token).name == "REFUSED"
    with pytest.raises(LookupError):
        broker.queue_depth(queue["vhost"], queue["queue_name"])


def test_services_and_processors_are_registered_once(market: Market) -> None:
    token = market.agent.token
    identity = _register(market, market.agent).json
    path = f"{IDENTITIES}{identity['uuid']}/register_service/"
    services = [market.double.call("POST", path, {"name": "s", "mode": "m"}, token=token) for _ in range(2)]
    path = f"marketplace-site-agent-services/{services[0].json['uuid']}/register_processor/"
    body = {"name": "order", "backend_type": "waldur", "backend_version": "1"}
    processors = [market.double.call("POST", path, body, token=token) for _ in range(2)]

    assert [answer.status for answer in (*services, *processors)] == [201, 200, 201, 200]
    assert services[0].json["uuid"] == services[1].json["uuid"]
    assert processors[0].json["uuid"] == processors[1].json["uuid"]
    (shown,) = market.double.get(IDENTITIES, token=token)
    assert [service["name"] for service in shown["services"]] == ["s"]


def test_legacy_subscriptions_are_registered_once_per_type(market: Market) -> None:
    token = market.agent.token
    path = f"{IDENTITIES}{_register(market, market.agent).json['uuid']}/register_event_subscription/"
    answers = [
        market.double.call("POST", path, {"observable_object_type": kind}, token=token)
        for kind in ("order", "order", "user_role")
    ]
    queue_path = f"event-subscriptions/{answers[0].json['uuid']}/create_queue/"
    queue_body = {"offering_uuid": market.offering["uuid"], "object_type": "order"}
    queues = [market.double.call("POST", queue_path, queue_body, token=token) for _ in range(2)]

    assert [answer.status for answer in answers] == [201, 200, 201]
    assert answers[0].json["uuid"] == answers[1].json["uuid"] != answers[2].json["uuid"]
    assert [answer.status for answer in queues] == [201, 201]
    assert queues[0].json == queues[1].json
    name = f"subscription_{answers[0].json['uuid']}_offering_{market.offering['uuid']}_order"
    assert (queues[0].json["queue_name"], queues[0].json["vhost"]) == (name, market.agent.uuid)
    assert (
        market.double.call("GET", queue_path.replace("create_queue/", ""), token=market.provider.token).status
        == 404
    )


def test_a_legacy_queue_must_be_of_the_observed_type(market: Market) -> None:
    token = market.agent.token
    path = f"{IDENTITIES}{_register(market, market.agent).json['uuid']}/register_event_subscription/"
    subscription = market.double.post(path, {"observable_object_type": "order"}, token=token)
    body = {"offering_uuid": market.offering["uuid"], "object_type": "resource"}

    answer = market.double.post(f"event-subscriptions/{subscription['uuid']}/create_queue/", body, expect=400)

    assert answer == {"object_type": ["Object type is not observed by this subscription."]}
