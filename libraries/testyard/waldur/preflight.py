"""Is everything there that a federation needs? One row per requirement, found against expected.

The requirements are document 000's instance requirements and set-up steps 1 to 5, and what agent 1.0.7 needs
beyond them.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx

from testyard.core.errors import UserError
from testyard.core.identifiers import hexadecimal, same_identifier
from testyard.core.json_client import UnexpectedAnswerError, UnreachableError, trusted_certificates
from testyard.waldur.api import Waldur
from testyard.waldur.configuration import OfferingConfiguration
from testyard.waldur.provisioning import OFFERING_TYPE
from testyard.waldur.states import OfferingState, Role, Side

STOMP_PATH = "/rmqws-stomp"
UPGRADE_REQUIRED = 426
PORT_AT_END = re.compile(r":\d+$")
NOT_CONFIGURED = "STOMP is not configured on this server; the agent falls back to polling"


@dataclass(frozen=True)
class Requirement:
    """One thing that must be so.

    Attributes:
        step: The document's set-up step: ``FED-S1``…
        side: Which Waldur it is about; None for the configuration itself.
        name: What must be so.
        expected: What was expected.
        found: What was found.
        met: Whether it is so.
        optional: Whether the federation works without it, by polling.
    """

    step: str
    side: Side | None
    name: str
    expected: str
    found: str
    met: bool
    optional: bool = False

    def __str__(self) -> str:
        where = f"Waldur {self.side.value}" if self.side else "configuration"
        return f"{self.step} {where}: {self.name}: expected {self.expected}, found {self.found}"


REQUIREMENT_COLUMNS = ("step", "Waldur", "requirement", "expected", "found", "met")


def requirement_row(requirement: Requirement) -> tuple[str, ...]:
    """A requirement as a row of a table."""
    verdict = "yes" if requirement.met else "no, optional" if requirement.optional else "NO"
    side = requirement.side.value if requirement.side else ""
    return (
        requirement.step,
        side,
        requirement.name,
        requirement.expected,
        requirement.found,
        verdict,
    )


@dataclass(frozen=True)
class StompEndpoint:
    """Where the agent dials STOMP over WebSocket, and what a plain GET answers there."""

    url: str
    status: int | None
    content_type: str

    @property
    def available(self) -> bool:
        """Whether a WebSocket endpoint listens: it asks for an upgrade."""
        return self.status == UPGRADE_REQUIRED

    def __str__(self) -> str:
        if self.status is None:
            return "no answer"
        return f"HTTP {self.status}" + ("" if self.available else f" {self.content_type}")


def probe_stomp(configuration: OfferingConfiguration, side: Side) -> StompEndpoint:
    """Ask the endpoint the agent would dial for a side, with a plain GET (document 000, step 4).

    The agent uses the source offering's host, port, path and TLS settings for the target too, and its default
    port follows ``verify_ssl``, not the API's address.
    """
    api_url = configuration.waldur_api_url if side is Side.A else configuration.backend_settings.target_api_url
    host = configuration.stomp_ws_host or httpx.URL(api_url).netloc.decode().rpartition("@")[2]
    host = host if configuration.stomp_ws_host else PORT_AT_END.sub("", host)
    port = configuration.stomp_ws_port or (443 if configuration.verify_ssl else 80)
    scheme = "https" if configuration.websocket_use_tls else "http"
    url = f"{scheme}://{host}:{port}{configuration.stomp_ws_path or STOMP_PATH}"
    try:
        verify = trusted_certificates() if configuration.verify_ssl else False
        answer = httpx.get(url, timeout=10, verify=verify)
    except httpx.TransportError:
        return StompEndpoint(url, None, "")
    content_type = answer.headers.get("content-type", "").partition(";")[0]
    return StompEndpoint(url, answer.status_code, content_type)


class Preflight:
    """Checks both sides of a federation with the configuration's own tokens.

    Args:
        configuration: The agent's offering.
        project: UUID of the project on A that will order.
        customer: Waldur A as the user who will order.
        timeout: For each request.
    """

    def __init__(
        self,
        configuration: OfferingConfiguration,
        project: str,
        customer: Waldur,
        timeout: timedelta = timedelta(seconds=10),
    ) -> None:
        self._configuration = configuration
        self._project = project
        self._customer = customer
        self._timeout = timeout

    def run(self) -> list[Requirement]:
        """Check everything; a side that cannot be reached or refuses the token gets one row and no more."""
        return [*self._configured(), *self._source(), *self._target()]

    def _configured(self) -> Iterator[Requirement]:
        configuration = self._configuration
        dialled = configuration.waldur_api_url.rstrip("/api")
        intended = configuration.waldur_api_url.rstrip("/").removesuffix("/api")
        yield Requirement(
            "FED-S2",
            None,
            "the agent dials A's address (agent 1.0.7 strips the letters of '/api' from its end)",
            intended,
            dialled,
            dialled == intended,
        )
        settings = configuration.backend_settings
        bridged = (settings.model_extra or {}).get("identity_bridge_source")
        yield Requirement(
            "FED-S5",
            None,
            "users can be matched",
            "user_resolve_method user_field or remote_eduteams, or an identity_bridge_source",
            f"{settings.user_resolve_method} by {settings.user_match_field}",
            settings.user_resolve_method != "identity_bridge" or bool(bridged),
        )

    def _source(self) -> Iterator[Requirement]:
        configuration = self._configuration
        url, token = configuration.waldur_api_url, configuration.waldur_api_token
        with Waldur(url, token, name="Waldur A", timeout=self._timeout) as waldur:
            check = _Check("FED-S2", Side.A, waldur)
            user = yield from check.user()
            if user is None:
                return
            yield from self._source_offering(check, user)
            project, found = _look(self._customer, "projects", self._project)
            name = "the ordering project is visible to who orders"
            yield check.that(name, self._project, found, project is not None)
        yield self._stomp(Side.A, enabled=configuration.stomp_enabled)

    def _source_offering(self, check: _Check, user: Mapping[str, Any]) -> Iterator[Requirement]:
        uuid = self._configuration.waldur_offering_uuid
        offering = yield from check.offering("marketplace-provider-offerings", uuid)
        yield check.role(user, Role.OFFERING_MANAGER, uuid)
        if offering is not None:
            yield from check.components(offering, dict.fromkeys(self._configuration.backend_components, ""))
            query = {"customer_uuid": offering["customer_uuid"]}
            providers, problem = _look(check.waldur, "marketplace-service-providers", **query)
            found = problem if providers is None else "yes" if providers else "no"
            yield check.that("the offering's organisation is a service provider", "yes", found, bool(providers))

    def _target(self) -> Iterator[Requirement]:
        settings = self._configuration.backend_settings
        url, token = settings.target_api_url, settings.target_api_token
        with Waldur(url, token, name="Waldur B", timeout=self._timeout) as waldur:
            check = _Check("FED-S1", Side.B, waldur)
            user = yield from check.user()
            if user is None:
                return
            offering = yield from check.offering("marketplace-public-offerings", settings.target_offering_uuid)
            if offering is not None:
                yield from check.components(offering, self._configuration.origins_of_target_components())
            uuid = settings.target_customer_uuid
            customer, found = _look(waldur, "customers", uuid)
            yield check.that("the target organisation is visible", uuid, found, customer is not None)
            yield check.role(user, Role.CUSTOMER_OWNER, settings.target_customer_uuid)
            isds = user.get("managed_isds") or []
            manages = bool(user.get("is_identity_manager") and isds)
            yield check.that(
                "the token's user is an identity manager with managed ISDs",
                "yes",
                ", ".join(isds) if manages else "no",
                manages or bool(user.get("is_staff")),
            )
        yield self._stomp(Side.B, enabled=settings.target_stomp_enabled)

    def _stomp(self, side: Side, *, enabled: bool) -> Requirement:
        endpoint = probe_stomp(self._configuration, side)
        found = str(endpoint) if endpoint.available else f"{endpoint}: {NOT_CONFIGURED}"
        return Requirement(
            "FED-S4",
            side,
            f"STOMP over WebSocket at {endpoint.url}",
            f"HTTP {UPGRADE_REQUIRED}",
            found,
            endpoint.available,
            optional=side is Side.B or not enabled,
        )


@dataclass(frozen=True)
class _Check:
    """Makes the rows about one side; a generator's value is what it looked up, or None."""

    step: str
    side: Side
    waldur: Waldur

    def that(self, name: str, expected: str, found: str, met: bool) -> Requirement:
        return Requirement(self.step, self.side, name, expected, found, met)

    def user(self) -> Generator[Requirement, None, Mapping[str, Any] | None]:
        found: Mapping[str, Any] | None = None
        try:
            found = self.waldur.get("users/me")
            text = str(found["username"])
        except UnreachableError as problem:
            text = str(problem)
        except UnexpectedAnswerError as problem:
            text = f"HTTP {problem.status} {problem.body}"
        yield self.that("the API answers and accepts the token", self.waldur.url, text, found is not None)
        return found

    def offering(self, collection: str, uuid: str) -> Generator[Requirement, None, Mapping[str, Any] | None]:
        offering: Mapping[str, Any] | None
        offering, found = _look(self.waldur, collection, uuid)
        yield self.that("the offering is visible to the token", uuid, found, offering is not None)
        if offering is None:
            return None
        for attribute, expected in (("type", OFFERING_TYPE), ("state", OfferingState.ACTIVE.value)):
            found = str(offering[attribute])
            yield self.that(f"the offering's {attribute}", expected, found, found == expected)
        plans = [plan["name"] for plan in offering["plans"] if not plan.get("archived")]
        yield self.that("a plan", "at least one", ", ".join(plans) or "none", bool(plans))
        return offering

    def components(self, offering: Mapping[str, Any], origins: Mapping[str, str]) -> Iterator[Requirement]:
        billed = {component["type"]: component["billing_type"] for component in offering["components"]}
        for component, origin in origins.items():
            name = f"component {component}" + (f" = {origin}" if origin else "")
            found = f"billed by {billed[component]}" if component in billed else "no such component"
            met = billed.get(component) == "limit"
            yield Requirement("FED-S3", self.side, name, "billed by limit", found, met)

    def role(self, user: Mapping[str, Any], role: Role, scope: str) -> Requirement:
        held = [
            permission["role_name"]
            for permission in user.get("permissions") or []
            if same_identifier(str(permission["scope_uuid"]), scope)
        ]
        staff = bool(user.get("is_staff"))
        found = ", ".join(held) or ("staff" if staff else "no role there")
        return self.that(f"role of {user['username']}", role.value, found, staff or role.value in held)


def _look(waldur: Waldur, collection: str, uuid: str = "", **query: Any) -> tuple[Any, str]:
    """Look something up; returns it, or None, and what was found in words, also when it was an error."""
    try:
        path = f"{collection}/{hexadecimal(uuid)}" if uuid or not query else collection
        found = waldur.find(path, **query)
    except UnexpectedAnswerError as problem:
        return None, f"HTTP {problem.status} {problem.body}"
    except UserError as problem:
        return None, str(problem)
    if isinstance(found, dict):
        return found, str(found["name"])
    return found, "nothing"


def unmet(requirements: Iterable[Requirement]) -> list[Requirement]:
    """The requirements that are not met and not optional."""
    return [it for it in requirements if not it.met and not it.optional]
