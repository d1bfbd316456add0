"""How keywords show what the agent did, in Robot Framework's log and in the run's report."""

from __future__ import annotations

from robot.api import logger
from testyard.core.tables import html_table
from testyard.waldur.calls import CALL_COLUMNS, Call, split_call

from WaldurLibrary.session import Session


def show_calls(session: Session, title: str, calls: list[Call]) -> None:
    """Draw REST calls of the agent as a folded table."""
    rows = [split_call(call) for call in calls]
    text = f"{title}, {len(rows)} REST calls"
    logger.info(html_table(text, CALL_COLUMNS, rows, folded=True), html=True)
    session.tell_calls(text, calls)


def say(session: Session, text: str) -> None:
    """Write a line."""
    logger.info(text)
    session.tell(text)
