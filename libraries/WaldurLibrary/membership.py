"""Keywords about members, identities and end dates."""

from __future__ import annotations

from WaldurLibrary.session import Session


class MembershipKeywords:
    """Keywords about members, identities and end dates."""

    _session: Session
