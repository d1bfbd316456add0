"""The command ``python -m testyard.lab.pipelines``: the pipeline service's HTTP interface."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Final

import psycopg
import uvicorn
from pydantic import SecretStr
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from testyard.core.errors import UserError
from testyard.core.redact import mask_log_records, secrets_in_use
from testyard.lab.children import listening_socket
from testyard.lab.pipelines.app import create_app
from testyard.lab.pipelines.arguments import add_database, positive, seconds
from testyard.lab.pipelines.database import DatabaseUnavailableError
from testyard.lab.pipelines.settings import Settings, read_environment
from testyard.lab.pipelines.waiting import call_when_input_ends

PROGRAM: Final = "testyard.lab.pipelines"
GRACEFUL_END: Final = timedelta(seconds=5)


class _Server(uvicorn.Server):
    """Says when it is ready, and leaves signals to this module: uvicorn would die of them after its work."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and print the address."""
        await super().startup(sockets)
        for each in sockets or []:
            host, port = each.getsockname()[:2]
            sys.stdout.write(f"http://{host}:{port}\n")
        sys.stdout.flush()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=f"python -m {PROGRAM}",
        description="The pipeline scheduling service. The environment holds its secrets: PIPELINES_ADMIN_KEY, "
        "PIPELINES_ENCRYPTION_KEY (base64 of 32 bytes), and PIPELINES_SMTP_URL (smtp://host:port) if e-mail is "
        "to be sent. When it takes requests it prints its address.",
    )
    add_database(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8080, help="port to listen on; 0: a free one")
    parser.add_argument("--fd", type=int, help="inherited listening socket, instead of host and port")
    parser.add_argument("--test-clock", action="store_true", help="take the time from PUT /api/v1/test-clock")
    parser.add_argument(
        "--stale-after",
        type=seconds,
        default="300",
        metavar="SECONDS",
        help="a running run without heartbeat for so long has lost its worker",
    )
    parser.add_argument(
        "--notification-retry",
        type=seconds,
        default="1",
        metavar="SECONDS",
        help="how long a notification waits for its second attempt; for each further one twice as long",
    )
    parser.add_argument(
        "--notification-attempts",
        type=positive,
        default="5",
        metavar="COUNT",
        help="after so many attempts a notification becomes a dead letter",
    )
    parser.add_argument("--end-with-stdin", action="store_true", help="end when standard input ends")
    return parser.parse_args()


def _listen(host: str, port: int) -> socket.socket:
    try:
        return listening_socket(host, port)
    except (OSError, OverflowError) as error:
        raise UserError(f"cannot listen on port {port} of {host}: {error}") from None


async def _serve(settings: Settings, listening: socket.socket, *, end_with_stdin: bool) -> None:
    application = create_app(settings)
    server = _Server(
        uvicorn.Config(
            application,
            # Not whichever is installed: what the lab does must not depend on it.
            loop="asyncio",
            http=HttpToolsProtocol,
            ws="none",
            # This function runs the lifespan itself: what goes wrong in it is then told in one line.
            lifespan="off",
            access_log=False,
            log_config=None,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=round(GRACEFUL_END.total_seconds()),
        )
    )
    loop = asyncio.get_running_loop()

    def end() -> None:
        server.should_exit = True

    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, end)

    if end_with_stdin:
        call_when_input_ends(end)
    async with application.router.lifespan_context(application):
        await server.serve([listening])


def main() -> int:
    """Run the service; gives the exit status: 2 when it cannot start."""
    arguments = _arguments()
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format=f"{PROGRAM}: %(message)s")
    mask_log_records()
    try:
        secrets = read_environment()
        secrets_in_use.add(secrets.admin_key.get_secret_value())
        settings = Settings(
            database_url=SecretStr(arguments.database),
            admin_key=secrets.admin_key,
            cipher=secrets.cipher,
            smtp=secrets.smtp,
            test_clock=arguments.test_clock,
            stale_after=arguments.stale_after,
            database_timeout=arguments.database_timeout,
            notification_retry_base=arguments.notification_retry,
            notification_attempts=arguments.notification_attempts,
        )
        if arguments.fd is None:
            listening = _listen(arguments.host, arguments.port)
        else:
            listening = socket.socket(fileno=arguments.fd)
        # What is there now stays: looking through it again and again is a tenth of what a request costs.
        gc.freeze()
        asyncio.run(_serve(settings, listening, end_with_stdin=arguments.end_with_stdin))
    except (UserError, DatabaseUnavailableError, OSError) as error:
        sys.stderr.write(f"{PROGRAM}: {' '.join(str(error).split())}\n")
        return 2
    except psycopg.ProgrammingError:
        # Its message quotes the URL, which may hold a password.
        sys.stderr.write(f"{PROGRAM}: --database is not the URL of a PostgreSQL database\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
