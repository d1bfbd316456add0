"""The command ``python -m testyard.lab.pipelines``: the pipeline service's HTTP interface."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import sys
from typing import Final

import psycopg
from pydantic import SecretStr

from testyard.core.errors import UserError
from testyard.core.redact import mask_log_records, secrets_in_use
from testyard.lab.arguments import add_database, positive, seconds
from testyard.lab.database import DatabaseUnavailableError
from testyard.lab.pipelines.app import create_app
from testyard.lab.pipelines.settings import DATABASE_VARIABLE, Settings, read_environment
from testyard.lab.serving import listen, serve

PROGRAM: Final = "testyard.lab.pipelines"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=f"python -m {PROGRAM}",
        description="The pipeline scheduling service. The environment holds its secrets: PIPELINES_ADMIN_KEY, "
        "PIPELINES_ENCRYPTION_KEY (base64 of 32 bytes), and PIPELINES_SMTP_URL (smtp://host:port) if e-mail is "
        "to be sent. When it takes requests it prints its address.",
    )
    add_database(parser, DATABASE_VARIABLE)
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
        listening = listen(arguments.host, arguments.port, arguments.fd)
        # What is there now stays: looking through it again and again is a tenth of what a request costs.
        gc.freeze()
        asyncio.run(serve(create_app(settings), listening, end_with_stdin=arguments.end_with_stdin))
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
