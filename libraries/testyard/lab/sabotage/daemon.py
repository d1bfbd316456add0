"""Defects around the agent as a daemon, and Waldurs that do not answer.

A defect of a daemon is put in place in the daemon's own process: it is started through
``testyard.lab.sabotage.daemon_launcher``.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Any

import httpx

from testyard.lab.sabotage.defect import Defect, agent_backend, defect, wrap

# Longer than any answer of the lab takes, shorter than a scenario looks whether the agent hangs.
TIME_LIMIT_SECONDS = 0.2


# Waldurs that do not answer: the agent's.


@defect("b-not-looked-at", "the agent starts its work without looking whether B answers", "USR-X9")
def b_not_looked_at() -> None:
    wrap(agent_backend(), "run_preflight", lambda _original, _self: None)


@defect("order-errs-without-b", "A's orders err while B does not answer", "USR-X9")
def order_errs_without_b() -> None:
    from waldur_site_agent.common.processors import OfferingOrderProcessor

    def process(original: Any, self: Any) -> None:
        if not self.resource_backend.ping():
            client = self.waldur_rest_client.get_httpx_client()
            for order in client.get("/api/marketplace-orders/", params={"state": "pending-provider"}).json():
                client.post(f"/api/marketplace-orders/{order['uuid']}/set_state_erred/", json={})
        original(self)

    wrap(OfferingOrderProcessor, "process_offering", process)


@defect("b-given-up", "the agent never asks a B again that once did not answer", "USR-X9")
def b_given_up() -> None:
    given_up: set[str] = set()

    def ping(original: Any, self: Any, *arguments: Any) -> bool:
        address = self.client.api_url
        if address not in given_up and original(self, *arguments):
            return True
        given_up.add(address)
        return False

    wrap(agent_backend(), "ping", ping)


@defect(
    "b-has-a-time-limit", "the agent's client for B waits no longer than it should: the issue is fixed", "USR-X9"
)
def b_has_a_time_limit() -> None:
    from waldur_site_agent_waldur.client import WaldurClient

    def build(original: Any, self: Any, *arguments: Any, **options: Any) -> None:
        original(self, *arguments, **options)
        self._api_client = self._api_client.with_timeout(httpx.Timeout(TIME_LIMIT_SECONDS))

    wrap(WaldurClient, "__init__", build)


@defect("work-without-waldur-a", "the agent asks B although A has refused it", "USR-X9")
def work_without_waldur_a() -> None:
    from waldur_site_agent.common.agent_identity_management import AgentIdentityManager

    def register(original: Any, self: Any, *arguments: Any) -> Any:
        try:
            return original(self, *arguments)
        except Exception:
            settings = self.offering.backend_settings
            backend = agent_backend()(settings, self.offering.backend_components_dict)
            with suppress(Exception):
                backend.client.ping()
            raise

    wrap(AgentIdentityManager, "register_identity", register)


# Waldurs that do not answer: testyard's.


@defect("silence-about-waldurs-away", "what the agent says of a Waldur that does not answer is lost", "USR-X9")
def silence_about_waldurs_away() -> None:
    from testyard.waldur.agent import _AgentLog, event_text

    def emit(original: Any, self: Any, record: logging.LogRecord) -> None:
        if not any(words in event_text(record) for words in ("not reachable", "Unable to process the offering")):
            original(self, record)

    wrap(_AgentLog, "emit", emit)


# The agent as a daemon.


def _daemon_with_defect() -> None:
    """Start daemons through the module that breaks them; the defect's name is in the environment."""
    from testyard.waldur.daemon import AgentDaemon

    def start(original: Any, self: Any, *arguments: Any, **_: Any) -> None:
        original(self, *arguments, launcher="testyard.lab.sabotage.daemon_launcher")

    wrap(AgentDaemon, "__init__", start)


daemon_idle = defect("daemon-idle", "a daemon starts and never works", "USR-X10")(_daemon_with_defect)
daemon_deaf_to_sigterm = defect("daemon-deaf-to-sigterm", "a daemon goes on when it is told to end", "USR-X10")(
    _daemon_with_defect
)
daemon_ends_as_if_well = defect(
    "daemon-ends-as-if-well", "the signal does not end the daemon, it leaves with status 0 by itself", "USR-X10"
)(_daemon_with_defect)
daemon_breaks_down = defect("daemon-breaks-down", "a daemon ends of itself as soon as there is work", "USR-X10")(
    _daemon_with_defect
)
daemon_never_done = defect("daemon-never-done", "a daemon never sees that B is done", "USR-X10")(
    _daemon_with_defect
)
daemon_errs = defect("daemon-errs", "a daemon takes what B has done for a failure", "USR-X10")(_daemon_with_defect)

DAEMON_DEFECTS: tuple[Defect, ...] = tuple(
    value for value in dict(globals()).values() if isinstance(value, Defect)
)
