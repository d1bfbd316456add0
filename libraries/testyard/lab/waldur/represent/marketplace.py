"""Categories, providers, offerings and plans in JSON (samples ``category_*``, ``service_*``, ``offering_*``)."""

from typing import Any

from testyard.lab.waldur.exchange import Request
from testyard.lab.waldur.machines import ResourceState
from testyard.lab.waldur.model import Category, Component, Offering, Plan, ServiceProvider
from testyard.lab.waldur.world import World

COMPONENT_OPTIONAL = (
    "limit_period",
    "limit_amount",
    "max_value",
    "min_value",
    "max_available_limit",
    "default_limit",
    "factor",
)
OFFERING_TEXTS = (
    "full_description",
    "terms_of_service",
    "terms_of_service_link",
    "privacy_policy_link",
    "native_name",
    "native_description",
    "vendor_details",
    "getting_started",
    "integration_guide",
    "paused_reason",
    "datacite_doi",
    "country",
    "backend_id",
)


def category_details(world: World, request: Request, category: Category) -> dict[str, Any]:
    """A marketplace category (sample ``category_create``)."""
    return {
        "url": request.url("marketplace-categories", category.uuid),
        "uuid": category.uuid,
        "title": category.title,
        "description": category.description,
        "icon": None,
        "default_vm_category": False,
        "default_volume_category": False,
        "default_tenant_category": False,
        "offering_count": sum(offering.category is category for offering in world.store.offerings),
        "sections": [],
        "columns": [],
        "components": [],
        "articles": [],
        "group": None,
    }


def service_provider_details(world: World, request: Request, provider: ServiceProvider) -> dict[str, Any]:
    """A service provider (sample ``service_provider_create``)."""
    customer = provider.customer
    return {
        "url": request.url("marketplace-service-providers", provider.uuid),
        "uuid": provider.uuid,
        "created": provider.created,
        "description": provider.description,
        "enable_notifications": True,
        "customer": request.url("customers", customer.uuid),
        "customer_name": customer.name,
        "customer_uuid": customer.uuid,
        "customer_image": None,
        "customer_abbreviation": customer.details.get("abbreviation", ""),
        "customer_native_name": customer.details.get("native_name", ""),
        "customer_country": customer.details.get("country", ""),
        "customer_slug": customer.slug,
        "image": None,
        "organization_group": None,
        "offering_count": len(world.store.offerings.where("customer", customer.uuid)),
    }


def component_details(component: Component) -> dict[str, Any]:
    """A component inside its offering."""
    return {
        "uuid": component.uuid,
        "billing_type": str(component.billing_type),
        "type": component.type,
        "name": component.name,
        "description": component.description,
        "measured_unit": component.measured_unit,
        "unit_factor": component.details.get("unit_factor") or 1,
        "article_code": component.details.get("article_code", ""),
        "is_boolean": bool(component.details.get("is_boolean", False)),
        "is_builtin": False,
        **{name: component.details.get(name) for name in COMPONENT_OPTIONAL},
    }


def plan_summary(world: World, plan: Plan, offering: Offering, url: str) -> dict[str, Any]:
    """A plan inside its offering."""
    used = sum(
        resource.plan is plan and resource.state is not ResourceState.TERMINATED
        for resource in world.store.resources.where("offering", offering.uuid).values()
    )
    return {
        "url": url,
        "uuid": plan.uuid,
        "name": plan.name,
        "description": plan.description,
        "article_code": "",
        "max_amount": None,
        "archived": plan.archived,
        "is_active": True,
        "unit_price": "0.0000000000",
        "unit": plan.unit,
        "init_price": 0,
        "switch_price": 0,
        "backend_id": plan.backend_id,
        "organization_groups": [],
        "prices": {name: plan.prices.get(name, 0.0) for name in offering.components},
        "future_prices": dict.fromkeys(offering.components),
        "quotas": {name: plan.quotas.get(name, 0) for name in offering.components},
        "resources_count": used,
        "plan_type": None,
        "minimal_price": 0,
    }


