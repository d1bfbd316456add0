"""What Robot Framework makes of the errors: no class name, and a wrong configuration ends the run."""

from testyard.core.errors import ConfigurationError, NotMetError, UserError


def test_users_mistakes_are_shown_without_a_class_name():
    assert UserError.ROBOT_SUPPRESS_NAME is True
    assert NotMetError.ROBOT_SUPPRESS_NAME is True


def test_only_a_wrong_configuration_ends_the_run():
    assert issubclass(ConfigurationError, UserError)
    assert ConfigurationError.ROBOT_EXIT_ON_FAILURE is True
    assert not hasattr(UserError, "ROBOT_EXIT_ON_FAILURE")
    assert not hasattr(NotMetError, "ROBOT_EXIT_ON_FAILURE")


def test_a_users_mistake_is_no_failed_assertion():
    assert not issubclass(UserError, AssertionError)
