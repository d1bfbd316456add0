"""The defects of the federation domain.

A defect of the agent wraps the agent; a defect of Waldur starts the double through
``testyard.lab.sabotage.waldur``; a defect of testyard's own checks replaces the check.
"""

from __future__ import annotations

import operator
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from testyard.core.deadline import Deadline, wait_until
from testyard.lab.sabotage.defect import Defect, agent_backend, defect, double_with_defect, wrap

CLOSED_WITHIN = timedelta(seconds=10)

# Every scenario that creates a resource and looks at it on B.
CREATES = (
    *("FED-2", "FED-7", "FED-8", "FED-K1", "FED-K2", "FED-K3"),
    *("FED-N1", "FED-N2", "FED-N3", "FED-N4", "FED-S5"),
)
CONVERTS = ("FED-2", "FED-8", "FED-K2", "FED-N2", "FED-N3", "FED-N4")


def _mapper() -> Any:
    from waldur_site_agent.common.component_mapping import ComponentMapper

    return ComponentMapper


def _processor() -> Any:
    from waldur_site_agent.common.processors import OfferingOrderProcessor

    return OfferingOrderProcessor


# The agent's.


@defect("agent-writes-backend-id-on-b", "the agent sets a backend id on B's resource", "FED-2")
def agent_writes_backend_id_on_b() -> None:
    def create(original: Any, self: Any, *arguments: Any, **options: Any) -> Any:
        info = original(self, *arguments, **options)
        self.client._api_client.get_httpx_client().post(
            f"/api/marketplace-provider-resources/{info.backend_id}/set_backend_id/",
            json={"backend_id": "from-the-agent"},
        )
        return info

    wrap(agent_backend(), "create_resource_with_id", create)


@defect("factor-ignored", "limits reach B under B's names but not multiplied", *CONVERTS)
def factor_ignored() -> None:
    _use_factor(lambda _factor: 1.0)


@defect("factor-inverted", "limits are divided by the factor", *CONVERTS)
def factor_inverted() -> None:
    _use_factor(lambda factor: 1 / factor)


def _use_factor(change: Callable[[float], float]) -> None:
    def convert(_original: Any, self: Any, limits: dict[str, int]) -> dict[str, int]:
        target: dict[str, float] = {}
        for source, amount in limits.items():
            for mapping in self._forward_map[source]:
                name = mapping.target_component
                target[name] = target.get(name, 0) + amount * change(mapping.factor)
        return {name: int(amount) for name, amount in target.items()}

    wrap(_mapper(), "convert_limits_to_target", convert)


@defect("passthrough-doubled", "a passthrough component arrives doubled", "FED-N1")
def passthrough_doubled() -> None:
    def convert(original: Any, self: Any, limits: dict[str, int]) -> dict[str, int]:
        converted: dict[str, int] = original(self, limits)
        passed = self._passthrough_components
        return {name: amount * 2 if name in passed else amount for name, amount in converted.items()}

    wrap(_mapper(), "convert_limits_to_target", convert)


@defect("only-first-target", "one component becomes only the first of its targets", "FED-N3")
def only_first_target() -> None:
    def build(original: Any, self: Any, components: Any) -> None:
        original(self, components)
        self._forward_map = {source: mappings[:1] for source, mappings in self._forward_map.items()}

    wrap(_mapper(), "__init__", build)


@defect("zero-limits-dropped", "a limit of zero is not sent to B", "FED-N4")
def zero_limits_dropped() -> None:
    def convert(original: Any, self: Any, limits: dict[str, int]) -> dict[str, int]:
        converted: dict[str, int] = original(self, limits)
        return {name: amount for name, amount in converted.items() if amount}

    wrap(_mapper(), "convert_limits_to_target", convert)


@defect("limits-not-updated", "the agent reports an update done without changing B", "FED-3")
def limits_not_updated() -> None:
    wrap(agent_backend(), "set_resource_limits", lambda _original, _self, *_, **__: None)