def public_plan_url(request: Request, offering: Offering, plan: Plan) -> str:
    """The address of a plan that orders refer to."""
    return request.url(f"marketplace-public-offerings/{offering.uuid}/plans", plan.uuid)


def plan_details(world: World, request: Request, offering: Offering, plan: Plan) -> dict[str, Any]:
    """A plan on its own (``ProviderPlanDetails`` of the client, which takes ``plan_type`` as text only)."""
    return {
        **plan_summary(world, plan, offering, request.url("marketplace-plans", plan.uuid)),
        "offering": request.url("marketplace-provider-offerings", offering.uuid),
        "components": [
            {
                "type": component.type,
                "name": component.name,
                "measured_unit": component.measured_unit,
                "amount": plan.quotas.get(component.type, 0),
                "price": f"{plan.prices.get(component.type, 0.0):.10f}",
                "future_price": None,
                "discount_threshold": None,
                "discount_rate": None,
            }
            for component in offering.components.values()
        ],
        "plan_type": "limit",
        "minimal_price": "0.0000000000",
    }


def provider_offering(world: World, request: Request, offering: Offering) -> dict[str, Any]:
    """An offering as its provider sees it (samples ``offering_create``, ``offering_get_provider``)."""
    plans = [
        plan_summary(world, plan, offering, request.url("marketplace-plans", plan.uuid))
        for plan in offering.plans.values()
    ]
    return {
        **_offering(world, request, offering, "marketplace-provider-offerings", plans),
        "secret_options": offering.secret_options,
        "service_attributes": {},
        "total_customers": 0,
        "total_cost": 0,
        "total_cost_estimated": 0,
        "integration_status": [],
        "partitions": [],
        "billing_type_classification": "limit_only",
    }


def public_offering(world: World, request: Request, offering: Offering) -> dict[str, Any]:
    """An offering as customers see it (sample ``offering_get_public``)."""
    plans = [
        plan_summary(world, plan, offering, public_plan_url(request, offering, plan))
        for plan in offering.plans.values()
        if not plan.archived
    ]
    return {
        **_offering(world, request, offering, "marketplace-public-offerings", plans),
        "promotion_campaigns": [],
    }


def _offering(
    world: World, request: Request, offering: Offering, collection: str, plans: list[dict[str, Any]]
) -> dict[str, Any]:
    texts = {name: offering.details.get(name, "") for name in OFFERING_TEXTS}
    return {
        "url": request.url(collection, offering.uuid),
        "uuid": offering.uuid,
        "created": offering.created,
        "name": offering.name,
        "slug": offering.slug,
        "description": offering.description,
        "endpoints": [],
        "roles": [],
        "customer": request.url("customers", offering.customer.uuid),
        "customer_uuid": offering.customer.uuid,
        "customer_name": offering.customer.name,
        "project": None,
        "category": request.url("marketplace-categories", offering.category.uuid),
        "category_uuid": offering.category.uuid,
        "category_title": offering.category.title,
        "rating": None,
        "attributes": offering.details.get("attributes", {}),
        "options": offering.details.get("options", {"order": [], "options": {}}),
        "resource_options": offering.details.get("resource_options", {"order": [], "options": {}}),
        "components": [component_details(component) for component in offering.components.values()],
        "plugin_options": offering.plugin_options,
        "state": str(offering.state),
        "thumbnail": None,
        "order_count": len(world.store.orders.where("offering", offering.uuid)),
        "plans": plans,
        "screenshots": [],
        "type": offering.type,
        "shared": offering.shared,
        "billable": offering.billable,
        "scope": None,
        "files": [],
        "citation_count": -1,
        "latitude": None,
        "longitude": None,
        "organization_groups": [],
        "image": None,
        "backend_metadata": {},
        "google_calendar_is_public": None,
        "google_calendar_link": None,
        **texts,
    }
