"""Events of the Waldur double: which are published, to whom, and what the faults do to them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from double_support import Double, Market, Member


class Inbox:
    """The queue of a user for the market's offering, read without a connection."""

    def __init__(self, market: Market, user: Member, object_types: list[str] | None = None) -> None:
        body = {"offering": market.offering["uuid"], "name": f"agent-{user.uuid}"}
        identity = market.double.post("marketplace-site-agent-identities/", body, token=user.token)
        registration = market.double.post(
            f"marketplace-site-agent-identities/{identity['uuid']}/register_queue/",
            {"object_types": object_types or []},
            token=user.token,
        )
        self.vhost, self.queue = registration["vhost"], registration["queue_name"]
        self._broker = market.double.instance.broker

    def depth(self) -> int:
        return self._broker.queue_depth(self.vhost, self.queue)


def _states(double: Double) -> list[str]:
    return [event["body"]["order_state"] for event in double.events("order")]


def _actions(double: Double) -> list[str]:
    return [event["body"]["action"] for event in double.events("offering_user")]


@pytest.mark.parametrize(
    ("actions", "states"),
    [
        (["approve_by_provider", "set_state_done"], ["executing", "done"]),
        (["approve_by_provider", "set_state_erred", "set_state_executing"], ["executing", "erred", "executing"]),
        (["reject_by_provider"], ["rejected"]),
    ],
)
def test_every_transition_of_an_order_is_an_event(market: Market, actions: list[str], states: list[str]) -> None:
    market.act(market.order(), *actions)

    assert _states(market.double) == ["pending-consumer", "pending-provider", *states]


def test_so_are_those_on_the_consumers_side(double: Double) -> None:
    market = Market(double, type="Marketplace.Basic")
    market.act(market.order(market.member.token), "reject_by_consumer")
    market.act(market.order(market.member.token), "approve_by_consumer", "cancel")

    assert _states(double) == [
        *("pending-consumer", "rejected"),
        *("pending-consumer", "pending-provider", "canceled"),
    ]


def test_the_body_of_an_order_event(market: Market) -> None:
    order = market.order(market.member.token)

    (event,) = market.double.events("order")

    assert event["body"] == {
        "order_uuid": order["uuid"],
        "order_state": "pending-consumer",
        "offering_uuid": market.offering["uuid"],
        "object_type": "order",
        "order_type": "Create",
        "resource_uuid": order["marketplace_resource_uuid"],
        "resource_backend_id": "",
        "resource_name": "alloc",
        "project_uuid": market.project["uuid"],
        "project_name": "Peer Project",
        "attributes": {"name": "alloc"},
        "limits": {"cpu": 10},
        "plan_uuid": order["plan_uuid"],
        "schema_version": 1,
    }
    assert event["queues"] == []


def test_offerings_without_agents_publish_nothing(double: Double) -> None:
    Market(double, type="Support.OfferingTemplate").order()

    assert double.events() == []


@pytest.mark.parametrize("caller", ["provider", "agent"])
def test_the_providers_side_receives_orders(market: Market, caller: str) -> None:
    inbox = Inbox(market, getattr(market, caller))

    market.order()

    assert inbox.depth() == 2
    assert market.double.events("order")[-1]["queues"] == [inbox.queue]


def test_an_identity_manager_receives_orders_of_its_own_organisation_only(market: Market) -> None:
    rights = {"is_identity_manager": True, "managed_isds": ["isd:efp"]}
    market.double.patch(f"users/{market.owner.uuid}/", rights)
    market.double.patch(f"users/{market.stranger.uuid}/", rights)
    mine, foreign = Inbox(market, market.owner), Inbox(market, market.stranger)

    market.order()

    assert (mine.depth(), foreign.depth()) == (2, 0)


def test_rights_count_when_the_event_is_published(market: Market) -> None:
    inbox = Inbox(market, market.agent)
    market.order()
    subject = {"user": market.agent.uuid, "role": "OFFERING.MANAGER"}

    market.double.post(f"{market.provided}/delete_user/", subject)
    market.order()
    market.double.post(f"{market.provided}/add_user/", subject)
    market.order(market.member.token)

    assert inbox.depth() == 3


