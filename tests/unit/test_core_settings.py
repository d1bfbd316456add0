"""What a test or a suite sets ends with it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from testyard.core.settings import Scope, ScopedSetting

DEFAULT = 10


@pytest.fixture
def setting() -> ScopedSetting[int]:
    return ScopedSetting(DEFAULT)


def test_the_default_is_in_force_until_something_is_set(setting):
    assert setting.value == DEFAULT
    setting.enter(Scope.SUITE)
    assert setting.value == DEFAULT


@pytest.mark.parametrize("scope", Scope)
def test_setting_returns_the_value_before_for_restoring(setting, scope):
    setting.enter(Scope.SUITE)
    assert setting.set(5, scope) == DEFAULT
    assert setting.set(6, scope) == 5
    assert setting.value == 6


def test_a_tests_value_ends_with_the_test(setting):
    setting.enter(Scope.SUITE)
    setting.enter(Scope.TEST)
    setting.set(5, Scope.TEST)
    assert setting.value == 5
    setting.leave()
    assert setting.value == DEFAULT
    setting.enter(Scope.TEST)
    assert setting.value == DEFAULT


def test_a_suites_value_set_in_a_test_lasts_to_the_end_of_the_suite(setting):
    setting.enter(Scope.SUITE)  # suite
    setting.enter(Scope.TEST)  # test
    setting.set(5, Scope.SUITE)
    assert setting.value == 5
    setting.leave()
    setting.enter(Scope.TEST)  # next test
    assert setting.value == 5
    setting.leave()
    setting.leave()
    assert setting.value == DEFAULT


def test_a_suites_value_set_in_its_setup_ends_with_the_suite(setting):
    setting.enter(Scope.SUITE)  # suite, no test runs
    setting.set(5, Scope.SUITE)
    setting.enter(Scope.TEST)
    assert setting.value == 5
    setting.leave()
    setting.leave()
    assert setting.value == DEFAULT


def test_a_nested_suites_value_set_in_its_setup_does_not_reach_its_sibling(setting):
    setting.enter(Scope.SUITE)  # parent
    setting.enter(Scope.SUITE)  # first child, in its setup
    setting.set(5, Scope.SUITE)
    setting.leave()
    setting.enter(Scope.SUITE)  # second child
    assert setting.value == DEFAULT


def test_a_global_value_lasts_to_the_end_of_the_run(setting):
    setting.enter(Scope.SUITE)
    setting.enter(Scope.TEST)
    setting.set(5, Scope.GLOBAL)
    assert setting.value == 5
    setting.leave()
    setting.leave()
    setting.enter(Scope.SUITE)
    assert setting.value == 5


def test_a_suites_value_hides_the_value_of_an_earlier_test_scope(setting):
    setting.enter(Scope.SUITE)
    setting.enter(Scope.TEST)
    setting.set(5, Scope.TEST)
    setting.set(6, Scope.SUITE)
    assert setting.value == 6


def test_leaving_more_often_than_entering_keeps_the_default(setting):
    setting.leave()
    setting.leave()
    assert setting.value == DEFAULT
    setting.enter(Scope.TEST)
    setting.set(5, Scope.TEST)
    setting.leave()
    assert setting.value == DEFAULT


@settings(deadline=None)
@given(st.lists(st.integers(), max_size=5), st.integers(0, 3))
def test_a_test_leaves_no_trace_whatever_it_sets(values, depth):
    setting = ScopedSetting(DEFAULT)
    for _ in range(depth):
        setting.enter(Scope.SUITE)
    setting.enter(Scope.TEST)
    for value in values:
        setting.set(value, Scope.TEST)
    setting.leave()
    assert setting.value == DEFAULT
