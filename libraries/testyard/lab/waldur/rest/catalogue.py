"""Categories, service providers and plans (``marketplace-categories/``, ``-service-providers/``, ``-plans/``)."""

from typing import Any

from testyard.lab.waldur.exchange import (
    Reply,
    Request,
    created,
    empty,
    forbidden,
    json_reply,
    not_found,
)
from testyard.lab.waldur.machines import ResourceState
from testyard.lab.waldur.model import (
    Category,
    Customer,
    Offering,
    Plan,
    ServiceProvider,
)
from testyard.lab.waldur.pagination import listing, selected
from testyard.lab.waldur.payload import Payload
from testyard.lab.waldur.permissions import require_staff
from testyard.lab.waldur.removal import remove_offering
from testyard.lab.waldur.represent.marketplace import (
    category_details,
    plan_details,
    service_provider_details,
)
from testyard.lab.waldur.represent.structure import project_details
from testyard.lab.waldur.rest.lookup import find
from testyard.lab.waldur.routing import Endpoint
from testyard.lab.waldur.world import World


def list_categories(world: World, request: Request) -> Reply:
    """GET marketplace-categories/."""
    title = request.parameter("title")
    categories = [category for category in world.store.categories if title is None or category.title == title]
    return listing(request, categories, lambda category: category_details(world, request, category))


def create_category(world: World, request: Request) -> Reply:
    """POST marketplace-categories/ by staff."""
    require_staff(request.caller)
    payload = Payload(request.body)
    category = Category(
        title=payload.text("title", required=True, blank=False), description=payload.text("description")
    )
    payload.check()
    world.store.categories.add(category)
    return created(category_details(world, request, category))


def get_category(world: World, request: Request) -> Reply:
    """GET marketplace-categories/{uuid}/."""
    return json_reply(category_details(world, request, _find_category(world, request)))


def delete_category(world: World, request: Request) -> Reply:
    """DELETE marketplace-categories/{uuid}/ by staff, with its offerings."""
    require_staff(request.caller)
    category = _find_category(world, request)
    for offering in [offering for offering in world.store.offerings if offering.category is category]:
        remove_offering(world, offering)
    world.store.categories.remove(category)
    return empty(204)


def list_service_providers(world: World, request: Request) -> Reply:
    """GET marketplace-service-providers/."""
    providers = list(world.store.service_providers)
    customers = request.identifiers("customer_uuid")
    if customers is not None:
        providers = [provider for provider in providers if provider.customer.uuid in customers]
    return listing(request, providers, lambda provider: service_provider_details(world, request, provider))


def create_service_provider(world: World, request: Request) -> Reply:
    """POST marketplace-service-providers/ by staff."""
    require_staff(request.caller)
    payload = Payload(request.body)
    customer = payload.linked("customer", ("customers",), world.store.customers.get)
    if customer is not None and world.store.service_providers.where("customer", customer.uuid):
        payload.fail("customer", "service provider with this customer already exists.")
    payload.check()
    if customer is None:
        raise AssertionError("check() refuses a body without customer")
    customer.is_service_provider = True
    provider = world.store.service_providers.add(
        ServiceProvider(customer=customer, description=payload.text("description"))
    )
    world.store.touch(customer)
    return created(service_provider_details(world, request, provider))


def get_service_provider(world: World, request: Request) -> Reply:
    """GET marketplace-service-providers/{uuid}/."""
    return json_reply(service_provider_details(world, request, _find_provider(world, request)))


def delete_service_provider(world: World, request: Request) -> Reply:
    """DELETE marketplace-service-providers/{uuid}/ by staff."""
    require_staff(request.caller)
    provider = _find_provider(world, request)
    provider.customer.is_service_provider = False
    world.store.service_providers.remove(provider)
    world.store.touch(provider.customer)
    return empty(204)


def list_provider_keys(world: World, request: Request) -> Reply:
    """GET marketplace-service-providers/{uuid}/keys/: nobody has SSH keys here."""
    _find_own_provider(world, request)
    return listing(request, [], dict)


def list_provider_projects(world: World, request: Request) -> Reply:
    """GET marketplace-service-providers/{uuid}/projects/: projects with a resource of the provider."""
    provider = _find_own_provider(world, request)
    projects = {
        resource.project.uuid: resource.project
        for offering in world.store.offerings.where("customer", provider.customer.uuid).values()
        for resource in world.store.resources.where("offering", offering.uuid).values()
        if resource.state is not ResourceState.TERMINATED
    }
    query = (request.parameter("query") or "").lower()
    found = [
        project
        for project in projects.values()
        if query in project.name.lower() or query.replace("-", "") == project.uuid or not query
    ]
    return listing(request, found, lambda project: project_details(world, request, project))


def list_plans(world: World, request: Request) -> Reply:
    """GET marketplace-plans/ of the offerings that the caller provides."""
    wanted = request.identifiers("offering_uuid")
    plans = [
        (offering, plan)
        for offering in world.store.offerings
        if world.permissions.provides(request.caller, offering) and (wanted is None or offering.uuid in wanted)
        for plan in offering.plans.values()
    ]
    return listing(request, plans, lambda pair: plan_details(world, request, *pair))


