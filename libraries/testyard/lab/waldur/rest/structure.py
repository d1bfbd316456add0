"""Organisations, projects and roles (``/api/customers/``, ``/api/projects/``, ``/api/roles/``)."""

from testyard.lab.waldur.exchange import Reply, Request, created, empty, forbidden, json_reply
from testyard.lab.waldur.identifiers import timestamp
from testyard.lab.waldur.model import Customer, Project, ScopeKind
from testyard.lab.waldur.pagination import listing, selected
from testyard.lab.waldur.payload import Payload
from testyard.lab.waldur.permissions import require_staff
from testyard.lab.waldur.removal import remove_customer, remove_project
from testyard.lab.waldur.represent.structure import (
    CUSTOMER_TEXTS,
    PROJECT_OPTIONAL,
    customer_details,
    project_details,
    role_details,
)
from testyard.lab.waldur.rest.lookup import find, find_customer, find_project, narrowed
from testyard.lab.waldur.rest.membership import membership_actions
from testyard.lab.waldur.routing import Endpoint
from testyard.lab.waldur.world import World


def list_customers(world: World, request: Request) -> Reply:
    """GET customers/."""
    customers = [
        customer for customer in world.store.customers if world.permissions.sees_customer(request.caller, customer)
    ]
    name = request.parameter("name_exact")
    if name is not None:
        customers = [customer for customer in customers if customer.name == name]
    query = (request.parameter("query") or request.parameter("name") or "").lower()
    if query:
        customers = [customer for customer in customers if query in customer.name.lower()]
    return listing(request, customers, lambda customer: customer_details(world, request, customer))


def create_customer(world: World, request: Request) -> Reply:
    """POST customers/ by staff."""
    require_staff(request.caller)
    payload = Payload(request.body)
    customer = Customer(name=payload.text("name", required=True, blank=False), slug="")
    _read_customer(payload, customer)
    payload.check()
    customer.slug = world.store.slug("customer", customer.name)
    world.store.customers.add(customer)
    return created(customer_details(world, request, customer))


def get_customer(world: World, request: Request) -> Reply:
    """GET customers/{uuid}/."""
    customer = find_customer(world, request)
    return json_reply(selected(request, customer_details(world, request, customer)))


def change_customer(world: World, request: Request) -> Reply:
    """PATCH or PUT customers/{uuid}/."""
    customer = find_customer(world, request)
    world.permissions.require(request.caller, "CUSTOMER.UPDATE", customer)
    payload = Payload(request.body)
    payload.assign(customer, "name", payload.text("name", customer.name, blank=False))
    _read_customer(payload, customer)
    payload.check()
    world.store.touch(customer)
    return json_reply(customer_details(world, request, customer))


def delete_customer(world: World, request: Request) -> Reply:
    """DELETE customers/{uuid}/ by staff, with all that belongs to it."""
    customer = find_customer(world, request)
    require_staff(request.caller)
    remove_customer(world, customer)
    return empty(204)


def list_projects(world: World, request: Request) -> Reply:
    """GET projects/ with the filters that the agent uses (``backend_id`` is exact)."""
    backend_id = request.parameter("backend_id")
    candidates = narrowed(world.store.projects, "backend_id", None if backend_id is None else [backend_id])
    projects = [project for project in candidates if world.permissions.sees_project(request.caller, project)]
    customers = request.identifiers("customer") or request.identifiers("customer_uuid")
    if customers is not None:
        projects = [project for project in projects if project.customer.uuid in customers]
    name = request.parameter("name_exact")
    if name is not None:
        projects = [project for project in projects if project.name == name]
    query = (request.parameter("query") or request.parameter("name") or "").lower()
    if query:
        projects = [
            project
            for project in projects
            if query in project.name.lower() or query in (project.uuid, project.backend_id.lower())
        ]
    return listing(request, projects, lambda project: project_details(world, request, project))


