"""A library that tells a secret in every way a library can, as careless ones do."""

from __future__ import annotations

import logging

from robot.api import logger
from robot.api.types import Secret


def log_everywhere(token: Secret) -> None:
    """Print it, log it, warn of it, draw it."""
    print(f"printed {token.value}")  # noqa: T201 a library may print
    logger.debug(f"debugged {token.value}")
    logger.info(f"<b>drawn {token.value}</b>", html=True)
    logger.trace(f"traced {token.value}")
    logging.getLogger("careless").warning("warned of %s", token.value)
    logging.getLogger("careless").debug("headers: %s", {"Authorization": f"Token {token.value}"})


def return_it(token: Secret) -> str:
    """Return it in a long text: log.html compresses that, and where it is assigned it is cut within the token."""
    return f"{'the answer ' * 16}{token.value}{' and more of it' * 10}"


def fail_with_it(token: Secret) -> None:
    """Raise an exception that quotes it, with another one as its cause."""
    try:
        raise ValueError(token.value)
    except ValueError as problem:
        message = f"the server said: invalid header 'Authorization: Token {token.value}'"
        raise RuntimeError(message) from problem
