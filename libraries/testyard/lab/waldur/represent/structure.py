"""Users, roles, organisations, projects in JSON (samples ``user*``, ``role*``, ``customer*``, ``project*``)."""

from typing import Any

from testyard.lab.waldur.exchange import Request
from testyard.lab.waldur.machines import ResourceState
from testyard.lab.waldur.model import Customer, Grant, Project, Role, User
from testyard.lab.waldur.world import World

PROFILE_TEXTS = (
    "native_name",
    "job_title",
    "phone_number",
    "organization",
    "description",
    "preferred_language",
    "identity_source",
    "personal_title",
    "place_of_birth",
    "address",
    "country_of_residence",
    "nationality",
    "organization_country",
    "organization_type",
    "organization_registry_code",
    "organization_vat_code",
    "organization_address",
    "deactivation_reason",
)
PROFILE_LISTS = ("affiliations", "nationalities", "eduperson_assurance")
PROFILE_OPTIONAL = ("civil_number", "birth_date", "gender", "uid_number", "primary_gid")
PROFILE = PROFILE_TEXTS + PROFILE_LISTS + PROFILE_OPTIONAL
"""Attributes of a user that the double only stores, shows and announces."""

CUSTOMER_TEXTS = (
    "native_name",
    "abbreviation",
    "contact_details",
    "agreement_number",
    "email",
    "phone_number",
    "access_subnets",
    "registration_code",
    "homepage",
    "domain",
    "vat_code",
    "postal",
    "address",
    "bank_name",
    "bank_account",
    "country",
    "backend_id",
)

PROJECT_OPTIONAL = ("end_date_requested_by", "oecd_fos_2007_code", "grace_period_days")

_COUNTRIES = {
    "DE": "Germany",
    "EE": "Estonia",
    "FI": "Finland",
    "FR": "France",
    "GB": "United Kingdom",
    "LT": "Lithuania",
    "LV": "Latvia",
    "NO": "Norway",
    "SE": "Sweden",
    "US": "United States of America",
}
_LANGUAGES = ("en", "et", "lt", "lv", "ru", "it", "de", "da", "sv", "es", "fr", "nb", "ar", "cs")


def profile_value(user: User, name: str) -> Any:
    """A stored attribute, or the empty value of its type."""
    if name in user.details:
        return user.details[name]
    if name in PROFILE_OPTIONAL:
        return None
    return [] if name in PROFILE_LISTS else ""


def user_details(world: World, request: Request, user: User) -> dict[str, Any]:
    """A user; the caller's own token is only in ``users/me`` (samples ``user_get``, ``users_me``)."""
    return {
        "url": request.url("users", user.uuid),
        "uuid": user.uuid,
        "username": user.username,
        "slug": user.slug,
        "full_name": user.full_name,
        "email": user.email,
        "is_staff": user.is_staff,
        "is_active": user.is_active,
        "is_support": user.is_support,
        "registration_method": "default",
        "date_joined": user.created,
        "agreement_date": user.created,
        "notifications_enabled": True,
        "permissions": [permission(grant) for grant in world.permissions.grants(user)],
        "requested_email": None,
        "first_name": user.first_name,
        "last_name": user.last_name,
        "identity_provider_name": "Local DB",
        "identity_provider_label": "Local DB",
        "identity_provider_management_url": "",
        "identity_provider_fields": [],
        "image": None,
        "has_usable_password": bool(user.password_digest),
        "is_identity_manager": user.is_identity_manager,
        "managed_isds": user.managed_isds,
        "active_isds": user.active_isds,
        **{name: profile_value(user, name) for name in PROFILE},
    }


def own_details(world: World, request: Request, user: User) -> dict[str, Any]:
    """The caller as ``users/me`` shows it, with its token."""
    return {**user_details(world, request, user), "token": user.token, "token_lifetime": None}


def permission(grant: Grant) -> dict[str, Any]:
    """A role of a user, in the list inside the user."""
    scope = grant.scope
    customer = scope if isinstance(scope, Customer) else scope.customer
    return {
        "user_uuid": grant.user.uuid,
        "user_name": grant.user.full_name,
        "user_slug": grant.user.slug,
        "created": grant.created,
        "expiration_time": grant.expiration_time,
        "created_by_full_name": grant.created_by.full_name if grant.created_by else "",
        "created_by_username": grant.created_by.username if grant.created_by else "",
        "role_name": grant.role.name,
        "role_description": grant.role.description,
        "role_uuid": grant.role.uuid,
        "scope_type": str(grant.scope_kind),
        "scope_uuid": scope.uuid,
        "scope_name": scope.name,
        "customer_uuid": customer.uuid,
        "customer_name": customer.name,
    }


