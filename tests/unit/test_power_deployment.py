"""A deployment directory is read as the deployer writes it; what is wrong with it is one clear error."""

from pathlib import Path

import pytest
from power_support import DEPLOYMENT, write_deployment
from testyard.core.errors import UserError
from testyard.power.deployment import Deployment
from testyard.power.problems import DeploymentError, MissingDeploymentError, UnknownNodeError
from testyard.power.protocol import ProviderName
from testyard.power.transitions import PowerApi


def test_the_inventory_gives_the_nodes(tmp_path: Path) -> None:
    deployment = Deployment.read(write_deployment(tmp_path, "gcp"))
    assert deployment.names == ("n11", "n12", "n13")
    assert (deployment.provider, deployment.identifier) == (ProviderName.GCP, DEPLOYMENT)
    node = deployment.node("n12")
    assert (node.host, node.ssh_port, node.user) == ("127.0.0.1", 40002, "admin")
    assert (node.instance_id, node.region) == ("i-n12", "eu-1")
    assert node.known_as == "[127.0.0.1]:40002"
    assert node.private_key == tmp_path / "id_ed25519"


def test_what_a_real_deployer_leaves_out_has_the_tools_defaults(tmp_path: Path) -> None:
    inventory = """
    # written by the deployer
    [all:vars]
    ansible_user=exasol
    [exasol_nodes]
    n11 ansible_host=10.0.0.11   # the first
    ; n12 ansible_host=10.0.0.12
    [others]
    web ansible_host=10.0.0.99
    """
    deployment = Deployment.read(write_deployment(tmp_path, inventory=inventory))
    assert deployment.names == ("n11",)
    node = deployment.node("n11")
    assert (node.ssh_port, node.admin_ui_port, node.database_port) == (22, 8443, 8563)
    assert (node.user, node.known_as, node.instance_id) == ("exasol", "10.0.0.11", "")


def test_ssh_config_gives_user_and_key(tmp_path: Path) -> None:
    write_deployment(tmp_path, inventory="[exasol_nodes]\nn11 ansible_host=10.0.0.11\n")
    (tmp_path / "exasol-key.pem").touch()
    config = f'Host n11\n  User ubuntu\n  IdentityFile "{tmp_path}/exasol-key.pem"\n'
    (tmp_path / "ssh_config").write_text(config, encoding="utf-8")
    node = Deployment.read(tmp_path).node("n11")
    assert (node.user, node.private_key) == ("ubuntu", tmp_path / "exasol-key.pem")


def test_a_key_that_has_moved_is_looked_for_in_the_directory(tmp_path: Path) -> None:
    write_deployment(tmp_path)
    (tmp_path / "ssh_config").write_text("Host n11\n  IdentityFile /gone/id\n", encoding="utf-8")
    assert Deployment.read(tmp_path).node("n11").private_key == tmp_path / "id_ed25519"


def test_an_unknown_node_is_answered_with_the_nodes(tmp_path: Path) -> None:
    deployment = Deployment.read(write_deployment(tmp_path))
    with pytest.raises(UnknownNodeError, match=r"There is no node 'n99' .*; there are n11, n12, n13\.") as raised:
        deployment.node("n99")
    assert isinstance(raised.value, RuntimeError)  # as the contract has it
    assert isinstance(raised.value, UserError)


@pytest.mark.parametrize("name", [".exasol.json", "inventory.ini"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    (write_deployment(tmp_path) / name).unlink()
    with pytest.raises(MissingDeploymentError, match=f"There is no .*{name}: deploy first") as raised:
        Deployment.read(tmp_path)
    assert isinstance(raised.value, RuntimeError)


@pytest.mark.parametrize(
    ("inventory", "says"),
    [
        ("[exasol_nodes]\n", r"has no node in \[exasol_nodes\]"),
        ("[exasol_nodes]\nn11 ansible_user=admin\n", "node n11: ansible_host: Field required"),
        (
            "[exasol_nodes]\nn11 ansible_host=a ansible_user=b ansible_port=99999\n",
            "ansible_port: Input should be",
        ),
        ("[exasol_nodes]\nn11 ansible_host=10.0.0.1\n", "node n11: ansible_user: "),
        ("[exasol_nodes]\nn11 ansible_host='10.0.0.1\n", "line 2: No closing quotation"),
    ],
)
def test_a_wrong_inventory_is_one_clear_error(tmp_path: Path, inventory: str, says: str) -> None:
    with pytest.raises(DeploymentError, match=says) as raised:
        Deployment.read(write_deployment(tmp_path, inventory=inventory))
    assert "inventory.ini" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_wrong_state_file_is_one_clear_error(tmp_path: Path) -> None:
    write_deployment(tmp_path)
    (tmp_path / ".exasol.json").write_text('{"status": 5}', encoding="utf-8")
    with pytest.raises(DeploymentError, match=r"exasol\.json: status: .*; cloud_provider: Field required"):
        Deployment.read(tmp_path)


def test_an_unknown_provider_is_named(tmp_path: Path) -> None:
    with pytest.raises(DeploymentError, match="no provider 'exoscale'; it knows aws, azure"):
        _ = Deployment.read(write_deployment(tmp_path, "exoscale")).provider


def test_without_an_id_no_instance_can_be_the_deployments(tmp_path: Path) -> None:
    with pytest.raises(DeploymentError, match="has no deployment_id"):
        _ = Deployment.read(write_deployment(tmp_path, deployment_id="")).identifier


def test_power_api_is_a_parameter(tmp_path: Path) -> None:
    assert Deployment.read(write_deployment(tmp_path)).power_api is PowerApi.DOCUMENT
    extended = write_deployment(tmp_path, parameters={"power_api": "extended"})
    assert Deployment.read(extended).power_api is PowerApi.EXTENDED
    wrong = write_deployment(tmp_path, parameters={"power_api": "all"})
    with pytest.raises(DeploymentError, match="power_api is document or extended, got 'all'"):
        _ = Deployment.read(wrong).power_api
