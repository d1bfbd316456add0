"""How fast the double lists orders, against a bare Starlette application that returns the same bytes."""

import json
import statistics
from collections.abc import Callable, Iterator

import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from request_load import Rate, Target, bare_starlette
from support import LIMITS, SOURCE_COMPONENT, active_offering, ordering_project
from testyard.lab.supervisor import Supervisor
from testyard.waldur.api import Waldur

LEAST_RATIO = 0.5
ROUNDS = 7
REQUESTS = 1500
ROWS = 100
ROWS_OF_OTHERS = 50
QUERY = f"/api/marketplace-orders/?page_size={ROWS}"


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Target, Target, Supervisor]]:
    """The double, with orders of two projects, asked by the customer of one; and the bare application."""
    with Supervisor() as lab:
        double = lab.start_waldurs()[0]
        with active_offering(double, SOURCE_COMPONENT) as offering:
            tokens = []
            for name, number in (("Others", ROWS_OF_OTHERS), ("Mine", ROWS)):
                project, token = ordering_project(offering.provisioner, name)
                tokens.append(token)
                with Waldur(double.url, token) as customer:
                    for row in range(number):
                        customer.place_order(offering.uuid, project, LIMITS, f"{name} {row}")
        headers = {"Authorization": f"Token {tokens[-1]}", "User-Agent": "benchmark"}
        listing = Target("the double", (double.host, double.port), double.process.pid, QUERY, headers)
        body = tmp_path_factory.mktemp("bare") / "body"
        body.write_bytes(listing.answer().partition(b"\r\n\r\n")[2])
        with bare_starlette(body) as (address, process):
            yield listing, Target("bare Starlette", address, process, QUERY, headers), lab


def test_the_benchmark_compares_the_same(servers: tuple[Target, Target, Supervisor]) -> None:
    """Both answer with the same bytes: exactly the caller's orders, out of more."""
    double, bare, lab = servers
    body = double.answer().partition(b"\r\n\r\n")[2]
    assert bare.answer().partition(b"\r\n\r\n")[2] == body
    orders = json.loads(body)
    assert {order["project_name"] for order in orders} == {"benchmark Mine"}
    assert len(orders) == ROWS
    instance = lab.instances["A"]
    with Waldur(instance.url, instance.staff_token) as staff:
        assert len(list(staff.all("marketplace-orders"))) == ROWS + ROWS_OF_OTHERS


def test_requests_per_second(
    benchmark: BenchmarkFixture,
    servers: tuple[Target, Target, Supervisor],
    report: Callable[[str], None],
) -> None:
    """Rounds of both, one after the other and then the other way round."""
    double, bare, lab = servers
    pairs: list[tuple[Rate, Rate]] = []
    control = lab.instances["A"].control
    last = control.journal()[-1]["sequence"]

    def compare() -> None:
        if len(pairs) % 2:
            pairs.append((double.rate(REQUESTS), bare.rate(REQUESTS)))
        else:
            reference = bare.rate(REQUESTS)
            pairs.append((double.rate(REQUESTS), reference))

    for target in (double, bare):
        target.rate(REQUESTS // 10)
    benchmark.pedantic(compare, rounds=ROUNDS)
    journaled = [entry for entry in control.journal(after=last) if entry["status"] == 200]
    assert len(journaled) >= ROUNDS * REQUESTS, "the double's journal was off"
    ratios = [mine.per_second / reference.per_second for mine, reference in pairs]
    costs = [reference.processor_time / mine.processor_time for mine, reference in pairs]
    benchmark.extra_info["ratios"] = ratios
    report(
        f"GET marketplace-orders, {ROWS} rows: {statistics.median(ratios):.2f} x bare Starlette "
        f"(rounds {', '.join(f'{ratio:.2f}' for ratio in ratios)}); {_described(pairs)}; "
        f"by processor time {statistics.median(costs):.2f} x"
    )
    assert statistics.median(ratios) >= LEAST_RATIO
    # On a busy machine both servers wait for a processor, and their rates come closer than they are.
    assert statistics.median(costs) >= LEAST_RATIO


def _described(pairs: list[tuple[Rate, Rate]]) -> str:
    names = ("double", "bare")
    return ", ".join(
        f"{name} {statistics.median(rate.per_second for rate in rates):.0f}/s, "
        f"busy {statistics.median(rate.busy for rate in rates):.0%}"
        for name, rates in zip(names, zip(*pairs, strict=True), strict=True)
    )
