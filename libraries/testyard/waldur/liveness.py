"""Where the agent notes that it is alive.

Its liveness file has a fixed place (``waldur_site_agent.common.healthz``), shared by every agent of a machine:
an agent under test must not write there, or it would vouch for another one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def liveness_file(path: str) -> Iterator[None]:
    """Let the agent's liveness file be another one inside the ``with`` block, for all of the agent's modules.

    Args:
        path: The file; ``os.devnull`` for none.
    """
    from waldur_site_agent.common.healthz import touch_heartbeat

    # Its modules hold the function itself, so what changes is the path it takes when none is given.
    kept = touch_heartbeat.__defaults__
    touch_heartbeat.__defaults__ = (path,)
    try:
        yield
    finally:
        touch_heartbeat.__defaults__ = kept
