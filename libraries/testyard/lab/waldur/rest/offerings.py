"""Offerings, as providers and as customers see them (``/api/marketplace-provider-offerings/``, ``-public-``)."""

from typing import Any

from testyard.lab.waldur.exchange import (
    ApiError,
    Reply,
    Request,
    created,
    empty,
    json_reply,
    not_found,
    wrong_state,
)
from testyard.lab.waldur.machines import OFFERING_TRANSITIONS, OfferingAction
from testyard.lab.waldur.model import (
    BillingType,
    Component,
    Offering,
    ScopeKind,
)
from testyard.lab.waldur.pagination import listing, selected
from testyard.lab.waldur.payload import Payload
from testyard.lab.waldur.permissions import require_staff
from testyard.lab.waldur.removal import remove_offering
from testyard.lab.waldur.represent.marketplace import (
    COMPONENT_OPTIONAL,
    OFFERING_TEXTS,
    plan_summary,
    provider_offering,
    public_offering,
    public_plan_url,
)
from testyard.lab.waldur.rest.catalogue import read_plan
from testyard.lab.waldur.rest.lookup import find, find_provided_offering
from testyard.lab.waldur.rest.membership import membership_actions
from testyard.lab.waldur.rest.offering_users import get_attribute_config, set_attribute_config
from testyard.lab.waldur.routing import Endpoint, Handler
from testyard.lab.waldur.world import World

_ACTION_PERMISSION = {
    OfferingAction.PAUSE: "OFFERING.PAUSE",
    OfferingAction.UNPAUSE: "OFFERING.UNPAUSE",
    OfferingAction.ARCHIVE: "OFFERING.ARCHIVE",
    OfferingAction.MAKE_UNAVAILABLE: "OFFERING.PAUSE",
    OfferingAction.MAKE_AVAILABLE: "OFFERING.UNPAUSE",
}
"""What is not listed is for staff."""


def list_provider_offerings(world: World, request: Request) -> Reply:
    """GET marketplace-provider-offerings/."""
    offerings = [
        offering for offering in world.store.offerings if world.permissions.provides(request.caller, offering)
    ]
    return listing(
        request,
        _filtered(request, offerings),
        lambda offering: provider_offering(world, request, offering),
    )


def create_offering(world: World, request: Request) -> Reply:
    """POST marketplace-provider-offerings/, with components and plans inline (sample ``offering_create``)."""
    payload = Payload(request.body)
    name = payload.text("name", required=True, blank=False)
    kind = payload.text("type", required=True, blank=False)
    category = payload.linked("category", ("marketplace-categories",), world.store.categories.get)
    customer = payload.linked("customer", ("customers",), world.store.customers.get)
    payload.check()
    if category is None or customer is None:
        raise AssertionError("check() refuses a body without category or customer")
    world.permissions.require(request.caller, "OFFERING.CREATE", customer)
    if not customer.is_service_provider:
        raise ApiError(400, {"customer": ["Customer is not registered as a service provider."]})
    offering = Offering(name=name, slug="", type=kind, category=category, customer=customer)
    _read_offering(payload, offering)
    components = [_component(data) for data in payload.mappings("components")]
    offering.components = {component.type: component for component in components}
    plans = [read_plan(data, offering) for data in payload.mappings("plans")]
    offering.plans = {plan.uuid: plan for plan in plans}
    payload.check()
    offering.slug = world.store.slug("offering", name)
    world.store.offerings.add(offering)
    return created(provider_offering(world, request, offering))


def get_provider_offering(world: World, request: Request) -> Reply:
    """GET marketplace-provider-offerings/{uuid}/."""
    offering = find_provided_offering(world, request)
    return json_reply(selected(request, provider_offering(world, request, offering)))


def change_offering(world: World, request: Request) -> Reply:
    """PATCH or PUT marketplace-provider-offerings/{uuid}/."""
    offering = find_provided_offering(world, request)
    world.permissions.require(request.caller, "OFFERING.UPDATE", offering, offering.customer)
    payload = Payload(request.body)
    payload.assign(offering, "name", payload.text("name", offering.name, blank=False))
    _read_offering(payload, offering)
    payload.check()
    world.store.touch(offering)
    return json_reply(provider_offering(world, request, offering))


