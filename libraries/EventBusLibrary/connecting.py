"""Keywords that connect to the services and ask how they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from enum import Enum
from functools import partial
from typing import Any, Literal

from robot.api import logger
from robot.api.deco import keyword
from testyard.core.tables import html_table
from testyard.event_bus.services import EventBus

from EventBusLibrary.session import Session


class Service(Enum):
    """The services of an event bus."""

    ORCHESTRATOR = "orchestrator"
    REDUCER = "reducer"
    STAMPING = "stamping"
    ONEXTREE = "onextree"
    ADAPTER = "adapter"
    DISCOVERY = "discovery"


def bare_request_of(bus: EventBus, service: Service | None) -> Callable[[], object] | None:
    """A request that a service answers without doing anything; None for none."""
    return None if service is None else partial(bus.health, service.value)


BreakerState = Literal["closed", "open", "half_open"]


class ServiceKeywords:
    """Keywords that connect to the services and ask how they are."""

    _session: Session

    @keyword(tags=["Setup"])
    def connect_to_event_bus(
        self,
        *,
        orchestrator: str = "",
        reducer: str = "",
        stamping: str = "",
        onextree: str = "",
        adapter: str = "",
        discovery: str = "",
        timeout: timedelta = timedelta(seconds=30),
    ) -> None:
        """Say where the services answer; those that a suite does not need can be left out.

        Args:
            orchestrator: Its URL.
            reducer: Its URL.
            stamping: Its URL.
            onextree: Its URL.
            adapter: Its URL.
            discovery: Its URL.
            timeout: For each request.

        Example:
            | Connect To Event Bus | orchestrator=${url} |
        """
        urls = {
            "orchestrator": orchestrator,
            "reducer": reducer,
            "stamping": stamping,
            "onextree": onextree,
            "adapter": adapter,
            "discovery": discovery,
        }
        self._session.connect(EventBus(urls, timeout))
        logger.info(f"Event bus: {', '.join(f'{name} {url}' for name, url in urls.items() if url)}")

    @keyword(tags=["Setup"])
    def disconnect_from_event_bus(self) -> None:
        """Close the connections; there may be none.

        Example:
            | Disconnect From Event Bus |
        """
        self._session.disconnect()

    @keyword(tags=["Getter"])
    def health_of_service(self, service: Service) -> Mapping[str, Any]:
        """What a service says of itself: its `status`, the `reasons`, its `breakers`, how many events wait.

        Args:
            service: Which one.

        Example:
            | ${health} = | Health Of Service | ORCHESTRATOR |
        """
        return self._session.bus.health(service.value)

    @keyword(tags=["Getter", "Evidence"])
    def metrics_of_service(self, service: Service) -> Mapping[str, Any]:
        """Draw a table of what a service counts, and return it.

        Args:
            service: Which one.

        Example:
            | ${metrics} = | Metrics Of Service | ADAPTER |
        """
        metrics = self._session.bus.metrics(service.value)
        title = f"What the {service.value} counts"
        logger.info(html_table(title, ("what", "count"), metrics.items(), folded=True), html=True)
        return metrics

    @keyword(tags=["Assertion", "Wait"])
    def service_should_be(
        self,
        service: Service,
        status: Literal["healthy", "degraded", "unhealthy"],
        *,
        because: str = "",
        within: timedelta = timedelta(seconds=5),
    ) -> Mapping[str, Any]:
        """Wait until a service says that it is healthy, degraded or unhealthy.

        Args:
            service: Which one.
            status: How it should be.
            because: What one of its reasons contains.
            within: Give up after this time.

        Returns:
            All that it says.

        Raises:
            NotMetError: It says something else, all the time.

        Example:
            | Service Should Be | ORCHESTRATOR | degraded | because=event bus |
        """
        told = self._session.bus.wait_for_status(service.value, status, because, within)
        logger.info(f"The {service.value} is {told['status']}: {'; '.join(told['reasons']) or 'no reasons'}")
        return told

    @keyword(tags=["Assertion", "Wait"])
    def circuit_breaker_should_be(
        self, service: Service, name: str, state: BreakerState, *, within: timedelta = timedelta(seconds=5)
    ) -> Mapping[str, Any]:
        """Wait until a circuit breaker of a service is in a state.

        Args:
            service: Whose breaker.
            name: What it protects from: `stamping`, `onextree`, `event-bus`, `database`.
            state: `closed`, `open` or `half_open`.
            within: Give up after this time.

        Returns:
            All that the breaker knows: its counts, its changes, its configuration.

        Raises:
            NotMetError: It is in another state all the time; tells its last changes.

        Example:
            | Circuit Breaker Should Be | ORCHESTRATOR | onextree | open |
        """
        return self._session.bus.wait_for_breaker(service.value, name, state, within)

    @keyword(tags=["Assertion", "Wait"])
    def circuit_breaker_should_have_been(
        self, service: Service, name: str, *states: BreakerState, within: timedelta = timedelta(seconds=5)
    ) -> None:
        """Wait until a circuit breaker's last changes led from one state to the next.

        Args:
            service: Whose breaker.
            name: What it protects from.
            states: One after the other.
            within: Give up after this time.

        Raises:
            NotMetError: It has changed in another way; tells how.

        Example:
            | Circuit Breaker Should Have Been | ORCHESTRATOR | stamping | open | half_open | open |
        """
        self._session.bus.wait_for_changes(service.value, name, states, within)

    @keyword(tags=["Getter"])
    def circuit_breaker(self, service: Service, name: str) -> Mapping[str, Any]:
        """What a circuit breaker knows: its state, its counts, its changes, its configuration.

        Args:
            service: Whose breaker.
            name: What it protects from.

        Example:
            | ${breaker} = | Circuit Breaker | ORCHESTRATOR | stamping |
        """
        return self._session.bus.breaker(service.value, name)

    @keyword(tags=["Setup"])
    def reset_circuit_breaker(self, service: Service, name: str) -> None:
        """Close a circuit breaker, as an operator does who knows that the other side works again.

        Args:
            service: Whose breaker.
            name: What it protects from.

        Example:
            | Reset Circuit Breaker | ORCHESTRATOR | stamping |
        """
        self._session.bus.reset_breaker(service.value, name)
