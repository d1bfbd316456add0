"""Keywords about the agent as a daemon, and about Waldurs that do not answer."""

from __future__ import annotations

from WaldurLibrary.session import Session


class DaemonKeywords:
    """Keywords about the agent as a daemon, and about Waldurs that do not answer."""

    _session: Session
