"""Fixtures shared by all tests."""

import signal
from collections.abc import Iterator

import pytest
from broker_support import BrokerServer, new_broker


def pytest_configure() -> None:
    """Let Ctrl-C do what it does: a shell that starts pytest in the background has every process ignore it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def broker_server() -> Iterator[BrokerServer]:
    """A STOMP broker on a free loopback port."""
    with BrokerServer(new_broker()) as server:
        yield server
