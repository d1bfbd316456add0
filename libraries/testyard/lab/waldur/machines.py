"""The state machines of orders, resources, offerings and offering users, as data.

Sources: the samples ``order_*`` and ``resource_*`` of Waldur 7.0.7, and section 2 of the agent contract.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple


class OrderState(StrEnum):
    """States of an order, as on the wire."""

    PENDING_CONSUMER = "pending-consumer"
    PENDING_PROJECT = "pending-project"
    PENDING_PROVIDER = "pending-provider"
    PENDING_START_DATE = "pending-start-date"
    EXECUTING = "executing"
    DONE = "done"
    ERRED = "erred"
    CANCELED = "canceled"
    REJECTED = "rejected"


class OrderType(StrEnum):
    """What an order asks for."""

    CREATE = "Create"
    UPDATE = "Update"
    TERMINATE = "Terminate"
    RESTORE = "Restore"


class ResourceState(StrEnum):
    """States of a resource, as on the wire."""

    CREATING = "Creating"
    OK = "OK"
    ERRED = "Erred"
    UPDATING = "Updating"
    TERMINATING = "Terminating"
    TERMINATED = "Terminated"


class OfferingState(StrEnum):
    """States of an offering, as on the wire."""

    DRAFT = "Draft"
    ACTIVE = "Active"
    PAUSED = "Paused"
    ARCHIVED = "Archived"
    UNAVAILABLE = "Unavailable"


class OfferingUserState(StrEnum):
    """States of an offering user, as REST shows them."""

    REQUESTED = "Requested"
    CREATING = "Creating"
    PENDING_ACCOUNT_LINKING = "Pending account linking"
    PENDING_ADDITIONAL_VALIDATION = "Pending additional validation"
    OK = "OK"
    REQUESTED_DELETION = "Requested deletion"
    DELETING = "Deleting"
    DELETED = "Deleted"
    ERROR_CREATING = "Error creating"
    ERROR_DELETING = "Error deleting"


OFFERING_USER_STATE_NUMBERS: Mapping[OfferingUserState, int] = MappingProxyType(
    {state: number for number, state in enumerate(OfferingUserState, start=1)}
)
"""Events carry the number, REST the label (sample ``hybrid_stomp_unified_frames``: OK is 5)."""


class OrderAction(StrEnum):
    """Operations on an order, by the last segment of their path."""

    APPROVE_BY_CONSUMER = "approve_by_consumer"
    REJECT_BY_CONSUMER = "reject_by_consumer"
    APPROVE_BY_PROVIDER = "approve_by_provider"
    REJECT_BY_PROVIDER = "reject_by_provider"
    CANCEL = "cancel"
    SET_STATE_EXECUTING = "set_state_executing"
    SET_STATE_DONE = "set_state_done"
    SET_STATE_ERRED = "set_state_erred"


class OrderTransition(NamedTuple):
    """From which states an operation is valid (in the order the server lists them) and where it leads."""

    sources: tuple[OrderState, ...]
    target: OrderState


ORDER_TRANSITIONS: Mapping[OrderAction, OrderTransition] = MappingProxyType(
    {
        OrderAction.APPROVE_BY_CONSUMER: OrderTransition(
            (OrderState.PENDING_CONSUMER,), OrderState.PENDING_PROVIDER
        ),
        OrderAction.REJECT_BY_CONSUMER: OrderTransition((OrderState.PENDING_CONSUMER,), OrderState.REJECTED),
        OrderAction.APPROVE_BY_PROVIDER: OrderTransition((OrderState.PENDING_PROVIDER,), OrderState.EXECUTING),
        OrderAction.REJECT_BY_PROVIDER: OrderTransition((OrderState.PENDING_PROVIDER,), OrderState.REJECTED),
        OrderAction.CANCEL: OrderTransition(
            (OrderState.PENDING_CONSUMER, OrderState.PENDING_PROVIDER, OrderState.EXECUTING),
            OrderState.CANCELED,
        ),
        OrderAction.SET_STATE_EXECUTING: OrderTransition(
            (OrderState.PENDING_PROVIDER, OrderState.ERRED), OrderState.EXECUTING
        ),
        OrderAction.SET_STATE_DONE: OrderTransition((OrderState.EXECUTING,), OrderState.DONE),
        OrderAction.SET_STATE_ERRED: OrderTransition((OrderState.EXECUTING,), OrderState.ERRED),
    }
)

PENDING_ORDER_STATES = frozenset(
    {
        OrderState.PENDING_CONSUMER,
        OrderState.PENDING_PROJECT,
        OrderState.PENDING_PROVIDER,
        OrderState.PENDING_START_DATE,
        OrderState.EXECUTING,
    }
)
"""A resource with an order in one of these states takes no other order."""

ENDED_ORDER_STATES = frozenset({OrderState.DONE, OrderState.ERRED, OrderState.CANCELED, OrderState.REJECTED})

RESOURCE_EFFECTS: Mapping[tuple[OrderType, OrderState], ResourceState] = MappingProxyType(
    {
        (OrderType.CREATE, OrderState.EXECUTING): ResourceState.CREATING,
        (OrderType.CREATE, OrderState.DONE): ResourceState.OK,
        (OrderType.CREATE, OrderState.ERRED): ResourceState.ERRED,
        (OrderType.CREATE, OrderState.REJECTED): ResourceState.TERMINATED,
        (OrderType.CREATE, OrderState.CANCELED): ResourceState.TERMINATED,
        (OrderType.UPDATE, OrderState.EXECUTING): ResourceState.UPDATING,
        (OrderType.UPDATE, OrderState.DONE): ResourceState.OK,
        (OrderType.UPDATE, OrderState.ERRED): ResourceState.ERRED,
        (OrderType.UPDATE, OrderState.CANCELED): ResourceState.OK,
        (OrderType.TERMINATE, OrderState.EXECUTING): ResourceState.TERMINATING,
        (OrderType.TERMINATE, OrderState.DONE): ResourceState.TERMINATED,
        (OrderType.TERMINATE, OrderState.ERRED): ResourceState.ERRED,
        (OrderType.TERMINATE, OrderState.CANCELED): ResourceState.OK,
    }
)
"""What entering an order state does to the order's resource; a pair that is not listed leaves it alone."""


