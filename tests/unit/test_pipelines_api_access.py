"""The pipeline service's HTTP interface: who may do what, and what is refused, without a secret in the answer."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pipelines_api_support import ADMIN_KEY, AS_ADMIN, Api, api_on, onboarding

pytestmark = pytest.mark.anyio

JSON = {"Content-Type": "application/json"}
BY_ADMIN = [
    ("POST", "/customers/onboard"),
    ("DELETE", "/customers/acme"),
    ("PUT", "/customers/acme/subscription/quota"),
    ("POST", "/scheduler/trigger"),
    ("GET", "/scheduler/scheduled"),
    ("POST", "/scheduler/process"),
    ("GET", "/scheduler/queue/status"),
    ("GET", "/scheduler/status"),
    ("POST", "/pipeline-runs/any/start"),
    ("POST", "/pipeline-runs/any/heartbeat"),
    ("POST", "/pipeline-runs/any/complete"),
    ("POST", "/pipeline-runs/any/fail"),
    ("GET", "/test-clock"),
    ("PUT", "/test-clock"),
    ("POST", "/test-clock/advance"),
]
BY_CUSTOMER = [
    ("POST", "/customers/credentials"),
    ("GET", "/customers/credentials"),
    ("DELETE", "/customers/credentials/any"),
    ("POST", "/customers/pipelines/configure"),
    ("GET", "/customers/pipelines"),
    ("GET", "/customers/pipelines/any"),
    ("DELETE", "/customers/pipelines/any"),
    ("GET", "/customers/acme/api-keys"),
    ("POST", "/customers/acme/api-keys"),
    ("POST", "/customers/acme/api-keys/any/rotate"),
    ("DELETE", "/customers/acme/api-keys/any"),
    ("POST", "/pipelines/run/acme/GCP/COST/cost_billing"),
]
BY_BOTH = [
    ("GET", "/customers/acme"),
    ("PUT", "/customers/acme"),
    ("GET", "/customers/acme/status"),
    ("GET", "/customers/acme/subscription/quota"),
    ("POST", "/customers/acme/validate"),
    ("GET", "/customers/acme/pipelines/yet-to-run"),
    ("GET", "/customers/acme/pipelines/running"),
    ("GET", "/customers/acme/pipeline-runs"),
    ("GET", "/customers/acme/notifications"),
    ("PUT", "/customers/acme/notifications"),
    ("GET", "/customers/acme/notifications/dead-letters"),
    ("GET", "/pipelines/runs/any"),
]


@pytest.fixture
async def api(pipelines_url: str) -> AsyncIterator[Api]:
    """A service with a test clock and nobody in it."""
    async with api_on(pipelines_url) as api:
        yield api


async def statuses(api: Api, routes: list[tuple[str, str]], headers: dict[str, str]) -> set[int]:
    """The different answers to requests without a body."""
    return {(await api.send(method, path, headers)).status_code for method, path in routes}


async def test_the_lists_of_these_tests_have_every_route(api: Api) -> None:
    document = (await api.send("GET", "http://service/openapi.json", {})).json()
    count = sum(len(methods) for methods in document["paths"].values())

    assert len({*BY_ADMIN, *BY_CUSTOMER, *BY_BOTH}) == count - 1, "all but the health"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-API-Key": ""},
        {"X-API-Key": "acme_api_0123456789abcdef"},
        {"X-API-Key": "\xff' OR 1=1 --"},
        {"X-Admin-Key": "not-the-operator"},
        {"X-Admin-Key": "\xff"},
        {"X-Admin-Key": ADMIN_KEY[:-1]},
    ],
)
async def test_without_a_good_key_every_route_answers_401(api: Api, headers: dict[str, str]) -> None:
    assert await statuses(api, [*BY_ADMIN, *BY_CUSTOMER, *BY_BOTH], headers) == {401}


async def test_a_customer_is_kept_from_the_operators_routes(api: Api) -> None:
    key = await api.onboard()

    assert await statuses(api, BY_ADMIN, {"X-API-Key": key}) == {403}


async def test_the_operator_is_no_customer(api: Api) -> None:
    assert await statuses(api, BY_CUSTOMER, dict(AS_ADMIN)) == {401}


async def test_another_customers_data_is_404_as_what_is_not_there(api: Api) -> None:
    acme, globex = await api.onboard("acme"), await api.onboard("globex")
    run_id = (await api.good("POST", "/pipelines/run/acme/GCP/COST/cost_billing", key=acme))["run_id"]
    key_id = (await api.good("GET", "/customers/acme/api-keys", key=acme))[0]["key_id"]
    bodies: dict[str, Any] = {
        "/customers/acme": {"company_name": "Taken over"},
        "/customers/acme/notifications": [],
        "/customers/acme/api-keys": {"key_name": "back door"},
    }
    routes = [
        *BY_BOTH,
        *[each for each in BY_CUSTOMER if "/acme" in each[1]],
        ("POST", f"/customers/acme/api-keys/{key_id}/rotate"),
        ("DELETE", f"/customers/acme/api-keys/{key_id}"),
        ("DELETE", f"/customers/globex/api-keys/{key_id}"),
        ("GET", f"/pipelines/runs/{run_id}"),
    ]

    for method, path in routes:
        answer = await api.call(method, path, bodies.get(path) if method != "GET" else None, key=globex)
        assert answer.status_code == 404, (method, path, answer.text)
        unknown = await api.call(method, path.replace("acme", "nobody"), bodies.get(path), key=globex)
        assert unknown.status_code == 404, (method, path)
    assert (await api.good("GET", "/customers/acme"))["company_name"] == "Acme Corporation"
    assert len(await api.good("GET", "/customers/acme/api-keys", key=acme)) == 1


async def test_a_rotated_key_is_dead_at_once_and_its_successor_works(api: Api) -> None:
    old = await api.onboard()
    [listed] = await api.good("GET", "/customers/acme/api-keys", key=old)

    rotated = await api.good("POST", f"/customers/acme/api-keys/{listed['key_id']}/rotate", key=old)

    assert (await api.call("GET", "/customers/acme", key=old)).status_code == 401
    keys = await api.good("GET", "/customers/acme/api-keys", key=rotated["api_key"])
    assert [(key["key_name"], key["is_active"]) for key in keys] == [("onboarding", False), ("onboarding", True)]
    again = await api.call("POST", f"/customers/acme/api-keys/{listed['key_id']}/rotate", key=rotated["api_key"])
    assert again.status_code == 404


async def test_a_revoked_key_opens_nothing_and_lists_show_neither_key_nor_hash(api: Api) -> None:
    first = await api.onboard()
    second = await api.good("POST", "/customers/acme/api-keys", {"key_name": "second"}, key=first)
    await api.good("GET", "/customers/acme", key=second["api_key"])

    await api.good("DELETE", f"/customers/acme/api-keys/{second['key_id']}", key=first)

    assert (await api.call("GET", "/customers/acme", key=second["api_key"])).status_code == 401
    listed = await api.call("GET", "/customers/acme/api-keys", key=first)
    assert {name for key in listed.json() for name in key} == {
        "key_id",
        "key_name",
        "is_active",
        "created_at",
        "expires_at",
        "revoked_at",
    }
    assert "_api_" not in listed.text


async def test_a_key_expires_by_the_services_clock(api: Api) -> None:
    await api.good("PUT", "/test-clock", {"now": "2030-01-15T12:00:00Z"})
    lasting = await api.onboard()
    body = {"key_name": "short", "expires_in_days": 1}
    short = (await api.good("POST", "/customers/acme/api-keys", body, key=lasting))["api_key"]

    await api.good("PUT", "/test-clock", {"now": "2030-01-16T11:59:59Z"})
    before = await api.call("GET", "/customers/acme", key=short)
    await api.good("PUT", "/test-clock", {"now": "2030-01-16T12:00:00Z"})
    after = await api.call("GET", "/customers/acme", key=short)

    assert (before.status_code, after.status_code) == (200, 401)
    assert (await api.call("GET", "/customers/acme", key=lasting)).status_code == 200


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"{", 400),
        (b"[" * 100_000, 400),
        (b"\xff\xfe", 400),
        (b'{"tenant_id": ' + b"1" * 5000 + b"}", 400),
        (b"null", 422),
        (b"[]", 422),
        (b'"text"', 422),
        (b'{"tenant_id": "\\ud800\\ud800", "\\udfff": 1}', 422),
        (b'{"tenant_id": "a\\u0000b"}', 422),
        (b'"' + b"a" * 262_143 + b'"', 413),
    ],
)
async def test_a_body_that_cannot_be_is_refused_in_one_shape(api: Api, content: bytes, status: int) -> None:
    answer = await api.send("POST", "/customers/onboard", {**AS_ADMIN, **JSON}, content=content)

    assert answer.status_code == status, answer.text
    assert set(answer.json()) <= {"detail", "errors"}
    assert len(answer.content) < 2000


async def test_a_body_without_its_length_is_not_read_beyond_the_limit(api: Api) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 65536
            yield b"a" * 65536

    answer = await api.send("POST", "/customers/onboard", {**AS_ADMIN, **JSON}, content=endless())

    assert answer.status_code == 413
    assert "262144 bytes" in answer.json()["detail"]
    assert sent <= 262_144 + 65536


async def test_a_body_that_is_not_declared_as_json_is_refused(api: Api) -> None:
    answer = await api.send(
        "POST", "/customers/onboard", {**AS_ADMIN, "Content-Type": "text/plain"}, content=b"{}"
    )

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["got"] == "a body that is not declared as application/json"


@pytest.mark.parametrize(
    "query",
    [
        "state=LOST",
        "limit=0",
        "limit=1001",
        "limit=x",
        "offset=-1",
        f"offset={10**30}",
        "date=0",
        "date=31.12.2030",
        "customer_id=%00",
        "customer_id='%20OR%201=1",
        "sort=desc",
    ],
)
async def test_a_query_that_cannot_be_is_refused_by_its_name(api: Api, query: str) -> None:
    answer = await api.call("GET", f"/scheduler/scheduled?{query}")

    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == [f"query.{query.split('=', maxsplit=1)[0]}"]


@pytest.mark.parametrize(
    "path",
    ["/customers/%00", "/customers/a'--", "/customers/x", f"/customers/{'a' * 300}"],
)
async def test_an_id_that_cannot_be_is_refused(api: Api, path: str) -> None:
    answer = await api.call("GET", path)

    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "path.customer_id")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"tenant_id": "ab"}, "tenant_id"),
        ({"tenant_id": "acme'; DROP TABLE customers; --"}, "tenant_id"),
        ({"tenant_id": "Credentials"}, "tenant_id"),
        ({"company_name": "A"}, "company_name"),
        ({"company_name": "A\r\nB"}, "company_name"),
        ({"admin_email": "nobody"}, "admin_email"),
        ({"admin_email": "a@b.c\nBcc: d@e.f"}, "admin_email"),
        ({"subscription_plan": "FREE"}, "subscription_plan"),
    ],
)
async def test_a_customer_that_cannot_be_is_refused(api: Api, change: dict[str, str], field: str) -> None:
    answer = await api.call("POST", "/customers/onboard", {**onboarding("acme"), **change})

    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == [f"body.{field}"]


async def test_texts_are_stored_as_they_are(api: Api) -> None:
    name = "'); DROP TABLE customers; -- \N{SNOWMAN} %s {x}"
    await api.good("POST", "/customers/onboard", {**onboarding("acme"), "company_name": name})

    assert (await api.good("GET", "/customers/acme"))["company_name"] == name


async def test_a_method_that_is_not_there_is_told_those_that_are(api: Api) -> None:
    on_customer = await api.call("PATCH", "/customers/acme")
    on_credentials = await api.call("PATCH", "/customers/credentials")

    assert (on_customer.status_code, on_customer.headers["Allow"]) == (405, "DELETE, GET, PUT")
    assert (on_credentials.status_code, on_credentials.headers["Allow"]) == (405, "GET, POST")
    assert (await api.call("GET", "/nowhere")).json() == {"detail": "Not Found"}


async def test_no_secret_is_logged_or_quoted(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    key = await api.onboard()
    secret = "very-secret-value"
    good = {
        "provider": "AWS",
        "credential_type": "ACCESS_KEY",
        "credential_name": "one",
        "credentials": {"secret": secret},
    }
    await api.good("POST", "/customers/credentials", good, key=key)

    answers = [
        await api.call("POST", "/customers/credentials", body, key=key)
        for body in (
            {**good, "credentials": secret},
            {**good, "credentials": {"secret": secret, "bad": "\x00"}},
            {**good, "credentials": [secret]},
            {**good, "secret": secret},
            secret,
            [secret],
        )
    ]
    answers.append(await api.send("GET", "/customers/acme", {"X-API-Key": f"{key}x"}))
    answers.append(await api.send("GET", "/customers/acme", {"X-Admin-Key": f"{ADMIN_KEY}x"}))

    assert [answer.status_code for answer in answers] == [422] * 6 + [401] * 2
    said = " ".join(answer.text for answer in answers)
    logged = " ".join(record.getMessage() for record in caplog.records)
    for each in (secret, key, ADMIN_KEY):
        assert each not in said
        assert each not in logged
    document = (await api.send("GET", "http://service/openapi.json", {})).text
    assert ADMIN_KEY not in document
