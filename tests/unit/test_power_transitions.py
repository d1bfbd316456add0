"""The table of power transitions is the document's, and what it refuses is refused in one line."""

import pytest
from testyard.power.deadlines import Deadlines
from testyard.power.planning import Target, plan
from testyard.power.problems import UnknownMethodError
from testyard.power.protocol import PowerState, ProviderName
from testyard.power.transitions import (
    TRANSITIONS,
    Method,
    Operation,
    PowerApi,
    Proof,
    Support,
    refusal,
    transition,
)

# Document 003, "Power Control Support by Provider", word for word.
DOCUMENT = """
| Provider | Cluster Stop/Start | Node Stop/Start | Node Crash (SSH) | Node Crash (API) | Node Reboot (SSH) |
| **AWS** | Yes | Yes* | Yes | Planned | Yes |
| **Azure** | Yes | Yes* | Yes | Planned | Yes |
| **GCP** | Yes | Yes* | Yes | Planned | Yes |
| **DigitalOcean** | Manual | No | Yes | No | Yes |
| **Hetzner** | Manual | No | Yes | No | Yes |
| **libvirt** | Manual | No | Yes | No | Yes |
"""
# The operations of a column; a column of two has one cell for both.
COLUMNS = {
    "Cluster Stop/Start": (Operation.STOP_CLUSTER, Operation.START_CLUSTER),
    "Node Stop/Start": (Operation.STOP_NODE, Operation.START_NODE),
    "Node Crash (SSH)": (Operation.CRASH_SSH,),
    "Node Crash (API)": (Operation.CRASH_DESTROY,),
    "Node Reboot (SSH)": (Operation.RESTART_SSH,),
}
# What the document calls planned, or supported by the API and not yet implemented, is implemented here.
CELLS = {
    "Yes": Support.YES,
    "Yes*": Support.YES,
    "Planned": Support.YES,
    "Manual": Support.MANUAL,
    "No": Support.NO,
}


def cells() -> list[tuple[ProviderName, str, Support]]:
    header, *rows = (
        [cell.strip() for cell in line.strip("|").split("|")] for line in DOCUMENT.strip().splitlines()
    )
    return [
        (ProviderName(row[0].strip("*").lower()), column, CELLS[cell])
        for row in rows
        for column, cell in zip(header[1:], row[1:], strict=True)
    ]


def test_the_document_has_thirty_cells() -> None:
    assert len(cells()) == 30


@pytest.mark.parametrize(("provider", "column", "support"), cells())
def test_each_cell_is_the_documents(provider: ProviderName, column: str, support: Support) -> None:
    assert {transition(provider, operation).support for operation in COLUMNS[column]} == {support}


@pytest.mark.parametrize("provider", ProviderName)
def test_a_graceful_restart_is_for_those_that_the_text_names(provider: ProviderName) -> None:
    named = {ProviderName.AWS, ProviderName.AZURE, ProviderName.GCP}
    supported = transition(provider, Operation.RESTART_GRACEFUL).support is Support.YES
    assert supported == (provider in named)


def test_extended_supports_everything_by_the_api() -> None:
    rows = [row for row in TRANSITIONS.values() if row.power_api is PowerApi.EXTENDED]
    assert len(rows) == len(ProviderName) * len(Operation)
    assert {row.support for row in rows} == {Support.YES}
    by_ssh = {row.operation for row in rows if not row.method.by_api}
    assert by_ssh == {Operation.CRASH_SSH, Operation.RESTART_SSH}


def test_every_row_says_from_where_to_where_and_how_that_is_proven() -> None:
    for row in TRANSITIONS.values():
        if row.support is Support.NO:
            assert (row.method, row.proof, row.start, row.end) == (Method.NONE, Proof.REFUSAL, set(), set())
        else:
            assert row.start <= {PowerState.RUNNING, PowerState.STOPPED}
            assert row.start
            assert row.end
            assert row.method is not Method.NONE


def test_manual_is_an_in_guest_shutdown_and_an_operator() -> None:
    assert transition(ProviderName.HETZNER, Operation.STOP_CLUSTER).method is Method.SSH_SHUTDOWN
    assert transition(ProviderName.HETZNER, Operation.START_CLUSTER).method is Method.OPERATOR


def test_a_refusal_names_provider_operation_and_the_way_out() -> None:
    text = refusal(transition(ProviderName.HETZNER, Operation.CRASH_DESTROY))
    assert text.startswith("NotImplementedError: provider 'hetzner' does not support 'crash_node' with method")
    assert "'destroy'" in text
    assert "aws, azure, gcp" in text
    assert "power_api: extended" in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("step", "method", "operation"),
    [
        ("stop_cluster", None, Operation.STOP_CLUSTER),
        ("crash_node", None, Operation.CRASH_SSH),
        ("crash_node", "destroy", Operation.CRASH_DESTROY),
        ("restart_node", None, Operation.RESTART_SSH),
        ("restart_node", "graceful", Operation.RESTART_GRACEFUL),
    ],
)
def test_a_step_is_an_operation(step: str, method: str | None, operation: Operation) -> None:
    assert Operation.of_step(step, method) is operation
    assert operation.step == step


@pytest.mark.parametrize(
    ("step", "method", "says"),
    [
        ("crash_node", "graceful", "'ssh' or 'destroy'"),
        ("restart_node", "destroy", "'ssh' or 'graceful'"),
        ("stop_node", "ssh", "no method"),
        ("explode_node", None, "There is no power step 'explode_node'"),
    ],
)
def test_an_unknown_method_is_a_value_error(step: str, method: str | None, says: str) -> None:
    with pytest.raises(UnknownMethodError, match=says) as raised:
        Operation.of_step(step, method)
    assert isinstance(raised.value, ValueError)


def test_the_default_deadlines_are_the_documented_ones() -> None:
    deadlines = Deadlines()
    documented = {"stop": 600, "boot": 600, "reboot": 300, "ssh": 10, "command": 30, "graceful_pause": 5}
    assert {name: getattr(deadlines, name).total_seconds() for name in documented} == documented


def test_a_plan_says_step_target_and_call() -> None:
    (call,) = plan(ProviderName.AWS, Operation.CRASH_DESTROY, [Target("n12", machine="i-0abc")])
    assert str(call).startswith(
        "crash_node destroy on n12 (i-0abc): ec2.stop_instances(Force=True, SkipOsShutdown=True); within 60 s: "
    )


def test_a_plan_of_a_refused_operation_says_so() -> None:
    (call,) = plan(ProviderName.LIBVIRT, Operation.STOP_NODE, [Target("n12")])
    assert "refused: NotImplementedError: provider 'libvirt' does not support 'stop_node'" in str(call)
    assert call.within is None


def test_a_plan_follows_power_api() -> None:
    (call,) = plan(ProviderName.LIBVIRT, Operation.STOP_NODE, [Target("n12")], power_api=PowerApi.EXTENDED)
    assert call.call == "virDomain.shutdown"
