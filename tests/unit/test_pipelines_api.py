"""The pipeline service's HTTP interface: what its routes do, on a real PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest
from pipelines_api_support import CIPHER, Api, api_on, onboarding
from testyard.lab.pipelines.encryption import credential_context

pytestmark = pytest.mark.anyio
CONFIGURATION = {"provider": "GCP", "domain": "COST", "template_name": "cost_billing", "schedule": "0 2 * * *"}
RUN = "/pipelines/run/acme/GCP/COST/cost_billing"


@pytest.fixture
async def api(pipelines_url: str) -> AsyncIterator[Api]:
    """A service with a test clock and nobody in it."""
    async with api_on(pipelines_url) as api:
        yield api


async def test_onboarding_gives_the_plans_limits_and_a_key_that_is_only_kept_as_a_hash(api: Api) -> None:
    onboarded = await api.good("POST", "/customers/onboard", onboarding("acme", "SCALE"))
    key = onboarded["api_key"]

    assert {name: onboarded[name] for name in ("customer_id", "tenant_id", "subscription_plan", "status")} == {
        "customer_id": "acme",
        "tenant_id": "acme",
        "subscription_plan": "SCALE",
        "status": "ACTIVE",
    }
    quota = await api.good("GET", "/customers/acme/subscription/quota", key=key)
    assert [quota[name] for name in ("daily_limit", "monthly_limit", "concurrent_limit")] == [100, 3000, 10]
    assert not [row for row in api.rows("SELECT customer_api_keys::text FROM customer_api_keys") if key in row[0]]


@pytest.mark.parametrize("tenant_id", ["acme", "ACME"])
async def test_a_tenant_is_onboarded_once(api: Api, tenant_id: str) -> None:
    await api.onboard("acme")

    assert (await api.call("POST", "/customers/onboard", onboarding(tenant_id))).status_code == 409


async def test_a_profile_changes_only_where_asked(api: Api) -> None:
    key = await api.onboard()

    await api.good("PUT", "/customers/acme", {"company_name": "Acme Limited"}, key=key)

    profile = await api.good("GET", "/customers/acme")
    assert (profile["company_name"], profile["admin_email"]) == ("Acme Limited", "qa@example.com")
    assert (await api.call("PUT", "/customers/acme", {}, key=key)).status_code == 422
    assert (await api.call("PUT", "/customers/acme", {"company_name": None}, key=key)).status_code == 422


async def test_a_deleted_customer_leaves_nothing(api: Api) -> None:
    key, other = await api.onboard("acme"), await api.onboard("globex")
    await fill(api, key, "acme")
    await fill(api, other, "globex")

    deleted = (await api.good("DELETE", "/customers/acme"))["deleted"]

    assert deleted["scheduled_pipeline_runs"] == 1
    assert deleted["run_transitions"] == 2
    tables = [row[0] for row in api.rows(
        "SELECT table_name FROM information_schema.columns WHERE column_name = 'customer_id'"
    )]  # fmt: skip
    assert sorted(tables) == sorted(deleted)
    for table in tables:
        owners = {row[0] for row in api.rows(f"SELECT customer_id FROM {table}")}
        assert "acme" not in owners, table
    assert ("globex",) in api.rows("SELECT customer_id FROM run_transitions")
    assert (await api.call("DELETE", "/customers/acme")).status_code == 404
    assert (await api.call("GET", "/customers/acme", key=key)).status_code == 401


async def fill(api: Api, key: str, tenant: str) -> None:
    """Give a customer something of everything."""
    await api.good("POST", "/customers/credentials", credential(), key=key)
    await api.good("POST", "/customers/pipelines/configure", CONFIGURATION, key=key)
    await api.good(
        "PUT", f"/customers/{tenant}/notifications", [{"channel": "email", "target": "qa@example.com"}], key=key
    )
    await api.good("POST", f"/pipelines/run/{tenant}/GCP/COST/cost_billing", key=key)


def credential(name: str = "GCP production") -> dict[str, Any]:
    return {
        "provider": "GCP",
        "credential_type": "SERVICE_ACCOUNT",
        "credential_name": name,
        "credentials": {"private_key": "very-secret-value"},
        "project_id": "acme-1",
    }


async def test_credentials_are_encrypted_for_their_row_and_never_returned(api: Api) -> None:
    key = await api.onboard()

    stored = await api.good("POST", "/customers/credentials", credential(), key=key)
    listed = await api.good("GET", "/customers/credentials", key=key)

    assert listed == [stored]
    assert "credentials" not in stored
    assert "very-secret-value" not in json.dumps([stored, listed])
    [(encrypted,)] = api.rows("SELECT encrypted_credentials FROM customer_credentials")
    assert b"very-secret-value" not in encrypted
    context = credential_context("acme", stored["credential_id"])
    assert json.loads(CIPHER.decrypt(encrypted, context)) == {"private_key": "very-secret-value"}
    assert (await api.call("POST", "/customers/credentials", credential(), key=key)).status_code == 409
    await api.good("DELETE", f"/customers/credentials/{stored['credential_id']}", key=key)
    assert await api.good("GET", "/customers/credentials", key=key) == []


async def test_a_schedule_is_meant_in_its_zone(api: Api) -> None:
    await api.good("PUT", "/test-clock", {"now": "2030-01-15T12:00:00Z"})
    key = await api.onboard()

    body = {**CONFIGURATION, "timezone": "America/New_York"}
    configured = await api.good("POST", "/customers/pipelines/configure", body, key=key)

    assert configured["config_id"] == "cfg_acme_gcp_cost_cost_billing"
    assert configured["next_run_time"] == "2030-01-16T07:00:00Z"
    assert configured["is_active"] is True


async def test_configuring_again_changes_the_same_one_and_keeps_a_run_that_is_due(api: Api) -> None:
    await api.good("PUT", "/test-clock", {"now": "2030-01-15T12:00:00Z"})
    key = await api.onboard()
    await api.good("POST", "/customers/pipelines/configure", CONFIGURATION, key=key)
    await api.good("PUT", "/test-clock", {"now": "2030-01-16T12:00:00Z"})

    same = await api.good("POST", "/customers/pipelines/configure", {**CONFIGURATION, "priority": 9}, key=key)
    changed = {**CONFIGURATION, "schedule": "0 3 * * *"}
    other = await api.good("POST", "/customers/pipelines/configure", changed, key=key)

    assert (same["priority"], same["next_run_time"]) == (9, "2030-01-16T02:00:00Z")
    assert other["next_run_time"] == "2030-01-17T03:00:00Z"
    assert len(await api.good("GET", "/customers/pipelines", key=key)) == 1


async def test_a_disabled_configuration_is_not_triggered(api: Api) -> None:
    await api.good("PUT", "/test-clock", {"now": "2030-01-15T12:00:00Z"})
    key = await api.onboard()
    config_id = (await api.good("POST", "/customers/pipelines/configure", CONFIGURATION, key=key))["config_id"]

    disabled = await api.good("DELETE", f"/customers/pipelines/{config_id}", key=key)
    await api.good("PUT", "/test-clock", {"now": "2030-01-17T12:00:00Z"})

    assert (disabled["is_active"], disabled["next_run_time"]) == (False, None)
    assert (await api.good("POST", "/scheduler/trigger"))["triggered_count"] == 0
    assert (await api.good("GET", f"/customers/pipelines/{config_id}", key=key))["is_active"] is False


@pytest.mark.parametrize(
    ("change", "field", "told"),
    [
        ({"schedule": "0 2 * *"}, "body.schedule", "got 4 fields"),
        ({"schedule": "0 2 * * * " * 1000}, "body.schedule", "at most 100 characters"),
        ({"schedule": "0 0 30 2 *"}, "body.schedule", "0 0 30 2 *"),
        ({"timezone": "Mars/Olympus"}, "body.timezone", "Mars/Olympus"),
        ({"template_name": "unknown"}, "body.template_name", "'cost_billing'"),
        ({"provider": "'; DROP TABLE customers"}, "body.provider", "'GCP'"),
        ({"priority": 11}, "body.priority", "less than or equal to 10"),
        ({"priority": True}, "body.priority", "a whole number"),
        ({"priority": 10**30}, "body.priority", "less than or equal to 10"),
        ({"default_parameters": {"a": "\x00"}}, "body.default_parameters", "NUL"),
        ({"surprise": 1}, "body.surprise", "no such field"),
    ],
)
async def test_a_configuration_that_cannot_be_is_refused_by_field_and_reason(
    api: Api, change: dict[str, Any], field: str, told: str
) -> None:
    key = await api.onboard()

    answer = await api.call("POST", "/customers/pipelines/configure", {**CONFIGURATION, **change}, key=key)

    assert answer.status_code == 422
    [problem] = answer.json()["errors"]
    assert problem["field"] == field
    assert told in problem["expected"]
    assert api.rows("SELECT FROM pipeline_configurations") == []


async def test_a_trigger_queues_what_is_due_and_the_queue_is_processed(api: Api) -> None:
    await api.good("PUT", "/test-clock", {"now": "2030-01-15T12:00:00Z"})
    key = await api.onboard()
    await api.good("POST", "/customers/pipelines/configure", CONFIGURATION, key=key)
    await api.good("PUT", "/test-clock", {"now": "2030-01-16T02:00:00Z"})

    triggered = await api.good("POST", "/scheduler/trigger?limit=10")
    waiting = await api.good("GET", "/customers/acme/pipelines/yet-to-run", key=key)
    queue = await api.good("GET", "/scheduler/queue/status")
    processed = await api.good("POST", "/scheduler/process")
    run = await api.ended(processed["run_id"], key)

    counts = [triggered[name] for name in ("triggered_count", "queued_count", "skipped_count", "status")]
    assert counts == [1, 1, 0, "queued"]
    assert triggered["next_trigger_time"] == "2030-01-17T02:00:00Z"
    assert triggered["details"] == {"limit": 10, "due_pipelines_found": 1}
    assert [each["run_id"] for each in waiting] == [processed["run_id"]]
    assert (queue["queued"], queue["queue_length"]) == (1, 1)
    assert processed["status"] == "PROCESSING"
    assert processed["pipeline_id"] == "acme-GCP-COST-cost_billing"
    assert run["pipeline_logging_id"] == processed["pipeline_logging_id"]
    states = [(each["from_state"], each["to_state"]) for each in run["transitions"]]
    assert states == [
        (None, "SCHEDULED"),
        ("SCHEDULED", "PENDING"),
        ("PENDING", "RUNNING"),
        ("RUNNING", "COMPLETED"),
    ]
    assert (await api.good("POST", "/scheduler/process"))["status"] == "IDLE"
    status = await api.good("GET", "/customers/acme/status", key=key)
    assert status == {
        "tenant_id": "acme",
        "total_configured": 1,
        "scheduled_today": 1,
        "completed_today": 1,
        "completed": 1,
        "running": 0,
        "yet_to_run": 0,
        "failed": 0,
        "skipped": 0,
    }
    assert (await api.good("GET", "/scheduler/status"))["pipelines_completed_today"] == 1


async def test_runs_are_listed_by_customer_state_and_day(api: Api) -> None:
    key, other = await api.onboard("acme"), await api.onboard("globex")
    run_id = (await api.good("POST", RUN, {"priority": 7}, key=key))["run_id"]
    await api.good("POST", RUN.replace("acme", "globex"), key=other)
    today = (await api.good("GET", "/test-clock"))["now"][:10]

    async def found(query: str) -> list[str]:
        return [run["run_id"] for run in await api.good("GET", f"/scheduler/scheduled?{query}")]

    assert await found(f"customer_id=acme&state=PENDING&date={today}") == [run_id]
    assert await found("customer_id=acme&state=COMPLETED") == []
    assert await found("customer_id=acme&date=2001-01-01") == []
    assert len(await found("limit=10")) == 2
    assert len(await found("limit=1")) == 1
    own = await api.good("GET", "/customers/acme/pipeline-runs?state=PENDING", key=key)
    assert [(run["run_id"], run["priority"]) for run in own] == [(run_id, 7)]


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        ({"daily_limit": 1}, "Daily pipeline quota exceeded (1 pipelines/day). Try again tomorrow."),
        ({"monthly_limit": 1}, "Monthly pipeline quota exceeded (1 pipelines/month). Upgrade your plan."),
        ({"daily_limit": 1, "monthly_limit": 1}, "Daily pipeline quota exceeded (1 pipelines/day)."),
    ],
)
async def test_a_run_beyond_the_quota_is_refused_and_leaves_a_row(
    api: Api, limits: dict[str, int], told: str
) -> None:
    key = await api.onboard()
    await api.good("PUT", "/customers/acme/subscription/quota", limits)
    await api.good("POST", RUN, key=key)

    answer = await api.call("POST", RUN, key=key)

    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "86400")
    assert answer.json()["detail"].startswith(told)
    [skipped] = await api.good("GET", "/customers/acme/pipeline-runs?state=SKIPPED", key=key)
    assert skipped["error_message"].startswith(told)
    validation = await api.good("POST", "/customers/acme/validate", key=key)
    assert validation["can_run_pipeline"] is False
    assert validation["validation_errors"][0].startswith(told)


async def test_a_full_concurrent_limit_leaves_a_run_pending_and_says_so(api: Api) -> None:
    key = await api.onboard("acme", "STARTER")
    await api.good("POST", "/pipelines/run/acme/GCP/COST/hangs", key=key)
    await api.good("POST", "/scheduler/process")

    accepted = await api.good("POST", RUN, key=key)
    validation = await api.good("POST", "/customers/acme/validate", key=key)

    told = "Concurrent pipeline limit reached (1 pipelines). Wait for running pipelines to complete."
    assert (accepted["status"], accepted["message"]) == ("PENDING", told)
    assert validation["validation_errors"] == [told]
    assert validation["quota_remaining"] == {"daily": 4, "monthly": 178, "concurrent": 0}
    assert len(await api.good("GET", "/customers/acme/pipelines/running", key=key)) == 1
    assert (await api.good("POST", "/scheduler/process"))["status"] == "IDLE"


async def test_all_exceeded_limits_are_named_in_their_order(api: Api) -> None:
    key = await api.onboard()
    limits = {"daily_limit": 0, "monthly_limit": 0, "concurrent_limit": 0}
    await api.good("PUT", "/customers/acme/subscription/quota", limits)

    errors = (await api.good("POST", "/customers/acme/validate", key=key))["validation_errors"]

    assert [error.split()[0] for error in errors] == ["Daily", "Monthly", "Concurrent"]


async def test_a_subscription_that_is_not_active_runs_nothing(api: Api) -> None:
    key = await api.onboard()
    with psycopg.connect(api.url) as connection:
        connection.execute("UPDATE customers SET status = 'SUSPENDED'")

    answer = await api.call("POST", RUN, key=key)

    assert (answer.status_code, answer.json()["detail"]) == (403, "the subscription is SUSPENDED, expected ACTIVE")
    assert (await api.good("POST", "/customers/acme/validate", key=key))["can_run_pipeline"] is False


async def test_an_unknown_template_is_404(api: Api) -> None:
    key = await api.onboard()

    assert (await api.call("POST", "/pipelines/run/acme/gcp/cost/unknown", key=key)).status_code == 404


async def test_an_executor_from_outside_takes_a_run_and_reports(api: Api) -> None:
    key = await api.onboard()
    run_id = (await api.good("POST", RUN, key=key))["run_id"]
    path = f"/pipeline-runs/{run_id}"

    too_early = await api.call("POST", f"{path}/complete")
    started = await api.good("POST", f"{path}/start", {"worker_id": "outside"})
    twice = await api.call("POST", f"{path}/start")
    beaten = await api.good("POST", f"{path}/heartbeat", {"claim_number": 1})
    of_another_claim = await api.call("POST", f"{path}/complete", {"claim_number": 2})
    completed = await api.good("POST", f"{path}/complete")
    too_late = await api.call("POST", f"{path}/fail")

    assert (started["state"], started["worker_id"], started["claim_number"]) == ("RUNNING", "outside", 1)
    assert beaten["heartbeat_at"] > started["heartbeat_at"]
    assert completed["state"] == "COMPLETED"
    refused = [too_early, twice, of_another_claim, too_late]
    assert [answer.status_code for answer in refused] == [409] * 4
    assert "it can go to: FAILED, RUNNING, SKIPPED" in too_early.json()["detail"]
    assert "it can go to: nothing, it has ended" in too_late.json()["detail"]
    assert (await api.call("POST", "/pipeline-runs/nobody/start")).status_code == 404


async def test_a_failure_that_can_pass_is_retried_later(api: Api) -> None:
    key = await api.onboard()
    run_id = (await api.good("POST", RUN, key=key))["run_id"]
    await api.good("POST", f"/pipeline-runs/{run_id}/start")

    body = {"error_class": "TIMEOUT", "error_message": "too slow"}
    failed = await api.good("POST", f"/pipeline-runs/{run_id}/fail", body)

    assert (failed["state"], failed["retry_attempt"], failed["error_message"]) == ("PENDING", 1, "too slow")
    assert failed["not_before"] is not None
    again = await api.call("POST", f"/pipeline-runs/{run_id}/start")
    assert (again.status_code, "waits for a retry" in again.json()["detail"]) == (409, True)


async def test_a_crashing_template_does_not_take_the_interface_along(api: Api) -> None:
    key = await api.onboard()
    run_id = (await api.good("POST", "/pipelines/run/acme/GCP/COST/crashes", key=key))["run_id"]

    await api.good("POST", "/scheduler/process")

    assert (await api.good("GET", f"/pipelines/runs/{run_id}", key=key))["state"] == "RUNNING"


@pytest.mark.parametrize(
    "wanted",
    [
        {"channel": "email", "target": "http://example.com/hook"},
        {"channel": "email", "target": "qa@example.com\r\nBcc: all@example.com"},
        {"channel": "slack", "target": "ftp://example.com"},
        {"channel": "webhook", "target": "http://user:secret-word@example.com/"},
        {"channel": "pigeon", "target": "secret-word"},
    ],
)
async def test_a_target_that_the_channel_cannot_reach_is_refused_and_not_quoted(
    api: Api, wanted: dict[str, str]
) -> None:
    key = await api.onboard()

    answer = await api.call("PUT", "/customers/acme/notifications", [wanted], key=key)

    assert answer.status_code == 422
    assert wanted["target"] not in answer.text
    assert await api.good("GET", "/customers/acme/notifications", key=key) == []


async def test_notification_channels_are_replaced(api: Api) -> None:
    key = await api.onboard()
    first = [{"channel": "email", "target": "qa@example.com"}]
    second = [
        {"channel": "slack", "target": "https://example.com/slack"},
        {"channel": "webhook", "target": "http://127.0.0.1:9/hook?a=b"},
    ]

    await api.good("PUT", "/customers/acme/notifications", first, key=key)

    assert await api.good("PUT", "/customers/acme/notifications", second, key=key) == second
    assert await api.good("GET", "/customers/acme/notifications") == second
    assert await api.good("GET", "/customers/acme/notifications/dead-letters", key=key) == []


async def test_the_test_clock_goes_forward_only(api: Api) -> None:
    await api.onboard()
    moved = await api.good("PUT", "/test-clock", {"now": "2030-01-15T12:00:00+02:00"})

    assert moved == {"now": "2030-01-15T10:00:00Z"}
    back = await api.call("PUT", "/test-clock", {"now": "2030-01-15T09:59:59Z"})
    assert (back.status_code, "only goes forward" in back.json()["detail"]) == (409, True)
    assert (await api.call("PUT", "/test-clock", {"now": "9999-12-31T23:59:59-12:00"})).status_code == 409
    assert (await api.call("PUT", "/test-clock", {"now": "2030-02-01T00:00:00"})).status_code == 422
    assert (await api.good("GET", "/test-clock"))["now"] == "2030-01-15T10:00:00Z"


async def test_the_test_clock_advances_from_what_it_shows(api: Api) -> None:
    await api.good("PUT", "/test-clock", {"now": "2030-01-15T10:00:00Z"})
    moved = await api.good("POST", "/test-clock/advance", {"seconds": 90.5})

    assert moved == {"now": "2030-01-15T10:01:30.500000Z"}
    too_far = await api.call("POST", "/test-clock/advance", {"seconds": 200 * 366 * 86400})
    assert (too_far.status_code, too_far.json()["detail"]) == (409, "the clock goes to 2200-01-01")
    for wrong in (-1, 1e300, "an hour"):
        assert (await api.call("POST", "/test-clock/advance", {"seconds": wrong})).status_code == 422
    assert await api.good("GET", "/test-clock") == moved


async def test_health_names_the_version_and_the_clock(api: Api) -> None:
    health = await api.good("GET", "/health")

    assert (health["status"], health["database"], health["clock"]) == ("ok", "reachable", "test")
    assert [(health["migration_version"],)] == api.rows("SELECT max(version) FROM schema_migrations")