@defect("done-without-resource", "an order is done although the agent ordered nothing on B", *CREATES)
def done_without_resource() -> None:
    from waldur_site_agent.backend.structures import BackendResourceInfo

    def create(_original: Any, _self: Any, *_: Any, **__: Any) -> Any:
        return BackendResourceInfo(backend_id=str(uuid.uuid4()), pending_order_id=str(uuid.uuid4()), limits={})

    wrap(agent_backend(), "create_resource_with_id", create)
    wrap(agent_backend(), "check_pending_order", lambda _original, _self, _order: True)


@defect("termination-not-forwarded", "A's resource ends, B's lives on", "FED-4", "FED-7b", "FED-8")
def termination_not_forwarded() -> None:
    wrap(agent_backend(), "delete_resource", lambda _original, _self, *_, **__: None)


@defect("target-events-uninvited", "the agent connects to B's events although they are switched off", "FED-8")
def target_events_uninvited() -> None:
    def subscribe(original: Any, self: Any, *arguments: Any) -> Any:
        self.backend_settings = {**self.backend_settings, "target_stomp_enabled": True}
        return original(self, *arguments)

    wrap(agent_backend(), "setup_target_event_subscriptions", subscribe)


@defect("backend-id-of-the-order", "A's resource carries the UUID of B's order", *CREATES)
def backend_id_of_the_order() -> None:
    def create(original: Any, self: Any, *arguments: Any, **options: Any) -> Any:
        info = original(self, *arguments, **options)
        info.backend_id = info.pending_order_id
        return info

    wrap(agent_backend(), "create_resource_with_id", create)


@defect("provider-not-found", "the agent starts without its service provider", "FED-1")
def provider_not_found() -> None:
    def start(original: Any, self: Any, *arguments: Any, **options: Any) -> None:
        original(self, *arguments, **options)
        self.service_provider.uuid = None

    wrap(_processor(), "__init__", start)


@defect("order-errs-on-500", "one failure to set an order done makes it err, as older agents did", "FED-K1")
def order_errs_on_500() -> None:
    from waldur_site_agent.common import processors

    wrap(processors, "_is_transient_waldur_api_error", lambda _original, _problem: False)


@defect("order-given-up-after-500", "an order that could not be set done is not tried again", "FED-K1")
def order_given_up_after_500() -> None:
    def retry(_original: Any, self: Any, order: Any, **_: Any) -> None:
        given_up = self.__dict__.setdefault("given_up", set())
        if order.uuid in given_up:
            return
        try:
            self.process_order(order)
        except Exception:
            given_up.add(order.uuid)

    wrap(_processor(), "process_order_with_retries", retry)


@defect("target-handlers-fixed", "the agent's handlers of B's events work: the known issue is fixed", "FED-K5")
def target_handlers_fixed() -> None:
    from waldur_site_agent_waldur import target_event_handler

    def make(original: Any, *arguments: Any) -> Any:
        handler = original(*arguments)
        return lambda frame, offering, agent, *_: handler(frame, offering, agent)

    wrap(target_event_handler, "make_target_order_handler", make)


@defect("never-reconnects", "the agent does not come back after its connection is lost", "FED-K4")
def never_reconnects() -> None:
    from waldur_site_agent.event_processing.listener import WaldurListener

    wrap(WaldurListener, "on_disconnected", lambda _original, _self: None)


@defect("reconnects-deaf", "the agent comes back but does not subscribe again", "FED-K4")
def reconnects_deaf() -> None:
    from waldur_site_agent.event_processing.listener import WaldurListener

    def connected(original: Any, self: Any, frame: Any) -> None:
        if not self.__dict__.setdefault("subscribed_once", False):
            self.subscribed_once = True
            original(self, frame)

    wrap(WaldurListener, "on_connected", connected)


@defect("roles-not-mapped", "every member becomes an administrator on B", "FED-S5")
def roles_not_mapped() -> None:
    wrap(agent_backend(), "_map_role", lambda _original, _self, _role: "PROJECT.ADMIN")


# Waldur's.

