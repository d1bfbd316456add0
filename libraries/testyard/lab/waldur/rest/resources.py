"""Resources in their two views: ``/api/marketplace-resources/`` and ``/api/marketplace-provider-resources/``."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from testyard.lab.waldur import orders
from testyard.lab.waldur.exchange import ApiError, Reply, Request, empty, json_reply, to_json
from testyard.lab.waldur.identifiers import timestamp
from testyard.lab.waldur.machines import ResourceState
from testyard.lab.waldur.model import Project, Resource
from testyard.lab.waldur.pagination import listing, selected
from testyard.lab.waldur.payload import Payload
from testyard.lab.waldur.permissions import Permissions, sees_everything
from testyard.lab.waldur.represent.offering_users import team_member
from testyard.lab.waldur.represent.orders import resource_details, resource_summary
from testyard.lab.waldur.rest.lookup import find_provided_resource, find_resource, narrowed
from testyard.lab.waldur.routing import Endpoint, Handler, Methods
from testyard.lab.waldur.store import normalise_backend_id
from testyard.lab.waldur.world import World

FindResource = Callable[[World, Request], Resource]
Sees = Callable[[Permissions, Request, Resource], bool]


def _sees_either_side(permissions: Permissions, request: Request, resource: Resource) -> bool:
    return permissions.sees_resource(request.caller, resource)


def _provides(permissions: Permissions, request: Request, resource: Resource) -> bool:
    return permissions.provides(request.caller, resource.offering)


def list_resources(sees: Sees) -> Handler:
    """Make the handler of GET on one of the two collections."""

    def handler(world: World, request: Request) -> Reply:
        def summary(resource: Resource) -> dict[str, Any]:
            return resource_summary(world, request, resource)

        def serialise(rows: Sequence[Resource]) -> list[bytes]:
            return world.store.fragments(
                "resource", request.base, rows, lambda resource: to_json(summary(resource))
            )

        rows = [resource for resource in _candidates(world, request) if sees(world.permissions, request, resource)]
        return listing(request, _filtered(request, rows), summary, serialise)

    return handler


def get_resource(find: FindResource) -> Handler:
    """Make the handler of GET on one resource."""

    def handler(world: World, request: Request) -> Reply:
        resource = find(world, request)
        return json_reply(selected(request, resource_details(world, request, resource)))

    return handler


def list_team(find: FindResource) -> Handler:
    """Make the handler of GET .../team/: the members of the resource's project, on one page."""

    def handler(world: World, request: Request) -> Reply:
        resource = find(world, request)
        grants = [
            grant
            for grant in world.store.grants.where("scope", resource.project.uuid).values()
            if grant.user.is_active
        ]
        return json_reply([team_member(world, request, resource, grant) for grant in grants])

    return handler


def list_plan_periods(find: FindResource) -> Handler:
    """Make the handler of GET .../plan_periods/: one period, since creation (sample ``plan_periods``)."""

    def handler(world: World, request: Request) -> Reply:
        resource = find(world, request)
        if resource.plan is None:
            return json_reply([])
        period: dict[str, Any] = {
            "uuid": resource.uuid,
            "plan_name": resource.plan.name,
            "plan_uuid": resource.plan.uuid,
            "start": resource.created,
            "end": None,
            "components": [],
        }
        return json_reply([period])

    return handler


def update_limits(world: World, request: Request) -> Reply:
    """POST marketplace-resources/{uuid}/update_limits/ {limits}: places an order."""
    resource = find_resource(world, request)
    _require_consumer(world, request, "RESOURCE.SET_LIMITS", resource.project)
    payload = Payload(request.body)
    payload.raw("limits", required=True)
    limits = payload.mapping("limits")
    payload.check()
    order = orders.place_update(world, request.caller, resource, limits)
    return json_reply({"order_uuid": order.uuid})


def terminate(world: World, request: Request) -> Reply:
    """POST marketplace-resources/{uuid}/terminate/: places an order."""
    resource = find_resource(world, request)
    _require_consumer(world, request, "RESOURCE.TERMINATE", resource.project)
    payload = Payload(request.body)
    attributes = payload.mapping("attributes")
    payload.check()
    order = orders.place_termination(world, request.caller, resource, attributes)
    return json_reply({"order_uuid": order.uuid})


def set_end_date_by_consumer(world: World, request: Request) -> Reply:
    """POST marketplace-resources/{uuid}/set_end_date/ {end_date}."""
    resource = find_resource(world, request)
    scopes = (resource.project, resource.project.customer, resource.offering, resource.offering.customer)
    world.permissions.require(request.caller, "RESOURCE.SET_END_DATE", *scopes)
    return _set_end_date(world, request, resource)


