"""The words Waldur uses on the wire."""

from __future__ import annotations

from enum import Enum


class OrderState(Enum):
    """States of a marketplace order."""

    PENDING_CONSUMER = "pending-consumer"
    PENDING_PROJECT = "pending-project"
    PENDING_PROVIDER = "pending-provider"
    PENDING_START_DATE = "pending-start-date"
    EXECUTING = "executing"
    DONE = "done"
    ERRED = "erred"
    CANCELED = "canceled"
    REJECTED = "rejected"

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will happen to such an order."""
        return self in {OrderState.DONE, OrderState.ERRED, OrderState.CANCELED, OrderState.REJECTED}


class ResourceState(Enum):
    """States of a marketplace resource."""

    CREATING = "Creating"
    OK = "OK"
    ERRED = "Erred"
    UPDATING = "Updating"
    TERMINATING = "Terminating"
    TERMINATED = "Terminated"


class OfferingState(Enum):
    """States of an offering; only an active one can be ordered."""

    DRAFT = "Draft"
    ACTIVE = "Active"
    PAUSED = "Paused"
    ARCHIVED = "Archived"


class Role(Enum):
    """Roles that a user can have on an organisation, an offering or a project."""

    CUSTOMER_OWNER = "CUSTOMER.OWNER"
    CUSTOMER_MANAGER = "CUSTOMER.MANAGER"
    OFFERING_MANAGER = "OFFERING.MANAGER"
    PROJECT_ADMIN = "PROJECT.ADMIN"
    PROJECT_MANAGER = "PROJECT.MANAGER"
    PROJECT_MEMBER = "PROJECT.MEMBER"


class Side(Enum):
    """The two instances of a federation."""

    A = "A"
    B = "B"
