"""A federation on the embedded lab, prepared in plain Python, and the lifecycles that the benchmarks time."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from lifecycle_meter import Lifecycle, LifecycleClock
from testyard.core.journal import Journal
from testyard.lab.supervisor import WaldurInstance
from testyard.waldur.api import Waldur
from testyard.waldur.configuration import write_configuration
from testyard.waldur.federation import Federation, open_federation
from testyard.waldur.provisioning import Provisioner
from testyard.waldur.states import OfferingState, OrderState, Role

RUN = "benchmark"
SOURCE_COMPONENT = "node_hours"
TARGET_COMPONENT = "cpu_k_hours"
MOST_CYCLES = 5
LIMITS = {SOURCE_COMPONENT: 2}


@dataclass(frozen=True)
class Prepared:
    """Two sides that an agent can federate."""

    configuration: Path
    project: str
    customer_token: str = field(repr=False)
    provider_token: str = field(repr=False)


@dataclass(frozen=True)
class Offering:
    """An active offering, its manager's token, and the provisioner of its side."""

    provisioner: Provisioner
    uuid: str
    manager_token: str = field(repr=False)


@contextmanager
def active_offering(instance: WaldurInstance, component: str) -> Iterator[Offering]:
    """Provide an offering with one component, from nothing."""
    with Waldur(instance.url, instance.staff_token, name=f"Waldur {instance.name}") as waldur:
        provisioner = Provisioner(waldur, RUN)
        organisation = provisioner.create_organisation("Provider")
        provisioner.make_service_provider(organisation)
        offering = provisioner.create_offering("Cluster", provisioner.create_category("HPC"), organisation)
        provisioner.add_component(offering, component, "hours")
        provisioner.add_plan(offering, "Default")
        provisioner.set_offering_state(offering, OfferingState.ACTIVE)
        manager = provisioner.create_user("manager")
        provisioner.grant_role(Role.OFFERING_MANAGER, manager, offering)
        yield Offering(provisioner, offering, provisioner.create_token(manager))


def ordering_project(provisioner: Provisioner, name: str) -> tuple[str, str]:
    """Create an organisation with a project and a customer who may order for it.

    Returns:
        UUID of the project, token of the customer.
    """
    organisation = provisioner.create_organisation(name)
    project = provisioner.create_project(name, organisation)
    customer = provisioner.create_user(name)
    provisioner.grant_role(Role.CUSTOMER_OWNER, customer, organisation)
    provisioner.grant_role(Role.PROJECT_MANAGER, customer, project)
    return project, provisioner.create_token(customer)


def prepare_federation(source: WaldurInstance, target: WaldurInstance, directory: Path) -> Prepared:
    """Prepare both sides from nothing and write the agent's configuration."""
    with ExitStack() as stack:
        there = stack.enter_context(active_offering(target, TARGET_COMPONENT))
        organisation = there.provisioner.create_organisation("Target")
        agent = there.provisioner.create_user("agent")
        there.provisioner.grant_role(Role.CUSTOMER_OWNER, agent, organisation)
        there.provisioner.make_identity_manager(agent, ["isd:testyard"])
        here = stack.enter_context(active_offering(source, SOURCE_COMPONENT))
        project, customer_token = ordering_project(here.provisioner, "Simulation")
        settings = {
            "target_api_url": f"{target.url}/",
            "target_api_token": there.provisioner.create_token(agent),
            "target_offering_uuid": there.uuid,
            "target_customer_uuid": organisation,
            "user_match_field": "username",
            "user_resolve_method": "user_field",
            "user_not_found_action": "warn",
        }
        component = {
            "measured_unit": "Node-hours",
            "unit_factor": 1.0,
            "accounting_type": "limit",
            "label": "Node Hours",
            "target_components": {TARGET_COMPONENT: {"factor": 128.0}},
        }
        offering = {
            "name": "Federation benchmark",
            "waldur_api_url": f"{source.url}/api/",
            "waldur_api_token": here.manager_token,
            "waldur_offering_uuid": here.uuid,
            "backend_type": "waldur",
            "order_processing_backend": "waldur",
            "reporting_backend": "waldur",
            "membership_sync_backend": "waldur",
            "stomp_enabled": False,
            "backend_settings": settings,
            "backend_components": {SOURCE_COMPONENT: component},
        }
        configuration = directory / "agent.yaml"
        write_configuration(configuration, {"timezone": "UTC", "offerings": [offering]})
        return Prepared(configuration, project, customer_token, there.manager_token)


def join(prepared: Prepared) -> Federation:
    """Open a federation and start its agent, so that cycles are all that is left to do."""
    federation = open_federation(
        prepared.configuration,
        prepared.project,
        Journal(),
        customer_token=prepared.customer_token,
        provider_token=prepared.provider_token,
    )
    federation.agent.start()
    return federation


def create(federation: Federation, clock: LifecycleClock, name: str) -> tuple[str, Lifecycle]:
    """Order a resource on A and let the agent work until it is done.

    Returns:
        UUID of the order, and how long it took.
    """
    clock.start()
    order = federation.order(LIMITS, f"{RUN} {name}").uuid
    state = federation.work_until_ended(order, cycles=MOST_CYCLES, delay=timedelta())
    lifecycle = clock.stop()
    assert state is OrderState.DONE, f"order {order} is {state.value}"
    return order, lifecycle


def terminate(federation: Federation, order: str) -> None:
    """End the resource of an order on both sides."""
    termination = federation.source.terminate(federation.resource_of(order).uuid)
    state = federation.work_until_ended(termination, cycles=MOST_CYCLES, delay=timedelta())
    assert state is OrderState.DONE, f"termination {termination} is {state.value}"


@dataclass(frozen=True)
class Overhead:
    """The driving overhead of some lifecycles, as shares of their wall time."""

    median: float
    ninth_decile: float
    own: float
    """Median of what is left without the REST calls of customer and provider."""
    wall: float
    """Median of the whole lifecycle, in seconds."""

    @classmethod
    def of(cls, lifecycles: Sequence[Lifecycle]) -> Overhead:
        """Summarise."""
        shares = [lifecycle.overhead for lifecycle in lifecycles]
        return cls(
            statistics.median(shares),
            statistics.quantiles(shares, n=10, method="inclusive")[-1],
            statistics.median(lifecycle.own for lifecycle in lifecycles),
            statistics.median(lifecycle.wall for lifecycle in lifecycles),
        )

    def __str__(self) -> str:
        return (
            f"driving overhead median {self.median:.1%}, p90 {self.ninth_decile:.1%}; "
            f"without the customer's and provider's REST calls {self.own:.1%}; "
            f"lifecycle {self.wall * 1000:.0f} ms"
        )
