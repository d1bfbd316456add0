"""A connection that the server closes just as it is to be closed is closed: no error of it reaches a teardown."""

from types import SimpleNamespace
from typing import Any

import pytest
from stomp.exception import NotConnectedException
from testyard.core.journal import Journal
from testyard.stomp.capture import EventCapture
from testyard.stomp.channel import Channel
from testyard.waldur.agent import SiteAgent, Subscription
from testyard.waldur.agent_modules import agent_modules
from testyard.waldur.states import Side
from websocket import WebSocketConnectionClosedException

PROBLEMS = [WebSocketConnectionClosedException("socket is already closed."), NotConnectedException(), OSError()]


class Breaking:
    """A connection that breaks at the last moment."""

    def __init__(self, problem: Exception) -> None:
        self.problem = problem
        self.asked = 0
        self.transport = SimpleNamespace(receiver_thread=None)

    def is_connected(self) -> bool:
        return True

    def set_listener(self, _name: str, _listener: object) -> None:
        """It breaks without a word."""

    def remove_listener(self, _name: str) -> None:
        """Nobody hears of it any more."""

    def disconnect(self) -> None:
        self.asked += 1
        raise self.problem


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: type(problem).__name__)
def test_a_channel_is_closed(problem: Exception) -> None:
    connection = Breaking(problem)
    Channel("mine", EventCapture("mine", Journal()), connection).close()
    assert connection.asked == 1


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: type(problem).__name__)
def test_an_agent_is_closed(problem: Exception) -> None:
    connection = Breaking(problem)
    done: list[str] = []
    agent: Any = SiteAgent.__new__(SiteAgent)
    agent.modules = agent_modules()
    agent._subscriptions = [Subscription(Side.A, connection, "queue", "vhost", ())]
    agent._clients = []
    agent._forget_clients = lambda: done.append("clients")
    agent._log = SimpleNamespace(uninstall=lambda: done.append("log"))
    agent.close()
    assert (connection.asked, done) == (1, ["clients", "log"])
