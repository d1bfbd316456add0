"""A listener that stops robot's process when a keyword begins, so that a test can look at a run that holds still.

Used as ``--listener PATH:NAME``, with the keyword's full name; a signal SIGCONT lets the run go on.
"""

from __future__ import annotations

import os
import signal

from robot import result, running


class stopping_listener:  # noqa: N801 robot looks for the class that is named as its file
    ROBOT_LISTENER_API_VERSION = 3

    def __init__(self, keyword: str) -> None:
        self._keyword = keyword

    def start_keyword(self, _data: running.Keyword, attributes: result.Keyword) -> None:
        if attributes.full_name == self._keyword:
            os.kill(os.getpid(), signal.SIGSTOP)
