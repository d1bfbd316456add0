"""Stands in for ``waldur shell`` on a Waldur double: ``python waldur_shell.py URL TOKEN -c CODE``.

It gives the code what Waldur's own modules would (document 001's Django shell), and carries what the code does
with them to the double's control API. So the code that testyard sends to a real shell runs here as it is.
"""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import httpx

url, token, option, code = sys.argv[1:]
assert option == "-c"


def operate(operation: str, **parameters: Any) -> Any:
    """Do something on the double."""
    answer = httpx.post(f"{url}/shell/{operation}", json=parameters, headers={"X-Lab-Token": token})
    answer.raise_for_status()
    return answer.json()


class Row(SimpleNamespace):
    """An object of the database."""

    def save(self, update_fields: list[str]) -> None:
        """Write back what code 001 changes: an offering's plugin options."""
        assert update_fields == ["plugin_options"]
        operate("set_plugin_options", offering=self.uuid.hex, plugin_options=self.plugin_options)


class Objects:
    """A model's manager."""

    def get(self, uuid: str) -> Row:
        """One object."""
        return Row(uuid=SimpleNamespace(hex=uuid), plugin_options={})

    def create(self, *, offering: Row, project: Row, name: str, state: str) -> Row:
        """A new resource."""
        assert state == "OK"
        made = operate("create_resource", offering=offering.uuid.hex, project=project.uuid.hex, name=name)
        return Row(uuid=SimpleNamespace(hex=made["uuid"]))


class Config:
    """Constance's settings."""

    def __setattr__(self, name: str, value: object) -> None:
        assert name == "FEDERATED_IDENTITY_SYNC_ENABLED"
        operate("set_federated_identity_sync", enabled=value)


def create_or_restore(user: str, project: str) -> None:
    """Upstream's task."""
    operate("create_or_restore_offering_users_for_user", user=user, project=project)


MODEL = SimpleNamespace(objects=Objects())
PROVIDED: dict[str, dict[str, Any]] = {
    "django.contrib.auth": {"get_user_model": lambda: MODEL},
    "waldur_core.structure.models": {"Project": MODEL},
    "waldur_mastermind.marketplace.models": {
        "Offering": MODEL,
        "Order": MODEL,
        "Resource": SimpleNamespace(objects=Objects(), States=SimpleNamespace(OK="OK")),
    },
    "waldur_mastermind.marketplace.tasks": {"create_or_restore_offering_users_for_user": create_or_restore},
    "constance": {"config": Config()},
}
for name, content in PROVIDED.items():
    parts = name.split(".")
    for length in range(1, len(parts) + 1):
        package = ".".join(parts[:length])
        sys.modules.setdefault(package, ModuleType(package))
    vars(sys.modules[name]).update(content)

sys.stdout.write("a banner, as shells have one\n")
exec(code, {"__name__": "__main__"})
