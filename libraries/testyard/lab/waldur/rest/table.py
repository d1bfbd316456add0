"""The whole REST interface by collection."""

from collections.abc import Mapping

from testyard.lab.waldur.rest import catalogue, orders, resources, structure, users
from testyard.lab.waldur.routing import Endpoint

ENDPOINTS: Mapping[str, Endpoint] = {
    **users.ENDPOINTS,
    **structure.ENDPOINTS,
    **catalogue.ENDPOINTS,
    **orders.ENDPOINTS,
    **resources.ENDPOINTS,
}