def create_plan(world: World, request: Request) -> Reply:
    """POST marketplace-plans/ {name, offering, unit, prices}."""
    payload = Payload(request.body)
    offering = payload.linked(
        "offering",
        ("marketplace-provider-offerings", "marketplace-public-offerings"),
        lambda uuid: _provided(world, request, uuid),
    )
    payload.check()
    if offering is None:
        raise AssertionError("check() refuses a body without offering")
    world.permissions.require(request.caller, "OFFERING.CREATE_PLAN", offering, offering.customer)
    plan = read_plan(request.body, offering)
    offering.plans[plan.uuid] = plan
    world.store.touch(offering)
    return created(plan_details(world, request, offering, plan))


def get_plan(world: World, request: Request) -> Reply:
    """GET marketplace-plans/{uuid}/."""
    offering, plan = _find_plan(world, request)
    return json_reply(selected(request, plan_details(world, request, offering, plan)))


def change_plan(world: World, request: Request) -> Reply:
    """PATCH marketplace-plans/{uuid}/."""
    offering, plan = _find_plan(world, request)
    world.permissions.require(request.caller, "OFFERING.UPDATE_PLAN", offering, offering.customer)
    changed = read_plan(
        {"name": plan.name, "unit": plan.unit, "description": plan.description, **request.body}, offering
    )
    plan.name, plan.unit, plan.description = changed.name, changed.unit, changed.description
    if "prices" in request.body:
        plan.prices = changed.prices
    world.store.touch(offering)
    return json_reply(plan_details(world, request, offering, plan))


def archive_plan(world: World, request: Request) -> Reply:
    """POST marketplace-plans/{uuid}/archive/."""
    offering, plan = _find_plan(world, request)
    world.permissions.require(request.caller, "OFFERING.ARCHIVE_PLAN", offering, offering.customer)
    plan.archived = True
    world.store.touch(offering)
    return json_reply({"detail": "Plan has been archived."})


def _find_category(world: World, request: Request) -> Category:
    return find(request, world.store.categories, lambda _: True)


def _find_provider(world: World, request: Request) -> ServiceProvider:
    return find(request, world.store.service_providers, lambda _: True)


def _find_own_provider(world: World, request: Request) -> ServiceProvider:
    """A provider that the caller works for: any role on it or on one of its offerings."""
    provider = _find_provider(world, request)
    scopes: list[Customer | Offering] = [provider.customer]
    scopes += world.store.offerings.where("customer", provider.customer.uuid).values()
    if not request.caller.is_staff and not world.permissions.holds_role(request.caller, *scopes):
        raise forbidden()
    return provider


def _find_plan(world: World, request: Request) -> tuple[Offering, Plan]:
    for offering in world.store.offerings:
        plan = offering.plans.get(request.identifier)
        if plan is not None and world.permissions.provides(request.caller, offering):
            return offering, plan
    raise not_found("Plan")


def _provided(world: World, request: Request, identifier: str) -> Offering | None:
    offering = world.store.offerings.get(identifier)
    return offering if offering and world.permissions.provides(request.caller, offering) else None


def read_plan(data: dict[str, Any], offering: Offering) -> Plan:
    """Make a plan of an offering from a request body."""
    payload = Payload(data)
    plan = Plan(
        name=payload.text("name", required=True, blank=False),
        unit=payload.choice("unit", ["month", "quarter", "half_month", "day", "hour", "quantity"], "month"),
        description=payload.text("description"),
        backend_id=payload.text("backend_id"),
    )
    prices = payload.mapping("prices")
    unknown = sorted(prices.keys() - offering.components.keys())
    if unknown:
        payload.fail("prices", f"Invalid components: {', '.join(unknown)}")
    amounts = {name: Payload(prices).number(name) for name in prices}
    if None in amounts.values():
        payload.fail("prices", "A valid number is required.")
    payload.check()
    plan.prices = {name: amount for name, amount in amounts.items() if amount is not None}
    return plan


ENDPOINTS = {
    "marketplace-categories": Endpoint(
        "Category",
        collection={"GET": list_categories, "POST": create_category},
        item={"GET": get_category, "DELETE": delete_category},
    ),
    "marketplace-service-providers": Endpoint(
        "ServiceProvider",
        collection={"GET": list_service_providers, "POST": create_service_provider},
        item={"GET": get_service_provider, "DELETE": delete_service_provider},
        item_actions={"keys": {"GET": list_provider_keys}, "projects": {"GET": list_provider_projects}},
    ),
    "marketplace-plans": Endpoint(
        "Plan",
        collection={"GET": list_plans, "POST": create_plan},
        item={"GET": get_plan, "PATCH": change_plan, "PUT": change_plan},
        item_actions={"archive": {"POST": archive_plan}},
    ),
}