def set_end_date_by_provider(world: World, request: Request) -> Reply:
    """POST marketplace-provider-resources/{uuid}/set_end_date/ {end_date}."""
    return _set_end_date(world, request, _as_provider(world, request, "RESOURCE.SET_END_DATE"))


def set_backend_id(world: World, request: Request) -> Reply:
    """POST .../set_backend_id/ {backend_id}: opaque, kept as it is (sample ``resource_set_backend_id``)."""
    resource = _as_provider(world, request, "RESOURCE.SET_BACKEND_ID")
    payload = Payload(request.body)
    backend_id = payload.text("backend_id", required=True)
    payload.check()
    changed = resource.backend_id != backend_id
    resource.backend_id = backend_id
    world.store.resources.reindex(resource)
    world.store.touch(resource)
    return json_reply({"status": f"Resource backend_id {'has been' if changed else 'is not'} changed."})


def set_effective_id(world: World, request: Request) -> Reply:
    """POST .../set_effective_id/ {effective_id}."""
    resource = _as_provider(world, request, "RESOURCE.SET_BACKEND_ID")
    payload = Payload(request.body)
    payload.assign(resource, "effective_id", payload.text("effective_id", required=True))
    payload.check()
    world.store.touch(resource)
    return json_reply({"status": "Resource effective_id has been changed."})


def set_backend_metadata(world: World, request: Request) -> Reply:
    """POST .../set_backend_metadata/ {backend_metadata} (sample ``resource_set_backend_metadata``)."""
    resource = _as_provider(world, request, "RESOURCE.SET_BACKEND_METADATA")
    payload = Payload(request.body)
    metadata = payload.mapping("backend_metadata")
    payload.check()
    resource.backend_metadata = metadata
    world.store.touch(resource)
    return json_reply({"status": "The backend metadata is updated"})


def set_limits(world: World, request: Request) -> Reply:
    """POST .../set_limits/ {limits}: the provider's side sets them without an order."""
    resource = _as_provider(world, request, "RESOURCE.SET_LIMITS")
    payload = Payload(request.body)
    payload.raw("limits", required=True)
    limits = payload.mapping("limits")
    payload.check()
    orders.check_limits(resource.offering, limits)
    resource.limits = {**resource.limits, **limits}
    world.store.touch(resource)
    return json_reply({"status": "Resource limits have been changed."})


def set_as_ok(world: World, request: Request) -> Reply:
    """POST .../set_as_ok/ (also ``set_state_ok/``)."""
    resource = _as_provider(world, request, "RESOURCE.SET_STATE")
    resource.state = ResourceState.OK
    resource.error_message = resource.error_traceback = ""
    world.store.touch(resource)
    return empty()


def set_as_erred(world: World, request: Request) -> Reply:
    """POST .../set_as_erred/ {error_message, error_traceback}."""
    resource = _as_provider(world, request, "RESOURCE.SET_STATE")
    payload = Payload(request.body)
    message, traceback = payload.text("error_message"), payload.text("error_traceback")
    payload.check()
    resource.state = ResourceState.ERRED
    resource.error_message, resource.error_traceback = message, traceback
    world.store.touch(resource)
    return empty()


def refresh_last_sync(world: World, request: Request) -> Reply:
    """POST .../refresh_last_sync/."""
    resource = find_provided_resource(world, request)
    resource.last_sync = timestamp()
    world.store.touch(resource)
    return empty()


def set_membership_sync_statuses(world: World, request: Request) -> Reply:
    """POST .../set_membership_sync_statuses/: refused unless the offering opts in, as upstream does."""
    resource = find_provided_resource(world, request)
    if not resource.offering.plugin_options.get("enable_membership_sync_status"):
        raise ApiError(409, {"detail": "Membership sync status is not enabled for this offering."})
    payload = Payload(request.body)
    statuses = payload.mappings("statuses")
    payload.check()
    return json_reply({"stored": len(statuses), "skipped": []})


def set_flag(attribute: str) -> Handler:
    """Make the handler of ``set_paused``, ``set_downscaled`` and ``set_restrict_member_access``."""

    def handler(world: World, request: Request) -> Reply:
        resource = find_provided_resource(world, request)
        payload = Payload(request.body)
        payload.raw(attribute, required=True)
        value = payload.flag(attribute)
        payload.check()
        if getattr(resource, attribute) != value:
            setattr(resource, attribute, value)
            world.store.touch(resource)
            world.events.resource_changed(resource)
        return json_reply({"status": f"Resource {attribute} flag is changed"})

    return handler