def test_a_queue_gets_only_the_types_it_asked_for(market: Market) -> None:
    users, everything = Inbox(market, market.agent, ["offering_user"]), Inbox(market, market.provider)

    market.order(market.member.token)
    market.double.post(
        "marketplace-offering-users/", {"offering": market.offering["url"], "user": market.member.url}
    )

    assert (users.depth(), everything.depth()) == (1, 2)


def test_an_offering_user_is_announced_from_creation_to_deletion(market: Market) -> None:
    path = "marketplace-offering-users/"
    created = market.double.post(path, {"offering": market.offering["url"], "user": market.member.url})
    market.double.patch(f"{path}{created['uuid']}/", {"username": "mia01"})
    market.double.patch(f"{path}{created['uuid']}/", {"username": "mia01"})
    market.double.patch(f"users/{market.member.uuid}/", {"email": "mia@new", "phone_number": "1"})
    market.double.delete(f"{path}{created['uuid']}/")

    bodies = [event["body"] for event in market.double.events("offering_user")]

    assert [body["action"] for body in bodies] == [
        "create",
        "update",
        "username_set",
        "attribute_update",
        "delete",
    ]
    assert [body["username"] for body in bodies] == ["", "mia01", "mia01", "mia01", "mia01"]
    assert [body["state"] for body in bodies] == [1, 5, 5, 5, 5]
    assert bodies[3]["changed_attributes"] == ["email"]
    assert bodies[3]["attributes"]["email"] == "mia@new"
    assert {body["user_uuid"] for body in bodies} == {market.member.uuid}


def test_identity_managers_receive_offering_users_of_their_isds_while_they_manage_them(market: Market) -> None:
    double = market.double
    double.patch(f"users/{market.owner.uuid}/", {"is_identity_manager": True, "managed_isds": ["isd:x"]})
    double.patch(f"users/{market.member.uuid}/", {"active_isds": ["isd:x", "isd:y"]})
    by_role, by_isd = (
        Inbox(market, market.agent, ["offering_user"]),
        Inbox(market, market.owner, ["offering_user"]),
    )
    path = "marketplace-offering-users/"
    depths = []

    user = double.post(path, {"offering": market.offering["url"], "user": market.member.url})
    depths.append((by_role.depth(), by_isd.depth()))
    double.patch(f"users/{market.owner.uuid}/", {"managed_isds": []})
    double.patch(f"{path}{user['uuid']}/", {"username": "no-isd"})
    depths.append((by_role.depth(), by_isd.depth()))
    double.patch(f"users/{market.owner.uuid}/", {"managed_isds": ["isd:y"]})
    double.patch(f"{path}{user['uuid']}/", {"username": "isd"})
    depths.append((by_role.depth(), by_isd.depth()))

    assert depths == [(1, 1), (3, 1), (5, 3)]


def test_roles_are_announced_to_the_offerings_with_a_live_resource(market: Market) -> None:
    path = f"projects/{market.project['uuid']}"
    newcomer = market.user("newcomer", path, "PROJECT.MEMBER")
    assert market.double.events("user_role") == []
    market.completed_order()

    market.double.post(f"{path}/add_user/", {"user": newcomer.uuid, "role": "PROJECT.ADMIN"})
    market.double.post(f"{path}/delete_user/", {"user": newcomer.uuid, "role": "PROJECT.ADMIN"})

    bodies = [event["body"] for event in market.double.events("user_role")]
    assert [(body["role_name"], body["granted"]) for body in bodies] == [
        ("PROJECT.ADMIN", True),
        ("PROJECT.ADMIN", False),
    ]
    assert bodies[0]["offering_uuid"] == market.offering["uuid"]
    assert bodies[0]["user_full_name"] == "Newcomer"


def test_a_new_end_date_is_announced_with_who_asked_for_it(market: Market) -> None:
    order = market.completed_order()
    path = f"marketplace-resources/{order['marketplace_resource_uuid']}/set_end_date/"
    refused = market.double.post(path, {"end_date": "2030-01-32"}, expect=400)
    for _ in range(2):
        market.double.post(path, {"end_date": "2030-01-01"}, token=market.owner.token)

    (event,) = market.double.events("resource")

    body = event["body"]
    assert refused.keys() == {"end_date"}
    assert (body["action"], body["end_date"]) == ("end_date_updated", "2030-01-01")
    assert body["end_date_requested_by_uuid"] == market.owner.uuid
    assert market.resource(order)["end_date"] == "2030-01-01"