def role_member(grant: Grant) -> dict[str, Any]:
    """A role of a user, in the list under the scope (sample ``project_list_users``)."""
    return {
        "uuid": grant.uuid,
        "created": grant.created,
        "expiration_time": grant.expiration_time,
        "role_name": grant.role.name,
        "role_uuid": grant.role.uuid,
        "user_email": grant.user.email,
        "user_full_name": grant.user.full_name,
        "user_username": grant.user.username,
        "user_uuid": grant.user.uuid,
        "user_image": None,
        "created_by_full_name": grant.created_by.full_name if grant.created_by else "",
        **({"created_by_uuid": grant.created_by.uuid} if grant.created_by else {}),
    }


def role_details(world: World, role: Role) -> dict[str, Any]:
    """A role (sample ``roles_list``)."""
    return {
        "uuid": role.uuid,
        "name": role.name,
        "description": role.description,
        **{f"description_{language}": None for language in _LANGUAGES},
        "description_en": role.description or None,
        "permissions": sorted(role.permissions),
        "is_system_role": True,
        "is_active": True,
        "users_count": len({grant.user.uuid for grant in world.store.grants if grant.role is role}),
        "content_type": role.scope_kind,
    }


def customer_details(world: World, request: Request, customer: Customer) -> dict[str, Any]:
    """An organisation (samples ``customer_create``, ``customer_get``)."""
    store = world.store
    texts = {name: customer.details.get(name, "") for name in CUSTOMER_TEXTS}
    return {
        "url": request.url("customers", customer.uuid),
        "uuid": customer.uuid,
        "created": customer.created,
        "organization_group": None,
        "display_name": texts["abbreviation"] or customer.name,
        "projects": [
            {
                "url": request.url("projects", project.uuid),
                "uuid": project.uuid,
                "name": project.name,
                "image": None,
            }
            for project in store.projects.where("customer", customer.uuid).values()
        ],
        "image": None,
        "blocked": False,
        "archived": False,
        "default_tax_percent": "0.00",
        "accounting_start_date": customer.created,
        "projects_count": len(store.projects.where("customer", customer.uuid)),
        "users_count": len({grant.user.uuid for grant in store.grants.where("scope", customer.uuid).values()}),
        "sponsor_number": None,
        "country_name": _COUNTRIES.get(texts["country"], texts["country"]),
        "name": customer.name,
        "slug": customer.slug,
        **texts,
        "latitude": None,
        "longitude": None,
        "payment_profiles": [],
        "is_service_provider": customer.is_service_provider,
        "call_managing_organization_uuid": None,
    }


def project_details(world: World, request: Request, project: Project) -> dict[str, Any]:
    """A project (samples ``project_create``, ``project_get``, ``projects_page``)."""
    customer = project.customer
    live = [
        resource
        for resource in world.store.resources.where("project", project.uuid).values()
        if resource.state is not ResourceState.TERMINATED
    ]
    by_category: dict[str, int] = {}
    for resource in live:
        category = resource.offering.category.uuid
        by_category[category] = by_category.get(category, 0) + 1
    return {
        "url": request.url("projects", project.uuid),
        "uuid": project.uuid,
        "name": project.name,
        "slug": project.slug,
        "customer": request.url("customers", customer.uuid),
        "customer_uuid": customer.uuid,
        "customer_name": customer.name,
        "customer_slug": customer.slug,
        "customer_native_name": customer.details.get("native_name", ""),
        "customer_abbreviation": customer.details.get("abbreviation", ""),
        "description": project.description,
        "created": project.created,
        "type": None,
        "backend_id": project.backend_id,
        "start_date": project.start_date,
        "end_date": project.end_date,
        "end_date_updated_at": project.end_date_updated_at,
        "oecd_fos_2007_label": None,
        "is_industry": bool(project.details.get("is_industry", False)),
        "image": None,
        "resources_count": len(live),
        "is_removed": False,
        "billing_price_estimate": {"total": 0.0, "current": 0, "tax": 0, "tax_current": 0},
        "marketplace_resource_count": by_category,
        **{name: project.details.get(name) for name in PROJECT_OPTIONAL},
    }
