"""Whether a long run keeps what it has seen in memory: the journals are on disk, so nothing should grow."""

from collections.abc import Callable

import pytest
from lifecycle_meter import SAMPLED_AFTER
from robot_runs import LISTENING, POLLING, LifecycleRun

MOST_GROWTH_MEGABYTES = 10
MEGABYTE = 1e6
PROCESSES = ["robot", "Waldur A", "Waldur B"]


@pytest.mark.parametrize("preparation", [POLLING, LISTENING])
def test_memory_over_many_lifecycles(
    lifecycle_run: Callable[[str], LifecycleRun],
    preparation: str,
    report: Callable[[str], None],
) -> None:
    """The resident set of robot and of both doubles, from lifecycle 20 to 200."""
    run = lifecycle_run(preparation)
    assert tuple(run.memory) == SAMPLED_AFTER
    growths = {}
    for process in PROCESSES:
        curve = [run.memory[after][process] / MEGABYTE for after in SAMPLED_AFTER]
        growths[process] = curve[-1] - curve[0]
        values = ", ".join(f"{megabytes:.1f}" for megabytes in curve)
        after = ", ".join(map(str, SAMPLED_AFTER))
        report(f"memory of {process}, {preparation}: {values} MB after {after}: {growths[process]:+.1f} MB")
    assert max(growths.values()) <= MOST_GROWTH_MEGABYTES, growths
