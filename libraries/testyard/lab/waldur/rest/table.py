"""The whole REST interface by collection."""

from collections.abc import Mapping

from testyard.lab.waldur.exchange import Reply, Request, json_reply
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
from testyard.lab.waldur.world import World


def _list_collections(_world: World, request: Request) -> Reply:
    """GET /api/: the address of every collection (sample ``api_root``)."""
    return json_reply({name: f"{request.base}/api/{name}/" for name in sorted(ENDPOINTS) if name})


ENDPOINTS: Mapping[str, Endpoint] = {
    "": Endpoint("Collection", collection={"GET": _list_collections}),
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
