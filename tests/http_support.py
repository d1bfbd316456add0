"""HTTP without a network, for tests of what is sent."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest


def answer_with(handle: Callable[[httpx.Request], httpx.Response], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every HTTP client that is made from now on be answered by a function."""
    real = httpx.Client
    transport = httpx.MockTransport(handle)
    monkeypatch.setattr(httpx, "Client", lambda **options: real(transport=transport, **options))
