"""The whole REST interface by collection."""

from collections.abc import Mapping

from testyard.lab.waldur.rest import (
    agents,
    catalogue,
    identity,
    offering_users,
    offerings,
    orders,
    resources,
    structure,
    usages,
    users,
)
from testyard.lab.waldur.routing import Endpoint

ENDPOINTS: Mapping[str, Endpoint] = {
    **users.ENDPOINTS,
    **structure.ENDPOINTS,
    **catalogue.ENDPOINTS,
    **offerings.ENDPOINTS,
    **orders.ENDPOINTS,
    **resources.ENDPOINTS,
    **offering_users.ENDPOINTS,
    **usages.ENDPOINTS,
    **identity.ENDPOINTS,
    **agents.ENDPOINTS,
}
