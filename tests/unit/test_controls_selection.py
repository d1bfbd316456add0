"""Which defects a change is tried with."""

from __future__ import annotations

from testyard.lab.sabotage import DOMAINS
from testyard.lab.sabotage.defect import Defect
from testyard.lab.sabotage.selection import sample, touched_domains


def defect(name: str, *turns_red: str) -> Defect:
    """A defect that is never put in place."""
    return Defect(name, name, frozenset(turns_red), lambda: None)


SUITES = [frozenset({"A-1", "A-2"}), frozenset({"B-1"}), frozenset({"C-1"})]


def test_a_sample_turns_something_red_in_every_suite_by_as_few_as_it_can():
    one, other = defect("one", "A-1"), defect("other", "A-2", "B-1")
    assert sample([one, other, defect("third", "B-1")], SUITES) == [other]


def test_a_suite_in_which_nothing_turns_red_needs_no_defect():
    assert sample([], SUITES) == []
    one = defect("one", "A-1")
    assert sample([one], SUITES) == [one]


def test_a_defect_that_no_suite_can_show_is_always_chosen():
    one, stranger = defect("one", "A-1"), defect("stranger", "X-1")
    assert sample([one, stranger], SUITES) == [stranger, one]
    assert sample([one, stranger], []) == [one, stranger]


def test_a_change_touches_the_domains_whose_parts_it_names():
    assert touched_domains(["libraries/testyard/lab/bridge/bus.py"], DOMAINS) == {"event_bus"}
    assert touched_domains(["README.md", "tests/unit/test_bridge_breaker.py"], DOMAINS) == set()
    assert touched_domains(["libraries/testyard/core/errors.py"], DOMAINS) == set(DOMAINS)
