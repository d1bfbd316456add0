"""One round of the agent's ``order_process`` mode, with Waldurs that may not answer.

The mode's own loop goes round its offerings, registers itself with A, looks whether B answers, and keeps every
error to itself. The client it uses for B waits without end (agent 1.0.7), so a round runs in a thread of its own.
"""

from __future__ import annotations

import threading

from testyard.core.deadline import Deadline, never_within, seconds, wait_until
from testyard.core.errors import NotMetError
from testyard.waldur.agent import SiteAgent
from testyard.waldur.calls import Call

MODE = "order_process"


class Attempt:
    """A round of ``order_process`` that has been started; it may hang.

    Args:
        agent: The agent; leave it alone until the round has ended.

    Example:
        >>> Attempt(agent).wait(Deadline(timedelta(seconds=30)))     # doctest: +SKIP
    """

    def __init__(self, agent: SiteAgent) -> None:
        self._agent = agent
        self._calls: list[Call] = []
        self._problem: BaseException | None = None
        # A daemon thread: an agent that hangs must not keep the run from ending.
        self._thread = threading.Thread(target=self._work, name="agent-attempt", daemon=True)
        self._thread.start()

    @property
    def ended(self) -> bool:
        """Whether the agent has come to the end of the round."""
        return not self._thread.is_alive()

    def wait(self, deadline: Deadline) -> list[Call]:
        """Wait until the round has ended.

        Returns:
            The REST calls the agent made, oldest first.

        Raises:
            NotMetError: It hangs; names its last call that ended.
        """
        try:
            wait_until(lambda: self.ended, bool, deadline, "the agent to end its round")
        except NotMetError:
            message = (
                f"The agent hangs: its round has not ended within {seconds(deadline.within)}. {self._story()}"
            )
            raise NotMetError(message) from None
        if self._problem is not None:
            raise self._problem
        return list(self._calls)

    def keep_hanging(self, deadline: Deadline) -> str:
        """Check that the round does not end before the deadline.

        Returns:
            Where it hangs, for people.

        Raises:
            NotMetError: It has ended; names its last call that ended.
        """
        try:
            never_within(lambda: self.ended, bool, deadline, "the end of the agent's round")
        except NotMetError:
            message = (
                f"The agent should hang, but ended its round after {seconds(deadline.elapsed)}. {self._story()}"
            )
            raise NotMetError(message) from None
        return f"The agent hangs for {seconds(deadline.elapsed)}. {self._story()}"

    def _work(self) -> None:
        from waldur_site_agent.polling_processing import agent_order_process

        configuration = self._agent.configuration
        configuration.waldur_site_agent_mode = MODE
        try:
            with self._agent.working() as calls:
                self._calls = calls
                agent_order_process._process_offerings(configuration, {})
        except BaseException as problem:  # told to whoever waits
            self._problem = problem

    def _story(self) -> str:
        if not self._calls:
            return "None of its calls has ended yet."
        last = self._calls[-1]
        answer = "nothing" if last.status is None else last.status
        call = f"{last.method} {last.path} on {last.side.value}"
        return f"Its last call that ended was {call}; the answer was {answer}."
