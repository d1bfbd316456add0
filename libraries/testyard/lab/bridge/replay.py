"""How events that wait are published when the bus is back: in order, and no faster than the bus is to be asked.

Events of one key keep their order. One whose publication fails holds up only those with its own key.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from aiokafka.errors import KafkaError

from testyard.core.deadline import Deadline
from testyard.lab.bridge.breaker import CircuitBreaker, CircuitOpenError
from testyard.lab.bridge.bus import REFUSED, Answer, Bus, UnansweredError
from testyard.lab.bridge.outbox import Outbox
from testyard.lab.bridge.outbox_file import Waiting
from testyard.lab.bridge.settings import BusSettings
from testyard.lab.waiting import elapse

SHORTEST_WAIT: Final = timedelta(milliseconds=20)

logger = logging.getLogger(__name__)


class Pace:
    """Lets something happen at most so often, evenly; what came a little late is made up for.

    Args:
        per_second: How often.
    """

    def __init__(self, per_second: int) -> None:
        self._interval = 1 / per_second
        self._made_up_for = per_second // 20 * self._interval
        self._next = 0.0

    async def next(self) -> None:
        """Wait until it may happen again."""
        now = asyncio.get_running_loop().time()
        at = max(self._next, now - self._made_up_for)
        self._next = at + self._interval
        if at > now:
            await elapse(timedelta(seconds=at - now))


@dataclass(frozen=True)
class _Unanswered:
    """An event that a producer still tries to publish.

    Attributes:
        answer: What it will tell.
        deadline: When it is given up, and the event published by another one.
    """

    answer: Answer
    deadline: Deadline

    @property
    def says_that_it_was_published(self) -> bool:
        """Whether it was; the answer is there."""
        return not self.answer.cancelled() and self.answer.exception() is None


class Replay:
    """Publishes what waits in an outbox.

    Args:
        outbox: Where events wait.
        bus: Where they go.
        breaker: When nobody waits any more for the bus.
        settings: How fast, and how often it is tried.

    Attributes:
        published: How many were.
        settled: How many had been published after all: the bus had only not said so in time.
        trouble: What keeps it from looking into the outbox; None when nothing does.
    """

    def __init__(self, outbox: Outbox, bus: Bus, breaker: CircuitBreaker, settings: BusSettings) -> None:
        self.published = 0
        self.settled = 0
        self.trouble: str | None = None
        self._outbox = outbox
        self._bus = bus
        self._breaker = breaker
        self._settings = settings
        self._pace = Pace(settings.replay_per_second)
        self._something_waits = asyncio.Event()
        self._something_waits.set()
        self._unanswered: dict[int, _Unanswered] = {}

    def expect(self, event: Waiting, answer: Answer | None) -> None:
        """Tell that an event is about to be put into the outbox.

        Args:
            event: The event.
            answer: What a producer will tell of it, which is still trying; None when there is none.
        """
        if answer is not None:
            self._unanswered[event.position] = self._unanswered_from_now_on(answer)
        self._something_waits.set()

    def _unanswered_from_now_on(self, answer: Answer) -> _Unanswered:
        return _Unanswered(answer, Deadline(self._settings.request_timeout * 2))

    async def run(self) -> None:
        """Publish what waits, and what will, until this is cancelled."""
        while True:
            await self._something_waits.wait()
            self._something_waits.clear()
            while (wait := await self._publish_what_waits()) is not None:
                # Whatever comes meanwhile is found then.
                await elapse(wait)

    async def _publish_what_waits(self) -> timedelta | None:
        """Publish what can be now; when to try again, or None when nothing is left."""
        try:
            while events := await self._outbox.oldest(self._settings.replay_batch):
                if not await self._publish_all(events):
                    return self._settings.look_after
            self.trouble = None
        except CircuitOpenError as problem:
            self.trouble = None
            return min(max(problem.retry_after, SHORTEST_WAIT), self._settings.look_after)
        except Exception as problem:
            # A disk that is full, say: what waits is not lost, and somebody will mend it.
            told, self.trouble = self.trouble, f"what waits cannot be published: {problem!r}"
            if told != self.trouble:
                logger.exception("the outbox: %s", self.trouble)
            return self._settings.look_after
        return self._settings.look_after if len(self._outbox) or not self._outbox.is_known else None

    async def _publish_all(self, events: list[Waiting]) -> bool:
        """Publish some events; whether any was."""
        failed: set[str] = set()
        published = False
        for event in events:
            if event.key not in failed:
                if await self._publish(event):
                    published = True
                else:
                    failed.add(event.key)
        return published

    async def _publish(self, event: Waiting) -> bool:
        """Publish one event; whether it need not wait any more.

        Raises:
            CircuitOpenError: The bus is known to be away.
        """
        unanswered = self._unanswered.get(event.position)
        if unanswered is not None and not unanswered.answer.done():
            if unanswered.deadline.expired:
                self._bus.give_up(unanswered.answer)
            return False
        # Also after a late answer: the events that a producer had kept all came at once.
        await self._pace.next()
        if unanswered is not None:
            del self._unanswered[event.position]
            if unanswered.says_that_it_was_published:
                self.settled += 1
                await self._outbox.remove([event])
                return True
        try:
            with self._breaker.call(*REFUSED):
                await self._bus.send(event.topic, event.key, event.value, event.headers)
        except REFUSED as problem:
            logger.error("%s refuses the event at %s for good: %s", event.topic, event.position, problem)
            await self._outbox.refuse(event, str(problem))
            return True
        except UnansweredError as problem:
            self._unanswered[event.position] = self._unanswered_from_now_on(problem.answer)
            return False
        except KafkaError:
            return False
        self.published += 1
        await self._outbox.remove([event])
        return True
