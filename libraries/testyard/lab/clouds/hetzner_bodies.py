"""What Hetzner's Cloud API v1 answers about servers and actions.

Source: docs.hetzner.cloud/reference/cloud, "Servers" and "Actions". Only power, names, labels and addresses are
the machine's own; the rest is the same for every machine, as a server of a small type has it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from testyard.lab.clouds.actions import Action, ActionKind, ActionState
from testyard.lab.clouds.machines import MachineState, MachineView

CREATED = "2026-01-05T08:00:00Z"
PATHS = {
    "poweron": ActionKind.POWER_ON,
    "poweroff": ActionKind.POWER_OFF,
    "shutdown": ActionKind.SHUTDOWN,
    "reboot": ActionKind.REBOOT,
    "reset": ActionKind.RESET,
}
COMMANDS = {
    ActionKind.POWER_ON: "start_server",
    ActionKind.POWER_OFF: "stop_server",
    ActionKind.SHUTDOWN: "shutdown_server",
    ActionKind.REBOOT: "reboot_server",
    ActionKind.RESET: "reset_server",
}
ACTION_STATUSES = {
    ActionState.RUNNING: ("running", 0),
    ActionState.DONE: ("success", 100),
    ActionState.FAILED: ("error", 100),
}
STATUSES = {
    MachineState.STARTING: "starting",
    MachineState.RUNNING: "running",
    MachineState.STOPPING: "stopping",
    MachineState.STOPPED: "off",
}
LOCATION = {
    "id": 1,
    "name": "fsn1",
    "description": "Falkenstein DC Park 1",
    "city": "Falkenstein",
    "country": "DE",
    "latitude": 50.47612,
    "longitude": 12.370071,
    "network_zone": "eu-central",
}


def server_body(machine: MachineView, *, locked: bool) -> dict[str, Any]:
    """A server.

    Args:
        machine: The machine it is.
        locked: Whether an action runs on it.
    """
    return {
        "id": int(machine.instance_id),
        "name": f"{machine.deployment}-{machine.node}",
        "status": STATUSES[machine.state],
        "created": CREATED,
        "public_net": {
            "ipv4": {"id": 1, "ip": machine.host, "blocked": False, "dns_ptr": "localhost"},
            "ipv6": None,
            "floating_ips": [],
            "firewalls": [],
        },
        "private_net": [],
        "server_type": _server_type(),
        "location": {**LOCATION, "name": machine.region},
        "image": _image(),
        "iso": None,
        "rescue_enabled": False,
        "locked": locked,
        "backup_window": None,
        "outgoing_traffic": 0,
        "ingoing_traffic": 0,
        "included_traffic": 21_990_232_555_520,
        "protection": {"delete": False, "rebuild": False},
        "labels": {"deployment": machine.deployment, "node": machine.node},
        "volumes": [],
        "load_balancers": [],
        "primary_disk_size": 40,
        "placement_group": None,
    }


def action_body(action: Action) -> dict[str, Any]:
    """An action on a server."""
    status, progress = ACTION_STATUSES[action.state]
    failed = {"code": "action_failed", "message": "Action failed"}
    return {
        "id": action.identifier,
        "command": COMMANDS[action.kind],
        "status": status,
        "progress": progress,
        "started": _time(action.started),
        "finished": _time(action.finished) if action.finished else None,
        "resources": [{"id": int(action.instance_id), "type": "server"}],
        "error": failed if action.state is ActionState.FAILED else None,
    }


def list_body(name: str, items: list[dict[str, Any]], *, page: int, per_page: int) -> dict[str, Any]:
    """One page of a list ("Pagination").

    Args:
        name: The list's key.
        items: All of its items.
        page: The page, from 1.
        per_page: How many items a page has.
    """
    last = max(1, -(-len(items) // per_page))
    return {
        name: items[(page - 1) * per_page : page * per_page],
        "meta": {
            "pagination": {
                "page": page,
                "per_page": per_page,
                "previous_page": page - 1 if page > 1 else None,
                "next_page": page + 1 if page < last else None,
                "last_page": last,
                "total_entries": len(items),
            }
        },
    }


def error_body(code: str, message: str) -> dict[str, Any]:
    """An error ("Errors")."""
    return {"error": {"code": code, "message": message, "details": None}}


def _time(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")


def _server_type() -> dict[str, Any]:
    return {
        "id": 22,
        "name": "cpx11",
        "description": "CPX 11",
        "cores": 2,
        "memory": 2.0,
        "disk": 40,
        "prices": [],
        "storage_type": "local",
        "cpu_type": "shared",
        "category": "Shared vCPU",
        "architecture": "x86",
        "deprecated": False,
        "deprecation": None,
        "locations": [],
    }


def _image() -> dict[str, Any]:
    return {
        "id": 114690387,
        "type": "system",
        "status": "available",
        "name": "debian-12",
        "description": "Debian 12",
        "image_size": None,
        "disk_size": 5.0,
        "created": CREATED,
        "created_from": None,
        "bound_to": None,
        "os_flavor": "debian",
        "os_version": "12",
        "rapid_deploy": True,
        "protection": {"delete": False},
        "deprecation": None,
        "labels": {},
        "architecture": "x86",
    }
