"""A real PostgreSQL for tests, and a schema in it for each."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote

import psutil
import psycopg
from psycopg import sql
from testyard.lab.servers.postgresql import PostgresqlServer


@contextmanager
def private_schema(server: PostgresqlServer) -> Iterator[str]:
    """The URL of a database whose unqualified names are in a new schema, which is dropped afterwards."""
    schema = f"test_{secrets.token_hex(4)}"
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
        yield f"{server.url}?options={quote(f'-c search_path={schema}')}"
        connection.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(schema)))


def processes_of(server: PostgresqlServer) -> list[psutil.Process]:
    """The postmaster and its children."""
    postmaster = psutil.Process(server.pid)
    return [postmaster, *postmaster.children(recursive=True)]


def still_alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that live, after at most five seconds; zombies do not."""
    _, alive = psutil.wait_procs(processes, timeout=5)
    return [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]
