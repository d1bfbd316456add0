"""The control API of the Waldur double."""

from __future__ import annotations

import os
from typing import Any

import pytest
from double_support import Double, Market


@pytest.mark.parametrize("token", [None, "", "wrong"])
def test_nothing_without_the_control_token(double: Double, token: str | None) -> None:
    for method, path in (("GET", "/ready"), ("GET", "/journal"), ("PUT", "/faults/no_stomp"), ("GET", "/nothing")):
        assert double.control(method, path, token=token).status == 401, path
    assert double.control("GET", "/faults").json == {"active": {}}


def test_ready_tells_who_it_is(double: Double) -> None:
    ready = double.control("GET", "/ready").json

    assert (ready["name"], ready["pid"]) == ("A", os.getpid())
    assert len(ready["boot_id"]) == 32
    assert double.get("users/me/")["uuid"] == ready["staff_user_uuid"]


def test_the_journal_continues_after_what_was_read(double: Double) -> None:
    double.get("version/")
    first = double.control("GET", "/journal").json
    double.get("users/me/")
    rest = double.control("GET", "/journal", query={"after": first["last"]}).json

    assert [entry["path"] for entry in first["entries"]] == ["/api/version/"]
    assert [entry["path"] for entry in rest["entries"]] == ["/api/users/me/"]
    assert rest["last"] == rest["entries"][-1]["sequence"] == 2
    assert double.control("GET", "/journal", query={"after": 2}).json == {"entries": [], "last": 2}


def test_events_are_read_alike(market: Market) -> None:
    market.order()
    events = market.double.control("GET", "/events").json["events"]

    assert [event["body"]["order_state"] for event in events] == ["pending-consumer", "pending-provider"]
    assert [event["sequence"] for event in events] == [1, 2]
    (last,) = market.double.control("GET", "/events", query={"after": 1}).json["events"]
    assert (last["sequence"], last["object_type"], last["outcome"]) == (2, "order", "published")


def test_markers_stand_among_the_requests(double: Double) -> None:
    answer = double.control("POST", "/marker", {"text": "cut"})
    double.get("version/")

    entries = double.control("GET", "/journal").json["entries"]

    assert answer.status == 201
    assert [(entry["kind"], entry.get("text")) for entry in entries] == [("marker", "cut"), ("request", None)]


def test_faults_leave_markers_when_they_come_and_go(double: Double) -> None:
    double.fault("latency", milliseconds=5)
    double.control("DELETE", "/faults/latency")
    double.control("DELETE", "/faults/latency")

    entries = double.control("GET", "/journal").json["entries"]
    assert [entry["text"] for entry in entries] == ['fault latency on {"milliseconds": 5}', "fault latency off"]


def test_active_faults_are_listed_with_what_is_left_of_them(market: Market) -> None:
    market.double.fault("drop_event", times=3, object_type="order")
    market.double.fault("shadow_resource")

    market.order(market.member.token)

    assert market.double.control("GET", "/faults").json == {
        "active": {"drop_event": {"times": 2, "object_type": "order"}, "shadow_resource": {}}
    }
    assert market.double.control("DELETE", "/faults").status == 204
    assert market.double.control("GET", "/faults").json == {"active": {}}


@pytest.mark.parametrize(
    ("name", "parameters", "words"),
    [
        ("earthquake", {}, ["'earthquake'", "latency", "reorder_events"]),
        ("latency", {}, ["latency", "'milliseconds' is missing", "path_prefix"]),
        ("latency", {"milliseconds": "5"}, ["'milliseconds'", "a number of milliseconds", "'5'"]),
        ("latency", {"milliseconds": 1, "seconds": 2}, ["'seconds'", "milliseconds, path_prefix"]),
        ("order_set_state_done_error", {"times": 0}, ["'times'", "above 0, or null", "0"]),
        ("drop_event", {"times": True}, ["'times'", "above 0"]),
        ("revoked_token", {"user": "mia"}, ["'user'", "the UUID of a user", "'mia'"]),
        ("no_stomp", {"times": 1}, ["'times'", "allowed: none"]),
    ],
)
def test_faults_that_there_are_not_are_refused_with_those_there_are(
    double: Double, name: str, parameters: dict[str, Any], words: list[str]
) -> None:
    answer = double.control("PUT", f"/faults/{name}", parameters)

    assert answer.status == 400
    assert [word for word in words if word not in answer.json["detail"]] == []
    assert double.control("GET", "/faults").json == {"active": {}}