def pull(world: World, request: Request) -> Reply:
    """POST .../pull/: announces the resource to its agent."""
    resource = find_provided_resource(world, request)
    world.events.resource_changed(resource)
    return json_reply({"detail": "Pull operation was successfully scheduled."}, 202)


def _set_end_date(world: World, request: Request, resource: Resource) -> Reply:
    payload = Payload(request.body)
    end_date = payload.date("end_date")
    payload.check()
    if end_date != resource.end_date:
        resource.end_date = end_date
        resource.end_date_updated_at = timestamp()
        world.store.touch(resource)
        world.events.resource_changed(
            resource,
            action="end_date_updated",
            end_date=end_date,
            end_date_requested_by_uuid=request.caller.uuid,
            end_date_requested_by_full_name=request.caller.full_name,
        )
    return empty()


def _require_consumer(world: World, request: Request, permission: str, project: Project) -> None:
    world.permissions.require(request.caller, permission, project, project.customer)


def _as_provider(world: World, request: Request, permission: str) -> Resource:
    resource = find_provided_resource(world, request)
    world.permissions.require(request.caller, permission, resource.offering, resource.offering.customer)
    return resource


def _candidates(world: World, request: Request) -> Iterable[Resource]:
    table = world.store.resources
    backend_id = request.parameter("backend_id")
    if backend_id is not None:
        return narrowed(table, "backend_id", [normalise_backend_id(backend_id)])
    projects = request.identifiers("project_uuid")
    if projects is not None:
        return narrowed(table, "project", projects)
    offerings = request.identifiers("offering_uuid")
    if offerings is None and not sees_everything(request.caller):
        return table
    return narrowed(table, "offering", offerings)


def _filtered(request: Request, rows: list[Resource]) -> list[Resource]:
    offerings = request.identifiers("offering_uuid")
    if offerings is not None:
        rows = [resource for resource in rows if resource.offering.uuid in offerings]
    projects = request.identifiers("project_uuid")
    if projects is not None:
        rows = [resource for resource in rows if resource.project.uuid in projects]
    customers = request.identifiers("customer_uuid")
    if customers is not None:
        rows = [resource for resource in rows if resource.project.customer.uuid in customers]
    states = frozenset(request.parameters("state"))
    if states:
        unknown = sorted(states.difference(ResourceState))
        if unknown:
            message = f"Select a valid choice. {unknown[0]} is not one of the available choices."
            raise ApiError(400, {"state": [message]})
        rows = [resource for resource in rows if resource.state in states]
    name = request.parameter("name_exact")
    if name is not None:
        rows = [resource for resource in rows if resource.name == name]
    query = (request.parameter("query") or request.parameter("name") or "").lower()
    if query:
        rows = [resource for resource in rows if query in resource.name.lower() or query == resource.uuid]
    return rows


def _posts(handlers: dict[str, Handler]) -> dict[str, Methods]:
    return {name: {"POST": handler} for name, handler in handlers.items()}


ENDPOINTS = {
    "marketplace-resources": Endpoint(
        "Resource",
        collection={"GET": list_resources(_sees_either_side)},
        item={"GET": get_resource(find_resource)},
        item_actions={
            "team": {"GET": list_team(find_resource)},
            "plan_periods": {"GET": list_plan_periods(find_resource)},
            **_posts(
                {
                    "update_limits": update_limits,
                    "terminate": terminate,
                    "set_end_date": set_end_date_by_consumer,
                }
            ),
        },
    ),
    "marketplace-provider-resources": Endpoint(
        "Resource",
        collection={"GET": list_resources(_provides)},
        item={"GET": get_resource(find_provided_resource)},
        item_actions={
            "team": {"GET": list_team(find_provided_resource)},
            "plan_periods": {"GET": list_plan_periods(find_provided_resource)},
            **_posts(
                {
                    "set_backend_id": set_backend_id,
                    "set_effective_id": set_effective_id,
                    "set_backend_metadata": set_backend_metadata,
                    "set_limits": set_limits,
                    "set_end_date": set_end_date_by_provider,
                    "set_as_ok": set_as_ok,
                    "set_state_ok": set_as_ok,
                    "set_as_erred": set_as_erred,
                    "refresh_last_sync": refresh_last_sync,
                    "set_membership_sync_statuses": set_membership_sync_statuses,
                    "set_paused": set_flag("paused"),
                    "set_downscaled": set_flag("downscaled"),
                    "set_restrict_member_access": set_flag("restrict_member_access"),
                    "pull": pull,
                    "terminate": terminate,
                }
            ),
        },
    ),
}
