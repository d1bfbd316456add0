"""What came of events that were published: counted while it goes on, told as a history."""

from __future__ import annotations

import threading
import time
from asyncio import Future
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from enum import Enum
from typing import Any, overload

from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    InvalidTopicError,
    KafkaError,
    MessageSizeTooLargeError,
    PolicyViolationError,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
    UnsupportedForMessageFormatError,
)
from aiokafka.structs import RecordMetadata

from testyard.core.errors import NotMetError
from testyard.core.history import Happening, Kind
from testyard.kafka.event import Outgoing, place_of
from testyard.kafka.problems import reason

MOST_REASONS = 5
# What a broker answers about an event that it did not write. Anything else may have been said about a repetition
# of a request that was done, so that nobody knows.
NOT_WRITTEN = (
    ClusterAuthorizationFailedError,
    InvalidTopicError,
    MessageSizeTooLargeError,
    PolicyViolationError,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
    UnsupportedForMessageFormatError,
)


class TransactionOutcome(Enum):
    """What has become of a transaction."""

    OPEN = "open"
    COMMITTED = "committed"
    ABORTED = "aborted"
    INDETERMINATE = "indeterminate"


# What that means for what was published in it.
OUTCOMES = {
    TransactionOutcome.OPEN: None,
    TransactionOutcome.COMMITTED: Kind.ACKNOWLEDGED,
    TransactionOutcome.ABORTED: Kind.REFUSED,
    TransactionOutcome.INDETERMINATE: Kind.INDETERMINATE,
}


class TransactionState:
    """A transaction: what was acknowledged in it lasts only when it is committed."""

    def __init__(self) -> None:
        self.outcome = TransactionOutcome.OPEN
        self.ended_ns = 0

    def end(self, outcome: TransactionOutcome) -> None:
        """Say what has become of it, now."""
        self.outcome, self.ended_ns = outcome, time.time_ns()