def create_project(world: World, request: Request) -> Reply:
    """POST projects/ by staff or a holder of PROJECT.CREATE; a backend id need not be unique (recorded)."""
    caller = request.caller
    payload = Payload(request.body)
    name = payload.text("name", required=True, blank=False)
    customer = payload.linked("customer", ("customers",), lambda uuid: _visible_customer(world, request, uuid))
    payload.check()
    if customer is None:
        raise AssertionError("check() refuses a body without customer")
    if not world.permissions.allows(caller, "PROJECT.CREATE", customer):
        raise forbidden()
    project = Project(customer=customer, name=name, slug="")
    _read_project(payload, project)
    payload.check()
    project.slug = world.store.slug("project", name)
    world.store.projects.add(project)
    world.store.touch(customer)
    return created(project_details(world, request, project))


def get_project(world: World, request: Request) -> Reply:
    """GET projects/{uuid}/."""
    project = find_project(world, request)
    return json_reply(selected(request, project_details(world, request, project)))


def change_project(world: World, request: Request) -> Reply:
    """PATCH or PUT projects/{uuid}/."""
    project = find_project(world, request)
    world.permissions.require(request.caller, "PROJECT.UPDATE", project, project.customer)
    payload = Payload(request.body)
    payload.assign(project, "name", payload.text("name", project.name, blank=False))
    end_date = project.end_date
    _read_project(payload, project)
    payload.check()
    if project.end_date != end_date:
        project.end_date_updated_at = timestamp()
    world.store.projects.reindex(project)
    world.store.touch(project)
    return json_reply(project_details(world, request, project))


def delete_project(world: World, request: Request) -> Reply:
    """DELETE projects/{uuid}/, with its resources."""
    project = find_project(world, request)
    world.permissions.require(request.caller, "PROJECT.DELETE", project.customer)
    remove_project(world, project)
    return empty(204)


def list_roles(world: World, request: Request) -> Reply:
    """GET roles/.

    The recorded server ignores an unknown ``name`` filter and lists all roles (sample ``roles_filter_name``); the
    agent takes the first, so today's server must filter, and so does the double.
    """
    roles = list(world.store.roles)
    names = request.parameters("name")
    if names:
        roles = [role for role in roles if role.name in names]
    return listing(request, roles, lambda role: role_details(world, role))


def get_role(world: World, request: Request) -> Reply:
    """GET roles/{uuid}/."""
    return json_reply(role_details(world, find(request, world.store.roles, lambda _: True)))


def _visible_customer(world: World, request: Request, identifier: str) -> Customer | None:
    customer = world.store.customers.get(identifier)
    return customer if customer and world.permissions.sees_customer(request.caller, customer) else None


def _read_customer(payload: Payload, customer: Customer) -> None:
    for name in CUSTOMER_TEXTS:
        if name in payload:
            payload.put(customer.details, name, payload.text(name))


def _read_project(payload: Payload, project: Project) -> None:
    for name in ("description", "backend_id"):
        if name in payload:
            payload.assign(project, name, payload.text(name))
    for name in ("start_date", "end_date"):
        if name in payload:
            payload.assign(project, name, payload.date(name))
    for name in (*PROJECT_OPTIONAL, "is_industry"):
        if name in payload:
            payload.put(project.details, name, payload.raw(name))


ENDPOINTS = {
    "customers": Endpoint(
        "Customer",
        collection={"GET": list_customers, "POST": create_customer},
        item={
            "GET": get_customer,
            "PUT": change_customer,
            "PATCH": change_customer,
            "DELETE": delete_customer,
        },
        item_actions=membership_actions(ScopeKind.CUSTOMER, find_customer),
    ),
    "projects": Endpoint(
        "Project",
        collection={"GET": list_projects, "POST": create_project},
        item={"GET": get_project, "PUT": change_project, "PATCH": change_project, "DELETE": delete_project},
        item_actions=membership_actions(ScopeKind.PROJECT, find_project),
    ),
    "roles": Endpoint("Role", collection={"GET": list_roles}, item={"GET": get_role}),
}
