"""What DigitalOcean's API v2 answers about droplets and actions.

Source: docs.digitalocean.com/reference/api, the example answers of "List All Droplets", "Retrieve an Existing
Droplet" and "Retrieve an Existing Action". Only power, names, tags and addresses are the machine's own; the rest
is the same for every machine, as a droplet of the smallest size has it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from testyard.lab.clouds.actions import Action, ActionKind, ActionState
from testyard.lab.clouds.machines import MachineState, MachineView

CREATED = "2026-01-05T08:00:00Z"
SIZE = "s-1vcpu-1gb"
TYPES = {
    "power_on": ActionKind.POWER_ON,
    "power_off": ActionKind.POWER_OFF,
    "shutdown": ActionKind.SHUTDOWN,
    "reboot": ActionKind.REBOOT,
    "power_cycle": ActionKind.RESET,
}
NAMES = {kind: name for name, kind in TYPES.items()}
STATUSES = {
    ActionState.RUNNING: "in-progress",
    ActionState.DONE: "completed",
    ActionState.FAILED: "errored",
}


def droplet_body(machine: MachineView, running: Action | None) -> dict[str, Any]:
    """A droplet.

    Args:
        machine: The machine it is.
        running: The action that runs on it.
    """
    return {
        "id": int(machine.instance_id),
        "name": f"{machine.deployment}-{machine.node}",
        "memory": 1024,
        "vcpus": 1,
        "disk": 25,
        "disk_info": [{"type": "local", "size": {"amount": 25, "unit": "gib"}}],
        # Locked is what an administrator has locked, not a droplet that an action runs on.
        "locked": False,
        "status": _status(machine, running),
        "kernel": None,
        "created_at": CREATED,
        "features": ["droplet_agent", "private_networking"],
        "backup_ids": [],
        "next_backup_window": None,
        "snapshot_ids": [],
        "image": _image(machine.region),
        "volume_ids": [],
        "size": _size(machine.region),
        "size_slug": SIZE,
        "networks": {
            "v4": [
                {"ip_address": machine.host, "netmask": "255.0.0.0", "gateway": machine.host, "type": "public"},
            ],
            "v6": [],
        },
        "region": _region(machine.region),
        "tags": [f"deployment:{machine.deployment}", f"node:{machine.node}"],
        "vpc_uuid": "760e09ef-dc84-11e8-981e-3cfdfeaae000",
    }


def action_body(action: Action) -> dict[str, Any]:
    """An action on a droplet."""
    return {
        "id": action.identifier,
        "status": STATUSES[action.state],
        "type": NAMES[action.kind],
        "started_at": _time(action.started),
        "completed_at": _time(action.finished) if action.finished else None,
        "resource_id": int(action.instance_id),
        "resource_type": "droplet",
        "region": _region(action.region),
        "region_slug": action.region,
    }


def list_body(
    name: str, items: list[dict[str, Any]], address: str, query: dict[str, str], *, page: int, per_page: int
) -> dict[str, Any]:
    """One page of a list, with links to the others ("Introduction", "Links & Pagination").

    Args:
        name: The list's key.
        items: All of its items.
        address: Where the list is, without a query.
        query: What else the list was asked for.
        page: The page, from 1.
        per_page: How many items a page has.
    """
    last = max(1, -(-len(items) // per_page))
    numbers: dict[str, int] = {}
    if page > 1:
        numbers |= {"first": 1, "prev": page - 1}
    if page < last:
        numbers |= {"next": page + 1, "last": last}
    pages = {
        relation: f"{address}?{urlencode({**query, 'page': number, 'per_page': per_page})}"
        for relation, number in numbers.items()
    }
    return {
        name: items[(page - 1) * per_page : page * per_page],
        "links": {"pages": pages} if pages else {},
        "meta": {"total": len(items)},
    }


def error_body(identifier: str, message: str) -> dict[str, Any]:
    """An error ("Introduction", "HTTP Statuses")."""
    return {"id": identifier, "message": message, "request_id": "4d9d8375-3c56-4925-a3e7-eb137fed17e9"}


def _status(machine: MachineView, running: Action | None) -> str:
    """``active`` or ``off``: a droplet stays what it was until the action on it is completed."""
    if machine.state is MachineState.STARTING and running is not None and running.kind is ActionKind.POWER_ON:
        return "off"
    return "off" if machine.state is MachineState.STOPPED else "active"


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _region(slug: str) -> dict[str, Any]:
    return {
        "name": "Frankfurt 1",
        "slug": slug,
        "features": ["backups", "ipv6", "metadata", "install_agent", "storage", "image_transfer"],
        "available": True,
        "sizes": [SIZE],
    }


def _size(region: str) -> dict[str, Any]:
    return {
        "slug": SIZE,
        "memory": 1024,
        "vcpus": 1,
        "disk": 25,
        "transfer": 1.0,
        "price_monthly": 6.0,
        "price_hourly": 0.00893,
        "regions": [region],
        "available": True,
        "description": "Basic",
    }


def _image(region: str) -> dict[str, Any]:
    return {
        "id": 159651797,
        "name": "12 x64",
        "distribution": "Debian",
        "slug": "debian-12-x64",
        "public": True,
        "regions": [region],
        "created_at": CREATED,
        "type": "base",
        "min_disk_size": 7,
        "size_gigabytes": 0.68,
        "description": "Debian 12 x64",
        "tags": [],
        "status": "available",
        "error_message": "",
    }
