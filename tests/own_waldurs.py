"""Two Waldurs of one's own, for runs that must not start a lab: the doubles, provisioned over REST."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testyard.lab.supervisor import WaldurInstance
from testyard.waldur.api import Waldur
from testyard.waldur.configuration import write_configuration
from testyard.waldur.provisioning import Provisioner
from testyard.waldur.states import OfferingState, Role

COMPONENT_ON_A = "node_hours"
COMPONENT_ON_B = "cpu_k_hours"
FACTOR = 128.0


@dataclass(frozen=True)
class OwnFederation:
    """What somebody has who wants to test a federation of their own.

    Attributes:
        content: The agent's configuration.
        project: UUID of the project on A that may order.
        provider_token: Of the user who completes orders on B.
    """

    content: dict[str, Any]
    project: str
    provider_token: str

    @property
    def tokens(self) -> list[str]:
        """Every token in the configuration and the variables."""
        offering = self.content["offerings"][0]
        return [
            offering["waldur_api_token"],
            offering["backend_settings"]["target_api_token"],
            self.provider_token,
        ]

    def environment(self, configuration: Path) -> dict[str, str]:
        """The federation test plan's variables, with the configuration written to a file."""
        write_configuration(configuration, self.content)
        return {
            "WALDUR_E2E_TESTS": "true",
            "WALDUR_E2E_CONFIG": str(configuration),
            "WALDUR_E2E_PROJECT_A_UUID": self.project,
            "WALDUR_E2E_PROVIDER_B_TOKEN": self.provider_token,
        }


def provision(source: WaldurInstance, target: WaldurInstance, name: str) -> OwnFederation:
    """Prepare both sides as their staff: the agent's user on A may order too, as the customer's owner.

    Args:
        source: Waldur A.
        target: Waldur B.
        name: Distinguishes several federations of the same Waldurs.
    """
    with (
        Waldur(source.url, source.staff_token, name="Waldur A") as on_a,
        Waldur(target.url, target.staff_token, name="Waldur B") as on_b,
    ):
        a, b = Provisioner(on_a, name), Provisioner(on_b, name)
        offering_a, manager_a = _offering(a, COMPONENT_ON_A)
        customer = a.create_organisation("Customer")
        project = a.create_project("Simulation", customer)
        a.grant_role(Role.CUSTOMER_OWNER, manager_a, customer)
        token_a = a.create_token(manager_a)

        offering_b, manager_b = _offering(b, COMPONENT_ON_B)
        organisation = b.create_organisation("Target")
        agent = b.create_user("agent")
        b.grant_role(Role.CUSTOMER_OWNER, agent, organisation)
        b.make_identity_manager(agent, ["isd:testyard"])
        token_b = b.create_token(agent)
        provider_token = b.create_token(manager_b)
    content = configuration(
        Side(f"{source.url}/api/", token_a, offering_a),
        Side(f"{target.url}/api/", token_b, offering_b),
        customer=organisation,
        port=source.port,
    )
    return OwnFederation(content, project, provider_token)


@dataclass(frozen=True)
class Side:
    """What the agent's configuration says about one Waldur.

    Attributes:
        url: The API's address.
        token: Of the agent's user.
        offering: UUID of the federated offering.
    """

    url: str
    token: str
    offering: str


def configuration(source: Side, target: Side, *, customer: str, port: int) -> dict[str, Any]:
    """The agent's configuration for one federated offering, with events of both sides.

    Args:
        source: Waldur A.
        target: Waldur B.
        customer: UUID of the organisation on B that orders.
        port: Of STOMP over WebSocket.
    """
    settings = {
        "target_api_url": target.url,
        "target_api_token": target.token,
        "target_offering_uuid": target.offering,
        "target_customer_uuid": customer,
        "user_match_field": "username",
        "user_resolve_method": "user_field",
        "user_not_found_action": "warn",
        "target_stomp_enabled": True,
    }
    component = {
        "measured_unit": "Node-hours",
        "unit_factor": 1.0,
        "accounting_type": "limit",
        "label": "Node Hours",
        "target_components": {COMPONENT_ON_B: {"factor": FACTOR}},
    }
    offering = {
        "name": "Own federation",
        "waldur_api_url": source.url,
        "waldur_api_token": source.token,
        "waldur_offering_uuid": source.offering,
        "backend_type": "waldur",
        "order_processing_backend": "waldur",
        "reporting_backend": "waldur",
        "membership_sync_backend": "waldur",
        "stomp_enabled": True,
        "websocket_use_tls": False,
        "stomp_ws_port": port,
        "backend_settings": settings,
        "backend_components": {COMPONENT_ON_A: component},
    }
    return {"timezone": "UTC", "offerings": [offering]}


def _offering(side: Provisioner, component: str) -> tuple[str, str]:
    """An active offering with one component and a plan; returns its UUID and its manager's."""
    organisation = side.create_organisation("Provider")
    side.make_service_provider(organisation)
    offering = side.create_offering("Cluster", side.create_category("HPC"), organisation)
    side.add_component(offering, component, "Hours")
    side.add_plan(offering, "Default")
    side.set_offering_state(offering, OfferingState.ACTIVE)
    manager = side.create_user("manager")
    side.grant_role(Role.OFFERING_MANAGER, manager, offering)
    return offering, manager