def delete_offering(world: World, request: Request) -> Reply:
    """DELETE marketplace-provider-offerings/{uuid}/, with its resources and users."""
    offering = find_provided_offering(world, request)
    world.permissions.require(request.caller, "OFFERING.DELETE", offering, offering.customer)
    remove_offering(world, offering)
    return empty(204)


def create_component(world: World, request: Request) -> Reply:
    """POST .../create_offering_component/."""
    offering = find_provided_offering(world, request)
    world.permissions.require(request.caller, "OFFERING.UPDATE_COMPONENTS", offering, offering.customer)
    component = _component(request.body)
    if component.type in offering.components:
        raise ApiError(400, {"type": ["Component with this type already exists."]})
    offering.components[component.type] = component
    world.store.touch(offering)
    return empty(201)


def update_component(world: World, request: Request) -> Reply:
    """POST .../update_offering_component/: the component is found by ``uuid``."""
    offering = find_provided_offering(world, request)
    world.permissions.require(request.caller, "OFFERING.UPDATE_COMPONENTS", offering, offering.customer)
    wanted = str(request.body.get("uuid", "")).replace("-", "")
    old = next((item for item in offering.components.values() if item.uuid == wanted), None)
    if old is None:
        raise ApiError(400, {"uuid": ["Component does not exist."]})
    component = _component({"type": old.type, "name": old.name, "billing_type": old.billing_type, **request.body})
    component.uuid = old.uuid
    del offering.components[old.type]
    offering.components[component.type] = component
    world.store.touch(offering)
    return empty()


def remove_component(world: World, request: Request) -> Reply:
    """POST .../remove_offering_component/: the component is found by ``uuid``."""
    offering = find_provided_offering(world, request)
    world.permissions.require(request.caller, "OFFERING.UPDATE_COMPONENTS", offering, offering.customer)
    wanted = str(request.body.get("uuid", "")).replace("-", "")
    found = next((name for name, item in offering.components.items() if item.uuid == wanted), None)
    if found is None:
        raise ApiError(400, {"uuid": ["Component does not exist."]})
    del offering.components[found]
    world.store.touch(offering)
    return empty(204)


def update_integration(world: World, request: Request) -> Reply:
    """POST .../update_integration/ (sample ``offering_update_integration``)."""
    offering = find_provided_offering(world, request)
    world.permissions.require(request.caller, "OFFERING.UPDATE_INTEGRATION", offering, offering.customer)
    payload = Payload(request.body)
    for name in ("plugin_options", "secret_options"):
        if name in payload:
            payload.assign(offering, name, payload.mapping(name))
    payload.check()
    world.store.touch(offering)
    return empty()


def change_state(action: OfferingAction) -> Handler:
    """Make the handler of ``activate``, ``pause`` and so on (sample ``offering_activate``)."""

    def handler(world: World, request: Request) -> Reply:
        offering = find_provided_offering(world, request)
        permission = _ACTION_PERMISSION.get(action)
        if permission is None:
            require_staff(request.caller)
        else:
            world.permissions.require(request.caller, permission, offering, offering.customer)
        transition = OFFERING_TRANSITIONS[action]
        if offering.state not in transition.sources:
            raise wrong_state(transition.sources)
        offering.state = transition.target
        if action is OfferingAction.PAUSE:
            offering.details["paused_reason"] = str(request.body.get("paused_reason", ""))
        world.store.touch(offering)
        return json_reply({"detail": "Offering state updated.", "state": str(offering.state)})

    return handler


def no_accounts(world: World, request: Request) -> Reply:
    """GET .../list_project_service_accounts/ and .../list_course_accounts/: there are none here."""
    find_provided_offering(world, request)
    return listing(request, [], dict)


def list_public_offerings(world: World, request: Request) -> Reply:
    """GET marketplace-public-offerings/."""
    offerings = [
        offering
        for offering in world.store.offerings
        if world.permissions.sees_public_offering(request.caller, offering)
    ]
    return listing(
        request, _filtered(request, offerings), lambda offering: public_offering(world, request, offering)
    )


