"""Who received which event: the table of document 001, suite 2, compared cell by cell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from testyard.core.errors import UserError
from testyard.stomp.capture import Event

NOBODY = "nobody"


@dataclass(frozen=True)
class Route:
    """One message and who must receive it.

    Attributes:
        action: What happened: ``create``, ``update``, ``username_set``…
        username: The username that the message tells; any when empty.
        receivers: The channels it must reach, each exactly once; it must not reach the others.
    """

    action: str
    username: str
    receivers: tuple[str, ...]

    @classmethod
    def parse(cls, text: str, channels: Iterable[str]) -> Self:
        """Read ``action: channel, channel``, ``action username: channel``, or ``action: nobody``.

        Raises:
            UserError: The text has another form, or names an unknown channel.
        """
        message, colon, names = text.partition(":")
        action, _, username = message.strip().partition(" ")
        receivers = tuple(name.strip() for name in names.split(",") if name.strip())
        if not (action and colon and receivers):
            problem = f"{text!r} is no route; expected 'action username: channel, channel', or 'action: {NOBODY}'."
            raise UserError(problem)
        if receivers == (NOBODY,):
            receivers = ()
        unknown = set(receivers).difference(channels)
        if unknown:
            problem = f"The route {text!r} names unknown channels: {', '.join(sorted(unknown))}."
            raise UserError(problem)
        return cls(action, username.strip(), receivers)

    def matches(self, event: Event) -> bool:
        """Whether an event is this message."""
        told = event.body
        return told.get("action") == self.action and (not self.username or told.get("username") == self.username)

    def __str__(self) -> str:
        return f"{self.action} {self.username}".strip()


@dataclass(frozen=True)
class RoutingTable:
    """What arrived where, by message.

    Attributes:
        routes: The expected messages, in the order they were published.
        arrived: By channel, what arrived there about the subject, oldest first.
    """

    routes: Sequence[Route]
    arrived: Mapping[str, Sequence[Event]]

    @property
    def header(self) -> tuple[str, ...]:
        """The columns' names."""
        return ("message", *self.arrived)

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """One row for each expected message and each unexpected one, with a cell for each channel."""
        expected = [
            (str(route), *(self._cell(route, channel) for channel in self.arrived)) for route in self.routes
        ]
        others = [
            (f"{event.body.get('action')} {event.body.get('username') or ''}", *self._only(channel))
            for channel in self.arrived
            for event in self._unexpected(channel)
        ]
        return expected + others

    @property
    def is_complete(self) -> bool:
        """Whether everything has arrived that must; something may have arrived that must not."""
        return all(self._count(route, channel) for route in self.routes for channel in route.receivers)

    @property
    def mistakes(self) -> list[str]:
        """What differs from the expected table, for people."""
        found = []
        for route in self.routes:
            for channel in self.arrived:
                count, wanted = self._count(route, channel), int(channel in route.receivers)
                if count != wanted:
                    found.append(f"{channel} should have received '{route}' {_times(wanted)}, not {_times(count)}")
        for channel in self.arrived:
            found += [f"{channel} received {event.body} as well" for event in self._unexpected(channel)]
            if self._order(channel) != sorted(self._order(channel)):
                found.append(f"{channel} received the messages in another order")
        return found

    def _cell(self, route: Route, channel: str) -> str:
        count, wanted = self._count(route, channel), int(channel in route.receivers)
        shown = _times(count) if count else "-"
        return shown if count == wanted else f"{shown} (expected {_times(wanted)})"

    def _only(self, channel: str) -> tuple[str, ...]:
        return tuple("not expected" if name == channel else "-" for name in self.arrived)

    def _count(self, route: Route, channel: str) -> int:
        return sum(map(route.matches, self.arrived[channel]))

    def _unexpected(self, channel: str) -> list[Event]:
        return [event for event in self.arrived[channel] if not any(it.matches(event) for it in self.routes)]

    def _order(self, channel: str) -> list[int]:
        return [
            number
            for event in self.arrived[channel]
            for number, route in enumerate(self.routes)
            if route.matches(event)
        ]


def _times(count: int) -> str:
    return {0: "never", 1: "once"}.get(count, f"{count} times")
