"""Site agents, their services and queues in JSON (samples ``hybrid_agent_*``, ``hybrid_register_*``)."""

from typing import Any

from testyard.lab.waldur.events import OBJECT_TYPES
from testyard.lab.waldur.exchange import Request
from testyard.lab.waldur.model import (
    AgentIdentity,
    AgentProcessor,
    AgentService,
    EventConsumer,
    EventSubscription,
    SubscriptionQueue,
)


def identity_details(request: Request, identity: AgentIdentity) -> dict[str, Any]:
    """A site agent that registered itself."""
    return {
        "uuid": identity.uuid,
        "url": request.url("marketplace-site-agent-identities", identity.uuid),
        "offering": identity.offering.uuid,
        "created_by": identity.created_by.uuid,
        "name": identity.name,
        "version": identity.version,
        "dependencies": identity.dependencies,
        "config_file_path": identity.config_file_path,
        "config_file_content": identity.config_file_content,
        "last_restarted": identity.last_restarted,
        "created": identity.created,
        "modified": identity.modified,
        "services": [_service(request, service) for service in identity.services.values()],
    }


def service_details(request: Request, service: AgentService) -> dict[str, Any]:
    """A service of a site agent."""
    return {
        **_service(request, service),
        "identity": service.identity.uuid,
        "identity_name": service.identity.name,
        "processors": [_processor(request, processor) for processor in service.processors.values()],
    }


def processor_details(request: Request, service: AgentService, processor: AgentProcessor) -> dict[str, Any]:
    """A processor of a service."""
    return {**_processor(request, processor), "service": service.uuid, "service_name": service.name}


def queue_registration(consumer: EventConsumer) -> dict[str, Any]:
    """How to connect to a unified queue (sample ``hybrid_register_queue``)."""
    return {
        "rmq_username": consumer.rmq_username,
        "queue_name": consumer.queue_name,
        "vhost": consumer.user.uuid,
        "observable_object_types": list(consumer.object_types or OBJECT_TYPES),
    }


def subscription_details(request: Request, subscription: EventSubscription) -> dict[str, Any]:
    """A legacy subscription.

    ``rmq_connection`` is not in sample ``hybrid_register_event_subscription``; the client's
    ``AgentEventSubscriptionWithConnection`` requires it.
    """
    user = subscription.user
    return {
        "uuid": subscription.uuid,
        "url": request.url("event-subscriptions", subscription.uuid),
        "description": subscription.description,
        "user": request.url("users", user.uuid),
        "user_uuid": user.uuid,
        "user_username": user.username,
        "user_full_name": user.full_name,
        "observable_objects": subscription.observable_objects,
        "created": subscription.created,
        "modified": subscription.modified,
        "source_ip": subscription.source_ip,
        "rmq_connection": None,
    }


def subscription_queue_details(request: Request, queue: SubscriptionQueue) -> dict[str, Any]:
    """The queue of a legacy subscription (sample ``hybrid_event_subscription_create_queue``)."""
    return {
        "uuid": queue.uuid,
        "url": request.url("event-subscription-queues", queue.uuid),
        "event_subscription": request.url("event-subscriptions", queue.subscription.uuid),
        "event_subscription_uuid": queue.subscription.uuid,
        "offering_uuid": queue.offering.uuid,
        "object_type": queue.object_type,
        "queue_name": queue.queue_name,
        "vhost": queue.subscription.user.uuid,
        "created": queue.created,
    }


def _service(request: Request, service: AgentService) -> dict[str, Any]:
    return {
        "uuid": service.uuid,
        "url": request.url("marketplace-site-agent-services", service.uuid),
        "name": service.name,
        "mode": service.mode,
        "state": service.state,
        "statistics": service.statistics,
        "created": service.created,
        "modified": service.modified,
    }


def _processor(request: Request, processor: AgentProcessor) -> dict[str, Any]:
    return {
        "uuid": processor.uuid,
        "url": request.url("marketplace-site-agent-processors", processor.uuid),
        "name": processor.name,
        "last_run": processor.last_run,
        "backend_type": processor.backend_type,
        "backend_version": processor.backend_version,
        "created": processor.created,
        "modified": processor.modified,
    }
