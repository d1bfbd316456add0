"""Deleting objects together with what hangs off them, so that a clean-up can go in any order."""

from testyard.lab.waldur.model import AgentIdentity, Customer, Offering, Project, Resource
from testyard.lab.waldur.offering_users import remove as remove_offering_user
from testyard.lab.waldur.world import World


def remove_resource(world: World, resource: Resource) -> None:
    """Delete a resource with its orders and usages."""
    store = world.store
    for order in list(store.orders.where("resource", resource.uuid).values()):
        store.orders.remove(order)
    for user_usage in list(store.component_user_usages.where("resource", resource.uuid).values()):
        store.component_user_usages.remove(user_usage)
    for usage in list(store.component_usages.where("resource", resource.uuid).values()):
        store.component_usages.remove(usage)
    for limit in list(store.component_user_usage_limits.where("resource", resource.uuid).values()):
        store.component_user_usage_limits.remove(limit)
    store.resources.remove(resource)
    store.forget_fragments()


def remove_project(world: World, project: Project) -> None:
    """Delete a project with its resources and roles."""
    for resource in list(world.store.resources.where("project", project.uuid).values()):
        remove_resource(world, resource)
    _remove_grants(world, project)
    world.store.projects.remove(project)
    world.store.touch(project)


def remove_agent_identity(world: World, identity: AgentIdentity) -> None:
    """Delete a site agent's registration with its services and its queue."""
    for service in identity.services.values():
        world.store.agent_services.remove(service)
    if identity.consumer is not None:
        world.store.event_consumers.remove(identity.consumer)
        world.queues.close_consumer(identity.consumer)
    world.store.agent_identities.remove(identity)


def remove_offering(world: World, offering: Offering) -> None:
    """Delete an offering with its resources, offering users, agents and roles."""
    store = world.store
    for resource in list(store.resources.where("offering", offering.uuid).values()):
        remove_resource(world, resource)
    for offering_user in list(store.offering_users.where("offering", offering.uuid).values()):
        remove_offering_user(world, offering_user)
    for identity in list(store.agent_identities.where("offering", offering.uuid).values()):
        remove_agent_identity(world, identity)
    for queue in list(store.subscription_queues.where("offering", offering.uuid).values()):
        store.subscription_queues.remove(queue)
        world.queues.delete(queue.subscription.user, queue.queue_name)
    _remove_grants(world, offering)
    store.offerings.remove(offering)
    store.touch(offering)


def remove_customer(world: World, customer: Customer) -> None:
    """Delete an organisation with its offerings, projects and roles."""
    store = world.store
    for offering in list(store.offerings.where("customer", customer.uuid).values()):
        remove_offering(world, offering)
    for project in list(store.projects.where("customer", customer.uuid).values()):
        remove_project(world, project)
    for provider in list(store.service_providers.where("customer", customer.uuid).values()):
        store.service_providers.remove(provider)
    _remove_grants(world, customer)
    store.customers.remove(customer)
    store.touch(customer)


def _remove_grants(world: World, scope: Customer | Project | Offering) -> None:
    for grant in list(world.store.grants.where("scope", scope.uuid).values()):
        world.store.grants.remove(grant)
        world.store.touch(grant)
