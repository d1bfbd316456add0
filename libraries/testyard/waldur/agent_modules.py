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
    from waldur_site_agent.common import processors, utils

    return SimpleNamespace(
        processors=processors,
        utils=utils,
        subscriptions=subscriptions,
        event_utils=event_utils,
        stomp_problem=StompException,
        client_class=AuthenticatedClient,
    )
