"""The power engine on the embedded lab's real nodes: real SSH, real processes, the providers' real SDKs."""

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from power_cluster_support import EMBEDDED, RealCluster, real_cluster
from testyard.core.errors import UserError
from testyard.core.leftover import Leftover
from testyard.power.deployment import Deployment
from testyard.power.engine import replay
from testyard.power.problems import (
    HostKeyError,
    LoginRefusedError,
    NodeUnreachableError,
    ProtectedMachineError,
    UnsupportedOperationError,
)
from testyard.power.results import Outcome
from testyard.power.shell import Reach
from testyard.power.ssh import NodeShell
from testyard.power.transitions import CrashMethod, RestartMethod
from testyard.power.undo import JOURNAL

KILLED = """
import os, signal, sys
from pathlib import Path
from power_cluster_support import RealCluster
from testyard.power.ssh import NodeShell

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

directory, moment, operation, *arguments = sys.argv[1:]
if moment == "fired":
    fire = NodeShell.fire
    NodeShell.fire = lambda shell, command: die(fire(shell, command))
getattr(RealCluster(Path(directory)).power(), operation)(*arguments)
die()
"""


def killed_run(directory: Path, moment: str, *operation: str) -> None:
    """A run that takes a node down and is killed: when that has ``ended``, or once the command is ``fired``."""
    command = [sys.executable, "-c", KILLED, str(directory), moment, *operation]
    tests = Path(__file__).parents[1]
    done = subprocess.run(command, check=False, cwd=tests, capture_output=True, text=True, timeout=60)
    assert done.returncode == -9, done.stderr


@pytest.fixture(scope="module")
def manual(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealCluster]:
    """A cluster at Hetzner: power by SSH, starts by an operator."""
    with real_cluster(tmp_path_factory.mktemp("hetzner"), "hetzner") as cluster:
        yield cluster


@pytest.fixture(scope="module")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealCluster]:
    """A cluster at Azure whose kernels refuse SysRq."""
    with real_cluster(tmp_path_factory.mktemp("azure"), "azure", "--sysrq", "false") as cluster:
        yield cluster


# ---- the rows that go by SSH


def test_a_reboot_over_ssh(manual: RealCluster) -> None:
    before = {node: it.boot_id for node, it in manual.power().readings().items()}
    result = manual.power().restart_node("n12")
    after = {node: it.boot_id for node, it in manual.power().readings().items()}
    assert (result.boot_id_before, result.boot_id_after) == (before["n12"], after["n12"])
    assert {node for node in before if before[node] != after[node]} == {"n12"}
    assert manual.power().journal.pending() == []


def test_a_crash_over_ssh_comes_back(manual: RealCluster) -> None:
    result = manual.power().crash_node("n11")
    assert result.outcome is Outcome.CAME_BACK
    assert result.boot_id_after not in {None, result.boot_id_before}


def test_a_crash_over_ssh_stays_down_where_the_kernel_refuses_sysrq(azure: RealCluster) -> None:
    power = azure.power()
    result = power.crash_node("n11")
    assert result.outcome is Outcome.STAYED_DOWN
    assert power.reading("n11").is_off
    (undone,) = power.undo_all()
    assert undone.ended
    assert power.reading("n11").is_on


def test_a_manual_cluster_stops_and_is_started_by_an_operator(manual: RealCluster) -> None:
    power = manual.power()
    assert {it.outcome for it in power.stop_cluster()} == {Outcome.STOPPED}
    assert all(reading.is_off for reading in power.readings().values())
    assert {it.outcome for it in power.start_cluster()} == {Outcome.STARTED}
    assert all(reading.is_on for reading in power.readings().values())
    assert power.journal.pending() == []


def test_what_the_document_does_not_have_touches_nothing(manual: RealCluster) -> None:
    power = manual.power()
    before = power.reading("n12").boot_id
    with pytest.raises(UnsupportedOperationError):
        power.restart_node("n12", RestartMethod.GRACEFUL)
    assert power.reading("n12").boot_id == before


# ---- the rows that go by the API


def test_a_node_is_stopped_started_and_crashed_by_the_api(azure: RealCluster) -> None:
    with azure.power() as power:
        assert power.stop_node("n12").outcome is Outcome.STOPPED
        assert {node: it.is_on for node, it in power.readings().items()} == {
            "n11": True,
            "n12": False,
            "n13": True,
        }
        assert power.start_node("n12").outcome is Outcome.STARTED
        assert power.crash_node("n13", CrashMethod.DESTROY).outcome is Outcome.STOPPED
    assert azure.power().reading("n13").is_on


def test_an_expired_credential_is_one_clear_error(azure: RealCluster) -> None:
    azure.cloud(expired=True)
    try:
        with pytest.raises(UserError, match="AZURE_") as raised:
            azure.power().stop_node("n12")
    finally:
        azure.cloud(expired=False)
    assert "\n" not in str(raised.value)
    assert azure.power().reading("n12").is_on


# ---- what must not be touched


def test_a_node_that_is_the_controller_is_refused(manual: RealCluster) -> None:
    own = manual.power().reading("n12").boot_id
    power = manual.power(controller=own)
    for operation in (power.restart_node, power.crash_node):
        with pytest.raises(ProtectedMachineError, match="n12"):
            operation("n12")
    with pytest.raises(ProtectedMachineError, match="n12"):
        power.stop_cluster()
    assert {it.is_on for it in power.readings().values()} == {True}
    assert power.reading("n12").boot_id == own


