"""The site agent's own modules, imported when first needed."""

from __future__ import annotations

from types import SimpleNamespace

from testyard.waldur.models_on_demand import load_models_on_demand


def agent_modules() -> SimpleNamespace:
    """Import what testyard drives of the agent: that takes about a second, the first time."""
    load_models_on_demand()
    import waldur_site_agent.event_processing.event_subscription_manager as subscriptions
    import waldur_site_agent.event_processing.utils as event_utils
    from stomp.exception import StompException
    from waldur_api_client.client import AuthenticatedClient
    from waldur_api_client.models import ObservableObjectTypeEnum
    from waldur_site_agent.common import agent_identity_management, processors, utils
    from waldur_site_agent.event_processing.listener import connect_to_stomp_server
    from websocket import WebSocketException

    return SimpleNamespace(
        processors=processors,
        utils=utils,
        subscriptions=subscriptions,
        event_utils=event_utils,
        stomp_problems=(StompException, WebSocketException, OSError),
        client_class=AuthenticatedClient,
        identities=agent_identity_management,
        object_type=ObservableObjectTypeEnum,
        connect=connect_to_stomp_server,
    )
