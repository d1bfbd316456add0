"""A real PostgreSQL for tests, and a schema in it for each."""

from __future__ import annotations

import secrets
import selectors
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Self
from urllib.parse import quote, urlsplit

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


class Forwarder:
    """A TCP proxy on a loopback port, whose network can swallow everything.

    Args:
        target: The port to forward to.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.silent = threading.Event()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._forward)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()

    def url(self, url: str) -> str:
        """The same database, by way of this proxy."""
        return url.replace(f":{urlsplit(url).port}/", f":{self.port}/")

    def _forward(self) -> None:
        with closing(self._listener), selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            while not self._ending.is_set():
                for key, _ in selector.select(0.02):
                    if key.fileobj is self._listener:
                        self._accept(selector)
                    elif not self.silent.is_set():
                        self._pass_on(selector, key)
            for key in list(selector.get_map().values()):
                key.fileobj.close()

    def _accept(self, selector: selectors.BaseSelector) -> None:
        client, _ = self._listener.accept()
        server = socket.create_connection(("127.0.0.1", self._target))
        selector.register(client, selectors.EVENT_READ, server)
        selector.register(server, selectors.EVENT_READ, client)

    @staticmethod
    def _pass_on(selector: selectors.BaseSelector, key: selectors.SelectorKey) -> None:
        content = key.fileobj.recv(65536)
        if content:
            key.data.sendall(content)
            return
        for end in (key.fileobj, key.data):
            selector.unregister(end)
            end.close()
