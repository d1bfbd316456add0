"""Fixtures shared by all tests."""

from collections.abc import Iterator

import pytest
from broker_support import BrokerServer, new_broker


@pytest.fixture
def broker_server() -> Iterator[BrokerServer]:
    """A STOMP broker on a free loopback port."""
    with BrokerServer(new_broker()) as server:
        yield server
