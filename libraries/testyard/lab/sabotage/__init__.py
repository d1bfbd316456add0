"""Named defects for negative controls: each must turn exactly its scenarios red.

Nothing imports this package but the command line; a run under a defect loads it as a Robot Framework listener:
``robot --listener testyard.lab.sabotage.Saboteur:NAME …``.
"""

from __future__ import annotations

import os

from testyard.lab.sabotage.cluster_checks import CHECK_DEFECTS
from testyard.lab.sabotage.cluster_power import POWER_DEFECTS
from testyard.lab.sabotage.cluster_processes import PROCESS_DEFECTS
from testyard.lab.sabotage.cluster_workflows import WORKFLOW_DEFECTS
from testyard.lab.sabotage.daemon import DAEMON_DEFECTS
from testyard.lab.sabotage.defect import DEFECT_VARIABLE, Defect
from testyard.lab.sabotage.event_bus import EVENT_BUS_SERVICE_DEFECTS
from testyard.lab.sabotage.event_bus_beyond import EVENT_BUS_BEYOND_DEFECTS
from testyard.lab.sabotage.federation import FEDERATION_DEFECTS
from testyard.lab.sabotage.membership import MEMBERSHIP_DEFECTS
from testyard.lab.sabotage.pipelines import PIPELINE_DEFECTS
from testyard.lab.sabotage.usage import USAGE_DEFECTS
from testyard.lab.sabotage.usernames import USERNAME_DEFECTS

DOMAINS: dict[str, tuple[Defect, ...]] = {
    "federation": FEDERATION_DEFECTS,
    "usernames": (*USERNAME_DEFECTS, *USAGE_DEFECTS, *MEMBERSHIP_DEFECTS, *DAEMON_DEFECTS),
    "pipelines": PIPELINE_DEFECTS,
    "event_bus": (*EVENT_BUS_SERVICE_DEFECTS, *EVENT_BUS_BEYOND_DEFECTS),
    "cluster": (*CHECK_DEFECTS, *POWER_DEFECTS, *WORKFLOW_DEFECTS, *PROCESS_DEFECTS),
}


def defect_named(name: str) -> Defect:
    """The defect of a name, from any domain.

    Raises:
        LookupError: There is none.
    """
    for defects in DOMAINS.values():
        for defect in defects:
            if defect.name == name:
                return defect
    message = f"There is no defect called {name!r}."
    raise LookupError(message)


class Saboteur:
    """A Robot Framework listener that puts one defect in place when the run begins.

    Args:
        name: The defect's name.
    """

    ROBOT_LISTENER_API_VERSION = 3

    def __init__(self, name: str) -> None:
        os.environ[DEFECT_VARIABLE] = name
        defect_named(name).install()
