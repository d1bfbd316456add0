"""What the pipeline service's processes are told on the command line."""

from __future__ import annotations

import argparse
import io
from datetime import timedelta

import httpx
import pytest
from pipelines_api_support import AS_ADMIN, running_service
from testyard.core.deadline import Deadline, wait_until
from testyard.lab.arguments import add_database, positive, seconds
from testyard.lab.servers.webhooks import WebhookReceiver

VARIABLE = "PIPELINES_DATABASE_URL"
WITHIN = timedelta(seconds=10)


def test_seconds_are_above_zero() -> None:
    assert seconds("0.05") == timedelta(milliseconds=50)
    for wrong in ("0", "-1", "nan", "inf", "1e9", "soon"):
        with pytest.raises(ValueError, match=wrong):
            seconds(wrong)


def test_the_database_may_be_told_on_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    parser = argparse.ArgumentParser()
    add_database(parser, VARIABLE)
    monkeypatch.setattr("sys.stdin", io.StringIO("postgresql://here/pipelines\nmore\n"))
    assert parser.parse_args(["--database", "-"]).database == "postgresql://here/pipelines"
    assert parser.parse_args(["--database", "postgresql://there"]).database == "postgresql://there"


def test_without_a_line_on_standard_input_it_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = argparse.ArgumentParser()
    add_database(parser, VARIABLE)
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    with pytest.raises(SystemExit):
        parser.parse_args(["--database", "-"])
    expected = "argument --database: standard input has no line with the URL of a PostgreSQL database"
    assert expected in capsys.readouterr().err


def test_counts_are_whole_numbers_from_one() -> None:
    assert positive("3") == 3
    for wrong in ("0", "-1", "2.5", "many"):
        with pytest.raises(ValueError, match=wrong):
            positive(wrong)


def test_a_notification_is_given_up_after_as_many_attempts_as_told(pipelines_url: str) -> None:
    told = ("--notification-retry", "0.01", "--notification-attempts", "2")
    with WebhookReceiver() as receiver, running_service(pipelines_url, *told) as service:
        receiver.fail(times=100)
        key = service.onboard("acme")
        with httpx.Client(base_url=f"{service.address}/api/v1", headers={"X-API-Key": key}) as acme:
            channel = {"channel": "webhook", "target": f"{receiver.url}/acme"}
            acme.put("/customers/acme/notifications", json=[channel]).raise_for_status()
            fails = {"parameters": {"error_class": "AUTHENTICATION_FAILED"}}
            acme.post("/pipelines/run/acme/GCP/COST/fails", json=fails).raise_for_status()
            httpx.post(f"{service.address}/api/v1/scheduler/process", headers=AS_ADMIN).raise_for_status()
            letters = wait_until(
                lambda: acme.get("/customers/acme/notifications/dead-letters").json(),
                lambda found: len(found) == 1,
                Deadline(WITHIN),
                "the dead letter",
            )
        assert letters[0]["attempts"] == len(receiver.deliveries()) == 2
