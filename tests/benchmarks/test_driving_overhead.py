"""What testyard itself takes of a lifecycle, from ordering on A to the order being done there.

Overhead = (lifecycle - time inside the agent's own calls) / lifecycle. The rest is the customer's order, B's
provider and the look at the order's state; through Robot Framework also the keywords and their log.
"""

from collections.abc import Callable, Iterator

import pytest
from lifecycle_meter import Lifecycle, LifecycleClock
from pytest_benchmark.fixture import BenchmarkFixture
from robot_runs import LISTENING, POLLING, LifecycleRun
from support import Overhead, Prepared, create, join, prepare_federation, terminate
from testyard.lab.supervisor import Supervisor
from testyard.waldur.federation import Federation

MOST_OVERHEAD = 0.10
AGENTS = 9
LIFECYCLES = 200

Report = Callable[[str], None]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prepared]:
    """Two Waldurs of the lab, ready to be federated."""
    with Supervisor() as lab:
        source, target = lab.start_waldurs()
        yield prepare_federation(source, target, tmp_path_factory.mktemp("federation"))


@pytest.fixture
def clock() -> Iterator[LifecycleClock]:
    """Measures whose time it is."""
    clock = LifecycleClock()
    with clock.watching():
        yield clock


def test_one_lifecycle(
    benchmark: BenchmarkFixture, prepared: Prepared, clock: LifecycleClock, report: Report
) -> None:
    """The first lifecycle of an agent, of several agents."""
    lifecycles: list[Lifecycle] = []
    orders: list[str] = []

    def start() -> tuple[tuple[Federation], dict[str, object]]:
        return (join(prepared),), {}

    def live(federation: Federation) -> None:
        order, lifecycle = create(federation, clock, f"one {len(orders)}")
        orders.append(order)
        lifecycles.append(lifecycle)

    def end(federation: Federation) -> None:
        terminate(federation, orders[-1])
        federation.close()

    benchmark.pedantic(live, setup=start, teardown=end, rounds=AGENTS)
    overhead = Overhead.of(lifecycles)
    benchmark.extra_info["overhead"] = overhead.median
    report(f"the first lifecycle of {AGENTS} agents: {overhead}")
    assert overhead.median <= MOST_OVERHEAD


def test_many_lifecycles(
    benchmark: BenchmarkFixture, prepared: Prepared, clock: LifecycleClock, report: Report
) -> None:
    """One agent, one lifecycle after another."""
    lifecycles: list[Lifecycle] = []
    orders: list[str] = []
    federation = join(prepared)

    def live() -> None:
        order, lifecycle = create(federation, clock, f"many {len(orders)}")
        orders.append(order)
        lifecycles.append(lifecycle)

    benchmark.pedantic(live, teardown=lambda: terminate(federation, orders[-1]), rounds=LIFECYCLES)
    federation.close()
    overhead = Overhead.of(lifecycles)
    benchmark.extra_info["overhead"] = overhead.median
    report(f"{LIFECYCLES} lifecycles of one agent: {overhead}")
    assert overhead.median <= MOST_OVERHEAD


@pytest.mark.parametrize("preparation", [POLLING, LISTENING])
def test_many_lifecycles_through_robot(
    benchmark: BenchmarkFixture,
    lifecycle_run: Callable[[str], LifecycleRun],
    preparation: str,
    report: Report,
) -> None:
    """The same in a robot process, by keywords and with their log."""
    run = benchmark.pedantic(lifecycle_run, args=(preparation,), rounds=1)
    assert len(run.lifecycles) == LIFECYCLES
    overhead = Overhead.of(run.lifecycles)
    benchmark.extra_info["overhead"] = overhead.median
    report(f"{LIFECYCLES} lifecycles through robot, {preparation}: {overhead}")
    assert overhead.median <= MOST_OVERHEAD