def test_clearing_a_fault_that_there_is_not_is_refused(double: Double) -> None:
    assert double.control("DELETE", "/faults/earthquake").status == 400


def test_refusing_connections_closes_the_gate_until_it_is_over(double: Double) -> None:
    double.fault("refuse_connections")
    closed = list(double.gate.history)
    double.control("DELETE", "/faults")

    assert closed == ["close"]
    assert double.gate.history == ["close", "open"]


def test_silence_is_the_brokers(double: Double) -> None:
    double.fault("silent_heartbeat")
    silent = double.instance.broker.silent_heart_beats
    double.control("DELETE", "/faults/silent_heartbeat")

    assert (silent, double.instance.broker.silent_heart_beats) == (True, False)


def test_without_clients_there_is_nothing_to_drop(double: Double) -> None:
    assert double.control("POST", "/stomp/drop").json == {"dropped": 0}
    assert double.control("GET", "/stomp/connections").json == []


def test_the_shell_makes_a_resource_without_an_order(market: Market) -> None:
    created = market.double.shell(
        "create_resource",
        offering=market.offering["uuid"],
        project=market.project["uuid"],
        name="ready made",
        limits={"cpu": 4},
        backend_id="b",
    )

    resource = market.double.get(f"marketplace-resources/{created['uuid']}/")
    assert (resource["state"], resource["name"], resource["limits"]) == ("OK", "ready made", {"cpu": 4})
    assert (resource["backend_id"], resource["creation_order"]) == ("b", None)
    assert market.double.events() == []


def test_the_shell_changes_a_resource_behind_everybodys_back(market: Market) -> None:
    order = market.completed_order()
    events = len(market.double.events())

    market.double.shell("set_resource", resource=order["marketplace_resource_uuid"], state="Erred", backend_id="x")

    resource = market.resource(order)
    assert (resource["state"], resource["backend_id"]) == ("Erred", "x")
    assert len(market.double.get("marketplace-resources/", backend_id="x")) == 1
    assert len(market.double.events()) == events


@pytest.mark.parametrize(
    ("operation", "body", "status", "word"),
    [
        ("format_disk", {}, 404, "create_resource"),
        ("set_plugin_options", {}, 400, "offering"),
        ("set_plugin_options", {"offering": "0" * 32}, 400, "does not exist"),
        ("create_resource", {"offering": "x", "project": "y"}, 400, "offering"),
    ],
)
def test_shell_calls_that_are_refused(
    double: Double, operation: str, body: dict[str, Any], status: int, word: str
) -> None:
    answer = double.control("POST", f"/shell/{operation}", body)

    assert answer.status == status
    assert word in answer.content.decode()


@pytest.mark.parametrize(("method", "path"), [("GET", "/nothing"), ("POST", "/ready"), ("PUT", "/faults")])
def test_what_the_control_api_has_not_is_not_found(double: Double, method: str, path: str) -> None:
    answer = double.control(method, path)

    assert (answer.status, answer.json) == (404, {"detail": f"The control API has no {method} {path}."})


def test_an_odd_query_is_refused(double: Double) -> None:
    assert double.control("GET", "/journal", query={"since": 1}).status == 400
    assert double.control("GET", "/journal", query={"after": "x"}).status == 400


def test_a_reset_ends_every_fault_and_then_renews_the_instance(double):
    double.fault("refuse_connections")
    assert double.control("POST", "/reset").status == 204
    assert double.gate.history == ["close", "open", "renew"]
    assert double.control("GET", "/faults").json == {"active": {}}
