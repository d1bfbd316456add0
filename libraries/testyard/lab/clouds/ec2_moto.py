"""moto's EC2 in this process: what it knows of instances is what the lab's machines are.

moto keeps accounts in a module of its own, so each double gets an account number of its own. Everything here runs
in one thread (:class:`testyard.lab.clouds.ec2.Ec2Double` sees to it): moto is slow to import, and neither it nor
this module locks.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from testyard.lab.clouds.machines import MachineState, MachineView

# Names and codes as in EC2's API reference, type InstanceState.
STATES = {
    MachineState.STARTING: ("pending", 0),
    MachineState.RUNNING: ("running", 16),
    MachineState.STOPPING: ("stopping", 64),
    MachineState.STOPPED: ("stopped", 80),
}
IMAGE = "ami-0123456789abcdef0"
IMPORTING = threading.Lock()


@dataclass(frozen=True)
class Answer:
    """An HTTP answer."""

    status: int
    content_type: str
    body: bytes


class MotoAccount:
    """One AWS account at moto, with the machines of the lab as its instances."""

    def __init__(self) -> None:
        # Nobody asks for images, and making up a thousand of them costs half a second. Read by moto at import.
        os.environ.setdefault("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")
        self._number = f"{secrets.randbelow(10**12):012d}"
        with _shared_model():
            from moto.ec2.models import ec2_backends
            from moto.moto_server.werkzeug_app import create_backend_app
            from werkzeug.test import Client

            self._backends: Any = ec2_backends[self._number]
            self._client = Client(create_backend_app("ec2"))
        # The machines that moto has as instances, as it has them.
        self._known: dict[str, MachineView] = {}

    def answer(self, machines: Iterable[MachineView], headers: Mapping[str, str], body: bytes) -> Answer:
        """moto's answer to a request, with its instances brought up to date first.

        Args:
            machines: The machines as they are now.
            headers: The request's.
            body: The request's, ``Action=...``.
        """
        self._update(machines)
        response = self._client.post("/", data=body, headers={**headers, "x-moto-account-id": self._number})
        return Answer(response.status_code, response.content_type, response.get_data())

    def forget(self) -> None:
        """Take every instance of this account out of moto."""
        self._update(())

    def _update(self, machines: Iterable[MachineView]) -> None:
        present = {machine.instance_id: machine for machine in machines}
        for identifier in self._known.keys() - present.keys():
            self._remove(identifier)
        for machine in present.values():
            if machine.instance_id not in self._known:
                self._add(machine)
            instance = self._backends[machine.region].get_instance(machine.instance_id)
            instance.instance_state.name, instance.instance_state.code = STATES[machine.state]
            if (known := self._known.get(machine.instance_id)) is None or _tags(known) != _tags(machine):
                instance.add_tags(_tags(machine))
            self._known[machine.instance_id] = machine

    def _add(self, machine: MachineView) -> None:
        reservation = self._backends[machine.region].run_instances(
            IMAGE,
            1,
            None,
            [],
            region_name=machine.region,
            is_instance_type_default=True,
            instance_type="t3.medium",
        )
        (instance,) = reservation.instances
        # Before anything is noted of it: moto keeps tags by identifier.
        instance.id = machine.instance_id

    def _remove(self, identifier: str) -> None:
        backend = self._backends[self._known.pop(identifier).region]
        backend.get_instance(identifier).terminate()
        for reservation in list(backend.reservations.values()):
            if any(instance.id == identifier for instance in reservation.instances):
                del backend.reservations[reservation.id]


@contextmanager
def _shared_model() -> Iterator[None]:
    """Let botocore read EC2's model once: moto opens a session for each thing it looks up as it is imported.

    Each session reads the model anew, three megabytes of JSON: half of all that the import takes. What a session
    reads stays the same. One thread at a time: what is put in place of botocore's function is taken back.
    """
    import botocore.session
    from botocore.loaders import create_loader

    with IMPORTING:
        loader = create_loader()
        botocore.session.create_loader = lambda *_: loader
        try:
            yield
        finally:
            botocore.session.create_loader = create_loader


def _tags(machine: MachineView) -> dict[str, str]:
    return {"Name": machine.node, "deployment": machine.deployment}
