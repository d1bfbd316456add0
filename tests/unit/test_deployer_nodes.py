"""How the deployer asks a database: whether it answers, and whether it takes writes."""

from __future__ import annotations

import asyncio

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from testyard.lab.cluster.deployer.files import DatabaseLogin, Node
from testyard.lab.cluster.deployer.nodes import _database_takes_writes


@pytest.fixture
def asked(database_url) -> tuple[Node, DatabaseLogin]:
    """A node whose database is a PostgreSQL that takes writes."""
    parts = conninfo_to_dict(database_url)
    node = Node("n11", str(parts["host"]), 22, "admin", "i-1", "here", 8443, int(str(parts["port"])))
    return node, DatabaseLogin(str(parts["user"]), str(parts.get("password") or ""), str(parts["dbname"]))


def test_a_primary_takes_writes(asked):
    assert asyncio.run(_database_takes_writes(*asked)) is True


def test_a_database_that_only_reads_takes_none(asked, database_url):
    node, login = asked
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("CREATE ROLE reader LOGIN PASSWORD 'reads-only'")
        connection.execute("ALTER ROLE reader SET default_transaction_read_only TO on")
        reader = login._replace(user="reader", password="reads-only")
        try:
            assert asyncio.run(_database_takes_writes(node, reader)) is False
        finally:
            connection.execute("DROP ROLE reader")


def test_a_database_that_is_not_there_says_so(asked):
    node, login = asked
    with pytest.raises(ValueError, match="no-such-database"):
        asyncio.run(_database_takes_writes(node, login._replace(name="no-such-database")))
