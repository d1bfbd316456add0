"""The parts of the replicated database that need no PostgreSQL: lineages, elections, the protocol, the relay."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cluster_writer import Comparison, compare
from testyard.lab.cluster.database import template
from testyard.lab.cluster.database.election import chosen, majority_of
from testyard.lab.cluster.database.lineage import (
    ORIGIN,
    UNKNOWN_TIMELINE,
    Kinship,
    Lineage,
    Promotion,
    held,
    kinship,
    parse_position,
    rank,
    resolved,
)
from testyard.lab.cluster.database.memory import Memory, recall, remember
from testyard.lab.cluster.database.plan import Endpoint, Fenced, new_accounts
from testyard.lab.cluster.database.protocol import AbsentError, AgentServer, RefusedError, SilentError, ask
from testyard.lab.cluster.database.relay import Relay
from testyard.lab.cluster.database.template import synchronous_standby_names
from testyard.lab.servers.postgresql import reachable_directory, unprivileged_account

HOST = "127.0.0.1"
SOON = timedelta(seconds=5)
TOKEN = "a-token-of-the-tests"

FIRST = (*ORIGIN, Promotion(1, 2, 100))
SECOND = (*FIRST, Promotion(2, 3, 200))
# Somebody else who was promoted from timeline 1, to the same timeline id.
NAMESAKE = (*ORIGIN, Promotion(3, 2, 100))

pytestmark = pytest.mark.anyio


# ---- lineages


def test_a_position_is_a_number_of_bytes() -> None:
    assert parse_position("1/0") - parse_position("0/FFFFFFFF") == 1


def test_a_promotion_counts_from_its_first_byte_of_wal() -> None:
    assert held(SECOND, 200) == FIRST
    assert held(SECOND, 201) == SECOND
    assert rank(SECOND, 200) == (1, 200)
    assert rank(SECOND, 201) == (2, 201)


@pytest.mark.parametrize(
    ("own", "position", "primary", "way"),
    [
        (ORIGIN, 50, FIRST, Kinship.STREAM),
        (ORIGIN, 100, FIRST, Kinship.STREAM),
        (ORIGIN, 101, FIRST, Kinship.REWIND),
        (FIRST, 150, FIRST, Kinship.STREAM),
        (FIRST, 200, SECOND, Kinship.STREAM),
        (FIRST, 201, SECOND, Kinship.REWIND),
        (ORIGIN, 150, SECOND, Kinship.REWIND),
        # Fenced for a promotion that it has nothing of, it follows whoever was promoted instead.
        (FIRST, 100, NAMESAKE, Kinship.STREAM),
        (FIRST, 101, NAMESAKE, Kinship.COPY),
        ((*ORIGIN, Promotion(1, 0, 100)), 101, SECOND, Kinship.COPY),
        ((Promotion(0, 1, 0),), 10, (Promotion(9, 1, 0),), Kinship.COPY),
    ],
)
def test_how_a_member_follows(own: Lineage, position: int, primary: Lineage, way: Kinship) -> None:
    assert kinship(own, position, primary) is way


INTERRUPTED = (*ORIGIN, Promotion(3, 2, 500), Promotion(4, UNKNOWN_TIMELINE, 900))


@pytest.mark.parametrize(
    ("timelines", "last"),
    [
        ([2, 3], Promotion(4, 3, 900)),
        ([2], Promotion(3, 2, 500)),
    ],
)
def test_an_interrupted_promotion_has_happened_when_its_history_file_is_there(
    timelines: list[int], last: Promotion
) -> None:
    assert resolved(INTERRUPTED, timelines)[-1] == last
    assert resolved((*ORIGIN, last), [2, 3, 4])[-1] == last


def test_a_member_is_copied_when_the_wal_in_between_is_gone() -> None:
    assert kinship(ORIGIN, 50, FIRST, oldest=50) is Kinship.STREAM
    assert kinship(ORIGIN, 50, FIRST, oldest=51) is Kinship.COPY


# ---- elections


@pytest.mark.parametrize("members", range(1, 8))
def test_any_majority_has_a_member_that_has_each_commit(members: int) -> None:
    acknowledged_by = members // 2 + 1  # the primary and those of ANY
    assert majority_of(members) + acknowledged_by > members


@pytest.mark.parametrize(
    ("members", "setting"),
    [
        (1, ""),
        (2, 'ANY 1 ("n1", "n2")'),
        (3, 'ANY 1 ("n1", "n2", "n3")'),
        (5, 'ANY 2 ("n1", "n2", "n3", "n4", "n5")'),
    ],
)
def test_a_commit_waits_for_half_of_the_others(members: int, setting: str) -> None:
    assert synchronous_standby_names(tuple(f"n{number + 1}" for number in range(members))) == setting


def fenced(name: str, position: int | None, lineage: Lineage = ORIGIN) -> Fenced:
    return Fenced(name=name, position=position, lineage=lineage)


def test_the_farthest_is_chosen() -> None:
    assert chosen([fenced("a", 10), fenced("b", 20), fenced("c", 15)], 3) == "b"
    assert chosen([fenced("b", 20), fenced("a", 20)], 3) == "a"


def test_a_later_term_is_farther_than_a_longer_log() -> None:
    assert chosen([fenced("a", 900, FIRST), fenced("b", 201, SECOND)], 3) == "b"
    assert chosen([fenced("a", 900, FIRST), fenced("b", 101, NAMESAKE)], 3) == "b"


def test_without_a_majority_nobody_is_chosen() -> None:
    assert chosen([fenced("a", 10)], 3) is None
    assert chosen([fenced("a", 10), fenced("b", None)], 3) is None
    assert chosen([fenced("a", 10), fenced("b", 10)], 4) is None


def test_who_is_not_wanted_is_chosen_only_when_the_others_are_too_few() -> None:
    assert chosen([fenced("a", 90), fenced("b", 10), fenced("c", 20)], 3, without="a") == "c"
    assert chosen([fenced("a", 90), fenced("b", 10)], 3, without="a") == "a"


def test_the_comparison_names_each_write() -> None:
    assert compare([1, 2, 4], range(1, 6), [2, 3]) == Comparison(lost=[1, 4], unexpected=[])
    assert compare([1], [1], [1, 7]) == Comparison(lost=[], unexpected=[7])


# ---- what is remembered


def test_what_is_remembered_is_recalled(tmp_path: Path) -> None:
    assert recall(tmp_path) == Memory()
    memory = Memory(term=7, lineage=SECOND, incomplete=True)
    remember(tmp_path, memory)
    assert recall(tmp_path) == memory
    assert [path.name for path in tmp_path.iterdir()] == ["member.json"]


def test_passwords_are_not_shown() -> None:
    accounts = new_accounts()
    for password in (accounts.password, accounts.superuser_password, accounts.replication_password):
        assert password not in repr(accounts)


# ---- the protocol


@asynccontextmanager
async def agent(answers: bool = True) -> AsyncIterator[Endpoint]:
    async def handle(request: Mapping[str, Any]) -> Mapping[str, Any]:
        if not answers:
            await asyncio.get_running_loop().create_future()
        if request["command"] == "refuse":
            message = "not now"
            raise RefusedError(message, 7)
        if request["command"] == "fail":
            message = "no space left"
            raise OSError(message)
        return {"heard": request["text"]}

    server = AgentServer(TOKEN, handle)
    try:
        yield Endpoint(HOST, await server.open(HOST, 0))
    finally:
        await server.close()


async def test_an_agent_answers() -> None:
    async with agent() as endpoint:
        assert await ask(endpoint, TOKEN, SOON, "say", text="hello") == {"heard": "hello"}


async def test_an_agent_refuses() -> None:
    async with agent() as endpoint:
        with pytest.raises(RefusedError, match="not now") as refusal:
            await ask(endpoint, TOKEN, SOON, "refuse")
        assert refusal.value.term == 7
        with pytest.raises(RefusedError, match="no space left"):
            await ask(endpoint, TOKEN, SOON, "fail")


async def test_an_agent_obeys_its_own_manager_only() -> None:
    async with agent() as endpoint:
        with pytest.raises(RefusedError, match="token"):
            await ask(endpoint, "another-token", SOON, "say", text="hello")


async def test_a_call_has_a_deadline() -> None:
    async with agent(answers=False) as endpoint:
        with pytest.raises(SilentError) as silence:
            await ask(endpoint, TOKEN, timedelta(milliseconds=50), "say", text="hello")
        assert not isinstance(silence.value, AbsentError)


async def test_an_agent_that_has_ended_is_told_from_a_silent_one() -> None:
    async with agent() as endpoint:
        pass
    with pytest.raises(AbsentError):
        await ask(endpoint, TOKEN, SOON, "say", text="hello")


# ---- the relay


@asynccontextmanager
async def relaying() -> AsyncIterator[tuple[Relay, Endpoint, list[asyncio.StreamWriter]]]:
    """A relay, and an echo to pass on to."""
    taken: list[asyncio.StreamWriter] = []

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        taken.append(writer)
        while data := await reader.read(100):
            writer.write(b"echo " + data)

    relay = Relay()
    await relay.open(HOST)
    server = await asyncio.start_server(echo, HOST, 0)
    try:
        yield relay, Endpoint(HOST, server.sockets[0].getsockname()[1]), taken
    finally:
        await relay.close()
        for writer in taken:
            writer.close()
        server.close()


async def test_a_connection_is_held_until_there_is_a_target() -> None:
    async with relaying() as (relay, target, taken), asyncio.timeout(5):
        assert not await relay.is_holding(0.0)
        reader, writer = await asyncio.open_connection(HOST, relay.port)
        writer.write(b"hello")
        assert await relay.is_holding(5)
        assert taken == []
        relay.attach(target)
        assert await reader.read(100) == b"echo hello"
        assert not await relay.is_holding(0.0)
        writer.close()


async def test_nothing_passes_after_detaching() -> None:
    async with relaying() as (relay, target, _), asyncio.timeout(5):
        relay.attach(target)
        reader, writer = await asyncio.open_connection(HOST, relay.port)
        writer.write(b"hello")
        assert await reader.read(100) == b"echo hello"
        relay.detach()
        writer.write(b"more")
        assert await rest(reader) == b""
        writer.close()
        _, another = await asyncio.open_connection(HOST, relay.port)
        assert await relay.is_holding(5)
        another.close()


async def rest(reader: asyncio.StreamReader) -> bytes:
    """What still comes before the connection ends, in whatever way."""
    try:
        return await reader.read()
    except ConnectionError:
        return b""


async def test_what_is_held_and_has_ended_counts_no_more() -> None:
    async with relaying() as (relay, _, _), asyncio.timeout(5):
        _, writer = await asyncio.open_connection(HOST, relay.port)
        assert await relay.is_holding(5)
        writer.close()
        while await relay.is_holding(0.0):
            await asyncio.wait([asyncio.ensure_future(writer.wait_closed())])


async def test_a_target_that_answers_and_hangs_up_has_rejected() -> None:
    async with relaying() as (relay, target, taken), asyncio.timeout(5):
        for number in range(3):
            relay.attach(target)
            reader, writer = await asyncio.open_connection(HOST, relay.port)
            writer.write(b"hello")
            assert await reader.read(100) == b"echo hello"
            taken[-1].close()
            assert await reader.read(100) == b""
            writer.close()
            assert relay.rejections == number + 1
        relay.attach(Endpoint(HOST, relay.port))
        assert relay.rejections == 0


async def test_whoever_was_lost_is_not_dialled_again() -> None:
    async with relaying() as (relay, target, taken), asyncio.timeout(5):
        relay.attach(target)
        reader, writer = await asyncio.open_connection(HOST, relay.port)
        writer.write(b"hello")
        assert await reader.read(100) == b"echo hello"
        taken[-1].close()
        assert await rest(reader) == b""
        writer.close()
        assert relay.target is None
        _, another = await asyncio.open_connection(HOST, relay.port)
        assert await relay.is_holding(5)
        assert len(taken) == 1
        another.close()


# ---- the software


def test_an_installation_that_the_account_cannot_reach_is_copied_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template, "may_reach", lambda *_: False)
    place = reachable_directory(unprivileged_account())
    place.mkdir(mode=0o755)
    try:
        software = template.find_software(place)
        assert template.find_software(place) == software
        assert software.installation.is_relative_to(place)
        user, group = software.account or (None, None)
        for program in ("postgres", "pg_rewind", "pg_basebackup"):
            command = [software.installation / "bin" / program, "--version"]
            said = subprocess.run(command, user=user, group=group, capture_output=True, text=True, check=True)
            assert said.stdout.startswith(f"{program} (PostgreSQL) ")
    finally:
        shutil.rmtree(place)
