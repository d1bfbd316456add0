"""Orders and resources in JSON (samples ``order_*``, ``orders_*``, ``resource_*``, ``provider_resource_*``)."""

from typing import Any

from testyard.lab.waldur.exchange import Request
from testyard.lab.waldur.machines import PENDING_ORDER_STATES, OrderState, OrderType, ResourceState
from testyard.lab.waldur.model import BillingType, Offering, Order, Plan, Resource, Review
from testyard.lab.waldur.represent.marketplace import component_details, public_plan_url
from testyard.lab.waldur.world import World

_NO_COST = "0.0000000000"


def order_details(request: Request, order: Order) -> dict[str, Any]:
    """An order in a list or on its own (samples ``order_get_*``, ``orders_list``)."""
    plan = order.plan
    new_plan = {"new_plan_name": plan.name, "new_plan_uuid": plan.uuid} if plan else {}
    return {
        **_offering_part(request, order.offering, plan),
        **_order_part(request, order),
        **_review(
            "consumer",
            order.consumer_review,
            order.consumer_review.user.username if order.consumer_review else None,
        ),
        **_review(
            "provider",
            order.provider_review,
            order.provider_review.user.username if order.provider_review else None,
        ),
        "created_by_username": order.created_by.username,
        "created_by_full_name": order.created_by.full_name,
        "created_by_civil_number": order.created_by.details.get("civil_number"),
        "created_by_email": order.created_by.email,
        "customer_name": order.project.customer.name,
        "customer_uuid": order.project.customer.uuid,
        "customer_slug": order.project.customer.slug,
        "project_name": order.project.name,
        "project_uuid": order.project.uuid,
        "project_description": order.project.description,
        "project_slug": order.project.slug,
        **new_plan,
        "old_cost_estimate": 0.0,
        "new_cost_estimate": 0.0 if plan else None,
        "can_terminate": order.state in (OrderState.PENDING_CONSUMER, OrderState.PENDING_PROVIDER)
        and order.offering.type == "Marketplace.Basic",
        "fixed_price": 0,
        "activation_price": 0,
        "termination_comment": order.termination_comment,
        "backend_id": order.backend_id,
        "issue": None,
    }


def order_created(request: Request, order: Order) -> dict[str, Any]:
    """What creating an order answers: people are links here (samples ``order_create_*``)."""
    creator = order.created_by
    consumer = order.consumer_review
    return {
        **_offering_part(request, order.offering, order.plan),
        **_order_part(request, order),
        "created_by": request.url("users", creator.uuid),
        "created_by_username": creator.username,
        "created_by_full_name": creator.full_name,
        **_review("consumer", consumer, request.url("users", consumer.user.uuid) if consumer else None),
        "project": request.url("projects", order.project.uuid),
        "project_uuid": order.project.uuid,
        "project_name": order.project.name,
        "project_description": order.project.description,
        "customer_name": order.project.customer.name,
        "customer_uuid": order.project.customer.uuid,
    }


def resource_summary(world: World, request: Request, resource: Resource) -> dict[str, Any]:
    """A resource in a list (samples ``resources_list``, ``provider_resources_list``)."""
    project = resource.project
    customer = project.customer
    offering = resource.offering
    live = resource.state in (ResourceState.OK, ResourceState.ERRED)
    billing_types = {component.billing_type for component in offering.components.values()}
    scope = resource.scope_uuid
    return {
        **_offering_part(request, offering, resource.plan),
        "attributes": resource.attributes,
        "limits": resource.limits,
        "uuid": resource.uuid,
        "created": resource.created,
        "modified": resource.modified,
        "url": request.url("marketplace-resources", resource.uuid),
        "scope": request.url("slurm-allocations", scope) if scope else None,
        "description": "",
        "state": str(resource.state),
        "resource_uuid": scope,
        "backend_id": resource.backend_id,
        "effective_id": resource.effective_id,
        "resource_type": "SLURM.Allocation" if scope else None,
        "project": request.url("projects", project.uuid),
        "project_uuid": project.uuid,
        "project_name": project.name,
        "project_slug": project.slug,
        "project_description": project.description,
        "project_end_date": project.end_date,
        "project_end_date_requested_by": project.details.get("end_date_requested_by"),
        "customer_uuid": customer.uuid,
        "customer_name": customer.name,
        "customer_slug": customer.slug,
        "backend_metadata": resource.backend_metadata,
        "is_usage_based": BillingType.USAGE in billing_types,
        "is_limit_based": BillingType.LIMIT in billing_types,
        "name": resource.name,
        "slug": resource.slug,
        "current_usages": current_usages(world, resource),
        "can_terminate": live,
        "report": None,
        "end_date": resource.end_date,
        "end_date_updated_at": resource.end_date_updated_at,
        "end_date_requested_by": None,
        "username": None,
        "limit_usage": {
            component.type: None
            for component in offering.components.values()
            if component.billing_type is BillingType.LIMIT
        },
        "downscaled": resource.downscaled,
        "restrict_member_access": resource.restrict_member_access,
        "paused": resource.paused,
        "endpoints": [],
        "error_message": resource.error_message,
        "error_traceback": resource.error_traceback,
        "offering_customer_uuid": offering.customer.uuid,
        "offering_slug": offering.slug,
        "offering_state": str(offering.state),
        "offering_backend_id": offering.details.get("backend_id", ""),
        "offering_components": [component_details(component) for component in offering.components.values()],
        "last_sync": resource.last_sync or resource.modified,
        "options": None,
        "available_actions": [],
    }


