"""The HTTP face of the Waldur double: who is let in, what is not there, and what the journal keeps of it."""

from __future__ import annotations

import time
from typing import Any

import pytest
from double_support import STAFF_TOKEN, Double, Market


def test_without_a_token_nothing_is_given(double: Double) -> None:
    answer = double.call("GET", "users/me/", token=None)

    assert (answer.status, answer.json) == (401, {"detail": "Authentication credentials were not provided."})


def test_a_wrong_token_is_refused_even_where_none_is_needed(double: Double) -> None:
    for path in ("users/me/", "version/"):
        answer = double.call("GET", path, token="wrong")
        assert (answer.status, answer.json) == (401, {"detail": "Invalid token."}), path
    assert double.call("GET", "version/", token=None).status == 200


def test_a_deactivated_user_is_not_let_in(market: Market) -> None:
    market.double.patch(f"users/{market.member.uuid}/", {"is_active": False})

    answer = market.double.call("GET", "users/me/", token=market.member.token)

    assert (answer.status, answer.json) == (401, {"detail": "User inactive or deleted."})


def test_a_revoked_token_is_refused_until_the_fault_is_cleared(market: Market) -> None:
    market.double.fault("revoked_token", user=market.member.uuid)

    refused = market.double.call("GET", "users/me/", token=market.member.token)
    other = market.double.call("GET", "users/me/", token=market.manager.token)
    market.double.control("DELETE", "/faults/revoked_token")
    after = market.double.call("GET", "users/me/", token=market.member.token)

    assert (refused.status, refused.json) == (401, {"detail": "Invalid token."})
    assert (other.status, after.status) == (200, 200)


@pytest.mark.parametrize("path", ["nothing/", "marketplace-orders/x/y/z/w/", "marketplace-orders/me/no/"])
def test_an_address_that_does_not_exist_is_not_found(double: Double, path: str) -> None:
    answer = double.call("GET", path)

    assert answer.status == 404
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert b"<h1>Not Found</h1>" in answer.content


@pytest.mark.parametrize("identifier", ["0" * 32, "not-an-identifier", "00000000-0000-0000-0000-000000000000"])
def test_an_object_that_does_not_exist_is_not_found(double: Double, identifier: str) -> None:
    assert double.get(f"marketplace-orders/{identifier}/", expect=404) == {
        "detail": "No Order matches the given query."
    }


def test_a_missing_slash_is_redirected(double: Double) -> None:
    answer = double.call("GET", "marketplace-orders")

    assert (answer.status, answer.headers["location"]) == (301, "/api/marketplace-orders/")


def test_a_method_that_there_is_not_is_refused_with_those_there_are(double: Double) -> None:
    answer = double.call("DELETE", "marketplace-orders/")

    assert (answer.status, answer.json) == (405, {"detail": 'Method "DELETE" not allowed.'})
    assert answer.headers["allow"] == "GET, POST, HEAD, OPTIONS"


def test_head_has_the_headers_of_get_without_its_body(market: Market) -> None:
    market.order()
    head, get = (market.double.call(method, "marketplace-orders/") for method in ("HEAD", "GET"))

    assert (head.status, head.content) == (200, b"")
    assert head.headers == get.headers


@pytest.mark.parametrize(
    ("raw", "body"),
    [
        (b"{nope", {"detail"}),
        (b"[1]", {"non_field_errors"}),
    ],
)
def test_a_body_that_is_no_object_is_refused(double: Double, raw: bytes, body: set[str]) -> None:
    answer = double.call("POST", "customers/", raw=raw)

    assert (answer.status, answer.json.keys()) == (400, body)


def test_a_defect_of_the_double_is_a_500_and_one_line(
    double: Double, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(double.instance.world.store, "customers")

    answer = double.call("GET", "customers/")

    assert answer.status == 500
    assert [record.message.count("\n") for record in caplog.records] == [0]
    assert "GET /api/customers/: AttributeError" in caplog.text


def test_every_request_is_journaled(market: Market) -> None:
    market.double.call("GET", "marketplace-orders/", token=market.agent.token, query={"page_size": 3})
    market.double.call("GET", "users/me/", token=None)
    market.double.call("GET", "users/me/", token="wrong")

    entries = list(market.double.instance.requests.read())[-3:]

    shown = [
        {key: entry[key] for key in ("kind", "method", "path", "query", "status", "caller")} for entry in entries
    ]
    common = {"kind": "request", "method": "GET"}
    assert shown == [
        {**common, "path": "/api/marketplace-orders/", "query": "page_size=3", "status": 200, "caller": "agent"},
        {**common, "path": "/api/users/me/", "query": "", "status": 401, "caller": "anonymous"},
        {**common, "path": "/api/users/me/", "query": "", "status": 401, "caller": "invalid token"},
    ]
    assert all(entry["user_agent"] == "unit test" and entry["milliseconds"] >= 0 for entry in entries)
    assert [entry["sequence"] for entry in entries] == list(
        range(entries[0]["sequence"], entries[0]["sequence"] + 3)
    )
    assert entries[0]["monotonic_ns"] < entries[1]["monotonic_ns"] < time.monotonic_ns()


@pytest.mark.parametrize("name", ["token", "api_token", "password", "passcode", "client_secret"])
def test_no_secret_reaches_the_journal(double: Double, name: str) -> None:
    canary = "canary-7d1f"
    double.call("POST", "customers/", {"name": "x", "details": [{name: canary}]}, query={name: canary, "page": 1})
    double.call("GET", "users/me/", token=canary)
    double.call("POST", "/api-auth/password/", {"username": "x", "password": canary}, token=None)

    text = b"\n".join(double.instance.requests.read_lines()).decode()

    assert canary not in text
    assert STAFF_TOKEN not in text
    assert f'"details":[{{"{name}":"***"}}]' in text
    assert "page=1" in text


def test_bodies_are_kept_of_requests_that_carry_one(market: Market) -> None:
    path = f"projects/{market.project['uuid']}/"
    market.double.patch(path, {"description": "new"})
    market.double.get(path)

    patched, got = list(market.double.instance.requests.read())[-2:]

    assert patched["body"] == {"description": "new"}
    assert "body" not in got


def test_latency_holds_up_the_paths_it_is_for(double: Double) -> None:
    double.fault("latency", milliseconds=60, path_prefix="/api/users/")

    def duration(path: str) -> float:
        started = time.monotonic()
        assert double.call("GET", path).status == 200
        return time.monotonic() - started

    assert duration("users/me/") >= 0.06
    assert duration("version/") < 0.06
    (entry,) = [each for each in double.instance.requests.read() if each.get("path") == "/api/users/me/"]
    assert entry["milliseconds"] >= 60


def test_without_stomp_its_path_is_a_web_page(double: Double) -> None:
    plain = double.call("GET", "/rmqws-stomp", token=None)
    double.fault("no_stomp")
    faulty = double.call("GET", "/rmqws-stomp", token=None)
    double.control("DELETE", "/faults/no_stomp")

    assert plain.status == 426
    assert (faulty.status, faulty.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert double.call("GET", "/rmqws-stomp", token=None).status == 426


def test_the_root_lists_the_collections(double: Double) -> None:
    root: dict[str, Any] = double.get("")

    assert root["marketplace-orders"].endswith("/api/marketplace-orders/")
    assert all(double.call("GET", url).status != 404 for url in ("customers/", "event-subscriptions/"))
