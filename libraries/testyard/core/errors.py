"""Errors written for the people who read test logs."""


class UserError(Exception):
    """A mistake in what the user gave: says what was found, what was expected and where.

    Robot Framework shows the message without the class name and without a traceback.
    """

    ROBOT_SUPPRESS_NAME = True


class ConfigurationError(UserError):
    """A configuration that cannot work. Stops the whole run at once: every later test would fail falsely."""

    ROBOT_EXIT_ON_FAILURE = True


class NotMetError(AssertionError):
    """A condition under test was not met (in time)."""

    ROBOT_SUPPRESS_NAME = True
