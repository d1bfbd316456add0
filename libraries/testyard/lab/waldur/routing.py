"""From method and path to a handler, by dictionary: ``/api/<collection>/[<uuid>/][<action>/][<uuid>/]``."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from testyard.lab.waldur.exchange import Reply, Request
from testyard.lab.waldur.identifiers import parse_identifier
from testyard.lab.waldur.world import World

Handler = Callable[[World, Request], Reply]
Methods = Mapping[str, Handler]

_METHOD_ORDER = ("GET", "POST", "PUT", "PATCH", "DELETE")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What can be asked of one collection.

    Args:
        kind: What a 404 calls an object of it, e.g. ``Order``.
        collection: Methods on ``/api/<collection>/``.
        item: Methods on one object.
        collection_actions: Methods on ``/api/<collection>/<action>/``.
        item_actions: Methods on ``/api/<collection>/<uuid>/<action>/``.
        children: Methods on ``/api/<collection>/<uuid>/<action>/<uuid>/``.
        public: Whether it answers without a token.
    """

    kind: str
    collection: Methods = field(default_factory=dict)
    item: Methods = field(default_factory=dict)
    collection_actions: Mapping[str, Methods] = field(default_factory=dict)
    item_actions: Mapping[str, Methods] = field(default_factory=dict)
    children: Mapping[str, Methods] = field(default_factory=dict)
    public: bool = False


@dataclass(frozen=True, slots=True)
class Route:
    """Where a path leads."""

    endpoint: Endpoint
    methods: Methods
    identifier: str | None = ""
    """UUID in the path; None if there is a segment that is not one."""
    child_identifier: str | None = ""

    @property
    def allow(self) -> str:
        """The ``Allow`` header: the methods there are, in the order Django lists them."""
        names = [name for name in _METHOD_ORDER if name in self.methods]
        if "GET" in self.methods:
            names.append("HEAD")
        return ", ".join([*names, "OPTIONS"])


def resolve(endpoints: Mapping[str, Endpoint], path: str) -> Route | None:
    """Find where a path under ``/api/`` leads.

    Args:
        endpoints: By collection.
        path: From ``/api/`` on.

    Returns:
        The route, or None if there is nothing at this address; none is without a slash at its end.
    """
    if not path.endswith("/"):
        return None
    collection, *rest = path.split("/")[2:-1] or [""]
    endpoint = endpoints.get(collection)
    if endpoint is None or len(rest) > 3:
        return None
    item, action, child = (*rest, None, None, None)[:3]
    if item is None:
        return _route(endpoint, endpoint.collection)
    if action is None and item in endpoint.collection_actions:
        return _route(endpoint, endpoint.collection_actions[item])
    if child is not None:
        methods = endpoint.children.get(action or "", {})
        return _route(endpoint, methods, parse_identifier(item), parse_identifier(child))
    methods = endpoint.item if action is None else endpoint.item_actions.get(action, {})
    return _route(endpoint, methods, parse_identifier(item))


def _route(
    endpoint: Endpoint, methods: Methods, identifier: str | None = "", child_identifier: str | None = ""
) -> Route | None:
    return Route(endpoint, methods, identifier, child_identifier) if methods else None
