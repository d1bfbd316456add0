"""The cluster's replicated database: it survives what a minority of its members suffers, and loses nothing."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
from cluster_database_support import BareCluster, Kit, kit
from cluster_writer import Writer
from psycopg.errors import OperationalError, ReadOnlySqlTransaction
from testyard.core.deadline import Deadline, wait_until
from testyard.lab.cluster.database.plan import Role
from testyard.lab.cluster.database.timing import Timings

SOON = timedelta(seconds=15)


@pytest.fixture(scope="module")
def materials() -> Iterator[Kit]:
    """One template for all clusters."""
    with kit() as made:
        yield made


@pytest.fixture(scope="module")
def lasting(materials: Kit) -> Iterator[BareCluster]:
    """Three members for all tests."""
    with BareCluster(materials) as cluster:
        yield cluster


@pytest.fixture
def cluster(lasting: BareCluster) -> BareCluster:
    """Three members, ready."""
    lasting.restore()
    return lasting


@pytest.fixture
def writer(cluster: BareCluster) -> Iterator[Writer]:
    """A client that writes all the time; everything that it was acknowledged is there in the end."""
    with Writer(cluster.conninfo()) as writer:
        writer.until(5, SOON)
        yield writer
        writer.until(5, SOON)
    cluster.restore()
    found = writer.compared()
    assert (found.lost, found.unexpected) == ([], [])
    assert len(writer.acknowledged) >= 10


def others(cluster: BareCluster, primary: str) -> list[str]:
    return [name for name in cluster.names if name != primary]


# ---- what it is


def test_every_commit_is_on_the_disks_of_a_majority(cluster: BareCluster) -> None:
    primary = cluster.restore()
    for name in cluster.names:
        with cluster.connected(name, superuser=True) as connection:
            for setting, value in (
                ("synchronous_standby_names", 'ANY 1 ("n11", "n12", "n13")'),
                ("synchronous_commit", "on"),
                ("fsync", "on"),
                ("wal_log_hints", "on"),
            ):
                assert connection.execute(f"SHOW {setting}").fetchone() == (value,)
            row = connection.execute("SELECT pg_is_in_recovery(), system_identifier FROM pg_control_system()")
            assert row.fetchone() == (name != primary, identifier_of(cluster, primary))
    with cluster.connected(primary, superuser=True) as connection:
        rows = connection.execute("SELECT application_name, sync_state FROM pg_stat_replication").fetchall()
    assert sorted(rows) == [(name, "quorum") for name in others(cluster, primary)]


def identifier_of(cluster: BareCluster, name: str) -> int:
    with cluster.connected(name, superuser=True) as connection:
        row = connection.execute("SELECT system_identifier FROM pg_control_system()").fetchone()
    assert row is not None
    return int(row[0])


def test_health_tells_roles_and_lag(cluster: BareCluster) -> None:
    primary = cluster.restore()
    health = cluster.until(lambda health: all(each.lag == 0 for each in health.members.values()))
    assert health.primary == primary
    assert {name: each.role for name, each in health.members.items()} == {
        name: "primary" if name == primary else "standby" for name in cluster.names
    }
    assert all(each.accepts_connections for each in health.members.values())


def test_no_password_is_on_a_command_line(cluster: BareCluster) -> None:
    commands = "\n".join(" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"]))
    assert str(cluster.place) in commands
    accounts = cluster.kit.accounts
    for password in (accounts.password, accounts.superuser_password, accounts.replication_password):
        assert password not in commands


# ---- what it survives


@pytest.mark.parametrize("suffers", ["kill", "shut_down"])
def test_a_lost_primary_is_replaced(cluster: BareCluster, writer: Writer, suffers: str) -> None:
    first = cluster.restore()
    getattr(cluster, suffers)(first)
    writer.until(10, SOON)
    assert cluster.health.primary != first
    assert cluster.health.members[first].role == "unreachable"
    cluster.boot(first)
    assert cluster.until_complete() != first


@pytest.mark.parametrize(("hears", "is_heard"), [(False, False), (True, False), (False, True)])
def test_a_primary_behind_a_partition_is_replaced(
    cluster: BareCluster, writer: Writer, hears: bool, is_heard: bool
) -> None:
    first = cluster.restore()
    cluster.silence(first, hears=hears, is_heard=is_heard)
    writer.until(10, SOON)
    cluster.until(lambda health: health.primary not in {None, first})
    has_resigned(cluster, first)
    cluster.heal()
    assert cluster.until_complete() != first


def has_resigned(cluster: BareCluster, name: str) -> None:
    wait_until(lambda: cluster.status(name).role, lambda role: role is Role.STANDBY, Deadline(SOON), "the lease")


def test_a_primary_that_only_standbys_cannot_reach_is_replaced(materials: Kit) -> None:
    with BareCluster(materials, timings=Timings(isolation=timedelta(milliseconds=500))) as cluster:
        first = cluster.until_complete()
        with Writer(cluster.conninfo()) as writer:
            for name in others(cluster, first):
                cluster.links.set_silent(name, first, silent=True)
            cluster.until(lambda health: health.primary not in {None, first})
            writer.until(10, SOON)
            cluster.restore()
        assert writer.compared().lost == []


def test_a_primary_whose_postgresql_hangs_is_replaced(cluster: BareCluster, writer: Writer) -> None:
    first = cluster.restore()
    postmaster = psutil.Process(cluster.postmaster(first)[0])
    for process in (postmaster, *postmaster.children()):
        process.suspend()
    writer.until(10, SOON)
    cluster.until(lambda health: health.primary not in {None, first})
    assert cluster.until_complete() != first
    assert not postmaster.is_running() or postmaster.status() == psutil.STATUS_ZOMBIE


def test_a_postgresql_that_is_killed_comes_back_as_a_standby(cluster: BareCluster, writer: Writer) -> None:
    first = cluster.restore()
    term = cluster.health.term
    os.kill(cluster.postmaster(first)[0], signal.SIGKILL)
    cluster.until(lambda health: health.primary is not None and health.term > term)
    writer.until(10, SOON)
    # Whoever has come farthest is elected, which may be the one that was killed: it is back by then.
    cluster.until_complete()


def test_a_stopped_service_hands_over_at_once(cluster: BareCluster, writer: Writer) -> None:
    first = cluster.restore()
    cluster.service(first, "stop")
    health = cluster.until(lambda health: health.primary not in {None, first})
    assert health.members[first].role == "stopped"
    assert not health.members[first].accepts_connections
    cluster.service(first, "start")
    cluster.until_complete()


def test_a_lost_standby_stops_nobody_from_writing(cluster: BareCluster, writer: Writer) -> None:
    primary = cluster.restore()
    writer.longest_gap = timedelta()
    cluster.kill(others(cluster, primary)[0])
    writer.until(20, SOON)
    cluster.until(lambda health: health.members[others(cluster, primary)[0]].role == "unreachable")
    assert cluster.health.primary == primary
    assert writer.longest_gap < timedelta(seconds=1)


def test_everything_comes_back_after_everything_was_killed(cluster: BareCluster) -> None:
    with Writer(cluster.conninfo()) as writer:
        writer.until(20, SOON)
        for name in cluster.names:
            cluster.kill(name)
        cluster.until(lambda health: {each.role for each in health.members.values()} == {"unreachable"})
        cluster.boot("n13")
        cluster.until(lambda health: health.members["n13"].accepts_connections)
        assert cluster.health.primary is None
        assert cluster.status("n13").role is Role.STANDBY
        cluster.boot("n12")
        cluster.until(lambda health: health.primary is not None)
        cluster.boot("n11")
        cluster.until_complete()
        writer.until(5, SOON)
    assert writer.compared().lost == []


# ---- no majority


@pytest.mark.parametrize("suffers", ["kill", "silence"])
def test_without_a_majority_writes_fail_and_reads_go_on(cluster: BareCluster, suffers: str) -> None:
    primary = cluster.restore()
    with Writer(cluster.conninfo()) as writer:
        writer.until(5, SOON)
    term = cluster.health.term
    for name in others(cluster, primary):
        getattr(cluster, suffers)(name)
    began = time.monotonic()
    wait_until(lambda: fails_to_write(cluster, primary), bool, Deadline(SOON), "a write to fail")
    timings = cluster.timings
    # What is being written fails when the lease, which is renewed for a detection time more, runs out.
    allowed = timings.detection + timings.lease + timings.call + timedelta(seconds=1)
    assert time.monotonic() - began < allowed.total_seconds()
    cluster.until(lambda health: health.members[primary].role == "standby")
    with cluster.connected(primary) as connection:
        assert connection.execute("SELECT count(*) FROM written").fetchone() >= (5,)
        with pytest.raises(ReadOnlySqlTransaction):
            connection.execute("INSERT INTO written VALUES (0)")
    assert cluster.health.primary is None
    assert (cluster.health.term, cluster.status(primary).term) == (term, term)


def fails_to_write(cluster: BareCluster, name: str) -> bool:
    try:
        with cluster.connected(name) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS more (number integer)")
            connection.execute("INSERT INTO more VALUES (0)")
    except (OperationalError, ReadOnlySqlTransaction):
        return True
    return False


def test_a_manager_without_a_majority_promotes_nobody(cluster: BareCluster) -> None:
    primary = cluster.restore()
    cluster.silence(primary)
    cluster.silence(others(cluster, primary)[0])
    has_resigned(cluster, primary)
    assert [cluster.status(name).role for name in cluster.names] == [Role.STANDBY] * 3
    cluster.heal()
    cluster.until_complete()


# ---- who is elected


def test_the_standby_that_has_come_farthest_is_elected(cluster: BareCluster) -> None:
    primary = cluster.restore()
    behind, ahead = others(cluster, primary)
    cluster.links.set_silent(primary, behind, silent=True)
    with Writer(cluster.conninfo()) as writer:
        writer.until(20, SOON)
        cluster.kill(primary)
        health = cluster.until(lambda health: health.primary not in {None, primary})
        # Equal ones are elected by name, which would be the wrong one.
        assert (health.primary, behind) == (ahead, min(behind, ahead))
        writer.until(5, SOON)
    cluster.restore()
    assert writer.compared().lost == []


# ---- who rejoins, and how


def test_an_old_primary_with_writes_that_nobody_acknowledged_is_rewound(cluster: BareCluster) -> None:
    first = cluster.restore()
    with Writer(cluster.conninfo()) as writer:
        writer.until(5, SOON)
        rewound = cluster.log(first).count("pg_rewind: Done!")
        with cluster.connected(first, superuser=True) as connection:
            connection.execute("SET synchronous_commit = local")
            cluster.silence(first)
            # The writer may not have written there any more, on a busy machine.
            connection.execute("SELECT pg_logical_emit_message(true, 'unacknowledged', '')")
        writer.until(5, SOON)
        cluster.heal()
        cluster.until_complete()
    assert cluster.log(first).count("pg_rewind: Done!") == rewound + 1
    assert rows(cluster, first) == writer.present()


def rows(cluster: BareCluster, name: str) -> list[int]:
    with cluster.connected(name) as connection:
        return [row[0] for row in connection.execute("SELECT number FROM written ORDER BY 1").fetchall()]


def test_a_member_whose_wal_is_gone_is_copied(cluster: BareCluster) -> None:
    primary = cluster.restore()
    late = others(cluster, primary)[0]
    data = cluster.plans[late].directory / "data"
    own = data / "not_of_the_primary"
    own.touch()
    rewound = cluster.log(late).count("pg_rewind: Done!")
    cluster.shut_down(late)
    with cluster.connected(primary, superuser=True) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS more (number integer)")
        connection.execute("ALTER SYSTEM SET wal_keep_size = 0")
        connection.execute("SELECT pg_reload_conf()")
        end = cluster.status(primary).position
        assert end is not None

        def oldest() -> int:
            connection.execute("INSERT INTO more VALUES (1)")
            connection.execute("SELECT pg_switch_wal()")
            connection.execute("CHECKPOINT")
            return cluster.status(primary).oldest

        # The checkpointer may learn of the new setting after its first checkpoint.
        wait_until(oldest, lambda position: position > end, Deadline(SOON), "the primary to remove its WAL")
        connection.execute("ALTER SYSTEM RESET wal_keep_size")
        connection.execute("SELECT pg_reload_conf()")
    cluster.boot(late)
    wait_until(own.exists, lambda there: not there, Deadline(SOON), "the member's data to be replaced")
    cluster.until_complete()
    assert cluster.log(late).count("pg_rewind: Done!") == rewound


# ---- how many


@pytest.mark.parametrize(("size", "spare"), [(1, 0), (2, 0), (4, 1), (5, 2)])
def test_any_number_of_members_works(materials: Kit, size: int, spare: int) -> None:
    with BareCluster(materials, size=size) as cluster:
        cluster.until_complete()
        with Writer(cluster.conninfo()) as writer:
            writer.until(5, SOON)
            for _ in range(spare):
                primary = cluster.until(lambda health: health.primary is not None).primary
                assert primary is not None
                cluster.kill(primary)
                writer.until(5, SOON)
            if size > 1:
                alive = list(cluster.processes)
                cluster.kill(alive[0])
                cluster.until(lambda health: health.primary is None)
                wait_until(lambda: fails_to_write(cluster, alive[1]), bool, Deadline(SOON), "a write to fail")
        if size > 1:
            cluster.restore()
        assert writer.compared().lost == []


# ---- nothing is left


@pytest.mark.parametrize("suffers", ["nothing", "kill"])
def test_nothing_is_left(materials: Kit, suffers: str) -> None:
    with BareCluster(materials) as cluster:
        cluster.until_complete()
        servers = [cluster.postmaster(name) for name in cluster.names]
        assert len(alive_in(cluster.place)) > 10
        assert {segment for _, segment in servers} <= segments()
        if suffers == "kill":
            for name in cluster.names:
                cluster.kill(name)
    wait_until(lambda: alive_in(cluster.place), lambda left: left == [], Deadline(SOON), "no process to be left")
    assert not cluster.place.exists()
    assert not {segment for _, segment in servers} & segments()


def alive_in(place: Path) -> list[psutil.Process]:
    """The processes that have something to do with a directory."""
    found = []
    for process in psutil.process_iter(["cmdline", "cwd", "status"]):
        said = f"{process.info['cwd']} {' '.join(process.info['cmdline'] or ())}"
        if str(place) in said and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


def segments() -> set[int]:
    """All segments of System V shared memory."""
    _, *lines = Path("/proc/sysvipc/shm").read_text(encoding="utf-8").splitlines()
    return {int(line.split()[1]) for line in lines}
