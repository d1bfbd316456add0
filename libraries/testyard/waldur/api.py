"""One Waldur instance, called as one user over its REST API.

httpx rather than ``waldur-api-client``: importing that takes about three seconds, and its errors hide the
server's explanation. The agent under test of course brings and uses its own client.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any, Self

from pydantic import BaseModel, ConfigDict

from testyard.core.identifiers import hexadecimal
from testyard.core.json_client import JsonClient, UnexpectedAnswerError
from testyard.waldur.states import OrderState, ResourceState

PAGE_SIZE = 100


class Order(BaseModel):
    """What a tester asks about an order."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    uuid: str
    state: OrderState
    type: str
    backend_id: str = ""
    error_message: str = ""
    limits: dict[str, float] = {}
    marketplace_resource_uuid: str = ""


class Resource(BaseModel):
    """What a tester asks about a resource."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    uuid: str
    name: str
    state: ResourceState
    backend_id: str | None = ""
    limits: dict[str, float] = {}
    project_uuid: str = ""


def limits_text(limits: Mapping[str, float]) -> str:
    """Limits for people: ``cpu=2, ram=8``."""
    return ", ".join(f"{name}={amount:g}" for name, amount in sorted(limits.items())) or "none"


class Waldur:
    """One Waldur instance as one user sees it.

    Args:
        url: The instance's address; ``/api/`` at its end is optional.
        token: The user's API token.
        name: How messages call it, such as ``Waldur A``.
        timeout: For each request.
    """

    def __init__(
        self, url: str, token: str, *, name: str = "Waldur", timeout: timedelta = timedelta(seconds=30)
    ) -> None:
        self.url = url.rstrip("/").removesuffix("/api")
        self.name = name
        # What orders of an offering refer to: asked once, like a page that a customer has open.
        self._order_forms: dict[str, dict[str, str]] = {}
        self._http = JsonClient(
            self.url, headers={"Authorization": f"Token {token}"}, secret=token, name=name, timeout=timeout
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the pooled connections."""
        self._http.close()

    def link(self, collection: str, uuid: str) -> str:
        """The URL of one object, as Waldur's payloads refer to it."""
        return f"{self.url}/api/{collection}/{hexadecimal(uuid)}/"

    def get(self, path: str, **query: Any) -> Any:
        """``GET /api/{path}/``."""
        return self._http.get(f"/api/{path}/", **query)

    def find(self, path: str, **query: Any) -> Any | None:
        """``GET /api/{path}/``, or None when there is no such object or it is not visible."""
        try:
            return self.get(path, **query)
        except UnexpectedAnswerError as answer:
            if answer.status == 404:
                return None
            raise

    def all(self, path: str, **query: Any) -> Iterator[dict[str, Any]]:
        """Every object of a list, over all its pages."""
        for page in self._http.pages(f"/api/{path}/", page_size=PAGE_SIZE, **query):
            yield from page

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """``POST /api/{path}/``."""
        return self._http.post(f"/api/{path}/", body)

    def patch(self, path: str, body: Mapping[str, Any]) -> Any:
        """``PATCH /api/{path}/``."""
        return self._http.call("PATCH", f"/api/{path}/", body=body, expect=(200,))

    def delete(self, path: str) -> None:
        """``DELETE /api/{path}/``."""
        self._http.call("DELETE", f"/api/{path}/", expect=(204,))

    def order(self, uuid: str) -> Order:
        """One order, whatever form its UUID has."""
        return Order.model_validate(self.get(f"marketplace-orders/{hexadecimal(uuid)}"))

    def place_order(self, offering: str, project: str, limits: Mapping[str, float], name: str) -> Order:
        """Order a resource with the offering's first plan.

        Args:
            offering: The offering's UUID.
            project: The UUID of the project that gets the resource.
            limits: Amount per component.
            name: The resource's name.
        """
        uuid = hexadecimal(offering)
        if uuid not in self._order_forms:
            details = self.get(f"marketplace-public-offerings/{uuid}")
            self._order_forms[uuid] = {"offering": details["url"], "plan": details["plans"][0]["url"]}
        order = self.post(
            "marketplace-orders",
            {
                **self._order_forms[uuid],
                "project": self.link("projects", project),
                "limits": dict(limits),
                "attributes": {"name": name},
            },
        )
        return Order.model_validate(order)

    def resource(self, uuid: str) -> Resource:
        """One resource as its consumer sees it, whatever form its UUID has."""
        return Resource.model_validate(self.get(f"marketplace-resources/{hexadecimal(uuid)}"))

    def update_limits(self, resource: str, limits: Mapping[str, float]) -> str:
        """Order other limits for a resource; returns the order's UUID."""
        answer = self.post(
            f"marketplace-resources/{hexadecimal(resource)}/update_limits", {"limits": dict(limits)}
        )
        return str(answer["order_uuid"])

    def terminate(self, resource: str) -> str:
        """Order the end of a resource; returns the order's UUID."""
        answer = self.post(f"marketplace-resources/{hexadecimal(resource)}/terminate", {})
        return str(answer["order_uuid"])
