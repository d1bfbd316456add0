"""Fixtures of the contract tests."""

from collections.abc import Iterator

import pytest
import waldur_story
from testyard.lab.supervisor import Supervisor
from waldur_support import RecordedWorld


@pytest.fixture(scope="session")
def recorded_world() -> Iterator[RecordedWorld]:
    """A Waldur double on which everything happened that was recorded; tests may add to it, not change it."""
    with Supervisor() as lab:
        instance, _ = lab.start_waldurs()
        with RecordedWorld(instance) as world:
            waldur_story.tell(world)
            yield world