def test_pausing_a_resource_is_announced_once(market: Market) -> None:
    order = market.completed_order()
    path = f"marketplace-provider-resources/{order['marketplace_resource_uuid']}/set_paused/"
    for _ in range(2):
        market.double.post(path, {"paused": True}, token=market.agent.token)

    assert [event["body"]["paused"] for event in market.double.events("resource")] == [True]


class Legacy:
    """The queue of an agent up to 1.0.5, for one object type."""

    def __init__(self, market: Market, user: Member, object_type: str) -> None:
        double = market.double
        body = {"offering": market.offering["uuid"], "name": f"legacy-{user.uuid}"}
        identity = double.post("marketplace-site-agent-identities/", body, token=user.token)
        subscription = double.post(
            f"marketplace-site-agent-identities/{identity['uuid']}/register_event_subscription/",
            {"observable_object_type": object_type},
            token=user.token,
        )
        queue = double.post(
            f"event-subscriptions/{subscription['uuid']}/create_queue/",
            {"offering_uuid": market.offering["uuid"], "object_type": object_type},
            token=user.token,
        )
        self.queue = queue["queue_name"]
        self.depth = lambda: double.instance.broker.queue_depth(queue["vhost"], self.queue)


def test_a_legacy_queue_gets_the_bare_body_of_its_type(market: Market, monkeypatch: pytest.MonkeyPatch) -> None:
    legacy = Legacy(market, market.agent, "order")
    published: list[tuple[str, dict[str, Any], dict[str, str]]] = []
    broker = market.double.instance.broker
    monkeypatch.setattr(
        broker,
        "publish",
        lambda _vhost, queue, body, headers: published.append((queue, json.loads(body), dict(headers))),
    )

    order = market.order(market.member.token)
    market.double.post(
        "marketplace-offering-users/", {"offering": market.offering["url"], "user": market.member.url}
    )

    ((queue, body, headers),) = published
    assert queue == legacy.queue
    assert body == {
        "order_uuid": order["uuid"],
        "order_state": "pending-consumer",
        "offering_uuid": market.offering["uuid"],
    }
    assert headers.pop("x-message-id").isalnum()
    assert headers == {
        "durable": "true",
        "auto-delete": "false",
        "persistent": "true",
        "content-type": "application/json",
    }


def test_who_has_a_unified_queue_gets_nothing_twice(market: Market) -> None:
    legacy = Legacy(market, market.agent, "order")
    market.order(market.member.token)
    unified = Inbox(market, market.agent, ["order"])

    market.order(market.member.token)

    assert (legacy.depth(), unified.depth()) == (1, 1)


def test_a_dropped_event_reaches_nobody_as_often_as_asked(market: Market) -> None:
    inbox = Inbox(market, market.agent)
    market.double.fault("drop_event", times=1, object_type="order", state="pending-provider")

    market.order()
    market.order()

    assert inbox.depth() == 3
    assert [event["outcome"] for event in market.double.events()] == [
        *("published", "dropped"),
        *("published", "published"),
    ]


def test_a_fault_for_another_type_leaves_the_event_alone(market: Market) -> None:
    inbox = Inbox(market, market.agent)
    market.double.fault("drop_event", object_type="user_role")
    market.double.fault("duplicate_event", state="done")

    market.order()

    assert inbox.depth() == 2


def test_a_duplicated_event_arrives_twice(market: Market) -> None:
    inbox = Inbox(market, market.agent)
    market.double.fault("duplicate_event", times=1)

    market.order()

    assert inbox.depth() == 3
    assert [event["outcome"] for event in market.double.events()] == ["published", "duplicated", "published"]


def test_a_held_event_is_overtaken_by_the_next(market: Market, monkeypatch: pytest.MonkeyPatch) -> None:
    Inbox(market, market.agent)
    market.double.fault("reorder_events")
    delivered: list[str] = []
    monkeypatch.setattr(
        market.double.instance.broker,
        "publish",
        lambda _vhost, _queue, body, _headers: delivered.append(json.loads(body)["order_state"]),
    )

    order = market.order()
    market.act(order, "approve_by_provider")

    assert delivered == ["pending-provider", "pending-consumer"]
    market.double.control("DELETE", "/faults/reorder_events")
    assert delivered == ["pending-provider", "pending-consumer", "executing"]
    outcomes = [event["outcome"] for event in market.double.events()]
    assert outcomes == ["held", "published", "released", "held", "released"]
