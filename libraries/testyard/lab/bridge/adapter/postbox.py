"""Dead letters on their way: tried again until they are written, while events go on being stored."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

from testyard.lab.bridge.adapter.dead_letters import DeadLetter, DeadLetters
from testyard.lab.bridge.adapter.figures import Figures
from testyard.lab.waiting import Backoff, elapse

MOST_LETTERS: Final = 1000
"""With so many that are not written, nothing more is stored: what is wrong is not one record."""


class Postbox:
    """The dead letters that are not written yet, in the order of their records.

    Args:
        dead_letters: Writes them.
        figures: Counts those that are written.
        written: Is told of each of them.
    """

    def __init__(self, dead_letters: DeadLetters, figures: Figures, written: Callable[[DeadLetter], None]) -> None:
        self._dead_letters = dead_letters
        self._figures = figures
        self._written = written
        self._letters: dict[DeadLetter, None] = {}
        self._has_some = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()

    def __len__(self) -> int:
        return len(self._letters)

    async def room(self) -> None:
        """Wait until there are not too many."""
        await self._has_room.wait()

    def add(self, letters: Iterable[DeadLetter]) -> None:
        """Have dead letters written."""
        self._letters.update(dict.fromkeys(letters))
        self._look()

    def clear(self) -> None:
        """Forget them: their records are read again by who gets the partitions."""
        self._letters.clear()
        self._look()

    def _look(self) -> None:
        if self._letters:
            self._has_some.set()
        else:
            self._has_some.clear()
        if len(self._letters) < MOST_LETTERS:
            self._has_room.set()
        else:
            self._has_room.clear()

    async def write_for_ever(self) -> None:
        """Write what is there, and again what could not be written."""
        backoff = Backoff()
        while True:
            await self._has_some.wait()
            letters = list(self._letters)
            unwritten = set(await self._dead_letters.send(letters))
            for letter in letters:
                if letter not in unwritten:
                    self._letters.pop(letter, None)
                    self._figures.dead_lettered(letter.record.topic, letter.error)
                    self._written(letter)
            self._look()
            if unwritten:
                await elapse(backoff.next())
            else:
                backoff.reset()