def resource_details(world: World, request: Request, resource: Resource) -> dict[str, Any]:
    """A resource on its own, with its orders (samples ``resource_get_*``)."""
    orders = list(world.store.orders.where("resource", resource.uuid).values())
    pending = next((order for order in orders if order.state in PENDING_ORDER_STATES), None)
    creation = next((order for order in orders if order.type is OrderType.CREATE), None)
    return {
        **resource_summary(world, request, resource),
        "order_in_progress": order_details(request, pending) if pending else None,
        "creation_order": order_details(request, creation) if creation else None,
    }


def current_usages(world: World, resource: Resource) -> dict[str, str]:
    """What the resource used in the last reported month, by component."""
    latest: dict[str, tuple[str, str]] = {}
    for usage in world.store.component_usages.where("resource", resource.uuid).values():
        latest[usage.component.type] = max(
            latest.get(usage.component.type, ("", "")), (usage.billing_period, usage.usage)
        )
    return {name: usage for name, (_, usage) in latest.items()}


def _order_part(request: Request, order: Order) -> dict[str, Any]:
    scope = order.resource.scope_uuid
    return {
        "attributes": order.attributes,
        "limits": order.limits,
        "uuid": order.uuid,
        "slug": order.slug,
        "url": request.url("marketplace-orders", order.uuid),
        "created": order.created,
        "modified": order.modified,
        "type": str(order.type),
        "resource_uuid": scope,
        "resource_type": "SLURM.Allocation" if scope else None,
        "resource_name": order.resource.name,
        "cost": None if order.type is OrderType.TERMINATE else _NO_COST,
        "state": str(order.state),
        "output": order.output,
        "marketplace_resource_uuid": order.resource.uuid,
        "error_message": order.error_message,
        "error_traceback": order.error_traceback,
        "callback_url": order.callback_url,
        "request_comment": order.request_comment,
        "completed_at": order.completed,
        "start_date": None,
        "consumer_rejection_comment": order.consumer_rejection_comment,
        "provider_rejection_comment": order.provider_rejection_comment,
    }


def _review(side: str, review: Review | None, reviewer: str | None) -> dict[str, Any]:
    return {
        f"{side}_reviewed_by": reviewer,
        f"{side}_reviewed_by_username": review.user.username if review else None,
        f"{side}_reviewed_by_full_name": review.user.full_name if review else None,
        f"{side}_reviewed_at": review.moment if review else None,
    }


def _offering_part(request: Request, offering: Offering, plan: Plan | None) -> dict[str, Any]:
    provider = offering.customer
    return {
        "offering": request.url("marketplace-public-offerings", offering.uuid),
        "offering_name": offering.name,
        "offering_uuid": offering.uuid,
        "offering_description": offering.description,
        "offering_image": None,
        "offering_thumbnail": None,
        "offering_type": offering.type,
        "offering_terms_of_service": offering.details.get("terms_of_service", ""),
        "offering_shared": offering.shared,
        "offering_billable": offering.billable,
        "offering_plugin_options": offering.plugin_options,
        "provider_name": provider.name,
        "provider_uuid": provider.uuid,
        "provider_slug": provider.slug,
        "category_title": offering.category.title,
        "category_uuid": offering.category.uuid,
        "category_icon": None,
        "plan": public_plan_url(request, offering, plan) if plan else None,
        **(
            {
                "plan_unit": plan.unit,
                "plan_name": plan.name,
                "plan_uuid": plan.uuid,
                "plan_description": plan.description,
            }
            if plan
            else {"plan_unit": None, "plan_name": None, "plan_uuid": None, "plan_description": None}
        ),
    }
