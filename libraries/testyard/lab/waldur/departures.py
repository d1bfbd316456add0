"""Where the double departs from what was recorded from Waldur 7.0.7, on purpose, and why.

The contract tests take these exceptions from here, and only from here. Keys that the double adds are no departure.
"""

from collections.abc import Mapping
from types import MappingProxyType

CLIENT_NEEDS_DETAIL = (
    "recorded body is empty; waldur-api-client 8.1.2 parses it as OrderInfoResponse and requires `detail`"
)
CREATION_ORDER_IS_LIVE = "recorded `creation_order` is the order as it was created; the double's is as it is now"
NO_SLURM_PLUGIN = "recorded `backend_metadata` was written by the SLURM plug-in; the double has none"
NEWER_OBJECT_TYPES = "agent 1.0.7 asks for types that came after the recording; the list is longer"

DEPARTURES: Mapping[str, str] = MappingProxyType(
    {
        "order_approve_by_consumer": CLIENT_NEEDS_DETAIL,
        "order_approve_by_provider": CLIENT_NEEDS_DETAIL,
        "order_reject_by_consumer": CLIENT_NEEDS_DETAIL,
        "order_reject_by_provider": CLIENT_NEEDS_DETAIL,
        "resource_get_*:creation_order": CREATION_ORDER_IS_LIVE,
        "provider_resource_get_ok:creation_order": CREATION_ORDER_IS_LIVE,
        "provider_resource_keep:creation_order": CREATION_ORDER_IS_LIVE,
        "resource_get_updating_real:backend_metadata": NO_SLURM_PLUGIN,
        "resource_get_after_failed_update_order:error": (
            "recorded error came from the SLURM allocation's own state; the double has no allocation to be in it"
        ),
        "roles_filter_name": "7.0.7 ignores `name`; the agent takes the first role, so today's server must filter",
        "roles_list:OFFERING.MANAGER": "the agent needs more permissions than 7.0.7 gave; see roles.ADDED_SINCE",
        "provider_resource_team:role": (
            "recorded short names (`manager`); agent 1.0.7 maps full names (`PROJECT.MANAGER`) with `role_mapping`"
        ),
        "hybrid_register_queue:observable_object_types": NEWER_OBJECT_TYPES,
        "hybrid_register_queue_again:observable_object_types": NEWER_OBJECT_TYPES,
        "hybrid_event_subscription_create_error": NEWER_OBJECT_TYPES,
        "absent_event_subscriptions": "absent in 7.0.7, there today",
        "absent_site_agent_identities": "absent in 7.0.7, there today",
        "api_root": "lists what the double serves, not all of Waldur",
        "hooks_web": "not served: no scenario needs it",
        "ou_roles": "not served: no scenario needs it",
        "slurm_allocations": "not served: the double has no SLURM plug-in",
        "slurm_assoc": "not served: the double has no SLURM plug-in",
        "slurm_remote_set_state": "not served: the double has no SLURM plug-in",
    }
)
"""Reason by sample; what follows a colon limits it to a part, ``*`` stands for any samples so named."""
