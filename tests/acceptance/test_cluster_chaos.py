"""Whatever happens to one node at a time, no acknowledged write is lost; one that was would be named (issue 5)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from cluster_rounds import Fault, inflict, rounds, run
from cluster_support import DatacentreUnderTest, DeploymentUnderTest
from cluster_writer import Comparison, Writer
from testyard.core.deadline import Deadline, wait_until

SEED = 20261122
ROUNDS = 20
WITHIN = timedelta(seconds=60)
MANAGER = "manager"
LEAST_WRITES = 400


class NodesOfTheLab:
    """The nodes of a deployment on the embedded lab."""

    names = ("n11", "n12", "n13")

    def __init__(self, deployment: DeploymentUnderTest) -> None:
        self._deployment = deployment

    def kill(self, name: str) -> None:
        """Kill all processes of a node."""
        self._deployment[name].act("power-off")

    def shut_down(self, name: str) -> None:
        """Press a node's power button."""
        self._deployment[name].act("press")
        self._deployment[name].until("stopped")

    def boot(self, name: str) -> None:
        """Switch a node on."""
        self._deployment[name].act("boot")

    def silence(self, name: str, *, hears: bool = False, is_heard: bool = False) -> None:
        """Cut a node off from every other and from the manager, in one direction or in both."""
        for peer in (*self.names, MANAGER):
            if peer != name:
                self._link(peer, name, silent=not hears)
                self._link(name, peer, silent=not is_heard)

    def heal(self) -> None:
        """End every partition."""
        for link in self._deployment.get("/links")["links"]:
            if link["silent"]:
                self._link(link["from"], link["to"], silent=False)

    def _link(self, source: str, target: str, *, silent: bool) -> None:
        self._deployment.post("/links", {"from": source, "to": target, "silent": silent})

    def until_complete(self, within: timedelta = WITHIN) -> str:
        """Wait until all members follow a primary; gives its name."""
        status = wait_until(self._status, _is_complete, Deadline(within), "a complete database")
        return str(status["primary"])

    def primary(self) -> str | None:
        """Who takes writes now."""
        primary: str | None = self._status()["primary"]
        return primary

    def _status(self) -> dict[str, Any]:
        status: dict[str, Any] = self._deployment.get()["database"]
        return status

    def conninfo(self, *names: str) -> str:
        """How a client reaches one node, or the primary among all."""
        nodes = [self._deployment[name] for name in names or self.names]
        login = self._deployment.answer["database"]
        return psycopg.conninfo.make_conninfo(
            host=",".join(node.facts["host"] for node in nodes),
            port=",".join(str(node.facts["database_port"]) for node in nodes),
            user=login["user"],
            password=login["password"],
            dbname=login["name"],
            target_session_attrs="any" if names else "read-write",
        )


def _is_complete(status: dict[str, Any]) -> bool:
    streaming = [name for name, each in status["members"].items() if each["streaming"]]
    return status["primary"] is not None and len(streaming) == len(NodesOfTheLab.names) - 1


@contextmanager
def lab(**wish: Any) -> Iterator[NodesOfTheLab]:
    with DatacentreUnderTest() as datacentre:
        nodes = NodesOfTheLab(datacentre.deploy(*NodesOfTheLab.names, database=True, **wish))
        nodes.until_complete()
        yield nodes


@pytest.mark.slow
def test_no_acknowledged_write_is_lost_in_twenty_rounds() -> None:
    said: list[str] = []
    with lab() as nodes:
        with Writer(nodes.conninfo()) as writer:
            found = run(nodes, writer, rounds(SEED, ROUNDS), said)
        found.append(writer.compared())
    primaries = [line.split(" -> ", 1)[1][:3] for line in said]
    assert found == [Comparison(lost=[], unexpected=[])] * (ROUNDS + 1)
    assert len(writer.acknowledged) >= LEAST_WRITES
    assert {fault for fault in Fault if any(f": {fault} of" in line for line in said)} == set(Fault)
    assert len(set(primaries)) > 1, said


@pytest.mark.slow
def test_without_synchronous_replication_each_lost_write_is_named() -> None:
    with lab(synchronous=False) as nodes:
        old = nodes.until_complete()
        with Writer(nodes.conninfo()) as writer:
            writer.until(20, WITHIN)
            assert writer.compared() == Comparison(lost=[], unexpected=[])
            inflict(nodes, Fault.CUT_OFF, old)
            wait_until(lambda: is_standby(nodes, old), bool, Deadline(WITHIN), "the old primary to resign")
            wait_until(nodes.primary, lambda name: name not in {None, old}, Deadline(WITHIN), "a new primary")
            only_there = set(writer.present(nodes.conninfo(old))) - set(writer.present())
            nodes.heal()
            assert nodes.until_complete() != old
            writer.until(5, WITHIN)
        lost = only_there & set(writer.acknowledged)
        assert len(lost) > 5
        assert writer.compared() == Comparison(lost=sorted(lost), unexpected=[])


def is_standby(nodes: NodesOfTheLab, name: str) -> bool:
    try:
        with psycopg.connect(nodes.conninfo(name)) as connection:
            return connection.execute("SELECT pg_is_in_recovery()").fetchone() == (True,)
    except psycopg.OperationalError:
        return False  # it is just being restarted
