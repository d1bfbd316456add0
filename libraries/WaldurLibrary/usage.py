"""Keywords about orders that B refuses, stuck orders, long lists and usage reports."""

from __future__ import annotations

from WaldurLibrary.session import Session


class UsageKeywords:
    """Keywords about orders that B refuses, stuck orders, long lists and usage reports."""

    _session: Session
