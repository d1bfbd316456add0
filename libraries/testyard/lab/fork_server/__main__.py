"""The command ``python -m testyard.lab.fork_server``: imports modules, then forks a process for each request.

It has one thread, as a copy of a process has only the thread that made it. It ends when the stream of its requests
does: its owner has ended, in whatever way.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import importlib.util
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import ModuleType

from testyard.lab.fork_server.child import become
from testyard.lab.fork_server.request import Request


def module_named(name: str) -> ModuleType:
    """Import what ``python -m`` runs under a name: of a package, its ``__main__``.

    Raises:
        ImportError: There is none, or it has no ``main``.
    """
    found = importlib.util.find_spec(name)
    is_package = found is not None and found.submodule_search_locations is not None
    module = importlib.import_module(f"{name}.__main__" if is_package else name)
    if not hasattr(module, "main"):
        message = f"{module.__name__} has no main()"
        raise ImportError(message)
    return module


def serve(control: socket.socket) -> tuple[Request, list[int]] | None:
    """Fork a process for each request, and report its id and how it ends.

    Args:
        control: The stream of requests.

    Returns:
        In each new process: what it was asked for and its descriptors. In the server: None, when the requests end.
    """
    running: dict[int, socket.socket] = {}
    try:
        with _woken_by_ends() as ends:
            while True:
                readable, _, _ = select.select([control, ends], [], [])
                if ends in readable:
                    ends.recv(4096)
                    _report_ends(running)
                if control in readable:
                    asked = Request.receive(control)
                    if asked is None:
                        return None
                    process = os.fork()
                    if process == 0:
                        return asked
                    _, (told, *others) = asked
                    running[process] = socket.socket(fileno=told)
                    for descriptor in others:
                        os.close(descriptor)
                    _tell(running[process], process)
    finally:
        for listener in running.values():
            listener.close()


@contextmanager
def _woken_by_ends() -> Iterator[socket.socket]:
    """Can be read from when a child process has ended; signals are as they were afterwards."""
    ends, wake = socket.socketpair()
    with ends, wake:
        wake.setblocking(False)
        # Only a signal that has a handler wakes.
        before = signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        try:
            yield ends
        finally:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, before)


def _report_ends(running: dict[int, socket.socket]) -> None:
    while running:
        process, status = os.waitpid(-1, os.WNOHANG)
        if process == 0:
            return
        with running.pop(process) as listener:
            _tell(listener, os.waitstatus_to_exitcode(status))


def _tell(listener: socket.socket, number: int) -> None:
    # Nobody may want to know any more.
    with suppress(ConnectionError):
        listener.sendall(f"{number}\n".encode())


def main() -> int | None:
    """Serve; in each new process run what was asked for. Gives the exit status."""
    parser = argparse.ArgumentParser(prog="python -m testyard.lab.fork_server", description=__doc__)
    parser.add_argument("--control", type=int, required=True, help="inherited stream of requests")
    parser.add_argument("modules", nargs="+", help="modules that have a main()")
    arguments = parser.parse_args()
    with socket.socket(fileno=arguments.control) as control:
        # What is collected leaves holes that the copies would fill, each with pages of its own.
        gc.disable()
        modules = {name: module_named(name) for name in arguments.modules}
        gc.freeze()
        if threading.active_count() > 1:
            sys.stderr.write(f"importing {', '.join(modules)} has started threads, which cannot be forked\n")
            return 1
        # What is written later by a copy must not be written by the others too.
        sys.stdout.flush()
        asked = serve(control)
    if asked is None:
        return None
    # The rest is a new process; it ends as any does, by leaving this function.
    request, descriptors = asked
    become(request, modules[request.module], descriptors)
    gc.enable()
    status: int | None = modules[request.module].main()
    return status


if __name__ == "__main__":
    sys.exit(main())