def get_public_offering(world: World, request: Request) -> Reply:
    """GET marketplace-public-offerings/{uuid}/."""
    offering = _find_public(world, request)
    return json_reply(selected(request, public_offering(world, request, offering)))


def list_public_plans(world: World, request: Request) -> Reply:
    """GET marketplace-public-offerings/{uuid}/plans/."""
    offering = _find_public(world, request)
    plans = [plan for plan in offering.plans.values() if not plan.archived]
    return listing(
        request,
        plans,
        lambda plan: plan_summary(world, plan, offering, public_plan_url(request, offering, plan)),
    )


def get_public_plan(world: World, request: Request) -> Reply:
    """GET marketplace-public-offerings/{uuid}/plans/{uuid}/."""
    offering = _find_public(world, request)
    plan = offering.plans.get(request.child_identifier)
    if plan is None:
        raise not_found("Plan")
    return json_reply(plan_summary(world, plan, offering, public_plan_url(request, offering, plan)))


def _find_public(world: World, request: Request) -> Offering:
    return find(
        request,
        world.store.offerings,
        lambda offering: world.permissions.sees_public_offering(request.caller, offering),
    )


def _filtered(request: Request, offerings: list[Offering]) -> list[Offering]:
    customers = request.identifiers("customer_uuid")
    states = request.parameters("state")
    kinds = request.parameters("type")
    name = request.parameter("name_exact")
    return [
        offering
        for offering in offerings
        if (customers is None or offering.customer.uuid in customers)
        and (not states or offering.state in states)
        and (not kinds or offering.type in kinds)
        and (name is None or offering.name == name)
    ]


def _read_offering(payload: Payload, offering: Offering) -> None:
    if "description" in payload:
        payload.assign(offering, "description", payload.text("description"))
    for name in ("shared", "billable"):
        if name in payload:
            payload.assign(offering, name, payload.flag(name))
    for name in ("plugin_options", "secret_options"):
        if name in payload:
            payload.assign(offering, name, payload.mapping(name))
    for name in ("attributes", "options", "resource_options"):
        if name in payload:
            payload.put(offering.details, name, payload.mapping(name))
    for name in OFFERING_TEXTS:
        if name in payload:
            payload.put(offering.details, name, payload.text(name))


def _component(data: dict[str, Any]) -> Component:
    payload = Payload(data)
    component = Component(
        type=payload.text("type", required=True, blank=False),
        name=payload.text("name", required=True, blank=False),
        billing_type=BillingType(payload.choice("billing_type", list(BillingType), BillingType.FIXED)),
        measured_unit=payload.text("measured_unit"),
        description=payload.text("description"),
        details={
            name: data[name] for name in (*COMPONENT_OPTIONAL, "unit_factor", "article_code") if name in data
        },
    )
    if "billing_type" not in payload:
        payload.fail("billing_type", "This field is required.")
    payload.check()
    return component


ENDPOINTS = {
    "marketplace-provider-offerings": Endpoint(
        "Offering",
        collection={"GET": list_provider_offerings, "POST": create_offering},
        item={
            "GET": get_provider_offering,
            "PUT": change_offering,
            "PATCH": change_offering,
            "DELETE": delete_offering,
        },
        item_actions={
            **membership_actions(ScopeKind.OFFERING, find_provided_offering),
            **{str(action): {"POST": change_state(action)} for action in OfferingAction},
            "create_offering_component": {"POST": create_component},
            "update_offering_component": {"POST": update_component},
            "remove_offering_component": {"POST": remove_component},
            "update_integration": {"POST": update_integration},
            "user-attribute-config": {
                "GET": get_attribute_config,
                "POST": set_attribute_config,
                "PUT": set_attribute_config,
            },
            "list_project_service_accounts": {"GET": no_accounts},
            "list_course_accounts": {"GET": no_accounts},
        },
    ),
    "marketplace-public-offerings": Endpoint(
        "Offering",
        collection={"GET": list_public_offerings},
        item={"GET": get_public_offering},
        item_actions={"plans": {"GET": list_public_plans}},
        children={"plans": {"GET": get_public_plan}},
    ),
}
