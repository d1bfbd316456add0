"""What happened on the recorded server, chapter by chapter: the samples in order and what was between them."""

from typing import Any

from waldur_support import RecordedWorld, sample

STAFF = "ab7ba13f08b74f3686eacae95b119a13"
PEOPLE = {
    "owner": ("1b310e76d63d4146aa3e6c5cac8d94d6", "Olga Owner"),
    "provider": ("391290a53a644011bdd9c4cf039fdc9f", "Pavel Provider"),
    "manager": ("7e9b41f1cf724b82940daa5c813ba9b5", "Mart Manager"),
    "member": ("f5ccc0b6943a4c7eb31ff5db3b083d7c", "Mia Member"),
}
PROVIDER_ORGANISATION = "94677b9679d94fe68a3847c78ea5d03e"
OTHER_PROJECT = "74c591b539b04d4d8bbf0c8983ffb888"


def tell(world: RecordedWorld) -> None:
    """Replay every recorded request on a fresh double, and do what the samples need between them."""
    for chapter in (
        _people,
        _organisations,
        _offering,
        _projects,
        _an_order_from_creation_to_termination,
        _orders_that_are_refused,
        _a_resource_that_stays,
        _order_bodies,
        _lists,
        _roles_in_projects,
        _usages,
        _offering_users,
        _an_update_and_an_error,
        _agents,
        _outside_the_double,
    ):
        chapter(world)


def act(world: RecordedWorld, caller: str, order: str, action: str, body: dict[str, Any] | None = None) -> None:
    """Do something to an order that must succeed."""
    world.as_(caller).post(f"marketplace-orders/{order}/{action}", body)


def _people(world: RecordedWorld) -> None:
    world.identify(STAFF, world.instance.control.ready()["staff_user_uuid"])
    for caller, (recorded, full_name) in PEOPLE.items():
        world.identify(recorded, world.add_person(caller, full_name))
    world.replay("badtoken_401", "unauth_401", "version", "roles_list", "roles_filter_name")


def _organisations(world: RecordedWorld) -> None:
    world.replay("customer_create", "customer_get")
    organisation = {"name": "Provider Org", "abbreviation": "PR", "country": "EE"}
    world.identify(PROVIDER_ORGANISATION, world.as_("staff").post("customers", organisation)["uuid"])
    world.replay("customer_add_user", "service_provider_create")
    _grant(world, "staff", f"customers/{world.answer('customer_create')['uuid']}", "owner", "CUSTOMER.OWNER")


def _offering(world: RecordedWorld) -> None:
    world.replay("category_create", "offering_create", "offering_update_integration", "offering_activate")
    world.replay("offering_get_provider", "offering_get_public")
    world.replay("offering_users_list_before", "component_usages", "component_user_usages")


def _projects(world: RecordedWorld) -> None:
    world.replay("project_create", "project_get", "projects_filter_backend_id")
    world.replay("project_create_empty_name", "project_add_user")
    _grant(world, "owner", f"projects/{world.answer('project_create')['uuid']}", "member", "PROJECT.MEMBER")
    world.replay("project_list_users", "users_me", "user_get")


def _roles_in_projects(world: RecordedWorld) -> None:
    staff = world.as_("staff")
    organisation = world.answer("customer_create")["url"]
    project = staff.post("projects", {"name": "Other", "customer": organisation, "backend_id": "fed-8000"})
    world.identify(OTHER_PROJECT, project["uuid"])
    _grant(world, "staff", f"projects/{project['uuid']}", "member", "PROJECT.MEMBER")
    world.replay("project_add_user_duplicate", "project_add_user_unknown_user", "project_add_user_wrong_role_type")
    world.replay("project_delete_user", "project_delete_user_again", "project_list_users_wrong_role")
    world.replay("project_create_dup_backend_id")


def _an_order_from_creation_to_termination(world: RecordedWorld) -> None:
    world.replay("order_create_manager", "order_get_after_create_manager", "order_approve_by_consumer")
    world.replay("order_get_pending-provider", "orders_list_pending_provider", "resource_get_creating")
    world.replay("order_approve_by_provider", "order_get_executing", "resource_get_order_executing")
    world.replay(
        "order_set_state_done", "order_get_done", "resource_set_backend_id", "resource_set_backend_metadata"
    )
    world.replay("resource_get_ok", "provider_resource_get_ok")
    world.replay("order_approve_wrong_state_error", "order_set_state_done_again_error", "order_cancel_done_error")

    # On the recorded server the allocation behind the resource was not ready, so the update could not start.
    world.replay("resource_update_limits", "order_update_limits_pending-consumer")
    resource = world.answer("resource_get_ok")["uuid"]
    update = world.answer("resource_update_limits")["order_uuid"]
    act(world, "owner", update, "approve_by_consumer")
    world.instance.control.shell("set_resource", resource=resource, state="Creating")
    act(world, "provider", update, "approve_by_provider")
    world.instance.control.shell("set_resource", resource=resource, state="OK")
    world.replay(
        "order_update_limits_erred", "resource_get_after_failed_update_order", "resource_get_after_limits"
    )

    world.replay("resource_terminate")
    termination = world.answer("resource_terminate")["order_uuid"]
    act(world, "owner", termination, "approve_by_consumer")
    act(world, "provider", termination, "approve_by_provider")
    world.replay("order_terminate_executing", "resource_get_terminating")
    act(world, "provider", termination, "set_state_done")
    world.replay("resource_get_terminated")


