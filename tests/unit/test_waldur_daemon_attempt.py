"""A round of the agent that may hang: it is bounded, told, and its end is waited for."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from testyard.core.deadline import Deadline
from testyard.core.errors import NotMetError
from testyard.waldur.agent_modules import agent_modules
from testyard.waldur.attempt import Attempt
from testyard.waldur.calls import Call
from testyard.waldur.liveness import liveness_file
from testyard.waldur.states import Side

SOON = timedelta(seconds=10)
A_MOMENT = timedelta(milliseconds=100)
CALL = Call(Side.A, "GET", "/api/users/me/", 401, None)


class Agent:
    """An agent whose calls are its own to make."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.at_work = False
        self.configuration = SimpleNamespace(waldur_site_agent_mode="")

    @contextmanager
    def working(self) -> Iterator[list[Call]]:
        self.at_work = True
        try:
            yield self.calls
        finally:
            self.at_work = False


Round = Callable[[Any, dict[str, Any]], None]


@pytest.fixture
def attempt(monkeypatch: pytest.MonkeyPatch) -> Callable[[Agent, Round], Attempt]:
    """Starts an attempt whose round does what is given."""
    agent_modules()
    from waldur_site_agent.polling_processing import agent_order_process

    def start(agent: Agent, work: Round) -> Attempt:
        monkeypatch.setattr(agent_order_process, "_process_offerings", work)
        return Attempt(agent)  # type: ignore[arg-type]

    return start


def test_a_round_is_the_modes_own_and_its_calls_are_told(attempt) -> None:
    agent, seen = Agent(), []

    def work(configuration: Any, identities: dict[str, Any]) -> None:
        seen.append((configuration, configuration.waldur_site_agent_mode, identities, agent.at_work))
        agent.calls.append(CALL)

    started = attempt(agent, work)

    assert started.wait(Deadline(SOON)) == [CALL]
    assert started.ended
    assert seen == [(agent.configuration, "order_process", {}, True)]
    assert not agent.at_work


def test_a_round_that_hangs_is_told_and_goes_on_later(attempt) -> None:
    agent, answer = Agent(), threading.Event()

    def work(*_: Any) -> None:
        agent.calls.append(CALL)
        assert answer.wait(SOON.total_seconds())

    started = attempt(agent, work)

    said = started.keep_hanging(Deadline(A_MOMENT))
    with pytest.raises(NotMetError) as problem:
        started.wait(Deadline(A_MOMENT))
    assert not started.ended
    story = "Its last call that ended was GET /api/users/me/ on A; the answer was 401."
    assert said.startswith("The agent hangs for 0.1")
    assert said.endswith(story)
    assert str(problem.value) == f"The agent hangs: its round has not ended within 0.1 s. {story}"
    answer.set()
    assert started.wait(Deadline(SOON)) == [CALL]
    assert "agent-attempt" not in {thread.name for thread in threading.enumerate()}


def test_a_round_that_ends_does_not_hang(attempt) -> None:
    started = attempt(Agent(), lambda *_: None)
    with pytest.raises(NotMetError, match=r"should hang, but ended its round .* None of its calls has ended yet"):
        started.keep_hanging(Deadline(SOON))


def test_what_the_mode_does_not_catch_is_not_lost(attempt) -> None:
    def work(*_: Any) -> None:
        raise KeyError("offering")

    with pytest.raises(KeyError, match="offering"):
        attempt(Agent(), work).wait(Deadline(SOON))


def test_the_liveness_file_is_elsewhere_for_all_of_the_agent_and_only_meanwhile(tmp_path: Path) -> None:
    agent_modules()
    from waldur_site_agent.common import healthz, processors
    from waldur_site_agent.polling_processing import agent_order_process

    place = tmp_path / "alive"
    with liveness_file(str(place)):
        for module in (processors, agent_order_process):
            module.touch_heartbeat()
            assert healthz.check_liveness(path=str(place))
            place.unlink()
    with liveness_file(os.devnull):
        processors.touch_heartbeat()
    assert not list(tmp_path.iterdir())
    assert healthz.touch_heartbeat.__defaults__ == (healthz.HEARTBEAT_PATH,)
