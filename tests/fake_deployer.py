"""A deployer for tests of what drives one: it keeps a state file, notes its calls, and deploys nothing."""

import json
import os
import signal
import sys
from pathlib import Path

INVENTORY = "[exasol_nodes]\nn11 ansible_host=127.0.0.1 ansible_port=1 ansible_user=nobody\n"
STATES = {"init": "initialized", "deploy": "database_ready", "destroy": "destroyed", "start": "started"}


def main() -> int:
    """Do one verb; what the environment's FAKE_DEPLOYER_FAILS names fails, FAKE_DEPLOYER_HANGS hangs."""
    verb, _, directory, *options = sys.argv[1:]
    deployment = Path(directory)
    with Path(os.environ["FAKE_DEPLOYER_CALLS"]).open("a") as calls:
        calls.write(json.dumps([verb, deployment.name, *options]) + "\n")
    if os.environ.get("FAKE_DEPLOYER_HANGS") == verb:
        Path(os.environ["FAKE_DEPLOYER_CALLS"]).with_name("hangs").touch()
        signal.pause()
    if os.environ.get("FAKE_DEPLOYER_FAILS") == verb:
        sys.stderr.write("first line\nno quota for another cluster\n")
        return 1
    deployment.mkdir(parents=True, exist_ok=True)
    state_file = deployment / ".exasol.json"
    if verb in STATES:
        state = {
            "version": "1.0",
            "status": STATES[verb],
            "db_version": "fake-1",
            "cloud_provider": "aws",
            "deployment_id": deployment.name,
        }
        state_file.write_text(json.dumps(state))
    if verb == "deploy":
        (deployment / "inventory.ini").write_text(INVENTORY)
    if verb == "status":
        sys.stdout.write(state_file.read_text())
    if verb == "health":
        healthy = '{"status": "healthy", "issues_count": 0, "issues": []}'
        sys.stdout.write(os.environ.get("FAKE_DEPLOYER_HEALTH", healthy))
        return int(os.environ.get("FAKE_DEPLOYER_HEALTH_STATUS", "0"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
