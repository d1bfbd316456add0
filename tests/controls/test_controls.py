"""The negative controls themselves: they cover every scenario, and they can miss."""

from __future__ import annotations

from pathlib import Path

import pytest
from testyard.core.errors import UserError
from testyard.lab.sabotage import DOMAINS, defect_named
from testyard.lab.sabotage.controls import Outcome, judge, run_controls, scenarios_by_suite
from testyard.lab.sabotage.defect import Defect
from testyard.lab.sabotage.pipeline_defect import change_sql

SUITES = Path(__file__).parents[2] / "suites"
HARMLESS = Defect("harmless", "nothing is wrong", frozenset({"FED-N1"}), lambda: None)


def test_every_scenario_is_turned_red_by_some_defect() -> None:
    scenarios = frozenset().union(*scenarios_by_suite(SUITES).values())
    covered = frozenset().union(*(it.turns_red for defects in DOMAINS.values() for it in defects))
    assert scenarios
    assert scenarios - covered == set()
    assert covered - scenarios == set()


def test_names_are_unique_and_found() -> None:
    names = [it.name for defects in DOMAINS.values() for it in defects]
    assert len(names) == len(set(names))
    assert all(defect_named(name).name == name for name in names)


def test_federation_has_at_least_twenty_defects() -> None:
    assert len(DOMAINS["federation"]) >= 20


def test_cluster_has_at_least_thirty_defects() -> None:
    assert len(DOMAINS["cluster"]) >= 30


def test_a_defect_whose_statement_has_changed_says_so() -> None:
    with pytest.raises(LookupError, match="SELECT nothing FROM nowhere"):
        change_sql("SELECT nothing FROM nowhere", "")


def test_unknown_defect_is_refused() -> None:
    with pytest.raises(LookupError, match="no-such-defect"):
        defect_named("no-such-defect")


@pytest.mark.parametrize(
    ("failed", "caught", "said"),
    [
        ({"FED-N1"}, True, "caught"),
        (set(), False, "missed  harmless: nothing is wrong [FED-N1]; not red: FED-N1"),
        ({"FED-N1", "FED-N2"}, False, "red as well: FED-N2"),
    ],
)
def test_a_defect_is_caught_by_exactly_its_scenarios(failed: set[str], caught: bool, said: str) -> None:
    verdict = judge(HARMLESS, Outcome(frozenset(failed), frozenset({"FED-N1", "FED-N2"})))
    assert verdict.caught is caught
    assert said in str(verdict)


def test_a_run_that_broke_down_is_no_catch() -> None:
    verdict = judge(HARMLESS, Outcome(frozenset({"FED-N1"}), frozenset(), "the run wrote no results"))
    assert not verdict.caught
    assert "the run wrote no results" in str(verdict)


def test_a_defect_without_scenario_is_refused() -> None:
    stray = Defect("stray", "names a scenario nobody has", frozenset({"FED-N99"}), lambda: None)
    with pytest.raises(UserError, match="FED-N99"):
        list(run_controls([stray], SUITES, whole=False, processes=1))


def test_a_failing_suite_is_told_before_any_defect(tmp_path: Path) -> None:
    (tmp_path / "red.robot").write_text(
        "*** Test Cases ***\nRed Without Any Defect\n    [Tags]    FED-N1\n    Fail\n", encoding="utf-8"
    )
    with pytest.raises(UserError, match="Without any defect the suites must pass, but FED-N1 fail"):
        list(run_controls([HARMLESS], tmp_path, whole=False, processes=1))


def test_suites_that_are_known_to_pass_are_run_only_under_the_defect(tmp_path: Path) -> None:
    (tmp_path / "red.robot").write_text(
        "*** Test Cases ***\nRed Without Any Defect\n    [Tags]    FED-K4\n    Fail\n", encoding="utf-8"
    )
    blind = defect_named("always-connected")
    (verdict,) = run_controls([blind], tmp_path, whole=False, processes=1, known_to_pass=True)
    assert verdict.caught


def test_a_defect_that_nothing_notices_is_missed(tmp_path: Path) -> None:
    (tmp_path / "green.robot").write_text(
        "*** Test Cases ***\nGreen Whatever Happens\n    [Tags]    FED-K4\n    No Operation\n", encoding="utf-8"
    )
    blind = defect_named("always-connected")
    (verdict,) = run_controls([blind], tmp_path, whole=False, processes=1)
    assert verdict.missed == {"FED-K4"}
