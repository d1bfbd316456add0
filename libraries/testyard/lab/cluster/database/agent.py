"""A member's agent: runs the node's PostgreSQL, and does what the cluster's manager asks, unless that is stale.

A PostgreSQL always starts as a standby that receives from nobody. It becomes the primary by ``promote`` only, and
stops to be it by ``fence``, by ``follow``, by the end of its lease, or by its own end.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from testyard.core.deadline import Deadline
from testyard.lab.cluster.database.lineage import (
    UNKNOWN_TIMELINE,
    Kinship,
    Lineage,
    Promotion,
    held,
    kinship,
    resolved,
)
from testyard.lab.cluster.database.memory import recall, remember
from testyard.lab.cluster.database.plan import Endpoint, Fenced, MemberPlan, MemberStatus, Promoted, Role
from testyard.lab.cluster.database.protocol import AgentServer, RefusedError
from testyard.lab.cluster.database.queries import Queries, QueryError, State
from testyard.lab.cluster.database.relay import Relay
from testyard.lab.cluster.database.server import DatabaseError, Server
from testyard.lab.cluster.database.timing import elapse

LOOK_SECONDS = 0.004
RESTART_SECONDS = 0.2
# After so many connections that did not last, some seconds, a primary will not have the WAL that is missing.
REJECTIONS = 10
# What libpq says, and so pg_rewind, when there is no connection yet (PostgreSQL, fe-connect.c).
NOT_CONNECTED = "connection to server"


class Agent:
    """One member of the cluster, in its node's process.

    ``open`` and ``close`` are the machine's boot and shutdown, ``start`` and ``stop`` the database service's.

    Args:
        plan: What the member knows.
        inherited: Descriptors that PostgreSQL's processes are to hold open, such as the node's lifeline.

    Example:
        >>> agent = Agent(plan)                                     # doctest: +SKIP
        >>> await agent.open(); await agent.start()
    """

    def __init__(self, plan: MemberPlan, inherited: tuple[int, ...] = ()) -> None:
        self._plan = plan
        self._memory = recall(plan.directory)
        self._server = Server(plan, inherited)
        self._relay = Relay()
        self._queries = Queries(plan)
        self._interface = AgentServer(plan.token, self._handle)
        self._role = Role.STOPPED
        self._follows: str | None = None
        self._follows_term = 0
        self._lease_ends = 0.0
        self._lease_changed = asyncio.Event()
        # One change of the server at a time; the manager's questions do not wait for it.
        self._changing = asyncio.Lock()
        self._guard: asyncio.Task[None] | None = None
        self._rejoin: asyncio.Task[None] | None = None
        self._problem = ""
        self.port = 0

    @property
    def role(self) -> Role:
        """What its PostgreSQL does now."""
        return self._role

    async def open(self) -> None:
        """Listen for the manager.

        Raises:
            OSError: The port is taken.
            DatabaseError: The watchdog did not start.
        """
        await asyncio.gather(self._server.watch(), self._relay.open(self._plan.host))
        self.port = await self._interface.open(self._plan.host, self._plan.agent_port)

    async def start(self) -> None:
        """Start the database service; nothing when it runs.

        Raises:
            DatabaseError: PostgreSQL did not start.
        """
        async with self._changing:
            if self._guard is not None:
                return
            await self._start_server()
            self._guard = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        """Stop the database service in an orderly way; safe to call again."""
        guard, self._guard = self._guard, None
        for task in (guard, self._rejoin):
            if task is not None:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
        async with self._changing:
            await self._stop_server(orderly=True)

    async def close(self) -> None:
        """Stop everything; safe to call again."""
        await self._interface.close()
        await self.stop()
        await self._relay.close()
        await self._server.unwatch()

    # ---- what the manager asks

    async def _handle(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        match request["command"]:
            case "status":
                self._renew(request.get("lease"))
                return (await self.status()).model_dump(mode="json")
            case "fence":
                return (await self.fence(request["term"])).model_dump(mode="json")
            case "promote":
                return (await self.promote(request["term"])).model_dump(mode="json")
            case "follow":
                lineage = tuple(Promotion(*each) for each in request["lineage"])
                await self.follow(request["term"], request["primary"], lineage, request["oldest"])
                return {}
            case unknown:
                message = f"there is no command {unknown!r}"
                raise RefusedError(message)

    async def status(self) -> MemberStatus:
        """What there is to say of this member."""
        state: State | None = None
        if self._role in {Role.STANDBY, Role.PRIMARY}:
            with suppress(QueryError):
                state = await self._queries.state(self._plan.timings.call / 2)
        self._copy_if_rejected(state)
        lineage = held(self._memory.lineage, state.position) if state else self._memory.lineage
        return MemberStatus(
            name=self._plan.name,
            role=self._role,
            term=self._memory.term,
            accepts_connections=state is not None,
            position=state.position if state else None,
            oldest=self._server.oldest_position() if self._role is Role.PRIMARY else 0,
            timeline=lineage[-1].timeline if lineage else UNKNOWN_TIMELINE,
            lineage=lineage,
            follows=self._follows if self._is_following() else None,
            follows_term=self._follows_term,
            streaming=state is not None and state.streaming,
            clock=time.monotonic(),
            problem=self._problem,
        )

    async def fence(self, term: int) -> Fenced:
        """Receive nothing more from anybody, and be no primary, until a command of this term or a later one.

        Args:
            term: Of the election.

        Returns:
            How far this member has come, after it has replayed all that it had received.

        Raises:
            RefusedError: It has promised that for this term or a later one already.
        """
        if term <= self._memory.term:
            message = f"{self._plan.name} knows term {self._memory.term}"
            raise RefusedError(message, self._memory.term)
        self._detach()
        self._learn(term=term)
        async with self._changing:
            await self._demote()
            position = await self._settled_position()
        lineage = self._memory.lineage if position is None else held(self._memory.lineage, position)
        return Fenced(name=self._plan.name, position=position, lineage=lineage)

    async def promote(self, term: int) -> Promoted:
        """Become the primary, for the time of a lease.

        Args:
            term: Of the election for which this member was fenced.

        Returns:
            Its promotions.

        Raises:
            RefusedError: It knows another term, or its database is not ready.
        """
        async with self._changing:
            self._require(term, exactly=True)
            if self._role is Role.PRIMARY:
                return Promoted(name=self._plan.name, lineage=self._memory.lineage)
            position = await self._settled_position()
            if position is None or self._relay.target is not None:
                message = f"{self._plan.name} cannot be promoted: it is {self._role}"
                raise RefusedError(message, self._memory.term)
            ancestors = held(self._memory.lineage, position)
            await self._forget_timelines(after=ancestors, known=())
            # Remembered before it happens: whatever happens now, its WAL is not taken for an earlier term's.
            self._learn(lineage=(*ancestors, Promotion(term, UNKNOWN_TIMELINE, position)))
            timeline = await self._promote_server()
            self._learn(lineage=(*ancestors, Promotion(term, timeline, position)))
            self._role = Role.PRIMARY
            self._follows = None
            self._lease_ends = time.monotonic() + self._plan.timings.lease.total_seconds()
            self._lease_changed.set()
            return Promoted(name=self._plan.name, lineage=self._memory.lineage)

    async def follow(self, term: int, primary: str, lineage: Lineage, oldest: int) -> None:
        """Receive from a primary; where this member's WAL has parted from its, that is put right first.

        Args:
            term: In which the primary was elected.
            primary: Its name.
            lineage: Its promotions.
            oldest: Where the WAL begins that it still has.

        Raises:
            RefusedError: This member knows a later term.
        """
        self._require(term)
        self._learn(term=term)
        if self._is_following() and (self._follows, self._follows_term) == (primary, term):
            return
        self._detach()
        async with self._changing:
            self._require(term)
            await self._demote()
            position = await self._settled_position()
            if position is None:
                way = Kinship.COPY if self._memory.incomplete else None
            else:
                way = kinship(self._memory.lineage, position, lineage, oldest)
            match way:
                case Kinship.STREAM:
                    assert position is not None
                    await self._forget_timelines(after=held(self._memory.lineage, position), known=lineage)
                    self._attach(term, primary, lineage)
                case Kinship.REWIND | Kinship.COPY:
                    self._follows, self._follows_term = primary, term
                    self._rejoin = asyncio.create_task(self._replace_data(term, primary, lineage, way))
                case None:
                    message = f"{self._plan.name} cannot follow: it is {self._role}"
                    raise RefusedError(message, self._memory.term)

    # ---- how it is done

    def _require(self, term: int, *, exactly: bool = False) -> None:
        if term < self._memory.term or (exactly and term != self._memory.term):
            message = f"{self._plan.name} knows term {self._memory.term}"
            raise RefusedError(message, self._memory.term)

    def _learn(self, **news: Any) -> None:
        """Keep what is new, on the disk first."""
        memory = self._memory.model_copy(update=news)
        if memory != self._memory:
            remember(self._plan.directory, memory)
            self._memory = memory

    def _attach(self, term: int, primary: str, lineage: Lineage) -> None:
        self._learn(lineage=lineage)
        self._follows, self._follows_term = primary, term
        self._problem = ""
        self._relay.attach(self._plan.peers[primary])

    def _is_following(self) -> bool:
        """Whether it need not be told again whom to follow, as is so when the connection was lost."""
        is_attached = self._role is not Role.STANDBY or self._relay.target is not None
        return self._follows is not None and is_attached

    def _detach(self) -> None:
        self._relay.detach()
        self._follows = None
        if self._rejoin is not None:
            self._rejoin.cancel()

    async def _start_server(self) -> None:
        if self._memory.incomplete:
            self._role = Role.REJOINING
            return
        self._learn(lineage=resolved(self._memory.lineage, self._server.histories()))
        self._role = Role.STARTING
        try:
            await self._server.start_as_standby(self._relay)
        except BaseException:
            self._role = Role.STOPPED
            raise
        self._role = Role.STANDBY

    async def _stop_server(self, *, orderly: bool) -> None:
        self._role = Role.STOPPED
        self._lease_ends = 0.0
        await self._queries.close()
        await (self._server.stop() if orderly else self._server.abort())
        self._relay.drop()

    async def _demote(self) -> None:
        """Restart a primary as a standby. Aborted: an orderly shutdown waits for standbys that may be silent."""
        if self._role is Role.PRIMARY:
            await self._stop_server(orderly=False)
            with suppress(DatabaseError):
                await self._start_server()

    async def _settled_position(self) -> int | None:
        """Where the WAL of a detached standby ends; None when there is no such standby."""
        deadline = Deadline(self._plan.timings.settling)
        while self._role is Role.STANDBY and not self._memory.incomplete and not deadline.expired:
            if not await self._relay.is_holding(deadline.remaining.total_seconds()):
                return None
            with suppress(QueryError):
                state = await self._queries.state(self._plan.timings.call)
                if state.recovering and state.replayed is not None:
                    return state.replayed
            await elapse(LOOK_SECONDS)
        return None

    async def _promote_server(self) -> int:
        """Let the standby become a primary; gives its new timeline."""
        timings = self._plan.timings
        deadline = Deadline(timings.command)
        try:
            await self._queries.row("SELECT pg_promote(false)", timings.call)
            while (timeline := (await self._queries.state(timings.call)).timeline) is None:
                if deadline.expired:
                    message = "it was not promoted in time"
                    raise QueryError(message)
                await elapse(LOOK_SECONDS)
        except QueryError as problem:
            # It may become a primary later, which nobody would know.
            await self._stop_server(orderly=False)
            await self._start_server()
            message = f"{self._plan.name} cannot be promoted: {problem}"
            raise RefusedError(message, self._memory.term) from None
        return timeline

    async def _forget_timelines(self, *, after: Lineage, known: Lineage) -> None:
        """Forget history files of timelines that this member has nothing of and that were another primary's.

        A standby fetches them before the WAL, and when it is restarted, promoted, or follows somebody else, it
        takes them for its own future.
        """
        own = after[-1].timeline
        right = {(each.timeline, each.position) for each in known}
        wrong = [
            path
            for timeline, (position, path) in self._server.histories().items()
            if timeline > own and (timeline, position) not in right
        ]
        if wrong:
            await self._stop_server(orderly=True)
            for path in wrong:
                path.unlink(missing_ok=True)
            await self._start_server()
            await self._settled_position()

    async def _replace_data(self, term: int, primary: str, lineage: Lineage, way: Kinship) -> None:
        """Rewind this member's data, or copy the primary's when that cannot be done.

        From when its own data begin to be replaced until it accepts connections, with all that the primary had
        written by then, the member has no position, so that it counts for nothing in an election; and what is
        interrupted is done again, as a copy.
        """
        source = self._plan.peers[primary]
        async with self._changing:
            await self._stop_server(orderly=True)
            self._role = Role.REJOINING
            try:
                async with asyncio.timeout(self._plan.timings.rejoin.total_seconds()):
                    if way is Kinship.COPY or self._memory.incomplete or not await self._rewound(source):
                        await self._server.copy(source)
                        self._learn(incomplete=True)
                        await self._server.adopt_copy()
                    self._require(term)
                    self._attach(term, primary, lineage)
                    await self._server.start_as_standby(self._relay)
                    await self._until_accepting(primary)
                self._learn(incomplete=False)
                self._role = Role.STANDBY
            except (DatabaseError, RefusedError, OSError) as problem:  # TimeoutError is an OSError
                self._problem = str(problem) or f"{way.value} took too long"
                await elapse(RESTART_SECONDS)
            finally:
                if self._role is not Role.STANDBY:
                    self._relay.detach()
                    self._follows = None
                    await self._stop_server(orderly=False)
                    with suppress(DatabaseError):
                        await self._start_server()

    async def _rewound(self, source: Endpoint) -> bool:
        self._learn(incomplete=True)
        try:
            await self._server.rewind(source)
        except DatabaseError as problem:
            if NOT_CONNECTED in str(problem):
                self._learn(incomplete=False)  # it connects before it touches anything
                raise
            self._problem = str(problem)
            return False
        return True

    def _copy_if_rejected(self, state: State | None) -> None:
        """Copy the primary's data when it lets this member connect, but never receive: some WAL is gone."""
        rejected = state is not None and not state.streaming and self._relay.rejections >= REJECTIONS
        if rejected and self._follows and not self._changing.locked():
            self._relay.rejections = 0
            self._rejoin = asyncio.create_task(
                self._replace_data(self._follows_term, self._follows, self._memory.lineage, Kinship.COPY)
            )

    async def _until_accepting(self, primary: str) -> None:
        while True:
            with suppress(QueryError):
                await self._queries.state(self._plan.timings.call)
                return
            if self._relay.target is None:
                message = f"the connection with {primary} was lost"
                raise DatabaseError(message)
            await elapse(LOOK_SECONDS)

    # ---- what it does by itself

    def _renew(self, lease: Mapping[str, Any] | None) -> None:
        """Prolong the lease, counted from when this agent said what the manager answers to."""
        if lease and self._role is Role.PRIMARY and lease["term"] == self._memory.term:
            ends = lease["clock"] + self._plan.timings.lease.total_seconds()
            self._lease_ends = max(self._lease_ends, ends)

    async def _keep(self) -> None:
        """Watch over the lease and the server for as long as the service is to run."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_lease())
            group.create_task(self._keep_running())

    async def _keep_lease(self) -> None:
        while True:
            remaining = self._lease_ends - time.monotonic()
            if self._role is not Role.PRIMARY:
                self._lease_changed.clear()
                await self._lease_changed.wait()
            elif remaining > 0:
                await elapse(remaining)
            else:
                async with self._changing:
                    if self._lease_ends <= time.monotonic():
                        await self._demote()

    async def _keep_running(self) -> None:
        """Start a server again that has ended by itself; a primary comes back as a standby."""
        while True:
            process = self._server.process
            if process is not None:
                await process.wait()
            async with self._changing:
                ended = self._server.process
                if ended is not None and ended.returncode is not None:
                    await self._server.wait()
                    await self._stop_server(orderly=False)
                if self._server.process is None and not self._memory.incomplete:
                    with suppress(DatabaseError):
                        await self._start_server()
            if self._server.process is None or process is None:
                await elapse(RESTART_SECONDS)
