"""A replicated database whose members are bare processes, with nothing of a node but the agent."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from subprocess import PIPE
from typing import Any, Self

import psycopg
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from testyard.lab.children import ChildProcess
from testyard.lab.cluster.addresses import Address, PeerAddresses
from testyard.lab.cluster.database.lineage import Lineage
from testyard.lab.cluster.database.manager import ClusterHealth, DatabaseManager, is_complete
from testyard.lab.cluster.database.plan import (
    Accounts,
    Endpoint,
    Fenced,
    MemberPlan,
    MemberStatus,
    Promoted,
    Software,
    new_accounts,
)
from testyard.lab.cluster.database.protocol import ask
from testyard.lab.cluster.database.server import DATA, LOG
from testyard.lab.cluster.database.template import Template, find_software
from testyard.lab.cluster.database.timing import Timings
from testyard.lab.cluster.deployment import Ports
from testyard.lab.cluster.links import MANAGER, Links
from testyard.lab.fork_server.client import ForkServer
from testyard.lab.servers.postgresql import reachable_directory, unprivileged_account

HOST = "127.0.0.1"
MEMBER = "cluster_member"
READY = b"ready\n"
TESTS = Path(__file__).parent
WITHIN = timedelta(seconds=20)


@dataclass(frozen=True)
class Kit:
    """What all clusters of a test run are made from."""

    place: Path
    software: Software
    accounts: Accounts
    template: Template
    forks: ForkServer


@contextmanager
def kit() -> Iterator[Kit]:
    """Make it, and leave nothing behind."""
    place = reachable_directory(unprivileged_account())
    place.mkdir(mode=0o755)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYTHONPATH", str(TESTS), prepend=os.pathsep)
            with ForkServer(MEMBER) as forks:
                software, accounts = find_software(place), new_accounts()
                template = Template(place / "template", software, accounts)
                asyncio.run(template.make())
                yield Kit(place, software, accounts, template, forks)
    finally:
        shutil.rmtree(place)


@dataclass
class BareCluster:
    """A cluster, for the length of a ``with`` statement: its members, the links between them, and the manager."""

    kit: Kit
    size: int = 3
    timings: Timings = field(default_factory=Timings)
    synchronous: bool = True
    managed: bool = True
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.names = tuple(f"n{11 + number}" for number in range(self.size))
        self.processes: dict[str, ChildProcess] = {}
        self.place = self.kit.place / f"cluster-{secrets.token_hex(4)}"
        self._stack = ExitStack()
        self._token = secrets.token_hex(16)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.place.mkdir(mode=0o755)
            stack.callback(shutil.rmtree, self.place)
            ports = {name: stack.enter_context(closing(Ports())) for name in self.names}
            real = {
                name: PeerAddresses(Address(HOST, each.database), Address(HOST, each.agent))
                for name, each in ports.items()
            }
            self.links = stack.enter_context(Links(real))
            self.plans = {name: self._plan(name, ports[name].database, ports[name].agent) for name in self.names}
            self.portal: BlockingPortal = stack.enter_context(start_blocking_portal())
            self.portal.call(self._copy)
            stack.callback(self._end_members)
            for name in self.names:
                self.boot(name, wait=False)
            for name in self.names:
                assert self.heard(name) == READY
            self.manager = self._new_manager()
            if self.managed:
                running = self.portal.start_task_soon(self.manager.run)
                stack.callback(running.cancel)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _plan(self, name: str, port: int, agent_port: int) -> MemberPlan:
        peers = self.links.from_peer(name)
        return MemberPlan(
            name=name,
            members=self.names,
            directory=self.place / name,
            port=port,
            agent_port=agent_port,
            token=self._token,
            peers={peer: Endpoint(each.database.host, each.database.port) for peer, each in peers.items()},
            accounts=self.kit.accounts,
            software=self.kit.software,
            timings=self.timings,
            synchronous=self.synchronous,
        )

    async def _copy(self) -> None:
        await asyncio.gather(*(self.kit.template.copy_to(plan) for plan in self.plans.values()))

    def _new_manager(self) -> DatabaseManager:
        agents = self.links.from_peer(MANAGER)
        began = time.monotonic()
        return DatabaseManager(
            {name: Endpoint(agents[name].agent.host, agents[name].agent.port) for name in self.names},
            self._token,
            self.timings,
            lambda line: self.said.append(f"{time.monotonic() - began:.3f} {line}"),
        )

    # ---- what is done to it

    def boot(self, name: str, *, wait: bool = True) -> None:
        """Start a member's process."""
        process = self.kit.forks.fork(MEMBER, stdin=PIPE, stdout=PIPE)
        assert process.stdin is not None
        process.stdin.write(self.plans[name].model_dump_json().encode() + b"\n")
        process.stdin.flush()
        self.processes[name] = process
        if wait:
            assert self.heard(name) == READY

    def heard(self, name: str) -> bytes:
        """The next line that a member says."""
        pipe = self.processes[name].stdout
        assert pipe is not None
        return pipe.readline()

    def kill(self, name: str) -> None:
        """Kill a member's process, and leave the rest to its watchdog."""
        self.processes[name].kill()
        self._closed(name)

    def shut_down(self, name: str) -> None:
        """Shut a member down in an orderly way."""
        process = self.processes[name]
        assert process.stdin is not None
        process.stdin.close()
        self._closed(name)

    def _closed(self, name: str) -> None:
        process = self.processes.pop(name)
        process.wait(WITHIN.total_seconds())
        for pipe in (process.stdin, process.stdout):
            if pipe:
                pipe.close()

    def service(self, name: str, command: str) -> None:
        """Start or stop a member's database service; its agent lives on."""
        pipe = self.processes[name].stdin
        assert pipe is not None
        pipe.write(f"{command}\n".encode())
        pipe.flush()
        assert self.heard(name) == b"done\n"

    def _end_members(self) -> None:
        for process in self.processes.values():
            assert process.stdin is not None
            process.stdin.close()
        for name in list(self.processes):
            self._closed(name)

    def silence(self, name: str, *, hears: bool = False, is_heard: bool = False) -> None:
        """Cut a node off from every other and from the manager, in one direction or in both."""
        for peer in (*self.names, MANAGER):
            if peer != name:
                self.links.set_silent(peer, name, silent=not hears)
                self.links.set_silent(name, peer, silent=not is_heard)

    def heal(self) -> None:
        """Let everybody hear everybody."""
        for state in self.links.states():
            if state.silent:
                self.links.set_silent(state.source, state.target, silent=False)

    def restore(self) -> str:
        """Heal and boot what a test has left otherwise; gives the primary's name."""
        self.heal()
        for name in self.names:
            if name not in self.processes:
                self.boot(name)
        return self.until_complete()

    def fence(self, name: str, term: int) -> Fenced:
        """Fence a member as a manager does."""
        return Fenced.model_validate(self.ask(name, "fence", term=term))

    def elect(self, name: str, term: int, *followers: str) -> Lineage:
        """Make a member the primary of a term, and others follow it, as a manager does."""
        for each in (name, *followers):
            self.fence(each, term)
        lineage = Promoted.model_validate(self.ask(name, "promote", term=term)).lineage
        for each in followers:
            self.follow(each, name, term, lineage)
        return lineage

    def follow(self, name: str, primary: str, term: int, lineage: Lineage, oldest: int = 0) -> None:
        """Make a member follow another as a manager does."""
        self.ask(name, "follow", term=term, primary=primary, lineage=lineage, oldest=oldest)

    # ---- what is seen of it

    @property
    def health(self) -> ClusterHealth:
        """What the manager says."""
        return self.portal.call(lambda: self.manager.health)

    def until(self, holds: Callable[[ClusterHealth], bool], within: timedelta = WITHIN) -> ClusterHealth:
        """Wait until the manager says what is wanted."""
        try:
            return self.portal.call(self.manager.until, holds, within)
        except TimeoutError:
            message = f"{self.health}\n" + "\n".join(self.said)
            raise AssertionError(message) from None

    def until_complete(self, within: timedelta = WITHIN) -> str:
        """Wait until there is a primary and all others stream from it; gives its name."""
        primary = self.until(is_complete, within).primary
        assert primary is not None
        return primary

    def ask(self, name: str, command: str, within: timedelta = WITHIN, **content: Any) -> Mapping[str, Any]:
        """Ask an agent, past the links."""
        endpoint = Endpoint(HOST, self.plans[name].agent_port)
        return asyncio.run(ask(endpoint, self._token, within, command, **content))

    def status(self, name: str) -> MemberStatus:
        """What an agent says of itself, past the links."""
        return MemberStatus.model_validate(self.ask(name, "status"))

    def connected(self, name: str, *, superuser: bool = False) -> psycopg.Connection[tuple[Any, ...]]:
        """A connection with one member, whatever it is."""
        accounts = self.kit.accounts
        who = {"user": accounts.superuser, "password": accounts.superuser_password} if superuser else {}
        return psycopg.connect(self.conninfo(name, writing=False), autocommit=True, **who)

    def log(self, name: str) -> str:
        """What a member's PostgreSQL has logged, and the tools that it was rejoined with."""
        return (self.plans[name].directory / LOG).read_text(encoding="utf-8", errors="replace")

    def postmaster(self, name: str) -> tuple[int, int]:
        """The process id and the shared memory of a member's PostgreSQL."""
        lines = (self.plans[name].directory / DATA / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        return int(lines[0]), int(lines[6].split()[1])

    def conninfo(self, *names: str, writing: bool = True) -> str:
        """How a client reaches the primary among some members, by default among all."""
        ports = [str(self.plans[name].port) for name in names or self.names]
        accounts = self.kit.accounts
        return psycopg.conninfo.make_conninfo(
            host=",".join(HOST for _ in ports),
            port=",".join(ports),
            user=accounts.user,
            password=accounts.password,
            dbname=accounts.database,
            target_session_attrs="read-write" if writing else "any",
        )
