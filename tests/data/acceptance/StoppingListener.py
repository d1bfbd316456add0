"""A listener that stops robot's process when a keyword begins, so that a test can look at it holding still."""

from __future__ import annotations

import os
import signal

from robot import result, running


class StoppingListener:
    """Stops the process each time a keyword begins; the signal SIGCONT lets it go on.

    Args:
        keyword: The keyword's full name, with its library's.
    """

    ROBOT_LISTENER_API_VERSION = 3

    def __init__(self, keyword: str) -> None:
        self._keyword = keyword

    def start_keyword(self, _data: running.Keyword, attributes: result.Keyword) -> None:
        if attributes.full_name == self._keyword:
            os.kill(os.getpid(), signal.SIGSTOP)