class ResourceAction(StrEnum):
    """Operations on a resource that depend on its state."""

    UPDATE_LIMITS = "update_limits"
    TERMINATE = "terminate"


RESOURCE_SOURCES: Mapping[ResourceAction, tuple[ResourceState, ...]] = MappingProxyType(
    {
        ResourceAction.UPDATE_LIMITS: (ResourceState.OK,),
        ResourceAction.TERMINATE: (ResourceState.OK, ResourceState.ERRED),
    }
)


class OfferingAction(StrEnum):
    """Operations that change the state of an offering."""

    ACTIVATE = "activate"
    DRAFT = "draft"
    PAUSE = "pause"
    UNPAUSE = "unpause"
    ARCHIVE = "archive"
    MAKE_UNAVAILABLE = "make_unavailable"
    MAKE_AVAILABLE = "make_available"


class OfferingTransition(NamedTuple):
    """From which states an operation is valid and where it leads."""

    sources: tuple[OfferingState, ...]
    target: OfferingState


OFFERING_TRANSITIONS: Mapping[OfferingAction, OfferingTransition] = MappingProxyType(
    {
        OfferingAction.ACTIVATE: OfferingTransition(
            (OfferingState.DRAFT, OfferingState.PAUSED, OfferingState.UNAVAILABLE), OfferingState.ACTIVE
        ),
        OfferingAction.DRAFT: OfferingTransition(
            (OfferingState.ACTIVE, OfferingState.PAUSED, OfferingState.ARCHIVED), OfferingState.DRAFT
        ),
        OfferingAction.PAUSE: OfferingTransition((OfferingState.ACTIVE,), OfferingState.PAUSED),
        OfferingAction.UNPAUSE: OfferingTransition((OfferingState.PAUSED,), OfferingState.ACTIVE),
        OfferingAction.ARCHIVE: OfferingTransition(
            (OfferingState.ACTIVE, OfferingState.PAUSED), OfferingState.ARCHIVED
        ),
        OfferingAction.MAKE_UNAVAILABLE: OfferingTransition(
            (OfferingState.ACTIVE, OfferingState.PAUSED), OfferingState.UNAVAILABLE
        ),
        OfferingAction.MAKE_AVAILABLE: OfferingTransition((OfferingState.UNAVAILABLE,), OfferingState.ACTIVE),
    }
)


