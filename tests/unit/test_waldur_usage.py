"""Usage of resources: which month, what is sent, what is read, and how the agent is let to report it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from http_support import answer_with
from testyard.waldur import usage
from testyard.waldur.api import Waldur
from testyard.waldur.approval import ApprovingProvider

HEX = "d629d5e45567425da9cdbdc1af67b32c"
DASHED = "d629d5e4-5567-425d-a9cd-bdc1af67b32c"
NOVEMBER = date(2026, 11, 21)
USAGES = "/api/marketplace-component-usages/"
USER_USAGES = "/api/marketplace-component-user-usages/"


class Server:
    """Answers GET from a table and notes everything."""

    def __init__(self) -> None:
        self.lists: dict[str, list[dict[str, Any]]] = {}
        self.requests: list[httpx.Request] = []

    def handle(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if request.method == "POST":
            return httpx.Response(201)
        return httpx.Response(200, json=self.lists[request.url.path])

    @property
    def posts(self) -> list[tuple[str, Any]]:
        return [(it.url.path, json.loads(it.content)) for it in self.requests if it.method == "POST"]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    server = Server()
    answer_with(server.handle, monkeypatch)
    return server


@pytest.fixture
def waldur(server: Server) -> Iterator[Waldur]:
    with Waldur("http://waldur.example", "api-token-of-nobody-0002") as waldur:
        yield waldur


@pytest.mark.parametrize(
    ("months_ago", "today", "first"),
    [
        (0, date(2026, 11, 21), date(2026, 11, 1)),
        (1, date(2026, 3, 31), date(2026, 2, 1)),
        (2, date(2026, 1, 31), date(2025, 11, 1)),
        (12, date(2024, 2, 29), date(2023, 2, 1)),
    ],
)
def test_a_month_is_its_first_day(months_ago, today, first):
    assert usage.billing_month(months_ago, today) == first


def test_this_month_is_the_clocks():
    assert usage.billing_month().day == 1


def test_usage_is_reported_for_its_month_with_two_decimals(server, waldur):
    usage.set_usage(waldur, DASHED, {"cpu": 256, "gpu": 0.5}, NOVEMBER)
    usages = [{"type": "cpu", "amount": "256.00"}, {"type": "gpu", "amount": "0.50"}]
    assert server.posts == [
        (f"{USAGES}set_usage/", {"resource": HEX, "date": "2026-11-01T00:00:00+00:00", "usages": usages})
    ]


def test_a_users_part_is_reported_to_the_total_of_its_component_and_month(server, waldur):
    server.lists[USAGES] = [{"type": "gpu", "uuid": "of-gpu"}, {"type": "cpu", "uuid": "of-cpu"}]
    usage.set_user_usage(waldur, DASHED, "mia", {"cpu": 192}, NOVEMBER)
    part = {"username": "mia", "usage": "192.00", "date": "2026-11-01T00:00:00+00:00"}
    assert server.posts == [(f"{USAGES}of-cpu/set_user_usages/", {"usages": [part]})]
    asked = server.requests[0].url.params
    assert (asked["resource_uuid"], asked["billing_period"]) == (HEX, "2026-11-01")


def test_a_users_part_needs_a_total(server, waldur):
    server.lists[USAGES] = [{"type": "gpu", "uuid": "of-gpu"}]
    with pytest.raises(LookupError, match=r"No usage of cpu was reported for November 2026"):
        usage.set_user_usage(waldur, HEX, "mia", {"cpu": 192}, NOVEMBER)
    assert server.posts == []


def test_usage_is_read_for_its_month_and_two_records_of_a_component_do_not_pass_for_one(server, waldur):
    server.lists[USAGES] = [
        {"type": "cpu", "usage": "2.00"},
        {"type": "cpu", "usage": "2.00"},
        {"type": "gpu", "usage": "0.00"},
    ]
    assert usage.usage_of(waldur, DASHED, NOVEMBER) == {"cpu": 4, "gpu": 0}
    asked = server.requests[0].url.params
    assert (asked["resource_uuid"], asked["billing_period"]) == (HEX, "2026-11-01")


def test_the_users_parts_are_read_for_their_month_and_component(server, waldur):
    server.lists[USER_USAGES] = [
        {"username": "mia", "component_type": "cpu", "usage": "3.50", "user": f"http://w/api/users/{HEX}/"},
        {"username": "max", "component_type": "cpu", "usage": "2.50"},
        {"username": "mia", "component_type": "gpu", "usage": "9.00"},
    ]
    assert usage.user_usage_of(waldur, DASHED, "cpu", NOVEMBER) == ({"mia": 3.5, "max": 2.5}, {"mia": HEX})
    asked = server.requests[0].url.params
    assert (asked["resource_uuid"], asked["component_usage__billing_period"]) == (HEX, "2026-11-01")


class Agent:
    """Stands for the site agent: notes how its report processor is made, and that it runs inside ``working``."""

    def __init__(self, *, started: bool) -> None:
        self.offering, self.client, self.backend = "offering", "client", "backend"
        self.processor = SimpleNamespace(timezone="UTC") if started else None
        self.modules = SimpleNamespace(processors=SimpleNamespace(OfferingReportProcessor=self.make))
        self.story: list[Any] = []

    def start(self) -> None:
        self.story.append("start")
        self.processor = SimpleNamespace(timezone="Europe/Tallinn")

    @contextmanager
    def working(self) -> Iterator[list[str]]:
        self.story.append("working")
        yield ["a call"]
        self.story.append("rest")

    def make(self, *arguments: Any, **options: Any) -> SimpleNamespace:
        self.story.append((arguments, options))
        return SimpleNamespace(process_offering=lambda: self.story.append("report"))


def test_the_agent_reports_so_many_months_with_its_own_backend_and_timezone():
    agent = Agent(started=True)
    done = usage.report_usage(agent, 3)
    made = (("offering", "client", "UTC"), {"resource_backend": "backend", "reporting_periods": 3})
    assert agent.story == ["working", made, "report", "rest"]
    assert (done.calls, done.answer) == (["a call"], None)


def test_the_agent_is_started_first():
    agent = Agent(started=False)
    usage.report_usage(agent, 1)
    assert agent.story[0] == "start"
    assert agent.story[2][0][2] == "Europe/Tallinn"


def test_a_provider_rejects_with_a_comment(server, waldur):
    ApprovingProvider(waldur).reject(DASHED, "no capacity")
    assert server.posts == [
        (
            f"/api/marketplace-orders/{HEX}/reject_by_provider/",
            {"provider_rejection_comment": "no capacity"},
        )
    ]