# ---- after a kill


def test_the_next_run_starts_what_a_killed_run_stopped(manual: RealCluster) -> None:
    killed_run(manual.directory, "ended", "stop_cluster")
    assert all(reading.is_off for reading in manual.power().readings().values())
    outcomes = replayed(manual)
    assert [it.ended for it in outcomes] == [True] * 3
    assert all(reading.is_on for reading in manual.power().readings().values())


@pytest.mark.parametrize("operation", ["crash_node", "restart_node"])
def test_the_next_run_waits_for_what_a_killed_run_had_just_begun(manual: RealCluster, operation: str) -> None:
    before = manual.power().reading("n11").boot_id
    killed_run(manual.directory, "fired", operation, "n11")
    (outcome,) = replayed(manual)
    assert outcome.ended
    assert outcome.outcome.startswith("it runs: ")
    assert str(before) not in outcome.outcome


def replayed(cluster: RealCluster) -> list[Leftover]:
    """What the next run undoes; nothing may be left after it."""
    journal = cluster.directory / JOURNAL
    outcomes = replay(journal, deadlines=EMBEDDED, operator=cluster.play_operator, environment={})
    assert not journal.exists()
    return outcomes


# ---- SSH


def test_a_shell_runs_commands(manual: RealCluster) -> None:
    shell = manual.shell("n12")
    assert shell.run("hostname").output == "n12\n"
    unknown = shell.run("dance")
    assert unknown.status == 127
    assert unknown.errors
    assert shell.uptime() > timedelta()
    assert shell.answer().reach is Reach.ANSWERS
    shell.close()


def test_an_uptime_begins_anew_with_a_boot(manual: RealCluster) -> None:
    shell = manual.shell("n13")
    before, result = shell.uptime(), manual.power().restart_node("n13")
    # Over the shell's old connection, which the reboot ended: it connects anew.
    assert shell.uptime() < before + result.duration
    assert shell.boot_id() == result.boot_id_after
    shell.close()


def test_a_node_that_is_off_is_dead(manual: RealCluster) -> None:
    shell = manual.shell("n12")
    assert shell.answer().reach is Reach.ANSWERS
    manual.node("n12", "power-off")
    assert manual.power().reading("n12").is_off
    answer = shell.answer()
    assert (answer.reach, answer.boot_id) == (Reach.DEAD, None)
    assert "Connection refused" in answer.reason
    with pytest.raises(NodeUnreachableError, match="was lost before 'sudo reboot' was sent"):
        shell.fire("sudo reboot")
    manual.node("n12", "boot")
    assert shell.answer().reach is Reach.ANSWERS
    shell.close()


def test_a_host_key_that_changed_is_one_clear_error(manual: RealCluster) -> None:
    known_hosts = manual.directory / "known_hosts"
    before, text = manual.power().reading("n13").boot_id, known_hosts.read_text(encoding="utf-8")
    offered = manual.node("n13", "new-host-key")["host_key"]
    with pytest.raises(HostKeyError, match=r"The host key of node n13 .* has changed") as raised:
        manual.power().restart_node("n13")
    fingerprints = [word.strip(".,") for word in str(raised.value).split() if word.startswith("SHA256:")]
    assert len(set(fingerprints)) == 2
    old = next(
        line
        for line in text.splitlines()
        if line.startswith(Deployment.read(manual.directory).node("n13").known_as)
    )
    known_hosts.write_text(text.replace(old.split(" ", 1)[1], offered), encoding="utf-8")
    assert manual.power().reading("n13").boot_id == before


def test_a_host_key_that_nobody_knows_is_refused(manual: RealCluster) -> None:
    known_hosts = manual.directory / "known_hosts"
    text = known_hosts.read_text(encoding="utf-8")
    known_hosts.write_text("", encoding="utf-8")
    try:
        with pytest.raises(HostKeyError, match=r"Node n11 .* offers the host key SHA256:.* has none for it"):
            manual.power().restart_node("n11")
    finally:
        known_hosts.write_text(text, encoding="utf-8")


def test_a_user_who_is_not_let_in_is_told_so(manual: RealCluster) -> None:
    deployment = Deployment.read(manual.directory)
    stranger = deployment.node("n11").model_copy(update={"user": "stranger"})
    shell = NodeShell(
        stranger, deployment.known_hosts, connect_timeout=EMBEDDED.ssh, command_timeout=EMBEDDED.command
    )
    with pytest.raises(LoginRefusedError, match="Node n11 does not let stranger@127"):
        shell.run("true")
    assert shell.answer().reach is Reach.REFUSES


def test_a_node_that_begins_to_answer_and_hangs_is_told_so(manual: RealCluster) -> None:
    deployment = Deployment.read(manual.directory)
    asked = threading.Event()

    def hang() -> None:
        connection, _ = hanging.accept()
        with connection:
            connection.sendall(b"SSH-2.0-hanging\r\n")
            asked.wait()

    with socket.create_server(("127.0.0.1", 0)) as hanging:
        hangs = threading.Thread(target=hang)
        hangs.start()
        node = deployment.node("n11").model_copy(update={"ssh_port": hanging.getsockname()[1]})
        within = timedelta(milliseconds=300)
        shell = NodeShell(node, deployment.known_hosts, connect_timeout=within, command_timeout=within)
        answer = shell.answer()
        asked.set()
        hangs.join()
    assert answer.reach is Reach.DEAD
    assert answer.reason.endswith("does not answer: no answer within 0.3 s.")
