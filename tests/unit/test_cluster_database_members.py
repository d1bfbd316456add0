"""What a member does for a manager, and what it refuses; the tests are the manager."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import timedelta

import psycopg
import pytest
from cluster_database_support import BareCluster, Kit, kit
from testyard.core.deadline import Deadline, wait_until
from testyard.lab.cluster.database.lineage import rank
from testyard.lab.cluster.database.plan import Role
from testyard.lab.cluster.database.protocol import RefusedError
from testyard.lab.cluster.database.timing import Timings

SOON = timedelta(seconds=15)
# Nobody renews it.
LEASE = timedelta(minutes=5)
SHORT_LEASE = timedelta(seconds=2)


@pytest.fixture(scope="module")
def materials() -> Iterator[Kit]:
    """One template for all clusters."""
    with kit() as made:
        yield made


@pytest.fixture
def cluster(materials: Kit) -> Iterator[BareCluster]:
    """Three members, and nobody who manages them."""
    with BareCluster(materials, managed=False, timings=Timings(lease=LEASE)) as cluster:
        yield cluster


class Commit:
    """A write in a thread of its own, as it may have to wait for standbys."""

    def __init__(self, cluster: BareCluster, name: str, number: int) -> None:
        self._cluster, self._name, self._number = cluster, name, number
        self.outcome = ""
        self._thread = threading.Thread(target=self._write)
        self._thread.start()

    def _write(self) -> None:
        try:
            with self._cluster.connected(self._name) as connection:
                connection.execute("INSERT INTO kept VALUES (%s)", [self._number])
        except psycopg.Error as problem:
            self.outcome = str(problem)
        else:
            self.outcome = "acknowledged"

    def until_sent(self) -> None:
        """Wait until it waits for a standby."""
        with self._cluster.connected(self._name, superuser=True) as connection:
            waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
            wait_until(
                lambda: connection.execute(waiting).fetchone(), lambda row: row == (1,), Deadline(SOON), "the wait"
            )

    def ended(self) -> str:
        """How it ended."""
        self._thread.join(SOON.total_seconds())
        return self.outcome


def with_table(cluster: BareCluster, primary: str) -> None:
    with cluster.connected(primary) as connection:
        connection.execute("CREATE TABLE kept (number integer)")


def kept(cluster: BareCluster, name: str) -> list[int]:
    with cluster.connected(name) as connection:
        return [row[0] for row in connection.execute("SELECT number FROM kept ORDER BY 1").fetchall()]


def until_kept(cluster: BareCluster, name: str, rows: list[int]) -> None:
    """Wait until a member has replayed these rows; what it has received may not be visible yet."""

    def visible() -> list[int] | None:
        try:
            return kept(cluster, name)
        except psycopg.errors.UndefinedTable:
            return None

    wait_until(visible, lambda found: found == rows, Deadline(SOON), f"the rows on {name}")


def test_a_new_member_is_a_standby_of_nobody(cluster: BareCluster) -> None:
    for name in cluster.names:
        status = cluster.status(name)
        assert (status.role, status.follows, status.streaming, status.term) == (Role.STANDBY, None, False, 0)
        with cluster.connected(name) as connection, pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            connection.execute("CREATE TABLE refused (number integer)")


def test_an_old_primary_gets_no_acknowledgement_from_fenced_standbys(cluster: BareCluster) -> None:
    lineage = cluster.elect("n11", 1, "n12", "n13")
    with_table(cluster, "n11")
    assert Commit(cluster, "n11", 1).ended() == "acknowledged"
    # One of them has acknowledged it; whichever is promoted must have it.
    for name in ("n12", "n13"):
        until_kept(cluster, name, [1])
    before = [cluster.fence(name, 2).position for name in ("n12", "n13")]
    commit = Commit(cluster, "n11", 2)
    commit.until_sent()
    # The old primary was told nothing, and is one still.
    assert cluster.status("n11").role is Role.PRIMARY
    assert [cluster.status(name).position for name in ("n12", "n13")] == before
    assert all(position is not None and position > lineage[-1].position for position in before)
    promoted = cluster.ask("n12", "promote", term=2)
    cluster.follow("n13", "n12", 2, tuple(promoted["lineage"]))
    assert Commit(cluster, "n12", 3).ended() == "acknowledged"
    assert commit.outcome == ""
    cluster.fence("n11", 3)
    assert "acknowledged" not in commit.ended()
    assert kept(cluster, "n12") == [1, 3]


def test_what_belongs_to_an_earlier_term_is_refused(cluster: BareCluster) -> None:
    lineage = cluster.elect("n11", 5, "n12")
    for command, content in (
        ("fence", {"term": 5}),
        ("fence", {"term": 4}),
        ("promote", {"term": 4}),
        ("promote", {"term": 6}),
        ("follow", {"term": 4, "primary": "n13", "lineage": lineage, "oldest": 0}),
    ):
        with pytest.raises(RefusedError, match="n12 knows term 5") as refusal:
            cluster.ask("n12", command, **content)
        assert refusal.value.term == 5
    assert cluster.status("n12").follows == "n11"


def test_a_term_outlives_a_member(cluster: BareCluster) -> None:
    cluster.fence("n12", 8)
    cluster.kill("n12")
    cluster.boot("n12")
    with pytest.raises(RefusedError):
        cluster.fence("n12", 8)


def test_a_member_that_comes_back_receives_from_nobody_until_told(cluster: BareCluster) -> None:
    lineage = cluster.elect("n11", 1, "n12")
    wait_until(lambda: cluster.status("n12").streaming, bool, Deadline(SOON), "replication")
    cluster.kill("n12")
    cluster.kill("n11")
    cluster.boot("n12")
    cluster.boot("n11")
    assert cluster.status("n12").follows is None
    assert cluster.status("n11").role is Role.STANDBY
    assert cluster.fence("n11", 2).lineage == lineage


def test_a_follower_is_not_promoted(cluster: BareCluster) -> None:
    cluster.elect("n11", 1, "n12")
    with pytest.raises(RefusedError, match="cannot be promoted"):
        cluster.ask("n12", "promote", term=1)
    assert cluster.status("n12").role is Role.STANDBY


def test_two_who_were_promoted_to_the_same_timeline_are_told_apart(cluster: BareCluster) -> None:
    cluster.elect("n11", 1, "n12", "n13")
    with_table(cluster, "n11")
    assert Commit(cluster, "n11", 1).ended() == "acknowledged"
    for name in cluster.names:
        until_kept(cluster, name, [1])
    # One is promoted and lost before anybody follows it, with more WAL than anybody; then another one is.
    for name in ("n12", "n13"):
        cluster.fence(name, 2)
    lost = cluster.elect("n11", 2)
    unacknowledged = Commit(cluster, "n11", 13)
    unacknowledged.until_sent()
    cluster.kill("n11")
    assert unacknowledged.ended() != "acknowledged"
    cluster.elect("n12", 3, "n13")
    for number in (2, 3):
        assert Commit(cluster, "n12", number).ended() == "acknowledged"
    new = cluster.status("n12").lineage
    assert new[-1].timeline == lost[-1].timeline
    cluster.kill("n12")
    cluster.boot("n11")
    answers = [cluster.fence(name, 4) for name in ("n11", "n13")]
    ranks = {each.name: rank(each.lineage, each.position or 0) for each in answers}
    assert ranks["n13"] > ranks["n11"]
    # pg_rewind would say that there is nothing to do.
    promoted = cluster.ask("n13", "promote", term=4)
    own = cluster.plans["n11"].directory / "data" / "not_of_the_primary"
    own.touch()
    cluster.follow("n11", "n13", 4, tuple(promoted["lineage"]), cluster.status("n13").oldest)
    wait_until(lambda: cluster.status("n11").streaming, bool, Deadline(SOON), "n11 to rejoin")
    assert not own.exists()
    assert Commit(cluster, "n13", 4).ended() == "acknowledged"
    for name in ("n11", "n13"):
        until_kept(cluster, name, [1, 2, 3, 4])


def test_a_primary_resigns_when_its_lease_runs_out(materials: Kit) -> None:
    with BareCluster(materials, managed=False, timings=Timings(lease=SHORT_LEASE)) as cluster:
        began = time.monotonic()
        cluster.elect("n11", 1, "n12")
        with_table(cluster, "n11")
        # A renewal that was on its way for long counts from when it was asked for, however often it comes.
        clock = cluster.status("n11").clock
        stale = ({"term": 1, "clock": clock}, {"term": 2, "clock": clock + 60})
        wait_until(
            lambda: [cluster.ask("n11", "status", lease=each)["role"] for each in stale],
            lambda roles: roles[-1] == Role.STANDBY,
            Deadline(SOON),
            "the end of the lease",
        )
        assert time.monotonic() - began >= SHORT_LEASE.total_seconds()
        assert kept(cluster, "n11") == []
        with cluster.connected("n11") as connection, pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            connection.execute("INSERT INTO kept VALUES (1)")
        # And it does not take itself for the primary again.
        assert cluster.status("n11").follows is None


def test_a_renewed_lease_lasts(materials: Kit) -> None:
    with BareCluster(materials, managed=False, timings=Timings(lease=SHORT_LEASE)) as cluster:
        cluster.elect("n11", 1, "n12")
        end = time.monotonic() + 2 * SHORT_LEASE.total_seconds()
        while time.monotonic() < end:
            status = cluster.status("n11")
            assert status.role is Role.PRIMARY
            cluster.ask("n11", "status", lease={"term": 1, "clock": status.clock})


def test_a_rejoin_that_is_interrupted_is_done_again(cluster: BareCluster) -> None:
    cluster.elect("n11", 1, "n12", "n13")
    with_table(cluster, "n11")
    for name in ("n12", "n13"):
        until_kept(cluster, name, [])
        cluster.fence(name, 2)
    commit = Commit(cluster, "n11", 13)
    commit.until_sent()
    promoted = cluster.ask("n12", "promote", term=2)
    lineage = tuple(promoted["lineage"])
    cluster.follow("n13", "n12", 2, lineage)
    assert Commit(cluster, "n12", 1).ended() == "acknowledged"
    # As a node that loses its power in the middle of it finds itself.
    cluster.kill("n11")
    memory = cluster.plans["n11"].directory / "member.json"
    memory.write_text(memory.read_text().replace('"incomplete":false', '"incomplete":true'))
    cluster.boot("n11")
    status = cluster.status("n11")
    assert (status.role, status.position) == (Role.REJOINING, None)
    assert cluster.fence("n11", 3).position is None
    cluster.follow("n11", "n12", 3, lineage, cluster.status("n12").oldest)
    wait_until(lambda: cluster.status("n11").streaming, bool, Deadline(SOON), "n11 to rejoin")
    until_kept(cluster, "n11", [1])
    assert commit.ended() != "acknowledged"
