"""A daemon with one defect: ``python -m testyard.lab.sabotage.daemon_launcher`` instead of the real launcher.

The defect's name comes in the environment variable TESTYARD_DEFECT, as arguments are the agent's own.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from testyard.lab.sabotage.defect import DEFECT_VARIABLE, agent_backend, wrap
from testyard.waldur.daemon_launcher import main
from testyard.waldur.models_on_demand import load_models_on_demand


def _instead_of_working(act: Callable[..., None]) -> None:
    """Replace what every mode does first."""
    from waldur_site_agent.event_processing import utils
    from waldur_site_agent.polling_processing import agent_membership_sync, agent_order_process, agent_report

    for module in (agent_membership_sync, agent_order_process, agent_report):
        wrap(module, "_process_offerings", act)
    wrap(utils, "run_initial_offering_processing", act)


def idle() -> None:
    """No round is ever begun, and no event acted upon."""
    from waldur_site_agent.event_processing.listener import WaldurListener

    _instead_of_working(lambda *_, **__: None)
    wrap(WaldurListener, "on_message", lambda *_: None)


def deaf_to_sigterm() -> None:
    """SIGTERM is ignored, whoever wants to handle it."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    wrap(signal, "signal", lambda original, number, _handler: original(number, signal.SIG_IGN))


def ends_as_if_well() -> None:
    """SIGTERM makes the process leave with status 0, or with another one where 0 is right."""

    def leave(original: Any, number: int, _handler: Any) -> Any:
        return original(number, lambda *_: os._exit(1))

    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    wrap(signal, "signal", leave)


def breaks_down() -> None:
    """The process ends as soon as there is work."""
    _instead_of_working(lambda *_, **__: os._exit(1))


def never_done() -> None:
    """An order on B is pending for ever."""
    wrap(agent_backend(), "check_pending_order", lambda _original, _self, _order: False)


def errs() -> None:
    """An order on B has always failed."""
    from waldur_site_agent.backend.exceptions import BackendError

    def check(_original: Any, _self: Any, order: str) -> bool:
        message = f"Target order {order} failed"
        raise BackendError(message)

    wrap(agent_backend(), "check_pending_order", check)


DEFECTS: dict[str, Callable[[], None]] = {
    "daemon-idle": idle,
    "daemon-deaf-to-sigterm": deaf_to_sigterm,
    "daemon-ends-as-if-well": ends_as_if_well,
    "daemon-breaks-down": breaks_down,
    "daemon-never-done": never_done,
    "daemon-errs": errs,
}

if __name__ == "__main__":
    load_models_on_demand()
    DEFECTS[os.environ[DEFECT_VARIABLE]]()
    sys.exit(main())  # type: ignore[arg-type] # as the installed script does