class Publication(Sequence[Happening]):
    """Some events, the attempts to publish them, and what came of each: a history, once it has ended.

    It is filled on the loop's thread and read on others.

    Args:
        events: In the order in which they are published.
        transaction: The transaction that they are part of.

    Attributes:
        most_late: How late an event was sent at most, after it was due.
        when_settled: Called when nothing that was attempted is open any more.
    """

    def __init__(self, events: Sequence[Outgoing], transaction: TransactionState | None = None) -> None:
        self.events = events
        self.transaction = transaction
        self.most_late = timedelta()
        self.when_settled: Callable[[], object] | None = None
        self._ended = threading.Event()
        self._ended_ns = 0
        self._attempted_ns: list[int] = []
        self._settled_ns = [0] * len(events)
        self._results: list[Any] = [None] * len(events)
        self._offsets = [0] * len(events)
        self._open = 0
        self._told: tuple[object, list[Happening]] | None = None

    # On the loop's thread.

    def attempt(self, at_ns: int) -> int:
        """The next event is about to be sent.

        Args:
            at_ns: When it should be, in nanoseconds since 1970.

        Returns:
            Its number.
        """
        self._attempted_ns.append(at_ns)
        self._open += 1
        return len(self._attempted_ns) - 1

    def settle(self, numbers: Sequence[int], future: Future[Any]) -> None:
        """Events that were sent together were acknowledged, or were not.

        Args:
            numbers: Their numbers, in the order of their offsets.
            future: What became of the first, or of their batch.
        """
        now = time.time_ns()
        result: Any = KafkaError("given up") if future.cancelled() else future.exception() or future.result()
        offset = result.offset if isinstance(result, RecordMetadata) else 0
        for place, number in enumerate(numbers):
            self._results[number], self._offsets[number] = result, offset + place
            self._settled_ns[number] = now
        self._close(len(numbers))

    def refuse(self, numbers: Sequence[int], problem: BaseException) -> None:
        """Events could not even be handed to the client."""
        now, result = time.time_ns(), NotSentError(reason(problem))
        for number in numbers:
            self._results[number], self._settled_ns[number] = result, now
        self._close(len(numbers))

    @property
    def is_settled(self) -> bool:
        """Whether nothing that was attempted is open."""
        return not self._open

    def end(self) -> None:
        """Nothing more is sent or waited for; what is open is indeterminate until its answer comes after all."""
        self._ended_ns = self._ended_ns or time.time_ns()
        self._ended.set()

    def _close(self, count: int) -> None:
        self._open -= count
        if not self._open and self.when_settled:
            self.when_settled()

    # On any thread.

    @property
    def has_ended(self) -> bool:
        """Whether nothing more is sent or waited for."""
        return self._ended.is_set()

    def wait(self, within: timedelta) -> bool:
        """Wait until it has ended; whether it has."""
        return self._ended.wait(within.total_seconds())

    @property
    def attempts(self) -> int:
        """How many events were attempted so far."""
        return len(self._attempted_ns)

    @property
    def has_failed(self) -> bool:
        """Whether a broker answered that events failed; its idea of what comes next may be another one then."""
        return any(isinstance(it, BaseException) and not isinstance(it, NotSentError) for it in self._results)

    def count(self, value: Any) -> int:
        """How often something happened: ``count(Kind.ACKNOWLEDGED)``; or how often there is a happening."""
        if isinstance(value, Kind):
            return sum(it.kind is value for it in self._happenings())
        return self._happenings().count(value)

    def outcomes(self) -> list[Happening]:
        """What came of the attempts, without the attempts themselves."""
        return [it for it in self._happenings() if it.kind is not Kind.ATTEMPTED]

    def check(self) -> None:
        """Check that every event was acknowledged.

        Raises:
            NotMetError: Not all were; says how many, and why.
        """
        if self.is_settled and self.attempts == len(self.events) and not self._problems():
            return
        counts = Counter(it.kind for it in self._happenings())
        missing = len(self.events) - sum(isinstance(it, RecordMetadata) for it in self._results)
        parts = [f"{counts[kind]} {kind.value}" for kind in (Kind.REFUSED, Kind.INDETERMINATE) if counts[kind]]
        if unsent := len(self.events) - self.attempts:
            parts.append(f"{unsent} not sent in time")
        reasons = "; ".join(f"{why} ({times} x)" for why, times in self._problems().most_common(MOST_REASONS))
        message = (
            f"{missing} of {len(self.events)} events were not acknowledged: {', '.join(parts)}"
            f"{': ' if reasons else ''}{reasons}."
        )
        raise NotMetError(message)

    def __len__(self) -> int:
        return len(self._happenings())

    def __iter__(self) -> Iterator[Happening]:
        return iter(self._happenings())

    @overload
    def __getitem__(self, place: int) -> Happening: ...
    @overload
    def __getitem__(self, place: slice) -> list[Happening]: ...
    def __getitem__(self, place: int | slice) -> Happening | list[Happening]:
        return self._happenings()[place]

    @property
    def summary(self) -> str:
        """How many events there are, and what came of them: ``3 events, 2 acknowledged, 1 refused``."""
        counts: Counter[Kind | None] = Counter()
        for number in range(self.attempts):
            outcome = self._outcome(number)
            counts[outcome and outcome[0]] += 1
        parts = [f"{count} {kind.value}" for kind, count in counts.items() if kind is not None]
        parts += [f"{counts[None]} open"] if counts[None] else []
        unsent = len(self.events) - self.attempts
        return ", ".join([f"{len(self.events)} events", *parts, *([f"{unsent} not sent"] if unsent else [])])

    def __repr__(self) -> str:
        return self.summary

    def _problems(self) -> Counter[str]:
        problems = Counter(reason(it) for it in self._results if isinstance(it, BaseException))
        if self._open:
            problems["no answer in time"] = self._open
        return problems

    def _happenings(self) -> list[Happening]:
        # Made when asked for: publishing itself must be fast.
        state = (self.has_ended, self.attempts, self._open, self.transaction and self.transaction.outcome)
        if self._told is None or self._told[0] != state:
            self._told = state, list(self._tell())
        return self._told[1]

    def _tell(self) -> Iterator[Happening]:
        for number, at_ns in enumerate(self._attempted_ns):
            event, result = self.events[number], self._results[number]
            written = result is not None and not isinstance(result, BaseException)
            place = place_of(result.topic, result.partition) if written else event.topic
            position = self._offsets[number] if written else None
            name = event.id or (f"{place}@{position}" if written else f"{place} attempt {number + 1}")
            key = None if event.key is None else event.key.decode()
            yield Happening(Kind.ATTEMPTED, name, at_ns, key, event.topic)
            if (outcome := self._outcome(number)) is not None:
                kind, settled_ns = outcome
                yield Happening(kind, name, settled_ns, key, place, position)

    def _outcome(self, number: int) -> tuple[Kind, int] | None:
        result, settled_ns = self._results[number], self._settled_ns[number]
        if result is None:
            return (Kind.INDETERMINATE, self._ended_ns) if self.has_ended else None
        if isinstance(result, BaseException):
            refused = isinstance(result, (NotSentError, *NOT_WRITTEN))
            return Kind.REFUSED if refused else Kind.INDETERMINATE, settled_ns
        if self.transaction is None:
            return Kind.ACKNOWLEDGED, settled_ns
        kind = OUTCOMES[self.transaction.outcome]
        return None if kind is None else (kind, self.transaction.ended_ns)


class NotSentError(KafkaError):  # type: ignore[misc] # aiokafka has no types
    """An event that never left this process."""
