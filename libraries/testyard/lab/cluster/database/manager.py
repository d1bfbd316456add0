"""The cluster's manager: polls every member, elects a primary, hands out its lease, makes the others follow.

It runs once per cluster, in the datacentre's process, and ends with it, so that terms need to increase only while
it lives; it learns from the members which ones were used before. What it may reach, it reaches through links that
can be silent in either direction: so each call has a deadline, and each member a poll of its own that waits for
no other.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, NamedTuple

from testyard.lab.cluster.database.election import chosen, majority_of
from testyard.lab.cluster.database.lineage import Lineage
from testyard.lab.cluster.database.plan import Endpoint, Fenced, MemberStatus, Promoted, Role
from testyard.lab.cluster.database.protocol import AbsentError, RefusedError, SilentError, ask
from testyard.lab.cluster.database.timing import Timings, elapse, happens

# How much longer an election waits for the other members when a majority has answered.
GRACE = timedelta(milliseconds=150)
# What was refused, or got no answer, is tried again after this time.
AGAIN = timedelta(milliseconds=200)


class MemberHealth(NamedTuple):
    """How a member is, for people and checks.

    Attributes:
        role: ``primary``, ``standby``, ``stopped``, ...; ``unreachable`` when the manager gets no answer.
        accepts_connections: Whether its PostgreSQL answers queries.
        lag: How many bytes of WAL it is behind the primary; None when that cannot be told.
        streaming: Whether it receives from the primary.
        problem: What keeps it from rejoining, or empty.
    """

    role: str
    accepts_connections: bool
    lag: int | None
    streaming: bool
    problem: str


class ClusterHealth(NamedTuple):
    """How the cluster is.

    Attributes:
        primary: The member that takes writes; None when nobody does.
        term: Of the last election.
        members: By name.
    """

    primary: str | None
    term: int
    members: Mapping[str, MemberHealth]


class DatabaseManager:
    """The manager of one cluster.

    Args:
        members: Where it reaches each member's agent.
        token: What the agents know it by.
        timings: How long things may take.
        tell: Is given a line for each thing that it does, for a log.

    Example:
        >>> manager = DatabaseManager(agents, token)                # doctest: +SKIP
        >>> task = asyncio.create_task(manager.run())
        >>> await manager.until_ready(timedelta(seconds=5))
    """

    def __init__(
        self,
        members: Mapping[str, Endpoint],
        token: str,
        timings: Timings | None = None,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self._members = dict(members)
        self._token = token
        self._timings = timings or Timings()
        self._tell = tell or (lambda _: None)
        self._term = 0
        self._primary: str | None = None
        self._lineage: Lineage = ()
        self._last_healthy = 0.0
        self._last_replicated = 0.0
        self._last_seen: dict[str, tuple[float, MemberStatus]] = {}
        self._refusals: Counter[str] = Counter()
        self._news = asyncio.Event()
        self._busy: set[str] = set()

    @property
    def primary(self) -> str | None:
        """The member that takes writes now, as far as the manager knows."""
        seen = self._alive().get(self._primary or "")
        return self._primary if seen and self._is_healthy(seen) and self._has_majority() else None

    @property
    def health(self) -> ClusterHealth:
        """How the cluster is now."""
        alive = self._alive()
        ahead = alive.get(self._primary or "")
        end = ahead.position if ahead else None
        return ClusterHealth(
            primary=self.primary,
            term=self._term,
            members={
                name: MemberHealth(
                    role=alive[name].role.value,
                    accepts_connections=alive[name].accepts_connections,
                    lag=_lag(end, alive[name].position),
                    streaming=alive[name].streaming,
                    problem=alive[name].problem,
                )
                if name in alive
                else MemberHealth("unreachable", False, None, False, "")
                for name in self._members
            },
        )

    async def until(self, holds: Callable[[ClusterHealth], bool], within: timedelta) -> ClusterHealth:
        """Wait until the cluster's health is as wanted.

        Raises:
            TimeoutError: It was not in time.
        """
        async with asyncio.timeout(within.total_seconds()):
            while not holds(health := self.health):
                await self._next_news()
        return health

    async def until_ready(self, within: timedelta) -> ClusterHealth:
        """Wait until there is a primary, and every member streams from it.

        Raises:
            TimeoutError: It was not so in time.
        """
        return await self.until(is_complete, within)

    async def run(self) -> None:
        """Manage the cluster until this task is cancelled."""
        async with asyncio.TaskGroup() as group:
            for name in self._members:
                group.create_task(self._poll(name))
            while True:
                await self._manage(group)
                await happens(self._news, self._timings.heartbeat.total_seconds())
                self._news.clear()

    # ---- what it knows

    async def _poll(self, name: str) -> None:
        """Ask a member for its status again and again; for the primary, that renews its lease."""
        while True:
            asked = time.monotonic()
            before = self._last_seen.get(name)
            lease = None
            if before and name == self._primary and self._has_majority():
                lease = {"term": self._term, "clock": before[1].clock}
            try:
                answer = await self._ask(name, self._timings.call, "status", lease=lease)
            except AbsentError:
                self._refusals[name] += 1
                if self._refusals[name] == self._timings.refusals:
                    self._announce()
            except (SilentError, RefusedError):
                pass
            else:
                status = MemberStatus.model_validate(answer)
                self._last_seen[name] = (asked, status)
                self._refusals[name] = 0
                if before is None or _gist(before[1]) != _gist(status):
                    self._announce()
            rest = self._timings.heartbeat.total_seconds() - (time.monotonic() - asked)
            await elapse(max(rest, 0.0))

    async def _ask(self, name: str, within: timedelta, command: str, **content: Any) -> dict[str, Any]:
        return await ask(self._members[name], self._token, within, command, **content)

    def _announce(self) -> None:
        self._news.set()

    def _alive(self) -> dict[str, MemberStatus]:
        """The members that have answered lately."""
        since = time.monotonic() - self._timings.detection.total_seconds()
        return {
            name: status
            for name, (asked, status) in self._last_seen.items()
            if asked >= since and not self._has_ended(name)
        }

    def _has_ended(self, name: str) -> bool:
        return self._refusals[name] >= self._timings.refusals

    def _has_majority(self) -> bool:
        """Whether a majority of members can be reached, with a database that runs."""
        running = [each for each in self._alive().values() if each.role in {Role.STANDBY, Role.PRIMARY}]
        return len(running) >= majority_of(len(self._members))

    def _is_healthy(self, primary: MemberStatus) -> bool:
        return primary.role is Role.PRIMARY and primary.term == self._term and primary.accepts_connections

    # ---- what it does

    async def _manage(self, group: asyncio.TaskGroup) -> None:
        alive = self._alive()
        now = time.monotonic()
        primary = alive.get(self._primary or "")
        if primary and self._is_healthy(primary):
            self._last_healthy = now
            self._let_others_follow(group, primary, alive)
            if self._is_isolated(alive, now) and self._has_majority():
                await self._elect(alive, without=self._primary)
            return
        is_lost = (
            self._primary is None
            or self._has_ended(self._primary)
            or (primary is not None and primary.role is not Role.PRIMARY)
            or now - self._last_healthy > self._timings.detection.total_seconds()
        )
        if is_lost and self._has_majority():
            await self._elect(alive)
            if self._primary is None:
                await elapse(AGAIN.total_seconds())

    def _let_others_follow(
        self, group: asyncio.TaskGroup, primary: MemberStatus, alive: Mapping[str, MemberStatus]
    ) -> None:
        for name, status in alive.items():
            follows = status.follows == primary.name and status.follows_term == self._term
            runs = status.role in {Role.STANDBY, Role.PRIMARY, Role.REJOINING}
            if name != primary.name and runs and not follows and name not in self._busy:
                self._busy.add(name)
                group.create_task(self._let_follow(name, primary))

    async def _let_follow(self, name: str, primary: MemberStatus) -> None:
        try:
            await self._ask(
                name,
                self._timings.command,
                "follow",
                term=self._term,
                primary=primary.name,
                lineage=self._lineage,
                oldest=primary.oldest,
            )
            self._tell(f"{name} follows {primary.name}")
        except (SilentError, RefusedError) as problem:
            self._tell(f"{name} does not follow {primary.name}: {problem}")
            await elapse(AGAIN.total_seconds())
        else:
            await self._look_at(name)
        finally:
            self._busy.discard(name)

    def _is_isolated(self, alive: Mapping[str, MemberStatus], now: float) -> bool:
        """Whether the primary has lacked standbys for some time, though there are enough to do without it."""
        others = [each for name, each in alive.items() if name != self._primary and each.role is Role.STANDBY]
        needed = len(self._members) // 2
        if sum(each.streaming for each in others) >= needed or len(others) < majority_of(len(self._members)):
            self._last_replicated = now
        return now - self._last_replicated > self._timings.isolation.total_seconds()

    async def _elect(self, alive: Mapping[str, MemberStatus], without: str | None = None) -> None:
        """Fence a majority, promote the one of it that has come farthest.

        Args:
            alive: The members that can be reached.
            without: The member that is not to be elected again.
        """
        self._primary = None
        self._term = term = max(self._term, *(status.term for status in alive.values())) + 1
        self._tell(f"election of term {term} among {', '.join(alive)}")
        fenced = await self._fenced(list(alive), term)
        best = chosen(fenced, len(self._members), without=without)
        if best is None:
            self._tell(f"no majority in term {term}: {', '.join(each.name for each in fenced) or 'nobody'}")
            return
        try:
            answer = await self._ask(best, self._timings.command, "promote", term=term)
        except (SilentError, RefusedError) as problem:
            self._tell(f"{best} was not promoted in term {term}: {problem}")
            return
        self._lineage = Promoted.model_validate(answer).lineage
        self._primary = best
        self._last_healthy = self._last_replicated = time.monotonic()
        self._tell(f"{best} is the primary of term {term}")
        await self._look_at(best)

    async def _look_at(self, name: str) -> None:
        """Poll a member now, so that what it has become is known."""
        asked = time.monotonic()
        try:
            answer = await self._ask(name, self._timings.call, "status", lease=None)
        except (SilentError, RefusedError):
            return
        self._last_seen[name] = (asked, MemberStatus.model_validate(answer))
        self._announce()

    async def _fenced(self, names: list[str], term: int) -> list[Fenced]:
        """Fence these members; those that have a position to offer, when all have answered or enough have."""
        tasks = {asyncio.create_task(self._fence(name, term)) for name in names}
        done: set[asyncio.Task[Fenced | None]] = set()
        patience: float | None = None
        try:
            while tasks - done:
                finished, _ = await asyncio.wait(
                    tasks - done, timeout=patience, return_when=asyncio.FIRST_COMPLETED
                )
                done |= finished
                if not finished:
                    break
                if len(_offers(done)) >= majority_of(len(self._members)):
                    patience = GRACE.total_seconds()
        finally:
            for task in tasks - done:
                task.cancel()
        return _offers(done)

    async def _fence(self, name: str, term: int) -> Fenced | None:
        try:
            answer = await self._ask(name, self._timings.command, "fence", term=term)
        except RefusedError as refusal:
            self._term = max(self._term, refusal.term)
            return None
        except SilentError:
            return None
        return Fenced.model_validate(answer)

    async def _next_news(self) -> None:
        await elapse(self._timings.heartbeat.total_seconds() / 4)


def is_complete(health: ClusterHealth) -> bool:
    """Whether there is a primary, and every other member streams from it."""
    others = [member for name, member in health.members.items() if name != health.primary]
    return health.primary is not None and all(each.accepts_connections and each.streaming for each in others)


def _offers(tasks: set[asyncio.Task[Fenced | None]]) -> list[Fenced]:
    answers = [task.result() for task in tasks]
    return [each for each in answers if each is not None and each.position is not None]


def _gist(status: MemberStatus) -> tuple[Any, ...]:
    """What of a status is worth acting on at once."""
    return (status.role, status.term, status.accepts_connections, status.follows, status.streaming)


def _lag(end: int | None, position: int | None) -> int | None:
    return None if end is None or position is None else max(end - position, 0)
