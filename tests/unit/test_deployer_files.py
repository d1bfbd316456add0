"""The files of a deployment's directory: forms, permissions, and what is read back of them."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_private_key
from testyard.core.errors import UserError
from testyard.lab.cluster.deployer import files
from testyard.lab.cluster.deployer.files import DatabaseLogin, Node
from testyard.lab.cluster.deployer.keys import new_key_pair
from testyard.lab.cluster.deployer.storage import write_durably

NODE = {
    "host": "127.0.0.1",
    "ssh_port": 40001,
    "admin_ui_port": 40002,
    "database_port": 40003,
    "instance_id": "i-0abc",
    "region": "eu-central-1",
    "user": "admin",
    "host_key": "ssh-ed25519 AAAAkey11",
}
CREATED = {
    "nodes": {"n12": NODE | {"ssh_port": 22, "host_key": "ssh-ed25519 AAAAkey12"}, "n11": NODE},
    "cloud": {"AWS_REGION": "eu-central-1", "AWS_SECRET_ACCESS_KEY": "very-secret"},
    "database": {"user": "sys", "password": "pass-word-1", "name": "exa"},
    "admin_ui_certificate": "-----BEGIN CERTIFICATE-----\n",
}
SECRET_FILES = {".credentials.json", ".cloud.json", "id_ed25519"}
OPEN_FILES = {"inventory.ini", "ssh_config", "known_hosts", "admin_ui.crt"}


@pytest.fixture(params=[0o000, 0o022, 0o077], ids="umask={:03o}".format)
def umask(request) -> Iterator[None]:
    """What the user's shell takes away from new files must not matter."""
    before = os.umask(request.param)
    yield
    os.umask(before)


@pytest.mark.usefixtures("umask")
def test_secret_files_are_for_their_owner_alone(tmp_path):
    files.write_private_key(tmp_path, "key")
    files.write_deployment(tmp_path, CREATED)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == dict.fromkeys(SECRET_FILES, 0o600) | dict.fromkeys(OPEN_FILES, 0o644)


def test_the_inventory_has_a_line_for_each_node(tmp_path):
    files.write_deployment(tmp_path, CREATED)
    rest = "ansible_user=admin instance_id=i-0abc region=eu-central-1 admin_ui_port=40002 database_port=40003"
    assert (tmp_path / "inventory.ini").read_text(encoding="utf-8").splitlines() == [
        "[exasol_nodes]",
        f"n11 ansible_host=127.0.0.1 ansible_port=40001 {rest}",
        f"n12 ansible_host=127.0.0.1 ansible_port=22 {rest}",
    ]


def test_known_hosts_has_a_key_for_each_address(tmp_path):
    files.write_deployment(tmp_path, CREATED)
    assert (tmp_path / "known_hosts").read_text(encoding="utf-8").splitlines() == [
        "[127.0.0.1]:40001 ssh-ed25519 AAAAkey11",
        "127.0.0.1 ssh-ed25519 AAAAkey12",
    ]


def test_ssh_asks_nothing_and_believes_only_known_keys(tmp_path):
    directory = tmp_path / "with a space"
    directory.mkdir()
    files.write_deployment(directory, CREATED)
    text = (directory / "ssh_config").read_text(encoding="utf-8")
    assert text.count("Host ") == 2
    assert text.split("\n\n")[0].splitlines() == [
        "Host n11",
        "  HostName 127.0.0.1",
        "  Port 40001",
        "  User admin",
        f'  IdentityFile "{directory}/id_ed25519"',
        f'  UserKnownHostsFile "{directory}/known_hosts"',
        "  StrictHostKeyChecking yes",
        "  BatchMode yes",
        "  ConnectTimeout 10",
    ]


def test_what_is_written_is_read_again(tmp_path):
    written = files.write_deployment(tmp_path, CREATED)
    assert files.read_nodes(tmp_path) == written
    assert files.read_login(tmp_path) == DatabaseLogin("sys", "pass-word-1", "exa")
    assert json.loads((tmp_path / ".cloud.json").read_text(encoding="utf-8")) == CREATED["cloud"]


def test_a_deployment_without_database_or_cloud_has_no_files_of_them(tmp_path):
    files.write_deployment(tmp_path, CREATED | {"database": None, "cloud": {}})
    assert {path.name for path in tmp_path.iterdir()} == OPEN_FILES
    assert files.read_login(tmp_path) is None


def test_an_inventory_of_the_documented_deployer_is_read(tmp_path):
    (tmp_path / "inventory.ini").write_text(
        "[all:vars]\nn99 is no node here\n\n[exasol_nodes]\n# a comment\n"
        "n11 ansible_host=10.0.0.1 ansible_user=ubuntu ansible_ssh_common_args='-o A=b -o C=d'\n\n"
        "[others]\nn12 ansible_host=10.0.0.2 ansible_user=ubuntu\n",
        encoding="utf-8",
    )
    assert files.read_nodes(tmp_path) == [Node("n11", "10.0.0.1", 22, "ubuntu", "", "", 8443, 8563)]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "names no node in a section"),
        ("[exasol_nodes]\n", "names no node in a section"),
        ("[nodes]\nn11 ansible_host=h ansible_user=u\n", "names no node in a section"),
        ("[exasol_nodes]\nn11 ansible_user=u\n", r"inventory.ini:2 names no node: 'ansible_host'"),
        ("[exasol_nodes]\nn11 ansible_host=h ansible_user=u ansible_port=ssh\n", "invalid literal"),
        ("[exasol_nodes]\nn11 here\n", "inventory.ini:2 names no node"),
        ("[exasol_nodes]\nn11 'here\n", "No closing quotation"),
    ],
)
def test_a_broken_inventory_is_told(tmp_path, text, reason):
    (tmp_path / "inventory.ini").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=reason):
        files.read_nodes(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"database": {"user": "sys"}}', '{"database": null}'])
def test_broken_credentials_are_told_without_their_content(tmp_path, text):
    (tmp_path / ".credentials.json").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match="is no file of credentials"):
        files.read_login(tmp_path)


def test_what_deploy_wrote_is_removed(tmp_path):
    files.write_private_key(tmp_path, "key")
    files.write_deployment(tmp_path, CREATED)
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    files.remove_deployment(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_file_is_replaced_completely_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "state"
    write_durably(path, "before")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_durably(path, "after")
    assert path.read_text(encoding="utf-8") == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_key_pair_belongs_together_and_is_new():
    one, other = new_key_pair("deployment-1"), new_key_pair("deployment-1")
    public = load_ssh_private_key(one.private.encode(), None).public_key()
    line = public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    assert one.public == f"{line} deployment-1"
    assert one.private != other.private
