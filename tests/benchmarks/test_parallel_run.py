"""How long the project's suites take, by plain robot and by two processes of pabot."""

import statistics
from collections.abc import Callable
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from robot_runs import SUITES, run_suites

LONGEST_SECONDS = 25.0
MOST_RATIO = 0.8
ROUNDS = 3

pytestmark = pytest.mark.last


def test_two_processes_against_one(
    benchmark: BenchmarkFixture, tmp_path_factory: pytest.TempPathFactory, report: Callable[[str], None]
) -> None:
    """Rounds of both, one after the other and then the other way round."""
    plain: list[float] = []
    parallel: list[float] = []

    def results(name: str) -> Path:
        return tmp_path_factory.mktemp(name)

    def run_plain() -> None:
        plain.append(run_suites("robot", results("robot"), str(SUITES)))

    def run_parallel() -> None:
        options = ("--chunk", "--processes", "2", "--no-pabotlib")
        parallel.append(run_suites("pabot", results("pabot"), *options, str(SUITES)))

    def compare() -> None:
        runs = [run_plain, run_parallel]
        for run in reversed(runs) if len(plain) % 2 else runs:
            run()

    benchmark.pedantic(compare, rounds=ROUNDS)
    ratios = [two / one for one, two in zip(plain, parallel, strict=True)]
    benchmark.extra_info["ratios"] = ratios
    report(
        f"suites/: robot {_listed(plain, '.1f')} s, pabot with two processes {_listed(parallel, '.1f')} s: "
        f"{statistics.median(ratios):.2f} x (rounds {_listed(ratios, '.2f')})"
    )
    assert statistics.median(ratios) <= MOST_RATIO
    assert statistics.median(plain) <= LONGEST_SECONDS


def _listed(values: list[float], form: str) -> str:
    return ", ".join(format(value, form) for value in values)
