"""How a copy of the fork server becomes a process as ``python -m`` would have started it."""

from __future__ import annotations

import fcntl
import io
import os
import sys
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from testyard.lab.fork_server.request import Request

_STREAMS: Final = (0, 1, 2)


def become(request: Request, module: ModuleType, descriptors: Sequence[int]) -> None:
    """Take on what was asked for; afterwards ``module.main`` can be called.

    Args:
        request: What was asked for.
        module: The module that it names.
        descriptors: As ``Request.send`` lists them. The first stays open for as long as the process lives, so that
            whoever listens to it learns of the end even when the fork server has gone.
    """
    os.setsid()  # Ctrl-C is for the run; it stops the lab in its teardown
    _take_descriptors(descriptors, (*_STREAMS, *request.numbers))
    _open_streams()
    os.environ.update(request.environment)
    sys.argv = [module.__file__ or request.module, *request.arguments]


def _take_descriptors(descriptors: Sequence[int], numbers: Sequence[int]) -> None:
    """Have all but the first of some descriptors under some numbers, the first under any, and no others."""
    # One of them may be where another belongs.
    free = 1 + max(*descriptors, *numbers)
    told, *moved = [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, free) for each in descriptors]
    _close_all_but({told, *moved})
    for descriptor, number in zip(moved, numbers, strict=True):
        os.dup2(descriptor, number)
        os.close(descriptor)


def _close_all_but(kept: Collection[int]) -> None:
    # A pipe's end that is left open here would keep its reader waiting for as long as this process lives.
    for number in [int(each.name) for each in Path("/dev/fd").iterdir()]:
        if number not in kept:
            # The listing's own is gone by now.
            with suppress(OSError):
                os.close(number)


def _open_streams() -> None:
    """Open the standard streams as Python does when it starts: the old ones may know of files that are gone."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        old = getattr(sys, name)
        buffering = 0 if number and old.write_through else -1
        file = os.fdopen(number, "wb" if number else "rb", buffering, closefd=False)
        raw: Any = getattr(file, "raw", file)
        raw.name = f"<{name}>"
        stream = io.TextIOWrapper(
            file,
            encoding=old.encoding,
            errors=old.errors,
            newline="\n",
            line_buffering=not old.write_through and (name == "stderr" or file.isatty()),
            write_through=old.write_through,
        )
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
