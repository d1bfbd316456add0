"""Component usages in JSON (samples ``component_usages_after``, ``component_user_usages``)."""

from typing import Any

from testyard.lab.waldur.exchange import Request
from testyard.lab.waldur.model import ComponentUsage, ComponentUserUsage, ComponentUserUsageLimit, Resource


def usage_details(usage: ComponentUsage, reporters: dict[str, int]) -> dict[str, Any]:
    """How much of a component a resource used in a month.

    Args:
        usage: The usage.
        reporters: Database number of each user by UUID: ``modified_by`` is a number (recorded).
    """
    return {
        "uuid": usage.uuid,
        "created": usage.created,
        "description": usage.description,
        "type": usage.component.type,
        "name": usage.component.name,
        "measured_unit": usage.component.measured_unit,
        "usage": usage.usage,
        "date": usage.date,
        "recurring": usage.recurring,
        **_whose(usage.resource),
        "billing_period": usage.billing_period,
        "modified_by": reporters.get(usage.modified_by.uuid) if usage.modified_by else None,
    }


def user_usage_details(request: Request, user_usage: ComponentUserUsage) -> dict[str, Any]:
    """The part of it that one user name caused."""
    usage = user_usage.component_usage
    user = user_usage.user
    return {
        "uuid": user_usage.uuid,
        **({"user": request.url("marketplace-offering-users", user.uuid)} if user else {}),
        "username": user_usage.username,
        "component_usage": request.url("marketplace-component-usages", usage.uuid),
        "usage": user_usage.usage,
        "measured_unit": usage.component.measured_unit,
        "description": user_usage.description,
        "created": user_usage.created,
        "modified": user_usage.modified,
        "backend_id": "",
        **_whose(usage.resource),
        "component_type": usage.component.type,
        "date": user_usage.date,
        "billing_period": usage.billing_period,
    }


def user_limit_details(request: Request, limit: ComponentUserUsageLimit) -> dict[str, Any]:
    """How much of a component one user may use; the agent reads ``user`` as a user name."""
    return {
        "url": request.url("component-user-usage-limits", limit.uuid),
        "uuid": limit.uuid,
        "resource": request.url("marketplace-resources", limit.resource.uuid),
        "component": limit.component.uuid,
        "component_type": limit.component.type,
        "user": limit.user.username,
        "limit": limit.limit,
    }


def _whose(resource: Resource) -> dict[str, Any]:
    return {
        "resource_name": resource.name,
        "resource_uuid": resource.uuid,
        "offering_name": resource.offering.name,
        "offering_uuid": resource.offering.uuid,
        "project_name": resource.project.name,
        "project_uuid": resource.project.uuid,
        "customer_name": resource.project.customer.name,
        "customer_uuid": resource.project.customer.uuid,
    }
