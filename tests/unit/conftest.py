"""Fixtures of the unit tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from double_support import Double, Market, running_double


@pytest.fixture
def double(tmp_path: Path) -> Iterator[Double]:
    """A Waldur double in this process."""
    with running_double(tmp_path) as double:
        yield double


@pytest.fixture
def market(double: Double) -> Market:
    """A double with a provider, an active offering, and an organisation that may order it."""
    return Market(double)