EVENTS_OF_A = ("FED-7", "FED-K4", "FED-K5")

limits_applied_early = defect(
    "limits-applied-before-done", "Waldur applies new limits when they are ordered", "FED-3"
)(double_with_defect)
order_events_missing = defect("order-events-missing", "Waldur publishes no order events", *EVENTS_OF_A)(
    double_with_defect
)
order_events_untyped = defect("order-events-untyped", "order events carry no object_type", *EVENTS_OF_A)(
    double_with_defect
)
order_events_of_another = defect("order-events-of-another", "order events name another order", *EVENTS_OF_A)(
    double_with_defect
)
order_events_late = defect("order-events-late", "order events come a minute late", *EVENTS_OF_A)(
    double_with_defect
)
order_events_wrong_state = defect(
    "order-events-wrong-state", "order events tell pending-consumer as pending-provider", "FED-7", "FED-K4"
)(double_with_defect)
queue_of_orders_only = defect(
    "queue-of-orders-only", "a queue receives orders whatever was asked for", "FED-5", "FED-6"
)(double_with_defect)
shadow_resolved = defect(
    "shadow-resource-resolved", "shadow resources carry the backend id: the known issue is fixed", "FED-K2"
)(double_with_defect)


# testyard's own.


@defect("every-second-frame", "the capture loses every second frame", "FED-7", "FED-K4")
def every_second_frame() -> None:
    from testyard.stomp.capture import EventCapture

    counts: dict[int, int] = {}

    def add(original: Any, self: Any, *arguments: Any) -> None:
        counts[id(self)] = counts.get(id(self), 0) + 1
        if counts[id(self)] % 2 == 0:
            original(self, *arguments)

    wrap(EventCapture, "add", add)


@defect("always-connected", "a channel claims to be connected when it is not", "FED-K4")
def always_connected() -> None:
    from testyard.stomp.channel import Channel

    Channel.is_connected = property(lambda _self: True)  # type: ignore[assignment, method-assign]


@defect("connection-closed-at-once", "the agent closes its connections at once", "FED-5", "FED-6")
def connection_closed_at_once() -> None:
    from testyard.waldur.agent import SiteAgent

    def subscribe(original: Any, self: Any, *arguments: Any) -> Any:
        subscriptions = original(self, *arguments)
        for subscription in subscriptions:
            connection = subscription.connection
            connection.remove_listener("waldur-listener")
            connection.disconnect()
            # The client says goodbye first; a scenario must not see the moment before.
            wait_until(connection.is_connected, operator.not_, Deadline(CLOSED_WITHIN), "the connection to close")
        return subscriptions

    wrap(SiteAgent, "subscribe", subscribe)


@defect("inactive-offering-accepted", "the preflight accepts an offering in any state", "FED-S1", "FED-S2")
def inactive_offering_accepted() -> None:
    _accept(lambda requirement: requirement.name == "the offering's state")


@defect("missing-component-accepted", "the preflight accepts a component that does not exist", "FED-S3")
def missing_component_accepted() -> None:
    _accept(lambda requirement: requirement.name.startswith("component "))


@defect("missing-stomp-accepted", "the preflight accepts a web page as a STOMP endpoint", "FED-S4", "FED-K3")
def missing_stomp_accepted() -> None:
    _accept(lambda requirement: requirement.name.startswith("STOMP over WebSocket"))


def _accept(chosen: Callable[[Any], bool]) -> None:
    from dataclasses import replace

    from testyard.waldur.preflight import Preflight

    def run(original: Any, self: Any) -> Any:
        return [replace(it, met=True) if chosen(it) else it for it in original(self)]

    wrap(Preflight, "run", run)


@defect("nothing-reported-lost", "the list of lost events is always empty", "FED-K4")
def nothing_reported_lost() -> None:
    from testyard.stomp.channel import Channel

    wrap(Channel, "lost", lambda _original, _self, _published: [])


FEDERATION_DEFECTS: tuple[Defect, ...] = tuple(
    value for value in dict(globals()).values() if isinstance(value, Defect)
)
