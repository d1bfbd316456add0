"""Where a datacentre may keep its files."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def open_place() -> Path:
    """The first temporary directory that every account can pass through, where this process is root's.

    PostgreSQL does not run as root: the account that it runs as must reach its data.
    """
    temporary = Path(tempfile.gettempdir())
    if os.geteuid() != 0:
        return temporary
    places = (temporary, Path("/tmp"), Path("/var/tmp"))
    return next(filter(_may_pass, places), temporary)


def _may_pass(place: Path) -> bool:
    return place.is_dir() and all(each.stat().st_mode & 0o001 for each in (place, *place.parents))
