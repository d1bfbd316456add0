"""What the services of the lab's event bus are started with."""

from datetime import timedelta
from typing import Any

import pytest
from testyard.lab.bridge.settings import Settings
from testyard.lab.environment import KafkaSource
from testyard.lab.supervisor.bridge_settings import settings_with


@pytest.mark.parametrize("kafka", sorted(set(KafkaSource) - {KafkaSource.MOCK}, key=lambda it: it.name))
def test_real_brokers_have_more_time_and_all_else_is_the_same(kafka: KafkaSource) -> None:
    with_mock, with_real = settings(KafkaSource.MOCK), settings(kafka)
    assert with_mock.bus.request_timeout < timedelta(seconds=1) < with_real.bus.request_timeout
    same = with_real.bus.model_copy(update={"request_timeout": with_mock.bus.request_timeout})
    assert with_real.model_copy(update={"bus": same}) == with_mock


@pytest.mark.parametrize("kafka", [KafkaSource.MOCK, KafkaSource.SERVER])
def test_what_a_suite_wants_is_what_the_services_get(kafka: KafkaSource) -> None:
    wanted = settings(kafka, bus={"request_timeout": 10})
    assert wanted.bus.request_timeout == timedelta(seconds=10)
    assert wanted.bus.breaker == settings(kafka).bus.breaker != Settings().bus.breaker


def settings(kafka: KafkaSource, **overrides: Any) -> Settings:
    """What the services of a lab read."""
    return Settings.model_validate(settings_with(kafka, overrides))
