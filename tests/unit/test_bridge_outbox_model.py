"""The outbox against a model: events, processes and a database that come and go in any order."""

from __future__ import annotations

import asyncio
import tempfile
from collections import defaultdict
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from publisher_support import Database, new_database, open_outbox
from testyard.lab.bridge.outbox import Outbox
from testyard.lab.database import Pool

# Making a counterexample smaller would take minutes, and this one is small.
FEW_STEPS = settings(
    max_examples=25,
    stateful_step_count=20,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)


class World:
    """What all runs of the model share: a database and a loop."""

    def __init__(self, url: str) -> None:
        self.runner = asyncio.Runner()
        self._stack = AsyncExitStack()
        self.database: Database = self.run(self._stack.enter_async_context(new_database(url)))
        self.pool: Pool = self.run(self._stack.enter_async_context(self.database.pool()))
        self.services = 0

    def run(self, work: Any) -> Any:
        """Do something on the loop."""

        async def do() -> Any:
            return await work

        return self.runner.run(do())

    def close(self) -> None:
        """End it."""
        self.run(self._stack.aclose())
        self.runner.close()


class Model(RuleBasedStateMachine):
    """One service's outbox."""

    world: World

    @initialize()
    def begin(self) -> None:
        self.world.services += 1
        self.service = f"service-{self.world.services}"
        self.directory = tempfile.TemporaryDirectory()
        self.database = self.world.database
        self.kept: defaultdict[str, list[int]] = defaultdict(list)
        self.published: defaultdict[str, list[int]] = defaultdict(list)
        self.number = 0
        self.is_away = False
        # What was published while the database was away, and whose process has ended then, may come again.
        self.may_double = False
        self.start()

    def start(self) -> None:
        self.stack = AsyncExitStack()
        context = open_outbox(self.database, self.world.pool, Path(self.directory.name), self.service)
        self.outbox: Outbox = self.world.run(self.stack.enter_async_context(context))

    @rule(keys=st.lists(st.sampled_from("abc"), min_size=1, max_size=5))
    def events_come(self, keys: list[str]) -> None:
        async def put_together() -> None:
            events = []
            for key in keys:
                self.number += 1
                self.kept[key].append(self.number)
                events.append(self.outbox.new("topic", key, b"%d" % self.number))
            await asyncio.gather(*(self.outbox.put(event) for event in events))

        self.world.run(put_together())

    @rule(limit=st.integers(1, 4), count=st.integers(0, 4))
    def some_are_published(self, limit: int, count: int) -> None:
        async def publish() -> None:
            events = (await self.outbox.oldest(limit))[:count]
            for event in events:
                self.published[event.key].append(int(event.value))
            await self.outbox.remove(events)

        self.world.run(publish())

    @precondition(lambda self: not self.is_away)
    @rule()
    def database_goes(self) -> None:
        self.database.away()
        self.is_away = True

    @precondition(lambda self: self.is_away)
    @rule()
    def database_is_back(self) -> None:
        self.database.back()
        self.is_away = False

    @rule()
    def next_process(self) -> None:
        self.may_double |= self.is_away
        self.world.run(self.stack.aclose())
        self.start()

    @invariant()
    def nothing_overtakes_and_nothing_comes_twice(self) -> None:
        for key, numbers in self.published.items():
            once = list(dict.fromkeys(numbers))
            assert once == self.kept[key][: len(once)]
            assert self.may_double or once == numbers

    @invariant()
    def a_key_is_held_up_while_something_of_it_waits(self) -> None:
        for key in "abc":
            waits = len(set(self.published[key])) < len(self.kept[key])
            if waits or (self.outbox.is_known and not self.may_double):
                assert self.world.run(self.outbox.holds_up(key)) is waits

    def teardown(self) -> None:
        self.database.back()

        async def drain() -> None:
            while events := await self.outbox.oldest(100):
                for event in events:
                    self.published[event.key].append(int(event.value))
                await self.outbox.remove(events)

        try:
            self.world.run(drain())
            self.nothing_overtakes_and_nothing_comes_twice()
            published = {key: list(dict.fromkeys(numbers)) for key, numbers in self.published.items() if numbers}
            assert published == {key: numbers for key, numbers in self.kept.items() if numbers}
            assert len(self.outbox) == 0
        finally:
            self.world.run(self.stack.aclose())
            self.directory.cleanup()


def test_whatever_comes_and_goes_everything_comes_out_in_order(database_url):
    world = World(database_url)

    class Run(Model):
        pass

    Run.world = world
    try:
        run_state_machine_as_test(Run, settings=FEW_STEPS)
    finally:
        world.close()