class OfferingUserAction(StrEnum):
    """Operations that change the state of an offering user."""

    SET_USERNAME = "set_username"
    BEGIN_CREATING = "begin_creating"
    SET_PENDING_ACCOUNT_LINKING = "set_pending_account_linking"
    SET_PENDING_ADDITIONAL_VALIDATION = "set_pending_additional_validation"
    SET_VALIDATION_COMPLETE = "set_validation_complete"
    SET_ERROR_CREATING = "set_error_creating"
    REQUEST_DELETION = "request_deletion"
    SET_DELETING = "set_deleting"
    SET_DELETED = "set_deleted"
    SET_ERROR_DELETING = "set_error_deleting"


class OfferingUserTransition(NamedTuple):
    """From which states an operation is valid and where it leads."""

    sources: tuple[OfferingUserState, ...]
    target: OfferingUserState


_IN_CREATION = (
    OfferingUserState.REQUESTED,
    OfferingUserState.CREATING,
    OfferingUserState.PENDING_ACCOUNT_LINKING,
    OfferingUserState.PENDING_ADDITIONAL_VALIDATION,
    OfferingUserState.ERROR_CREATING,
)

OFFERING_USER_TRANSITIONS: Mapping[OfferingUserAction, OfferingUserTransition] = MappingProxyType(
    {
        OfferingUserAction.SET_USERNAME: OfferingUserTransition(_IN_CREATION, OfferingUserState.OK),
        OfferingUserAction.BEGIN_CREATING: OfferingUserTransition(
            (OfferingUserState.REQUESTED, OfferingUserState.ERROR_CREATING), OfferingUserState.CREATING
        ),
        OfferingUserAction.SET_PENDING_ACCOUNT_LINKING: OfferingUserTransition(
            _IN_CREATION, OfferingUserState.PENDING_ACCOUNT_LINKING
        ),
        OfferingUserAction.SET_PENDING_ADDITIONAL_VALIDATION: OfferingUserTransition(
            _IN_CREATION, OfferingUserState.PENDING_ADDITIONAL_VALIDATION
        ),
        OfferingUserAction.SET_VALIDATION_COMPLETE: OfferingUserTransition(
            (OfferingUserState.PENDING_ACCOUNT_LINKING, OfferingUserState.PENDING_ADDITIONAL_VALIDATION),
            OfferingUserState.OK,
        ),
        OfferingUserAction.SET_ERROR_CREATING: OfferingUserTransition(
            _IN_CREATION, OfferingUserState.ERROR_CREATING
        ),
        OfferingUserAction.REQUEST_DELETION: OfferingUserTransition(
            (OfferingUserState.OK,), OfferingUserState.REQUESTED_DELETION
        ),
        OfferingUserAction.SET_DELETING: OfferingUserTransition(
            (OfferingUserState.REQUESTED_DELETION, OfferingUserState.ERROR_DELETING),
            OfferingUserState.DELETING,
        ),
        OfferingUserAction.SET_DELETED: OfferingUserTransition(
            (OfferingUserState.REQUESTED_DELETION, OfferingUserState.DELETING), OfferingUserState.DELETED
        ),
        OfferingUserAction.SET_ERROR_DELETING: OfferingUserTransition(
            (OfferingUserState.REQUESTED_DELETION, OfferingUserState.DELETING),
            OfferingUserState.ERROR_DELETING,
        ),
    }
)