def _orders_that_are_refused(world: RecordedWorld) -> None:
    world.replay("order_create_member", "order_get_member_pending-consumer")
    world.replay("order_reject_by_consumer", "order_get_rejected_by_consumer")

    world.replay("order_create_staff", "order_create_staff_after", "order_set_state_erred")
    world.replay("order_get_after_set_state_erred_while_pending_provider", "order_set_state_executing_from_erred")
    act(
        world, "provider", world.answer("order_create_staff")["uuid"], "set_state_erred", {"error_message": "boom"}
    )

    world.replay("order_create_owner", "order_cancel_slurm_error", "order_set_state_executing_from_pending")

    _order_like(world, "order_get_rejected_by_provider")
    world.replay("order_reject_by_provider", "order_get_rejected_by_provider", "resource_get_after_reject")


def _a_resource_that_stays(world: RecordedWorld) -> None:
    order = world.order("alloc-keep")
    kept = sample("provider_resource_keep").answer.body["uuid"]
    world.identify(kept, order["marketplace_resource_uuid"])
    act(world, "provider", order["uuid"], "approve_by_provider")
    act(world, "provider", order["uuid"], "set_state_done")
    world.replay("slurm_remote_set_state", "provider_resource_keep", "plan_periods", "provider_resource_team")
    world.replay("provider_resources_filtered_fields")


def _order_bodies(world: RecordedWorld) -> None:
    world.replay(
        *("order_create_err_bad_component", "order_create_err_bad_offering", "order_create_err_foreign_project"),
        *("order_create_err_no_plan", "order_create_err_usage_limit", "order_404"),
        *("order_create_accepted_no_limits", "order_create_accepted_no_name"),
        "order_create_accepted_negative_limit",
    )


def _lists(world: RecordedWorld) -> None:
    world.replay("orders_list", "orders_filter_multi_state", "resources_list", "provider_resources_list")
    world.replay("projects_page")


def _usages(world: RecordedWorld) -> None:
    world.replay("set_usage", "set_usage_by_resource", "component_usages_after", "set_user_usage")


def _offering_users(world: RecordedWorld) -> None:
    # On the recorded server no offering user came by itself: a worker creates them, and none was running.
    for created in list(world.as_("staff").all("marketplace-offering-users")):
        world.as_("staff").delete(f"marketplace-offering-users/{created['uuid']}")
    world.replay("offering_user_create", "offering_user_create_duplicate", "offering_user_create_empty")
    world.replay("offering_user_patch_username", "offering_user_patch_username_staff")
    world.replay("offering_user_update_restricted", "offering_user_get")
    world.replay("offering_users_list", "offering_users_list_as_member")


def _an_update_and_an_error(world: RecordedWorld) -> None:
    world.replay("resource_update_limits_owner")
    update = world.answer("resource_update_limits_owner")["order_uuid"]
    act(world, "provider", update, "approve_by_provider")
    world.replay("order_update_limits_executing_ok", "resource_get_updating_real")
    act(world, "provider", update, "set_state_done")
    world.replay("order_update_limits_done")

    erred = _order_like(world, "order_get_erred")
    act(world, "provider", erred["uuid"], "approve_by_provider")
    act(world, "provider", erred["uuid"], "set_state_erred", {"error_message": "boom", "error_traceback": "tb"})
    world.replay("order_get_erred", "resource_get_erred")


def _agents(world: RecordedWorld) -> None:
    world.replay(
        "hybrid_agent_identity_create", "hybrid_agent_register_service", "hybrid_agent_register_processor"
    )
    world.replay("hybrid_register_event_subscription", "hybrid_register_event_subscription_again")
    world.replay("hybrid_event_subscription_create_queue", "hybrid_event_subscription_create")
    world.replay("hybrid_event_subscription_create_error")
    world.replay("hybrid_register_queue", "hybrid_register_queue_again", "hybrid_register_queue_conflict")
    world.replay("hybrid_agent_identity_get", "hybrid_agent_identities_list", "hybrid_project_delete_user")


def _outside_the_double(world: RecordedWorld) -> None:
    world.replay("api_root", "hooks_web", "ou_roles", "slurm_allocations", "slurm_assoc")
    world.replay("absent_event_subscriptions", "absent_site_agent_identities")


def _grant(world: RecordedWorld, caller: str, scope: str, person: str, role: str) -> None:
    """As somebody, give a person a role; who gave it shows in the samples."""
    uuid = next(each["uuid"] for each in world.answer("roles_list") if each["name"] == role)
    body = {"user": world.identifier(PEOPLE[person][0]), "role": uuid}
    world.as_(caller).post(f"{scope}/add_user", body)


def _order_like(world: RecordedWorld, name: str) -> dict[str, Any]:
    """As the owner, place an order like a recorded one that stands for that one."""
    recorded = sample(name).answer.body
    order = world.order(recorded["resource_name"], limits=recorded["limits"])
    world.learn(recorded, order)
    return order
