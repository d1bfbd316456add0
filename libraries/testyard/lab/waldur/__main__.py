"""The command ``python -m testyard.lab.waldur``: one Waldur double."""

import argparse
import asyncio
import logging
import socket
import sys
from pathlib import Path

from testyard.lab.waldur.server import StartError, bind, read_handshake, serve


class _OneLine(logging.Formatter):
    """Problems go to standard error, each on one line."""

    def format(self, record: logging.LogRecord) -> str:
        """Join what would be several lines, and leave only the last of a traceback."""
        text = " ".join(record.getMessage().split())
        problem = record.exc_info[1] if record.exc_info else None
        return f"testyard.lab.waldur: {text}" + (f": {type(problem).__name__}: {problem}" if problem else "")


def _log_problems() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine())
    # What ends with the process is cut short on purpose: a cancelled request is no problem.
    handler.addFilter(
        lambda record: not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m testyard.lab.waldur",
        description="A Waldur double. Standard input: one line of JSON with staff_token and control_token; "
        "when it ends, the double ends.",
    )
    parser.add_argument("--name", required=True, help="name of the instance, e.g. A")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on with --port")
    parser.add_argument("--public-fd", type=int, help="inherited listening socket of the REST interface")
    parser.add_argument("--control-fd", type=int, help="inherited listening socket of the control API")
    parser.add_argument("--port", type=int, default=0, help="port of the REST interface; 0: a free one")
    parser.add_argument("--control-port", type=int, default=0, help="port of the control API; 0: a free one")
    parser.add_argument("--directory", type=Path, required=True, help="directory of its own, removed at the end")
    return parser.parse_args()


def _listening(descriptor: int | None, host: str, port: int) -> socket.socket:
    return bind(host, port) if descriptor is None else socket.socket(fileno=descriptor)


def main() -> int:
    """Run the double; gives the exit status."""
    arguments = _arguments()
    _log_problems()
    try:
        handshake = read_handshake(sys.stdin.fileno())
        public = _listening(arguments.public_fd, arguments.host, arguments.port)
        control = _listening(arguments.control_fd, arguments.host, arguments.control_port)
        arguments.directory.mkdir(parents=True, exist_ok=True)
    except (StartError, OSError) as error:
        sys.stderr.write(f"testyard.lab.waldur: {error}\n")
        return 2
    by_hand = arguments.public_fd is None
    if by_hand:
        where = "{}:{}, control on {}:{}".format(*public.getsockname(), *control.getsockname())
        sys.stderr.write(f"testyard.lab.waldur: {arguments.name} on {where}\n")
    asyncio.run(
        serve(
            arguments.name,
            public,
            control,
            arguments.directory,
            handshake,
            ignore_interrupt=not by_hand,
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
