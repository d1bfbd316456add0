"""When end dates were changed last, as the Waldur double tells it: the agent's bidirectional mode goes by that."""

from __future__ import annotations

from typing import Any

import pytest
from double_support import Double, Market


@pytest.fixture
def resource(market: Market) -> dict[str, Any]:
    created = market.double.shell(
        "create_resource", offering=market.offering["uuid"], project=market.project["uuid"]
    )
    found: dict[str, Any] = market.double.get(f"marketplace-resources/{created['uuid']}/")
    return found


def _end(double: Double, resource: dict[str, Any], day: str | None) -> str | None:
    path = f"marketplace-resources/{resource['uuid']}/"
    double.post(f"{path}set_end_date/", {"end_date": day})
    moment: str | None = double.get(path)["end_date_updated_at"]
    return moment


def test_a_resource_tells_when_its_end_date_changed_last(double: Double, resource: dict[str, Any]) -> None:
    first = _end(double, resource, "2099-03-01")
    again = _end(double, resource, "2099-03-01")
    taken_back = _end(double, resource, None)

    assert resource["end_date_updated_at"] is None
    assert first is not None
    assert again == first
    assert taken_back is not None
    assert taken_back > first


def test_a_project_tells_when_its_end_date_changed_last(double: Double, market: Market) -> None:
    path = f"projects/{market.project['uuid']}/"
    before = double.get(path)["end_date_updated_at"]

    first = double.patch(path, {"end_date": "2099-03-15"})["end_date_updated_at"]
    again = double.patch(path, {"end_date": "2099-03-15", "description": "x"})["end_date_updated_at"]

    assert before is None
    assert first is not None
    assert again == first
